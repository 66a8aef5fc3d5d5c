//! Files of functions: named objects in containers, each owner with a quota that holds exactly, also after a restart.
//!
//! ```text
//! begin ─▶ .partial/<n> ──write…──▶ finish: sync, rename, sync directory ─▶ <owner>/<container>/<name>
//!               └─ dropped, or found at the next start: deleted
//! ```
//!
//! Invariants: an object is there as a whole or not at all; what an owner uses (bytes being written included) never passes its
//! quota; an object that is being read stays readable when it is replaced or deleted. The directory is the only record.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use thiserror::Error;

use crate::durable::sync_directory;
use crate::files::{FileError, Files};
use crate::limits::{OBJECT_NAME_BYTES_MAX, OBJECT_OVERHEAD_BYTES};

const PARTIAL: &str = ".partial";

/// Why an object cannot be read or written.
#[derive(Debug, Error)]
pub enum BlobError {
    /// The quota of the owner is used up.
    #[error(
        "the quota of {quota} bytes is used up: {used} are used, {wanted} more were wanted; an object counts {OBJECT_OVERHEAD_BYTES} bytes beside its content"
    )]
    Quota {
        /// Bytes that are used.
        used: u64,
        /// Bytes that did not fit.
        wanted: u64,
        /// The quota.
        quota: u64,
    },
    /// A name that cannot be one of an object.
    #[error(
        "an object's name has 1 to {OBJECT_NAME_BYTES_MAX} bytes (one that is not a letter, a digit, `-`, `_` or `.` counts three) and no control characters"
    )]
    Name,
    /// Nothing has that name.
    #[error("there is no object `{0}`")]
    Missing(String),
    /// The disk is full, or the operating system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What is known about an object or a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobInfo {
    /// Bytes of an object; 0 for a container.
    pub size: u64,
    /// When it was written, seconds since 1970.
    pub created_s: u64,
}

/// The files of all owners. Everything here blocks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Blobs(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    directory: PathBuf,
    /// Knows what of the disk is kept free.
    files: Files,
    /// Bytes of each owner that was asked for since the start. Held while a name is given or taken, so the sums stay exact.
    used: Mutex<BTreeMap<String, u64>>,
    partial: AtomicU64,
}

/// One container of one owner. Owners and containers have names that are fit for directories.
#[derive(Debug, Clone)]
pub struct Container {
    blobs: Blobs,
    owner: Arc<str>,
    path: PathBuf,
}

impl Blobs {
    /// Opens or creates the directory and removes what was being written when the power went.
    ///
    /// # Errors
    /// [`FileError::Io`] if it cannot be made.
    pub fn open(directory: &Path, free_bytes_min: Option<u64>) -> Result<Self, FileError> {
        let files = Files::open(directory, free_bytes_min)?;
        let partial = directory.join(PARTIAL);
        match fs::remove_dir_all(&partial) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(io_error(&partial, cause)),
            Ok(()) | Err(_) => {}
        }
        fs::create_dir_all(&partial).map_err(|cause| io_error(&partial, cause))?;
        let (directory, used, partial) = (directory.to_path_buf(), Mutex::default(), AtomicU64::new(0));
        Ok(Self(Arc::new(Parts { directory, files, used, partial })))
    }

    /// A container; it is made with its first object.
    #[must_use]
    pub fn container(&self, owner: &str, name: &str) -> Container {
        Container { blobs: self.clone(), owner: owner.into(), path: self.0.directory.join(owner).join(name) }
    }

    /// Bytes that an owner uses, what is being written included.
    ///
    /// # Errors
    /// [`BlobError::File`] if the directory cannot be read.
    pub fn used(&self, owner: &str) -> Result<u64, BlobError> {
        let mut all = self.lock();
        self.used_of(&mut all, owner).copied()
    }

    /// Removes all that an owner has.
    ///
    /// # Errors
    /// [`BlobError::File`] if something stays.
    pub fn remove_owner(&self, owner: &str) -> Result<(), BlobError> {
        let mut all = self.lock();
        let path = self.0.directory.join(owner);
        match fs::remove_dir_all(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(io_error(&path, cause).into()),
            Ok(()) | Err(_) => {}
        }
        all.remove(owner);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sum of an owner, read from the directory the first time.
    fn used_of<'a>(&self, all: &'a mut BTreeMap<String, u64>, owner: &str) -> Result<&'a mut u64, BlobError> {
        if !all.contains_key(owner) {
            let sum = sum_of(&self.0.directory.join(owner))?;
            all.insert(owner.to_owned(), sum);
        }
        Ok(all.get_mut(owner).expect("it was put there"))
    }

    fn charge(&self, owner: &str, wanted: u64, quota: u64) -> Result<(), BlobError> {
        let mut all = self.lock();
        let used = self.used_of(&mut all, owner)?;
        if used.saturating_add(wanted) > quota {
            return Err(BlobError::Quota { used: *used, wanted, quota });
        }
        *used += wanted;
        Ok(())
    }
}

impl Container {
    /// When it was made; `None` if it has never had an object.
    ///
    /// # Errors
    /// [`BlobError::File`] if the operating system refuses.
    pub fn info(&self) -> Result<Option<BlobInfo>, BlobError> {
        let info = info_of(&self.path)?;
        Ok(info.map(|info| BlobInfo { size: 0, ..info }))
    }

    /// What is known about an object.
    ///
    /// # Errors
    /// [`BlobError`] if the name is none or the operating system refuses.
    pub fn object(&self, name: &str) -> Result<Option<BlobInfo>, BlobError> {
        info_of(&self.path_of(name)?)
    }

    /// Opens an object for reading; what is open stays readable whatever happens to the name.
    ///
    /// # Errors
    /// [`BlobError::Missing`] if there is none.
    pub fn read(&self, name: &str) -> Result<(File, u64), BlobError> {
        let path = self.path_of(name)?;
        let open = || {
            let file = File::open(&path)?;
            let size = file.metadata()?.len();
            Ok((file, size))
        };
        open().map_err(|cause: io::Error| match cause.kind() {
            io::ErrorKind::NotFound => BlobError::Missing(name.to_owned()),
            _ => io_error(&path, cause).into(),
        })
    }

    /// Up to `limit` names after `after`, ascending.
    ///
    /// # Errors
    /// [`BlobError::File`] if the directory cannot be read.
    pub fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>, BlobError> {
        let mut names = BTreeSet::new();
        for entry in entries(&self.path)? {
            let name = entry.map_err(|cause| io_error(&self.path, cause))?.file_name();
            let Some(name) = name.to_str().and_then(decode) else { continue };
            if after.is_none_or(|after| name.as_str() > after) {
                names.insert(name);
                if names.len() > limit {
                    names.pop_last();
                }
            }
        }
        Ok(names.into_iter().collect())
    }

    /// Deletes an object; answers its size, or `None` if there is none.
    ///
    /// # Errors
    /// [`BlobError`] if the name is none or the operating system refuses.
    pub fn delete(&self, name: &str) -> Result<Option<u64>, BlobError> {
        let path = self.path_of(name)?;
        let mut all = self.blobs.lock();
        let used = self.blobs.used_of(&mut all, &self.owner)?;
        let Some(info) = info_of(&path)? else { return Ok(None) };
        fs::remove_file(&path).and_then(|()| sync_directory(&self.path)).map_err(|cause| io_error(&path, cause))?;
        *used = used.saturating_sub(cost(info.size));
        Ok(Some(info.size))
    }

    fn path_of(&self, name: &str) -> Result<PathBuf, BlobError> {
        encode(name).map(|name| self.path.join(name)).ok_or(BlobError::Name)
    }
}

/// An object that is being written. Dropping it deletes what was written.
#[derive(Debug)]
pub struct BlobWriter {
    blobs: Blobs,
    owner: Arc<str>,
    quota: u64,
    path: PathBuf,
    file: File,
    charged: u64,
    size: u64,
}

impl BlobWriter {
    /// Begins an object of an owner whose objects may have `quota` bytes together.
    ///
    /// # Errors
    /// [`BlobError`] if not even an empty one fits.
    pub fn begin(blobs: &Blobs, owner: &str, quota: u64) -> Result<Self, BlobError> {
        blobs.charge(owner, OBJECT_OVERHEAD_BYTES, quota)?;
        let number = blobs.0.partial.fetch_add(1, Ordering::Relaxed);
        let path = blobs.0.directory.join(PARTIAL).join(number.to_string());
        let (blobs, owner) = (blobs.clone(), Arc::from(owner));
        match File::options().write(true).create_new(true).open(&path) {
            Ok(file) => Ok(Self { blobs, owner, quota, path, file, charged: OBJECT_OVERHEAD_BYTES, size: 0 }),
            Err(cause) => {
                release(&blobs, &owner, OBJECT_OVERHEAD_BYTES);
                Err(io_error(&path, cause).into())
            }
        }
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`BlobError`] if the quota or the disk is full; then the object cannot be finished as it should be.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let count = bytes.len() as u64;
        self.blobs.0.files.ensure_room(count)?;
        self.blobs.charge(&self.owner, count, self.quota)?;
        self.charged += count;
        self.size += count;
        self.file.write_all(bytes).map_err(|cause| io_error(&self.path, cause).into())
    }

    /// Gives the object its name, durably; one that had it is replaced. Answers its size.
    ///
    /// # Errors
    /// [`BlobError`] if the name is none or the operating system refuses; then what was there is still there.
    pub fn finish(mut self, container: &Container, name: &str) -> Result<u64, BlobError> {
        let target = container.path_of(name)?;
        let fail = |path: &Path| {
            let path = path.to_path_buf();
            move |cause| io_error(&path, cause)
        };
        self.file.sync_all().map_err(fail(&self.path))?;
        if !container.path.is_dir() {
            make_container(&container.path).map_err(fail(&container.path))?;
        }
        let mut all = self.blobs.lock();
        let used = self.blobs.used_of(&mut all, &self.owner)?;
        let before = info_of(&target)?;
        fs::rename(&self.path, &target).and_then(|()| sync_directory(&container.path)).map_err(fail(&target))?;
        *used = used.saturating_sub(before.map_or(0, |info| cost(info.size)));
        drop(all);
        self.charged = 0;
        Ok(self.size)
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // After `finish` the file has another name and its bytes stay charged.
        if self.charged > 0 {
            fs::remove_file(&self.path).ok();
            release(&self.blobs, &self.owner, self.charged);
        }
    }
}

fn release(blobs: &Blobs, owner: &str, bytes: u64) {
    if let Some(used) = blobs.lock().get_mut(owner) {
        *used = used.saturating_sub(bytes);
    }
}

/// What an object of this size counts.
const fn cost(size: u64) -> u64 {
    size + OBJECT_OVERHEAD_BYTES
}

fn make_container(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let owner = crate::durable::parent(path);
    sync_directory(owner)?;
    sync_directory(crate::durable::parent(owner))
}

/// The entries of a directory, none if it is not there.
fn entries(path: &Path) -> Result<impl Iterator<Item = io::Result<fs::DirEntry>> + use<>, BlobError> {
    match fs::read_dir(path) {
        Ok(entries) => Ok(Some(entries).into_iter().flatten()),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None.into_iter().flatten()),
        Err(cause) => Err(io_error(path, cause).into()),
    }
}

fn sum_of(owner: &Path) -> Result<u64, BlobError> {
    let mut sum = 0;
    for container in entries(owner)? {
        let container = container.map_err(|cause| io_error(owner, cause))?.path();
        for object in entries(&container)? {
            let metadata = object.and_then(|object| object.metadata()).map_err(|cause| io_error(&container, cause))?;
            sum += cost(metadata.len());
        }
    }
    Ok(sum)
}

fn info_of(path: &Path) -> Result<Option<BlobInfo>, BlobError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(io_error(path, cause).into()),
    };
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Ok(Some(BlobInfo { size: metadata.len(), created_s: modified.map_or(0, |since| since.as_secs()) }))
}

/// The file name of an object: what is not plain becomes `%XX`, so a name never climbs out of its container. `None` if it is none.
fn encode(name: &str) -> Option<String> {
    if name.is_empty() || name.chars().any(char::is_control) {
        return None;
    }
    let mut encoded = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => encoded.push(char::from(byte)),
            b'.' if at > 0 => encoded.push('.'),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    (encoded.len() <= OBJECT_NAME_BYTES_MAX).then_some(encoded)
}

fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = tail.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

fn io_error(path: &Path, cause: io::Error) -> FileError {
    FileError::Io { path: path.to_path_buf(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    const QUOTA: u64 = 10 * OBJECT_OVERHEAD_BYTES;

    fn open() -> (tempfile::TempDir, Blobs) {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&directory.path().join("blobs"), None).unwrap();
        (directory, blobs)
    }

    fn put(blobs: &Blobs, name: &str, bytes: &[u8]) -> Result<u64, BlobError> {
        let mut writer = BlobWriter::begin(blobs, "f", QUOTA)?;
        writer.write(bytes)?;
        writer.finish(&blobs.container("f", "c"), name)
    }

    #[test]
    fn an_object_is_there_as_a_whole_or_not_at_all() {
        let (directory, blobs) = open();
        let container = blobs.container("f", "c");
        let mut writer = BlobWriter::begin(&blobs, "f", QUOTA).unwrap();
        writer.write(b"half").unwrap();
        assert_eq!(container.object("a").unwrap(), None);
        drop(writer);
        assert_eq!(blobs.used("f").unwrap(), 0);
        put(&blobs, "a", b"old").unwrap();
        let (mut old, _) = container.read("a").unwrap();
        put(&blobs, "a", b"newer").unwrap();
        let mut text = String::new();
        old.read_to_string(&mut text).unwrap();
        assert_eq!(text, "old", "what is open stays readable");
        assert_eq!(container.object("a").unwrap().unwrap().size, 5);
        assert_eq!(fs::read_dir(directory.path().join("blobs/.partial")).unwrap().count(), 0);
    }

    #[test]
    fn the_quota_is_exact_and_survives_a_restart() {
        let (directory, blobs) = open();
        let room = usize::try_from(QUOTA - OBJECT_OVERHEAD_BYTES).unwrap();
        assert!(matches!(put(&blobs, "big", &vec![0; room + 1]), Err(BlobError::Quota { .. })));
        assert_eq!(blobs.used("f").unwrap(), 0, "what did not fit is given back");
        put(&blobs, "big", &vec![0; room]).unwrap();
        assert!(matches!(put(&blobs, "none", b""), Err(BlobError::Quota { .. })));
        drop(blobs);
        let blobs = Blobs::open(&directory.path().join("blobs"), None).unwrap();
        assert_eq!(blobs.used("f").unwrap(), QUOTA);
        assert_eq!(blobs.container("f", "c").delete("big").unwrap(), Some(room as u64));
        assert_eq!((blobs.used("f").unwrap(), blobs.container("f", "c").delete("big").unwrap()), (0, None));
    }

    #[test]
    fn what_was_being_written_when_the_power_went_is_gone() {
        let (directory, blobs) = open();
        let mut writer = BlobWriter::begin(&blobs, "f", QUOTA).unwrap();
        writer.write(b"half").unwrap();
        std::mem::forget(writer);
        let blobs = Blobs::open(&directory.path().join("blobs"), None).unwrap();
        assert_eq!(blobs.used("f").unwrap(), 0);
        assert_eq!(fs::read_dir(directory.path().join("blobs/.partial")).unwrap().count(), 0);
    }

    #[test]
    fn names_are_any_text_and_never_climb() {
        let (directory, blobs) = open();
        let names = ["../../etc/passwd", "..", ".x", "a/b c.jpg", "käse+#", "%41"];
        for name in names {
            put(&blobs, name, name.as_bytes()).unwrap();
        }
        let container = blobs.container("f", "c");
        let mut sorted = names.map(str::to_owned).to_vec();
        sorted.sort();
        assert_eq!(container.list(None, 100).unwrap(), sorted);
        assert_eq!(container.list(Some(&sorted[1]), 2).unwrap(), sorted[2..4]);
        assert_eq!(fs::read_dir(directory.path().join("blobs/f/c")).unwrap().count(), names.len());
        for name in ["", "a\0b", "a\n", &"x".repeat(OBJECT_NAME_BYTES_MAX + 1)] {
            assert!(matches!(put(&blobs, name, b""), Err(BlobError::Name)), "{name:?}");
        }
        assert!(put(&blobs, &"x".repeat(OBJECT_NAME_BYTES_MAX), b"").is_ok());
    }

    #[test]
    fn a_full_disk_is_refused_before_it_happens() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(directory.path(), Some(u64::MAX)).unwrap();
        assert!(matches!(put(&blobs, "a", b"x"), Err(BlobError::File(FileError::NoRoom { .. }))));
    }

    #[test]
    fn an_owner_goes_with_all_it_has() {
        let (_directory, blobs) = open();
        put(&blobs, "a", b"x").unwrap();
        blobs.remove_owner("f").unwrap();
        blobs.remove_owner("f").unwrap();
        assert_eq!((blobs.used("f").unwrap(), blobs.container("f", "c").info().unwrap()), (0, None));
    }
}
