//! Writes an image, in the order that leaves no disk that looks finished and is not.
//!
//! ```text
//!  both ends zeroed ─▶ partitions ─▶ read back ─▶ claim.toml ─▶ read back ─▶ table at the end ─▶ table at the begin ─▶ read back
//! ```

use crate::boot_partition;
use crate::chunk::{CHUNK_BYTES, Chunk, HOLE_BYTES, is_zero};
use crate::image::{Image, ImageError};
use crate::read_back::ReadBack;
use crate::reread::reread;
use crate::table::HEAD_BYTES;
use crate::{Progress, Step, Watch};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempPath;

/// How much may wait in memory to be written: without a bound, the progress that is shown is that of the memory.
const UNWRITTEN_BYTES_MAX: u64 = 32 << 20;

/// Why writing ended early.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The disk does not take it.
    #[error("write to {} at byte {at}", path.display())]
    Write {
        /// The disk or file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The disk does not give it back.
    #[error("read back {} at byte {at}", path.display())]
    Read {
        /// The disk or file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The disk gives back something else.
    #[error("{} does not hold what was written to it at byte {at}", path.display())]
    Differs {
        /// The disk or file.
        path: PathBuf,
        /// Begin of the piece that differs.
        at: u64,
    },
    /// The boot partition does not take the file.
    #[error("put {name} on the boot partition of {}", path.display())]
    File {
        /// The disk or file.
        path: PathBuf,
        /// What was to go there.
        name: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The file cannot get its name.
    #[error("give {} its name", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The caller has had enough.
    #[error("stopped while {} was written", path.display())]
    Stopped {
        /// The disk or file.
        path: PathBuf,
    },
}

impl WriteError {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Image(image) => image.advice(),
            Self::Write { cause, .. } if cause.kind() == io::ErrorKind::StorageFull => "make room, or name a file on another disk",
            Self::Differs { .. } => "the disk is worn out or not what it says it is: take another one",
            Self::Write { .. } | Self::Read { .. } => "see `dmesg`; try another port or reader, else take another disk",
            Self::File { .. } => "build the image again; without the file it would wait for a claim",
            Self::Name { .. } => "see who else writes there, and try again",
            Self::Stopped { .. } => "a disk has no partition table now and does not boot, a file is not there: run it again",
        }
    }
}

/// A disk or a file that is held for writing.
#[derive(Debug)]
pub struct Target {
    pub(crate) file: File,
    pub(crate) bytes: u64,
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
}

/// What is written to.
#[derive(Debug)]
pub(crate) enum Kind {
    Disk,
    File {
        /// Goes when it is dropped.
        part: TempPath,
        /// Whether there was a file of this name when it was looked at.
        replaces: bool,
    },
}

/// A disk with all of the image but its partition table.
#[derive(Debug)]
pub struct Written {
    target: Target,
    image: Image,
}

/// A disk that is complete.
#[derive(Debug)]
#[must_use]
pub struct Finished {
    /// Its size, bytes.
    pub bytes: u64,
    /// Why the kernel does not know the new partitions yet; to be told to people and nothing more.
    pub unread: Option<io::Error>,
}

impl Target {
    /// Writes all of the image but its table, and reads it back.
    ///
    /// # Errors
    /// When the image or the disk fails. The disk has no partition table then, a file is gone.
    pub fn write(self, image: Image, watch: Watch<'_>) -> Result<Written, WriteError> {
        self.forget()?;
        self.copy(&image, watch)?;
        self.compare(&image, watch)?;
        Ok(Written { target: self, image })
    }

    /// Removes the tables of what was there before.
    fn forget(&self) -> Result<(), WriteError> {
        match self.kind {
            Kind::File { .. } => Ok(()),
            Kind::Disk => {
                let zeros = vec![0; HEAD_BYTES];
                self.put(0, &zeros)?;
                self.put(self.bytes - HEAD_BYTES as u64, &zeros)?;
                self.sync()
            }
        }
    }

    fn copy(&self, image: &Image, watch: Watch<'_>) -> Result<(), WriteError> {
        let (end, mut unwritten) = (image.table.end, 0);
        image.each(|at, piece| {
            match self.kind {
                Kind::Disk => self.put(at, piece)?,
                Kind::File { .. } => self.put_filled(at, piece)?,
            }
            unwritten += piece.len() as u64;
            if unwritten >= UNWRITTEN_BYTES_MAX {
                self.sync()?;
                unwritten = 0;
            }
            self.tell(watch, Progress { step: Step::Write, done: at + piece.len() as u64, total: end })
        })?;
        self.sync()
    }

    fn compare(&self, image: &Image, watch: Watch<'_>) -> Result<(), WriteError> {
        let mut back = ReadBack::of(&self.file).map_err(|cause| self.unread(0, cause))?;
        let (end, mut at) = (image.table.end, HEAD_BYTES as u64);
        for expected in &image.chunks {
            let length = CHUNK_BYTES.min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let found = back.bytes(at, length).map_err(|cause| self.unread(at, cause))?;
            if Chunk::of(found) != *expected {
                return Err(WriteError::Differs { path: self.path.clone(), at });
            }
            at += length as u64;
            self.tell(watch, Progress { step: Step::Verify, done: at, total: end })?;
        }
        Ok(())
    }

    /// Writes these pieces and reads them back.
    fn put_sure(&self, pieces: &[(u64, &[u8])]) -> Result<(), WriteError> {
        for (at, bytes) in pieces {
            self.put(*at, bytes)?;
        }
        self.sync()?;
        let mut back = ReadBack::of(&self.file).map_err(|cause| self.unread(0, cause))?;
        for (at, bytes) in pieces {
            if back.bytes(*at, bytes.len()).map_err(|cause| self.unread(*at, cause))? != *bytes {
                return Err(WriteError::Differs { path: self.path.clone(), at: *at });
            }
        }
        Ok(())
    }

    fn put(&self, at: u64, bytes: &[u8]) -> Result<(), WriteError> {
        self.file.write_all_at(bytes, at).map_err(|cause| WriteError::Write { path: self.path.clone(), at, cause })
    }

    /// Like [`Target::put`] where zeros are there already.
    fn put_filled(&self, at: u64, bytes: &[u8]) -> Result<(), WriteError> {
        let parts = (at..).step_by(HOLE_BYTES).zip(bytes.chunks(HOLE_BYTES));
        parts.filter(|(_, part)| !is_zero(part)).try_for_each(|(at, part)| self.put(at, part))
    }

    fn sync(&self) -> Result<(), WriteError> {
        // Where the disk failed is not said: what was written before is not there.
        self.file.sync_data().map_err(|cause| WriteError::Write { path: self.path.clone(), at: 0, cause })
    }

    fn unread(&self, at: u64, cause: io::Error) -> WriteError {
        WriteError::Read { path: self.path.clone(), at, cause }
    }

    fn tell(&self, watch: Watch<'_>, progress: Progress) -> Result<(), WriteError> {
        if watch(progress).is_break() { Err(WriteError::Stopped { path: self.path.clone() }) } else { Ok(()) }
    }
}

impl Written {
    /// Puts a file on the boot partition.
    ///
    /// # Errors
    /// When it has no room, or the disk fails.
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), WriteError> {
        let changes = boot_partition::with_file(&self.target.file, self.image.table.boot.clone(), name, bytes);
        let changes = changes.map_err(|cause| WriteError::File { path: self.target.path.clone(), name: name.to_owned(), cause })?;
        let pieces: Vec<(u64, &[u8])> = changes.iter().map(|(at, bytes)| (*at, bytes.as_slice())).collect();
        self.target.put_sure(&pieces)
    }

    /// Writes the partition table: from now on it is a disk that boots. A file gets its name.
    ///
    /// # Errors
    /// When the disk fails at the last moment.
    pub fn finish(self) -> Result<Finished, WriteError> {
        let Self { target, image } = self;
        let moved = image.table.moved(&image.head, target.bytes);
        target.put_sure(&[(moved.backup_at, &moved.backup)])?;
        target.put_sure(&[(0, &moved.head)])?;
        let Target { file, bytes, path, kind } = target;
        let unread = match kind {
            Kind::Disk => reread(&file).err(),
            Kind::File { part, replaces } => {
                name(&file, part, &path, replaces).map_err(|cause| WriteError::Name { path, cause })?;
                None
            }
        };
        Ok(Finished { bytes, unread })
    }
}

/// Gives a complete file its name, so that it stays.
fn name(file: &File, part: TempPath, path: &Path, replaces: bool) -> io::Result<()> {
    file.sync_all()?;
    // What came meanwhile was not asked about.
    if replaces { part.persist(path) } else { part.persist_noclobber(path) }.map_err(|refused| refused.error)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
