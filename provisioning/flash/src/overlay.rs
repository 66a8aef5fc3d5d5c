//! Changes to a part of a disk that are collected in memory, so that they are written at once and can be compared.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

/// What is read from the disk and written to it at once.
const BLOCK_BYTES: usize = 4096;

/// Reads and writes that one change may take: far more than the search for room in a full boot partition, less than a circle.
const STEPS_MAX: u32 = 20_000_000;

/// A part of `disk`. Nothing is written to the disk.
pub(crate) struct Overlay<'a> {
    disk: &'a File,
    part: Range<u64>,
    at: u64,
    steps: u32,
    blocks: BTreeMap<u64, Block>,
}

struct Block {
    bytes: Vec<u8>,
    changed: bool,
}

impl<'a> Overlay<'a> {
    /// The bytes `part` of `disk`; it begins at a multiple of [`BLOCK_BYTES`].
    pub(crate) fn new(disk: &'a File, part: Range<u64>) -> Self {
        assert!(part.start.is_multiple_of(BLOCK_BYTES as u64), "the table was checked");
        Self { disk, part, at: 0, steps: 0, blocks: BTreeMap::new() }
    }

    /// What was changed: places on the disk and their bytes, none of them outside the part.
    pub(crate) fn changes(self) -> impl Iterator<Item = (u64, Vec<u8>)> {
        let end = self.part.end;
        self.blocks.into_iter().filter(|(_, block)| block.changed).map(move |(at, block)| {
            let mut bytes = block.bytes;
            bytes.truncate(usize::try_from(end - at).unwrap_or(BLOCK_BYTES));
            (at, bytes)
        })
    }

    /// The block with the current place, where in it that is, and how much of the part is left there.
    fn current(&mut self) -> io::Result<(&mut Block, Range<usize>)> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file system leads in circles"));
        }
        let place = self.part.start + self.at.min(self.part.end - self.part.start);
        let begin = place - place % BLOCK_BYTES as u64;
        let start = usize::try_from(place - begin).unwrap_or(BLOCK_BYTES);
        let within = start..usize::try_from(self.part.end - begin).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
        let block = match self.blocks.entry(begin) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let mut bytes = vec![0; BLOCK_BYTES];
                self.disk.read_exact_at(&mut bytes[..within.end], begin)?;
                entry.insert(Block { bytes, changed: false })
            }
        };
        Ok((block, within))
    }
}

impl Read for Overlay<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (block, within) = self.current()?;
        let count = within.len().min(buffer.len());
        buffer[..count].copy_from_slice(&block.bytes[within.start..within.start + count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for Overlay<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (block, within) = self.current()?;
        let count = within.len().min(bytes.len());
        block.bytes[within.start..within.start + count].copy_from_slice(&bytes[..count]);
        block.changed |= count > 0;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Overlay<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => (self.part.end - self.part.start).checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "before the begin"))?;
        Ok(self.at)
    }
}
