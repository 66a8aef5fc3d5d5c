//! Files named by the SHA-256 of their content.
//!
//! ```text
//! partial(digest) ──append…──▶ <hex>.part ──finish: hash, sync, rename, sync directory──▶ <hex>
//!                                  └─ wrong: deleted
//! ```
//!
//! A name without `.part` is proof: its content had that digest when it was put there. Appending resumes
//! after a crash at [`Partial::len`]; bytes that a power cut took are simply fetched again, and bytes that it
//! garbled are found by the hash.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::config::StoreConfig;
use crate::durable::sync_directory;
use crate::limits::FILE_BYTES_MAX;
use crate::space;
use crate::state::Room;

/// Why a file cannot be read, written or listed.
#[derive(Debug, Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("access {path}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
    /// There is room, and it is kept for what must go on.
    #[error("no room for {bytes} bytes in {path}: {free} are free, {kept} of them are kept")]
    NoRoom {
        /// The directory.
        path: PathBuf,
        /// What was to be written.
        bytes: u64,
        /// Free bytes of the partition.
        free: u64,
        /// Bytes that are never used.
        kept: u64,
    },
    /// The file would be bigger than [`FILE_BYTES_MAX`].
    #[error("{path} would be longer than {bytes_max} bytes")]
    TooLong {
        /// File that was appended to.
        path: PathBuf,
        /// The bound.
        bytes_max: u64,
    },
}

/// Why a partial file did not become a whole one.
#[derive(Debug, Error)]
pub enum FinishError {
    /// The content has another digest. The partial file is deleted.
    #[error("content is {found}, not {expected}")]
    DigestMismatch {
        /// Digest that was promised, in hexadecimal.
        expected: String,
        /// Digest of what arrived, in hexadecimal.
        found: String,
    },
    /// The operating system refused; the partial file is still there.
    #[error(transparent)]
    File(#[from] FileError),
}

/// How long a file that was put here is left for whoever put it to say what it is for.
const NEW: Duration = Duration::from_secs(600);

/// A directory of content-addressed files. Everything here blocks.
#[derive(Debug, Clone)]
pub struct Files {
    directory: PathBuf,
    free_bytes_min: Option<u64>,
    /// Held while a file is put or removed: one is here as a whole or not at all, in whatever order that is asked for.
    turn: Arc<Mutex<()>>,
    /// What was put here and not asked for since.
    put: Arc<Mutex<BTreeMap<[u8; 32], Instant>>>,
}

impl Files {
    /// Opens or creates the directory. `free_bytes_min` is as in [`crate::StoreConfig`].
    ///
    /// # Errors
    /// [`FileError::Io`] if it cannot be made.
    pub fn open(directory: &Path, free_bytes_min: Option<u64>) -> Result<Self, FileError> {
        fs::create_dir_all(directory)
            .and_then(|()| sync_directory(crate::durable::parent(directory)))
            .map_err(|cause| io_error(directory, cause))?;
        Ok(Self { directory: directory.to_path_buf(), free_bytes_min, turn: Arc::default(), put: Arc::default() })
    }

    /// Whether `bytes` more fit without what is kept free.
    ///
    /// # Errors
    /// [`FileError::NoRoom`] if not.
    pub fn ensure_room(&self, bytes: u64) -> Result<(), FileError> {
        let config = StoreConfig { free_bytes_min: self.free_bytes_min, ..StoreConfig::default() };
        let Room { free, free_min: kept, .. } = space::room(&self.directory, &config, 0);
        if free.saturating_sub(bytes) >= kept { Ok(()) } else { Err(FileError::NoRoom { path: self.directory.clone(), bytes, free, kept }) }
    }

    /// Where the file with this digest is, or would be.
    #[must_use]
    pub fn path(&self, digest: &[u8; 32]) -> PathBuf {
        self.directory.join(hex::encode(digest))
    }

    /// Whether the whole file is here.
    #[must_use]
    pub fn contains(&self, digest: &[u8; 32]) -> bool {
        self.path(digest).is_file()
    }

    /// Begins or resumes a file. One writer at a time per digest.
    ///
    /// # Errors
    /// [`FileError::Io`] if the partial file cannot be opened.
    pub fn partial(&self, digest: [u8; 32]) -> Result<Partial, FileError> {
        let target = self.path(&digest);
        let path = self.directory.join(format!("{}.part", hex::encode(digest)));
        let opened = OpenOptions::new().create(true).append(true).read(true).open(&path);
        let file = opened.map_err(|cause| io_error(&path, cause))?;
        let length = file.metadata().map_err(|cause| io_error(&path, cause))?.len();
        Ok(Partial { digest, path, target, file, length, files: self.clone() })
    }

    /// Puts a whole file in one go. It is left alone for ten minutes, see [`Files::remove_unused`].
    ///
    /// # Errors
    /// [`FinishError`] if the bytes have another digest or cannot be written.
    pub fn put(&self, digest: [u8; 32], bytes: &[u8]) -> Result<PathBuf, FinishError> {
        let _turn = self.turn();
        let mut partial = self.partial(digest)?;
        partial.restart()?;
        partial.append(bytes)?;
        let path = partial.finish()?;
        self.put_here().insert(digest, Instant::now());
        Ok(path)
    }

    /// The file is in use: when it is not any more, it goes at once.
    pub fn used(&self, digest: &[u8; 32]) {
        self.put_here().remove(digest);
    }

    /// Deletes a file that nothing uses, unless it was [put](Files::put) here a moment ago; answers whether it did.
    ///
    /// # Errors
    /// As [`Files::remove`].
    pub fn remove_unused(&self, digest: &[u8; 32]) -> Result<bool, FileError> {
        let _turn = self.turn();
        let mut put = self.put_here();
        if put.get(digest).is_some_and(|at| at.elapsed() < NEW) {
            return Ok(false);
        }
        put.remove(digest);
        self.remove_in_turn(digest).map(|()| true)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_here(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Instant>> {
        self.put.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes a file and what was fetched of it. One that is not here is no error.
    ///
    /// # Errors
    /// [`FileError::Io`] if it is here and stays.
    pub fn remove(&self, digest: &[u8; 32]) -> Result<(), FileError> {
        let _turn = self.turn();
        self.remove_in_turn(digest)
    }

    fn remove_in_turn(&self, digest: &[u8; 32]) -> Result<(), FileError> {
        let path = self.path(digest);
        for path in [path.with_extension("part"), path] {
            match fs::remove_file(&path) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error(&path, cause));
                }
                Ok(()) | Err(_) => {}
            }
        }
        sync_directory(&self.directory).map_err(|cause| io_error(&self.directory, cause))
    }

    /// Digests of the whole files, ascending.
    ///
    /// # Errors
    /// [`FileError::Io`] if the directory cannot be read.
    pub fn list(&self) -> Result<Vec<[u8; 32]>, FileError> {
        self.digests(|name| Some(name))
    }

    /// Deletes what was fetched of files that nobody waits for any more; answers how many there were.
    ///
    /// # Errors
    /// [`FileError::Io`] if the directory cannot be read or a file stays.
    pub fn sweep_partial(&self, wanted: impl Fn(&[u8; 32]) -> bool) -> Result<usize, FileError> {
        // What is being put here is not there to be fetched.
        let _turn = self.turn();
        let mut swept = 0;
        for digest in self.digests(|name| name.strip_suffix(".part"))?.iter().filter(|digest| !wanted(digest)) {
            let path = self.path(digest).with_extension("part");
            fs::remove_file(&path).map_err(|cause| io_error(&path, cause))?;
            swept += 1;
        }
        Ok(swept)
    }

    fn digests(&self, stem: impl Fn(&str) -> Option<&str>) -> Result<Vec<[u8; 32]>, FileError> {
        let fail = |cause| io_error(&self.directory, cause);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            found.extend(name.to_str().and_then(&stem).and_then(parse_digest));
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// A file that is being fetched.
#[derive(Debug)]
pub struct Partial {
    digest: [u8; 32],
    path: PathBuf,
    target: PathBuf,
    file: File,
    length: u64,
    files: Files,
}

impl Partial {
    /// Bytes that are here: where fetching goes on.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether nothing is here yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds the next bytes. After an error the length is what really arrived.
    ///
    /// # Errors
    /// [`FileError`] if they cannot be written or the file gets too long.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        if self.length.saturating_add(bytes.len() as u64) > FILE_BYTES_MAX {
            return Err(FileError::TooLong { path: self.path.clone(), bytes_max: FILE_BYTES_MAX });
        }
        self.files.ensure_room(bytes.len() as u64)?;
        let outcome = self.file.write_all(bytes);
        self.length = match outcome {
            Ok(()) => self.length + bytes.len() as u64,
            Err(_) => self.file.metadata().map_or(self.length, |metadata| metadata.len()),
        };
        outcome.map_err(|cause| io_error(&self.path, cause))
    }

    /// Forgets what is here and begins at zero.
    ///
    /// # Errors
    /// [`FileError::Io`] if the file cannot be cut.
    pub fn restart(&mut self) -> Result<(), FileError> {
        self.file.set_len(0).map_err(|cause| io_error(&self.path, cause))?;
        self.length = 0;
        Ok(())
    }

    /// Reads the whole file again, compares the digest, and gives the file its name, durably.
    ///
    /// # Errors
    /// [`FinishError`]: a wrong digest deletes the partial file, anything else leaves it.
    pub fn finish(self) -> Result<PathBuf, FinishError> {
        let fail = |cause| io_error(&self.path, cause);
        self.file.sync_all().map_err(fail)?;
        let found = digest_of(&self.path).map_err(fail)?;
        if found != self.digest {
            fs::remove_file(&self.path).map_err(fail)?;
            return Err(FinishError::DigestMismatch { expected: hex::encode(self.digest), found: hex::encode(found) });
        }
        fs::rename(&self.path, &self.target).and_then(|()| sync_directory(crate::durable::parent(&self.target))).map_err(fail)?;
        Ok(self.target)
    }
}

fn parse_digest(name: &str) -> Option<[u8; 32]> {
    hex::decode(name).ok()?.try_into().ok()
}

fn digest_of(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hasher.finalize().into()),
            read => hasher.update(&chunk[..read]),
        }
    }
}

fn io_error(path: &Path, cause: io::Error) -> FileError {
    FileError::Io { path: path.to_path_buf(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (tempfile::TempDir, Files) {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(&directory.path().join("artifact"), None).unwrap();
        (directory, files)
    }

    fn digest(bytes: &[u8]) -> [u8; 32] {
        Sha256::digest(bytes).into()
    }

    #[test]
    fn those_who_put_remove_and_sweep_one_file_at_the_same_time_come_one_after_the_other() {
        let (_directory, files) = open();
        let bytes = vec![7; 100_000];
        let digest = digest(&bytes);
        std::thread::scope(|scope| {
            for number in 0..6 {
                let (files, bytes) = (&files, &bytes);
                scope.spawn(move || {
                    for _ in 0..50 {
                        match number % 3 {
                            0 => drop(files.put(digest, bytes).unwrap()),
                            1 => drop(files.sweep_partial(|_| false).unwrap()),
                            _ => files.remove(&digest).unwrap(),
                        }
                    }
                });
            }
        });
        assert!(!files.path(&digest).with_extension("part").exists());
    }

    #[test]
    fn what_was_just_put_here_is_left_until_it_was_used() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(directory.path(), None).unwrap();
        let digest = Sha256::digest(b"new").into();
        files.put(digest, b"new").unwrap();
        assert!(!files.remove_unused(&digest).unwrap() && files.contains(&digest), "whoever put it is about to name it");
        files.used(&digest);
        assert!(files.remove_unused(&digest).unwrap() && !files.contains(&digest));
        files.put(digest, b"new").unwrap();
        let again = Files::open(directory.path(), None).unwrap();
        assert!(again.remove_unused(&digest).unwrap(), "after a restart nobody is about to");
    }

    #[test]
    fn a_cut_download_resumes_where_it_was() {
        let (_directory, files) = open();
        let content = b"component bytes".repeat(1000);
        let mut partial = files.partial(digest(&content)).unwrap();
        partial.append(&content[..700]).unwrap();
        drop(partial);
        assert!(!files.contains(&digest(&content)));

        let mut partial = files.partial(digest(&content)).unwrap();
        assert_eq!(partial.len(), 700);
        partial.append(&content[700..]).unwrap();
        let path = partial.finish().unwrap();
        assert_eq!(fs::read(path).unwrap(), content);
        assert_eq!(files.list().unwrap(), [digest(&content)]);
        assert!(files.sweep_partial(|_| false).unwrap() == 0);
    }

    #[test]
    fn wrong_content_is_deleted() {
        let (_directory, files) = open();
        let error = files.put(digest(b"right"), b"wrong").unwrap_err();
        assert!(matches!(error, FinishError::DigestMismatch { .. }));
        assert!(files.sweep_partial(|_| false).unwrap() == 0 && files.list().unwrap().is_empty());
        assert!(files.partial(digest(b"right")).unwrap().is_empty());
    }

    #[test]
    fn putting_and_removing_twice_is_the_same_as_once() {
        let (_directory, files) = open();
        for _ in 0..2 {
            files.put(digest(b"x"), b"x").unwrap();
        }
        assert!(files.contains(&digest(b"x")));
        for _ in 0..2 {
            files.remove(&digest(b"x")).unwrap();
        }
        assert!(!files.contains(&digest(b"x")));
    }

    #[test]
    fn foreign_names_are_not_listed() {
        let (directory, files) = open();
        fs::write(directory.path().join("artifact/README"), b"hello").unwrap();
        fs::write(directory.path().join("artifact/abcd"), b"short").unwrap();
        assert!(files.list().unwrap().is_empty());
    }

    #[test]
    fn a_file_above_the_bound_is_refused() {
        let (_directory, files) = open();
        let partial = files.partial(digest(b"big")).unwrap();
        partial.file.set_len(FILE_BYTES_MAX).unwrap();
        drop(partial);
        let mut partial = files.partial(digest(b"big")).unwrap();
        assert!(matches!(partial.append(b"x"), Err(FileError::TooLong { .. })));
    }

    #[test]
    fn what_is_kept_free_is_not_used_and_what_nobody_waits_for_goes() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(&directory.path().join("artifact"), None).unwrap();
        let tight = Files::open(&directory.path().join("artifact"), Some(u64::MAX)).unwrap();
        let mut partial = tight.partial([1; 32]).unwrap();
        assert!(matches!(partial.append(b"x"), Err(FileError::NoRoom { bytes: 1, .. })));
        assert_eq!(partial.len(), 0);
        files.partial([2; 32]).unwrap().append(b"wanted").unwrap();
        assert_eq!(files.sweep_partial(|digest| *digest == [2; 32]).unwrap(), 1);
        assert_eq!(files.partial([2; 32]).unwrap().len(), 6);
    }
}
