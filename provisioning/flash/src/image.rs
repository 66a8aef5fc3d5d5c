//! An image, looked at and then read whole before any disk is touched.

use crate::chunk::{CHUNK_BYTES, Chunk, HOLE_BYTES, is_zero};
use crate::stream::Stream;
use crate::table::{HEAD_BYTES, Table, TableError};
use crate::{Progress, Size, Step, Watch};
use sedge_protocol::Digest;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Longest file with checksums that is read.
const CHECKSUMS_BYTES_MAX: u64 = 1 << 20;
/// Bytes that may follow the end of the disk: tools round up.
const REST_BYTES_MAX: u64 = 1 << 20;

/// Why a file cannot be used as an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// What it is packed in ends too early or is not what was packed.
    #[error("{} is damaged or cut off", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the unpacker says.
        #[source]
        cause: io::Error,
    },
    /// It does not begin as an image does.
    #[error("{} is not the image of a node", path.display())]
    Strange {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        cause: TableError,
    },
    /// Its boot partition is not one.
    #[error("{} is not the image of a node: its boot partition has no FAT file system", path.display())]
    Boot {
        /// The file.
        path: PathBuf,
    },
    /// It has less or more than its table says.
    #[error("{} is cut off or continued: a disk of {expected} bytes is announced, {found} came out of it", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// As announced.
        expected: u64,
        /// As found.
        found: u64,
    },
    /// It is not what its checksum speaks of.
    #[error("{} does not have the checksum that {} says: it has {found}", path.display(), checksums.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// The file with the checksum.
        checksums: PathBuf,
        /// What it has.
        found: Digest,
    },
    /// The file with the checksum cannot be used.
    #[error("{} has no line `<64 hexadecimal digits>  {name}` as sha256sum writes it", path.display())]
    Checksums {
        /// It.
        path: PathBuf,
        /// The name that was looked for.
        name: String,
    },
    /// Somebody wrote to it meanwhile.
    #[error("{} changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The caller has had enough.
    #[error("stopped while {} was checked; nothing was written", path.display())]
    Stopped {
        /// The file.
        path: PathBuf,
    },
}

impl ImageError {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Read { .. } => "name an image, such as sedge-gateway-x86-64-1.0.0.img.zst; `cargo xtask image` makes one",
            Self::Damaged { .. } | Self::Length { .. } | Self::Checksum { .. } => "fetch or build it again; nothing was written",
            Self::Strange { .. } | Self::Boot { .. } => {
                "name an image as `cargo xtask image` makes it, packed with zstd or not; nothing was written"
            }
            Self::Checksums { .. } => "fetch it again, or remove it when it is not wanted; nothing was written",
            Self::Changed { .. } => "see who writes to it, and run it again; a disk that was being written has no partition table now",
            Self::Stopped { .. } => "run it again when it suits",
        }
    }
}

/// Whether there was something to compare the file with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checksum {
    /// It is what this file says.
    Fits(PathBuf),
    /// There is no such file.
    Absent(PathBuf),
}

/// An image of which the begin was seen.
#[derive(Debug)]
pub struct Opened {
    path: PathBuf,
    file_bytes: u64,
    head: Vec<u8>,
    table: Table,
    expected: Option<Digest>,
}

/// An image that was read to its end and is whole.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    pub(crate) head: Vec<u8>,
    pub(crate) table: Table,
    /// What lies between the head and the end of the last partition.
    pub(crate) chunks: Vec<Chunk>,
    filled: u64,
    digest: Digest,
    checksum: Checksum,
}

impl Opened {
    /// Looks at the begin of the image in `path`.
    ///
    /// # Errors
    /// When it is no image, or the checksum beside it cannot be read.
    pub fn new(path: &Path) -> Result<Self, ImageError> {
        let unread = |cause| ImageError::Read { path: path.to_owned(), cause };
        let metadata = fs::metadata(path).map_err(unread)?;
        if !metadata.is_file() {
            return Err(unread(io::Error::new(io::ErrorKind::InvalidInput, "not a file")));
        }
        let mut stream = Stream::open(path).map_err(unread)?;
        let mut head = vec![0; HEAD_BYTES];
        let count = stream.fill(&mut head).map_err(|cause| fault(path, &stream, cause))?;
        let table = Table::parse(&head[..count]).map_err(|cause| ImageError::Strange { path: path.to_owned(), cause })?;
        let expected = expected(path)?;
        Ok(Self { path: path.to_owned(), file_bytes: metadata.len(), head, table, expected })
    }

    /// The disk that it makes, bytes.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.table.disk_bytes
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// When it is not whole, or not what its checksum says.
    pub fn check(self, watch: Watch<'_>) -> Result<Image, ImageError> {
        let path = || self.path.clone();
        let mut stream = Stream::open(&self.path).map_err(|cause| ImageError::Read { path: path(), cause })?;
        let mut content = Content::new(&self.path, &self.table, &self.head);
        let (mut chunks, mut filled) = (Vec::new(), HEAD_BYTES as u64);
        while let Some((at, piece)) = content.next(&mut stream)? {
            if at == self.table.boot.start && !is_fat(piece) {
                return Err(ImageError::Boot { path: path() });
            }
            chunks.push(Chunk::of(piece));
            filled += piece.chunks(HOLE_BYTES).filter(|part| !is_zero(part)).map(|part| part.len() as u64).sum::<u64>();
            let progress = Progress { step: Step::Check, done: stream.consumed(), total: self.file_bytes };
            if watch(progress).is_break() {
                return Err(ImageError::Stopped { path: path() });
            }
        }
        content.rest(&mut stream)?;
        let (digest, checksums) = (stream.digest(), checksums_of(&self.path));
        let checksum = match self.expected {
            Some(expected) if expected == digest => Checksum::Fits(checksums),
            Some(_) => return Err(ImageError::Checksum { path: path(), checksums, found: digest }),
            None => Checksum::Absent(checksums),
        };
        Ok(Image { path: self.path, head: self.head, table: self.table, chunks, filled, digest, checksum })
    }
}

impl Image {
    /// The digest of its file.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What its file was compared with.
    #[must_use]
    pub fn checksum(&self) -> &Checksum {
        &self.checksum
    }

    /// The disk that it makes, bytes.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.table.disk_bytes
    }

    /// The bytes that have to be kept where zeros cost nothing.
    #[must_use]
    pub fn filled_bytes(&self) -> u64 {
        self.filled
    }

    /// Reads it once more: each piece between the head and the end of the last partition, with its place on the disk. What it answers goes out.
    pub(crate) fn each<E: From<ImageError>>(&self, mut each: impl FnMut(u64, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let read = |cause| ImageError::Read { path: self.path.clone(), cause };
        let mut stream = Stream::open(&self.path).map_err(read)?;
        let mut content = Content::new(&self.path, &self.table, &self.head);
        let mut known = self.chunks.iter();
        while let Some((at, piece)) = content.next(&mut stream)? {
            if known.next() != Some(&Chunk::of(piece)) {
                return Err(ImageError::Changed { path: self.path.clone() }.into());
            }
            each(at, piece)?;
        }
        Ok(())
    }
}

/// The pieces of an image, from the head to the end of the last partition.
struct Content<'a> {
    path: &'a Path,
    table: &'a Table,
    head: &'a [u8],
    buffer: Vec<u8>,
    at: u64,
}

impl<'a> Content<'a> {
    fn new(path: &'a Path, table: &'a Table, head: &'a [u8]) -> Self {
        Self { path, table, head, buffer: vec![0; CHUNK_BYTES], at: 0 }
    }

    /// The next piece and its place; none at the end of the last partition.
    fn next(&mut self, stream: &mut Stream) -> Result<Option<(u64, &[u8])>, ImageError> {
        if self.at == 0 {
            let count = self.take(stream, HEAD_BYTES)?;
            if self.buffer[..count] != *self.head {
                return Err(ImageError::Changed { path: self.path.to_owned() });
            }
        }
        let left = usize::try_from(self.table.end - self.at).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(None);
        }
        let at = self.at;
        let count = self.take(stream, left.min(CHUNK_BYTES))?;
        Ok(Some((at, &self.buffer[..count])))
    }

    /// What follows the last partition is the copy of the table, which is written anew.
    fn rest(mut self, stream: &mut Stream) -> Result<(), ImageError> {
        let expected = self.table.disk_bytes;
        loop {
            let count = stream.fill(&mut self.buffer).map_err(|cause| fault(self.path, stream, cause))?;
            self.at += count as u64;
            if count == 0 || self.at > expected + REST_BYTES_MAX {
                break;
            }
        }
        if (expected..=expected + REST_BYTES_MAX).contains(&self.at) { Ok(()) } else { Err(self.length()) }
    }

    /// Exactly `count` bytes.
    fn take(&mut self, stream: &mut Stream, count: usize) -> Result<usize, ImageError> {
        let found = stream.fill(&mut self.buffer[..count]).map_err(|cause| fault(self.path, stream, cause))?;
        self.at += found as u64;
        if found == count { Ok(count) } else { Err(self.length()) }
    }

    fn length(&self) -> ImageError {
        ImageError::Length { path: self.path.to_owned(), expected: self.table.disk_bytes, found: self.at }
    }
}

/// An error of the disk below, or of what the file holds.
fn fault(path: &Path, stream: &Stream, cause: io::Error) -> ImageError {
    let path = path.to_owned();
    match (cause.raw_os_error(), stream) {
        (None, Stream::Packed(_)) => ImageError::Damaged { path, cause },
        (Some(_), _) | (None, Stream::Plain(_)) => ImageError::Read { path, cause },
    }
}

/// Whether a partition that begins so is one that firmware can read.
fn is_fat(begin: &[u8]) -> bool {
    begin.len() >= 512 && begin[510..512] == [0x55, 0xaa] && begin[11..13] == [0, 2] && begin[16] > 0
}

fn checksums_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sha256");
    name.into()
}

/// What the file beside the image says of it; none when there is no such file.
fn expected(path: &Path) -> Result<Option<Digest>, ImageError> {
    let checksums = checksums_of(path);
    let read = |cause| ImageError::Read { path: checksums.clone(), cause };
    match fs::metadata(&checksums) {
        Ok(metadata) if metadata.len() <= CHECKSUMS_BYTES_MAX => {}
        Ok(metadata) => return Err(read(io::Error::other(format!("{} are too many for checksums", Size(metadata.len()))))),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(read(cause)),
    }
    let text = fs::read_to_string(&checksums).map_err(read)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match checksum_in(&text, &name) {
        Some(digest) => Ok(Some(digest)),
        None => Err(ImageError::Checksums { path: checksums, name }),
    }
}

/// The digest of the file `name` in the lines that sha256sum writes.
fn checksum_in(text: &str, name: &str) -> Option<Digest> {
    text.lines().find_map(|line| {
        let (digits, file) = line.trim_end().split_once(' ')?;
        // A space or, for files that are read as bytes, a star.
        let file = file.strip_prefix([' ', '*'])?;
        (Path::new(file).file_name()? == name).then(|| format!("sha256:{}", digits.to_lowercase()).parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_found_by_the_name_of_their_file() {
        let digits = "ab".repeat(32);
        let expected = Some(Digest::from_bytes([0xab; 32]));
        for line in ["  a.img", " *a.img", "  build/a.img", "  a.img\r"] {
            let text = format!("{}  b.img\n{digits}{line}\n", "cd".repeat(32));
            assert_eq!(checksum_in(&text, "a.img"), expected, "{line}");
        }
        assert_eq!(checksum_in(&format!("{}  a.img", digits.to_uppercase()), "a.img"), expected);
        for text in ["", "abcd  a.img", &digits, &format!("{digits} a.img"), &format!("{digits}  b.img"), &format!("{digits}0  a.img")] {
            assert_eq!(checksum_in(text, "a.img"), None, "{text}");
        }
    }

    #[test]
    fn a_boot_partition_begins_as_one() {
        let mut begin = vec![0; 512];
        begin[510..].copy_from_slice(&[0x55, 0xaa]);
        assert!(!is_fat(&begin));
        begin[11..17].copy_from_slice(&[0, 2, 1, 32, 0, 2]);
        assert!(is_fat(&begin) && !is_fat(&begin[..511]));
        begin[12] = 16;
        assert!(!is_fat(&begin), "sectors of 4096 bytes");
    }
}
