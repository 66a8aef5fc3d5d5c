//! The bytes of an image as they come out of its file, packed or not, counted and digested on the way.

use sedge_protocol::Digest;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use zstd::stream::read::Decoder;

/// How a packed file begins.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// How much of the file is read at once.
const READ_BYTES: usize = 256 << 10;

/// An image that is read once, from its begin to its end.
pub(crate) enum Stream {
    /// A disk as it is.
    Plain(BufReader<Counted>),
    /// Packed with zstd.
    Packed(Decoder<'static, BufReader<Counted>>),
}

/// A file that knows how much of it was read, and what that was.
pub(crate) struct Counted {
    file: File,
    read: u64,
    digest: Sha256,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.digest.update(&buffer[..count]);
        self.read += count as u64;
        Ok(count)
    }
}

impl Stream {
    /// Begins.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut magic = [0; MAGIC.len()];
        let begin = std::os::unix::fs::FileExt::read_at(&file, &mut magic, 0)?;
        let reader = BufReader::with_capacity(READ_BYTES, Counted { file, read: 0, digest: Sha256::new() });
        if begin == MAGIC.len() && magic == MAGIC { Ok(Self::Packed(Decoder::with_buffer(reader)?)) } else { Ok(Self::Plain(reader)) }
    }

    /// Fills `buffer`; less at the end alone.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let read = match self {
                Self::Plain(reader) => reader.read(&mut buffer[filled..]),
                Self::Packed(reader) => reader.read(&mut buffer[filled..]),
            };
            match read {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(filled)
    }

    /// Bytes of the file that were read.
    pub(crate) fn consumed(&self) -> u64 {
        self.counted().read
    }

    /// The digest of what was read of the file.
    pub(crate) fn digest(&self) -> Digest {
        Digest::from_bytes(self.counted().digest.clone().finalize().into())
    }

    fn counted(&self) -> &Counted {
        match self {
            Self::Plain(reader) => reader.get_ref(),
            Self::Packed(reader) => reader.get_ref().get_ref(),
        }
    }
}
