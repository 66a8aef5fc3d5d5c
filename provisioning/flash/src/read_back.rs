//! Reads what a disk really has, not what the kernel remembers of it.

use rustix::fs::{Advice, OFlags, fadvise};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

/// What every disk is content with as the alignment of a read that goes past the page cache.
const ALIGNMENT_BYTES: usize = 4096;

/// A second way to a disk that was written to.
pub(crate) struct ReadBack {
    file: File,
    /// Whether reads go past the page cache.
    direct: bool,
    buffer: Vec<u8>,
}

impl ReadBack {
    /// Writes out what waits in memory, drops it there, and opens the same file for reading.
    pub(crate) fn of(written: &File) -> io::Result<Self> {
        written.sync_data()?;
        // Advice: where it is not taken, reads past the cache do the same.
        fadvise(written, 0, None, Advice::DontNeed).ok();
        let same = format!("/proc/self/fd/{}", written.as_raw_fd());
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
        let (file, direct) = match File::options().read(true).custom_flags(flags).open(&same) {
            Ok(file) => (file, true),
            // A file system in memory has nothing to go past.
            Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => (File::open(&same)?, false),
            Err(cause) => return Err(cause),
        };
        Ok(Self { file, direct, buffer: Vec::new() })
    }

    /// The `length` bytes at `at`.
    pub(crate) fn bytes(&mut self, at: u64, length: usize) -> io::Result<&[u8]> {
        let before = usize::try_from(at % ALIGNMENT_BYTES as u64).unwrap_or(0);
        let wanted = (before + length).next_multiple_of(ALIGNMENT_BYTES);
        if self.buffer.len() < wanted + ALIGNMENT_BYTES {
            self.buffer = vec![0; wanted + ALIGNMENT_BYTES];
        }
        let start = self.buffer.as_ptr().align_offset(ALIGNMENT_BYTES).min(ALIGNMENT_BYTES);
        let found = self.fill(start..start + wanted, at - before as u64, before + length)?;
        if found < before + length {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the disk ends before it"));
        }
        Ok(&self.buffer[start + before..start + before + length])
    }

    /// Reads into a range of the buffer until at least `enough` bytes are there, or the disk ends.
    fn fill(&mut self, range: std::ops::Range<usize>, at: u64, enough: usize) -> io::Result<usize> {
        let mut found = 0;
        while found < enough {
            match self.file.read_at(&mut self.buffer[range.start + found..range.end], at + found as u64) {
                Ok(0) => break,
                Ok(count) => found += count,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                // Some file systems open a file this way and then cannot read it so.
                Err(cause) if cause.kind() == io::ErrorKind::InvalidInput && self.direct => {
                    self.file = File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))?;
                    self.direct = false;
                }
                Err(cause) => return Err(cause),
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_place_and_length_is_read() {
        let file = tempfile::tempfile_in(".").unwrap();
        let bytes: Vec<u8> = (0..20_001_u32).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
        file.write_all_at(&bytes, 0).unwrap();
        let mut back = ReadBack::of(&file).unwrap();
        for (at, length) in [(0, 20_001), (0, 1), (512, 4096), (4095, 2), (16_384, 3617), (20_000, 1), (8192, 0)] {
            assert_eq!(back.bytes(at as u64, length).unwrap(), &bytes[at..at + length], "{at} {length}");
        }
        assert!(back.bytes(20_000, 2).is_err());
    }
}
