//! The partition table of an image (GPT), pure: read with suspicion, and written anew for a disk of another size.
//!
//! ```text
//!  sector 0   1        2 …              2048 …                       …            last
//!  MBR     header   entries            boot partition, slots      entries       header      the copy at the end is what moves
//! ```

use crc32fast::hash;
use std::ops::Range;

/// Bytes of a sector; images are made for nothing else.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// What lies before the first partition.
pub(crate) const HEAD_BYTES: usize = 1 << 20;
/// Partitions begin at multiples of it.
const ALIGNMENT_BYTES: u64 = 4096;
/// Where the header is.
const HEADER: Range<usize> = 512..1024;
/// Bytes of an entry.
const ENTRY_BYTES: usize = 128;
/// More entries than any tool makes.
const ENTRIES_MAX: usize = 1024;
/// Type of a boot partition, as it lies on the disk: c12a7328-f81f-11d2-ba4b-00a0c93ec93b.
const BOOT: [u8; 16] = [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
/// The entry of the old table that covers the whole disk, and its type there.
const PROTECTIVE: usize = 446;
const PROTECTIVE_TYPE: u8 = 0xee;

/// Why the begin of a file is not that of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Nothing there.
    #[error("it has no partition table (GPT)")]
    Missing,
    /// It contradicts itself.
    #[error("its partition table is damaged: {0}")]
    Damaged(&'static str),
    /// Not where images of ours have it.
    #[error("partition {number} {what}")]
    Partition {
        /// From 1.
        number: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// No partition to boot from.
    #[error("it has no boot partition (ESP)")]
    NoBoot,
}

/// What a table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    entries: Range<usize>,
    /// The boot partition, bytes of the disk.
    pub(crate) boot: Range<u64>,
    /// Where the last partition ends, bytes.
    pub(crate) end: u64,
    /// Size of the disk that it was made for, bytes.
    pub(crate) disk_bytes: u64,
}

/// A table for another disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moved {
    /// The begin of the disk.
    pub(crate) head: Vec<u8>,
    /// The copy at its end.
    pub(crate) backup: Vec<u8>,
    /// Where the copy begins, bytes.
    pub(crate) backup_at: u64,
}

impl Table {
    /// Reads the table from the first [`HEAD_BYTES`] of an image.
    pub(crate) fn parse(head: &[u8]) -> Result<Self, TableError> {
        let header = head.get(HEADER).filter(|header| header.starts_with(b"EFI PART")).ok_or(TableError::Missing)?;
        let damaged = |what| Err(TableError::Damaged(what));
        let length = usize::try_from(u32_at(header, 12)).unwrap_or(usize::MAX);
        if !(92..=header.len()).contains(&length) {
            return damaged("the length of its header");
        }
        let mut unsigned = header[..length].to_vec();
        unsigned[16..20].fill(0);
        if hash(&unsigned) != u32_at(header, 16) {
            return damaged("the checksum of its header");
        }
        let entries = entries(header).filter(|entries| entries.end <= head.len()).ok_or(TableError::Damaged("the place of its entries"))?;
        if hash(&head[entries.clone()]) != u32_at(header, 88) {
            return damaged("the checksum of its entries");
        }
        let last = u64_at(header, 32);
        let disk_bytes = last.checked_add(1).and_then(|sectors| sectors.checked_mul(SECTOR_BYTES));
        let Some(disk_bytes) = disk_bytes.filter(|_| u64_at(header, 24) == 1) else {
            return damaged("the place of its headers");
        };
        let room = disk_bytes.saturating_sub(SECTOR_BYTES + entries.len().next_multiple_of(512) as u64);
        let (boot, end) = partitions(&head[entries.clone()], room)?;
        Ok(Self { entries, boot, end, disk_bytes })
    }

    /// The same partitions on a disk of `bytes`, which is at least as large as the one that the table was made for. `head` is what was parsed.
    pub(crate) fn moved(&self, head: &[u8], bytes: u64) -> Moved {
        assert!(bytes >= self.disk_bytes, "a disk that is too small is refused before");
        let sectors = bytes / SECTOR_BYTES;
        let mut head = head.to_vec();
        let entries = head[self.entries.clone()].to_vec();
        let copy = entries.len().next_multiple_of(512);
        let backup_sector = sectors - 1 - copy as u64 / SECTOR_BYTES;
        if head[PROTECTIVE + 4] == PROTECTIVE_TYPE {
            let covered = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
            head[PROTECTIVE + 12..PROTECTIVE + 16].copy_from_slice(&covered.to_le_bytes());
        }
        let header = &mut head[HEADER];
        header[32..40].copy_from_slice(&(sectors - 1).to_le_bytes());
        header[48..56].copy_from_slice(&(backup_sector - 1).to_le_bytes());
        seal(header);
        let mut last = header.to_vec();
        last[24..32].copy_from_slice(&(sectors - 1).to_le_bytes());
        last[32..40].copy_from_slice(&1_u64.to_le_bytes());
        last[72..80].copy_from_slice(&backup_sector.to_le_bytes());
        seal(&mut last);
        let mut backup = entries;
        backup.resize(copy, 0);
        backup.extend(last);
        Moved { head, backup, backup_at: backup_sector * SECTOR_BYTES }
    }
}

/// Where the header says that the entries are.
fn entries(header: &[u8]) -> Option<Range<usize>> {
    let sector = usize::try_from(u64_at(header, 72)).ok().filter(|sector| *sector >= 2)?;
    let count = usize::try_from(u32_at(header, 80)).ok().filter(|count| (1..=ENTRIES_MAX).contains(count))?;
    let begin = sector.checked_mul(512)?;
    (u32_at(header, 84) as usize == ENTRY_BYTES).then_some(begin..begin.checked_add(count * ENTRY_BYTES)?)
}

/// The boot partition, and where the last one ends, which is before `room`.
fn partitions(entries: &[u8], room: u64) -> Result<(Range<u64>, u64), TableError> {
    let (mut boot, mut end) = (None, HEAD_BYTES as u64);
    for (number, entry) in (1..).zip(entries.chunks_exact(ENTRY_BYTES)).filter(|(_, entry)| entry[..16] != [0; 16]) {
        let wrong = |what| TableError::Partition { number, what };
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        let bytes = last.checked_add(1).filter(|past| first < *past).and_then(|past| {
            let past = past.checked_mul(SECTOR_BYTES).filter(|past| *past <= room)?;
            Some(first * SECTOR_BYTES..past)
        });
        let bytes = bytes.ok_or_else(|| wrong("does not lie inside the disk"))?;
        if bytes.start < HEAD_BYTES as u64 || !bytes.start.is_multiple_of(ALIGNMENT_BYTES) {
            return Err(wrong("does not begin at a multiple of 4 KiB after the first MiB, as those of an image of a node do"));
        }
        end = end.max(bytes.end);
        if entry[..16] == BOOT && boot.replace(bytes).is_some() {
            return Err(wrong("is another boot partition"));
        }
    }
    Ok((boot.ok_or(TableError::NoBoot)?, end))
}

/// Writes the checksum of a header.
fn seal(header: &mut [u8]) {
    let length = u32_at(header, 12) as usize;
    header[16..20].fill(0);
    let crc = hash(&header[..length]);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpt::disk::LogicalBlockSize::Lb512;
    use gpt::mbr::ProtectiveMBR;
    use gpt::{GptConfig, partition_types};
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert, proptest};
    use std::io::Cursor;

    const DISK: usize = 8 << 20;

    /// A disk with a boot partition at 1 MiB and a root partition behind it, made by another writer than ours.
    fn disk() -> Vec<u8> {
        let mut device = Cursor::new(vec![0; DISK]);
        ProtectiveMBR::with_lb_size(u32::try_from(DISK / 512 - 1).unwrap()).overwrite_lba0(&mut device).unwrap();
        let mut disk = GptConfig::new().writable(true).logical_block_size(Lb512).create_from_device(device, None).unwrap();
        disk.add_partition("esp", 2 << 20, partition_types::EFI, 0, Some(2048)).unwrap();
        disk.add_partition("root-a", 4 << 20, partition_types::LINUX_FS, 0, Some(2048)).unwrap();
        disk.write().unwrap().into_inner()
    }

    #[test]
    fn what_another_writer_made_is_understood() {
        let table = Table::parse(&disk()[..HEAD_BYTES]).unwrap();
        assert_eq!((table.boot.clone(), table.end, table.disk_bytes), (1 << 20..3 << 20, 7 << 20, 8 << 20));
    }

    #[test]
    fn another_reader_understands_the_table_of_a_larger_disk() {
        for bytes in [DISK as u64, (DISK + 512) as u64, 40 << 20] {
            let before = disk();
            let table = Table::parse(&before[..HEAD_BYTES]).unwrap();
            let moved = table.moved(&before[..HEAD_BYTES], bytes);
            let mut after = before[..usize::try_from(table.end).unwrap()].to_vec();
            after.resize(usize::try_from(bytes).unwrap(), 0);
            after[..HEAD_BYTES].copy_from_slice(&moved.head);
            let at = usize::try_from(moved.backup_at).unwrap();
            assert_eq!(at + moved.backup.len(), after.len());
            after[at..].copy_from_slice(&moved.backup);
            let read = GptConfig::new().only_valid_headers(true).logical_block_size(Lb512).open_from_device(Cursor::new(after)).unwrap();
            assert_eq!(read.primary_header().unwrap().backup_lba, bytes / 512 - 1);
            assert_eq!(read.backup_header().unwrap().last_usable, bytes / 512 - 34);
            assert_eq!(read.partitions().len(), 2);
            assert_eq!(Table::parse(&moved.head).unwrap().disk_bytes, bytes);
        }
    }

    #[test]
    fn any_damaged_byte_of_the_table_is_found() {
        let good = disk();
        for at in (HEADER.start..HEADER.start + 92).chain(1024..1024 + 2 * ENTRY_BYTES) {
            let mut head = good[..HEAD_BYTES].to_vec();
            head[at] ^= 0x40;
            let found = Table::parse(&head).unwrap_err();
            assert!(matches!(found, TableError::Missing | TableError::Damaged(_)), "byte {at}: {found}");
        }
    }

    /// Changes the table and makes its checksums good again.
    fn forged(change: impl FnOnce(&mut [u8])) -> Result<Table, TableError> {
        let mut head = disk()[..HEAD_BYTES].to_vec();
        change(&mut head);
        let length = (u32_at(&head[HEADER], 80) as usize).min(ENTRIES_MAX) * ENTRY_BYTES;
        let crc = hash(&head[1024..1024 + length]);
        head[HEADER.start + 88..HEADER.start + 92].copy_from_slice(&crc.to_le_bytes());
        seal(&mut head[HEADER]);
        Table::parse(&head)
    }

    proptest! {
        #[test]
        fn whatever_is_believed_lies_inside_the_disk(
            entries in vec((1024..1024 + 4 * ENTRY_BYTES, any::<u8>()), 0..12),
            header in vec((HEADER.start + 24..HEADER.start + 88, any::<u8>()), 0..3),
        ) {
            let table = forged(|head| entries.iter().chain(&header).for_each(|(at, byte)| head[*at] = *byte));
            if let Ok(table) = table {
                prop_assert!(table.boot.start >= 1 << 20 && table.boot.end <= table.end && table.end < table.disk_bytes);
            }
        }
    }

    #[test]
    fn a_table_with_good_checksums_is_not_believed_for_that() {
        type Change<'a> = &'a dyn Fn(&mut [u8]);
        let sector = |head: &mut [u8], at: usize, sector: u64| head[at..at + 8].copy_from_slice(&sector.to_le_bytes());
        assert!(forged(|_| ()).is_ok());
        let cases: [(&str, Change<'_>); 9] = [
            ("no boot partition", &|head| head[1024..1040].fill(7)),
            ("another boot partition", &|head| head.copy_within(1024..1040, 1024 + ENTRY_BYTES)),
            ("inside the disk", &|head| sector(head, 1024 + 40, u64::MAX)),
            ("inside the disk", &|head| sector(head, 1024 + 40, u64::MAX / 512)),
            ("inside the disk", &|head| sector(head, 1024 + 40, 2047)),
            ("after the first MiB", &|head| sector(head, 1024 + 32, 64)),
            ("multiple of 4 KiB", &|head| sector(head, 1024 + 32, 2049)),
            ("the place of its headers", &|head| sector(head, 512 + 32, u64::MAX)),
            ("the place of its entries", &|head| sector(head, 512 + 72, u64::MAX / 512)),
        ];
        for (expected, change) in cases {
            let found = forged(change).unwrap_err().to_string();
            assert!(found.contains(expected), "{expected}: {found}");
        }
        for head in [&[][..], &[0; 600], &vec![0; HEAD_BYTES]] {
            assert_eq!(Table::parse(head), Err(TableError::Missing));
        }
    }
}
