//! Bytes of a journal segment: groups one after the other, each on sectors of its own.
//!
//! ```text
//! | magic 8 | segment 8 | seq 8 | epoch 8 | payload len 4 | span 4 | crc32 4 | payload … | zeros to the sector |
//! ```
//!
//! A group counts if its checksum holds and it carries the id of its segment, the epoch of the first
//! group and the next sequence number. What a recycled segment held before never does.

use crate::batch::Record;
use crate::record::decode_all;

/// Bytes before the payload.
pub(crate) const HEADER_BYTES: usize = 44;
const CRC_AT: usize = 40;
const MAGIC: [u8; 8] = *b"sedgejr1";

/// Alignment that satisfies every disk.
pub(crate) const SECTOR_BYTES_MAX: usize = 4096;

/// What identifies a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) segment: u64,
    pub(crate) seq: u64,
    pub(crate) epoch: u64,
}

/// Bytes that begin at a multiple of [`SECTOR_BYTES_MAX`] in memory, as `O_DIRECT` wants them.
#[derive(Debug, Default)]
pub(crate) struct Aligned {
    bytes: Vec<u8>,
    start: usize,
}

impl Aligned {
    /// Encodes one group, padded to `sector`.
    pub(crate) fn encode(&mut self, label: Label, records: &[(u64, Record)], sector: usize) {
        let payload: usize = records.iter().map(|(_, record)| record.encoded_len()).sum();
        let span = (HEADER_BYTES + payload).next_multiple_of(sector);
        self.reserve(span);
        let start = self.start;
        self.bytes.extend(MAGIC);
        for number in [label.segment, label.seq, label.epoch] {
            self.bytes.extend(number.to_le_bytes());
        }
        for number in [payload, span] {
            let number = u32::try_from(number).expect("a group fits in a segment of 64 MiB");
            self.bytes.extend(number.to_le_bytes());
        }
        self.bytes.extend([0; 4]);
        for (_, record) in records {
            record.encode(&mut self.bytes);
        }
        let crc = checksum(&self.bytes[start..]);
        self.bytes[start + CRC_AT..start + HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        self.bytes.resize(start + span, 0);
        assert_eq!(self.bytes.as_ptr().align_offset(SECTOR_BYTES_MAX), start % SECTOR_BYTES_MAX);
    }

    /// As many zeros as asked for.
    pub(crate) fn zeros(length: usize) -> Self {
        let mut zeros = Self::default();
        zeros.reserve(length);
        zeros.bytes.resize(zeros.start + length, 0);
        zeros
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Empties, and makes room so that nothing moves while `length` bytes are added.
    fn reserve(&mut self, length: usize) {
        self.bytes.clear();
        self.bytes.reserve(length + SECTOR_BYTES_MAX);
        self.start = self.bytes.as_ptr().align_offset(SECTOR_BYTES_MAX);
        self.bytes.resize(self.start, 0);
    }
}

/// What a segment holds.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) groups: Vec<(Label, Vec<Record>)>,
    /// A group of this segment begins after the last good one, but is damaged.
    pub(crate) torn: bool,
}

/// Reads the groups of segment `id`, up to the first that does not count.
pub(crate) fn scan(bytes: &[u8], id: u64) -> Scan {
    let mut found = Scan::default();
    let mut offset = 0;
    while let Some(rest) = bytes.get(offset..) {
        let Some(header) = Header::parse(rest).filter(|header| header.label.segment == id) else {
            break;
        };
        if let Some((first, _)) = found.groups.first() {
            let next = first.seq + found.groups.len() as u64;
            if header.label.seq != next || header.label.epoch != first.epoch {
                break;
            }
        }
        let Some(records) = header.records(rest) else {
            found.torn = true;
            break;
        };
        found.groups.push((header.label, records));
        offset += header.span;
    }
    found
}

struct Header {
    label: Label,
    payload: usize,
    span: usize,
    crc: u32,
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.get(..HEADER_BYTES)?.strip_prefix(&MAGIC)?;
        let long = |at: usize| rest[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        let short = |at: usize| rest[at..at + 4].try_into().map(u32::from_le_bytes).ok();
        let payload = usize::try_from(short(24)?).ok()?;
        let span = usize::try_from(short(28)?).ok()?;
        let sound = span >= HEADER_BYTES.checked_add(payload)? && span.is_multiple_of(512);
        let label = Label { segment: long(0)?, seq: long(8)?, epoch: long(16)? };
        sound.then_some(Self { label, payload, span, crc: short(32)? })
    }

    fn records(&self, bytes: &[u8]) -> Option<Vec<Record>> {
        let group = bytes.get(..HEADER_BYTES + self.payload)?;
        (checksum(group) == self.crc).then(|| decode_all(&group[HEADER_BYTES..]))?
    }
}

/// CRC-32 of a group without the field that holds it.
fn checksum(group: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&group[..CRC_AT]);
    hasher.update(&group[HEADER_BYTES..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{ItemId, Tree};

    const SECTOR: usize = 512;

    fn label(seq: u64) -> Label {
        Label { segment: 7, seq, epoch: 3 }
    }

    fn group(seq: u64) -> Vec<Record> {
        let key = format!("key-{seq}");
        let set = Record::Set { tree: Tree::Usage, key: key.as_bytes().into(), value: vec![7; 600].into() };
        vec![set, Record::Finish { id: ItemId(seq) }]
    }

    /// Three groups of two sectors, after which an older life of the file shows.
    fn journal() -> Vec<u8> {
        let mut bytes = Vec::new();
        for seq in 4..7 {
            bytes.extend(encoded(label(seq), &group(seq)));
        }
        bytes.extend(encoded(Label { segment: 2, ..label(7) }, &group(7)));
        bytes
    }

    fn encoded(label: Label, records: &[Record]) -> Vec<u8> {
        let records: Vec<_> = records.iter().map(|record| (0, record.clone())).collect();
        let mut aligned = Aligned::default();
        aligned.encode(label, &records, SECTOR);
        assert_eq!(aligned.as_slice().as_ptr().align_offset(SECTOR_BYTES_MAX), 0);
        aligned.as_slice().to_vec()
    }

    /// The groups found are the first `at_least` of the journal, or more, and nothing else.
    fn check(bytes: &[u8], at_least: usize) {
        let found = scan(bytes, 7).groups;
        assert!((at_least..=3).contains(&found.len()), "{} groups", found.len());
        for ((found_label, records), seq) in found.iter().zip(4..) {
            assert_eq!((*found_label, records), (label(seq), &group(seq)));
        }
    }

    #[test]
    fn whole_groups_are_read_and_the_older_life_is_not() {
        let found = scan(&journal(), 7);
        assert_eq!(found.groups.len(), 3);
        assert!(!found.torn);
        assert!(scan(&journal(), 8).groups.is_empty());
    }

    #[test]
    fn a_cut_at_any_byte_keeps_the_groups_before_it() {
        let journal = journal();
        for cut in 0..journal.len() {
            check(&journal[..cut], (cut / (2 * SECTOR)).min(3));
        }
    }

    #[test]
    fn damage_at_any_byte_keeps_the_groups_before_it() {
        let journal = journal();
        for at in 0..journal.len() {
            for flip in [1, 0x80, 0xff] {
                let mut damaged = journal.clone();
                damaged[at] ^= flip;
                check(&damaged, (at / (2 * SECTOR)).min(3));
            }
        }
    }

    #[test]
    fn a_group_of_another_epoch_or_out_of_order_ends_the_segment() {
        for next in [Label { epoch: 4, ..label(5) }, label(6), label(4)] {
            let mut bytes = encoded(label(4), &group(4));
            bytes.extend(encoded(next, &group(5)));
            assert_eq!(scan(&bytes, 7).groups.len(), 1);
        }
    }

    #[test]
    fn a_half_written_group_is_called_torn() {
        let mut bytes = encoded(label(4), &group(4));
        let second = encoded(label(5), &group(5));
        bytes.extend(&second[..SECTOR]);
        bytes.extend([0; SECTOR]);
        assert!(scan(&bytes, 7).torn);
    }
}
