//! sled, under the rules that keep it safe on flash.
//!
//! - `flush` does not reach the disk: [`Database::sync`] calls `fdatasync` on a descriptor of its own.
//! - A torn `snap.*.generating` would fail the opening: it is deleted first.
//! - sled may panic on damage: opening runs on a thread of its own, reads catch the panic.
//! - Every value carries a version and a checksum.

use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use thiserror::Error;

use crate::batch::Tree;
use crate::durable::sync_directory;
use crate::limits::{LOCK_ATTEMPTS_MAX, LOCK_PAUSE_MS};
use crate::memtable::{Memtable, start};

/// How often sled's own thread syncs, in milliseconds. Never off.
const FLUSH_EVERY_MS: u64 = 5_000;
/// Bytes that are copied between two syncs.
const COPY_SYNC_BYTES: usize = 1024 * 1024;
const VALUE_VERSION: u8 = 1;
const ENVELOPE_BYTES: usize = 5;

/// Why the database did not do something.
#[derive(Debug, Error)]
pub enum DatabaseError {
    /// The database refused.
    #[error("the database refuses")]
    Refused(#[source] sled::Error),
    /// The database stumbled over its own files.
    #[error("the database panicked")]
    Panicked,
    /// The operating system refused.
    #[error("access {path}")]
    Io {
        /// Directory of the database.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
}

impl DatabaseError {
    /// Whether the files are to blame, and not a lack of space, memory or descriptors that will pass.
    pub(crate) fn is_damage(&self) -> bool {
        let cause = match self {
            Self::Panicked => return true,
            Self::Refused(sled::Error::Io(cause)) => cause,
            Self::Refused(_) => return true,
            Self::Io { cause, .. } => cause,
        };
        !matches!(
            cause.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::OutOfMemory
        ) && !matches!(
            cause.raw_os_error().map(rustix::io::Errno::from_raw_os_error),
            Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE)
        ) && !is_locked_text(cause)
    }
}

/// One value that was read: what it is, or that it is damaged.
pub(crate) type Checked = Result<Vec<u8>, Damaged>;

/// The checksum or the version of a value does not hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    sled: sled::Db,
    trees: Vec<sled::Tree>,
    internal: sled::Tree,
    file: File,
    /// Bytes of all keys and values, once they have been summed up.
    live: Mutex<Option<u64>>,
    /// Live bytes, and the size of the file, of the last copy that was made: what live bytes cost.
    copied: Mutex<Option<(u64, u64)>>,
}

impl Database {
    /// Opens or creates the database in `path`, on a thread of its own.
    pub(crate) fn open(path: &Path, cache_bytes: u64) -> Result<Self, DatabaseError> {
        let owned = path.to_path_buf();
        thread::Builder::new()
            .name("sedge-open".to_owned())
            .spawn(move || Self::open_here(&owned, cache_bytes))
            .map_err(|cause| DatabaseError::Io { path: path.to_path_buf(), cause })?
            .join()
            .unwrap_or(Err(DatabaseError::Panicked))
    }

    fn open_here(path: &Path, cache_bytes: u64) -> Result<Self, DatabaseError> {
        let io = |cause| DatabaseError::Io { path: path.to_path_buf(), cause };
        fs::create_dir_all(path).map_err(io)?;
        remove_torn_snapshots(path).map_err(io)?;
        let sled = open_sled(path, cache_bytes)?;
        let trees =
            Tree::ALL.iter().map(|tree| sled.open_tree(tree.name())).collect::<Result<Vec<_>, _>>().map_err(DatabaseError::Refused)?;
        let internal = sled.open_tree("sedge").map_err(DatabaseError::Refused)?;
        let file = File::open(path.join("db")).map_err(io)?;
        let database = Self { path: path.to_path_buf(), sled, trees, internal, file, live: Mutex::default(), copied: Mutex::default() };
        database.sync()?;
        sync_directory(path).map_err(io)?;
        Ok(database)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The value of a key.
    pub(crate) fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Checked>, DatabaseError> {
        let found = guarded(|| self.trees[tree.index()].get(key))?;
        Ok(found.map(|stored| open_envelope(key, &stored)))
    }

    /// Keys under a prefix after a mark, with their values, in order.
    pub(crate) fn range(
        &self,
        tree: Tree,
        prefix: &[u8],
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Checked), DatabaseError>> {
        let prefix = prefix.to_vec();
        let bounds = (start(&prefix, after), std::ops::Bound::Unbounded);
        let mut stored = self.trees[tree.index()].range::<&[u8], _>(bounds);
        std::iter::from_fn(move || match guarded(|| stored.next().transpose()) {
            Ok(Some((key, value))) if key.starts_with(&prefix) => Some(Ok((key.to_vec(), open_envelope(&key, &value)))),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    }

    /// Writes all changes and syncs them. Answers the bytes handed to sled.
    pub(crate) fn apply(&self, changes: &Memtable) -> Result<u64, DatabaseError> {
        // Unknown again if this stops half-way.
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (mut bytes, mut added, mut removed) = (0, 0, 0);
        for tree in Tree::ALL {
            let target = &self.trees[tree.index()];
            for (key, change) in changes.tree(tree) {
                let old = match change {
                    Some(value) => {
                        let size = (key.len() + value.len() + ENVELOPE_BYTES) as u64;
                        bytes += size;
                        added += size;
                        guarded(|| target.insert(key, envelope(key, value)))?
                    }
                    None => {
                        bytes += key.len() as u64;
                        guarded(|| target.remove(key))?
                    }
                };
                removed += old.map_or(0, |old| (key.len() + old.len()) as u64);
            }
        }
        self.sync()?;
        self.set_live(live.map(|live| (live + added).saturating_sub(removed)));
        Ok(bytes)
    }

    /// A number that the store keeps for itself.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, DatabaseError> {
        let found = guarded(|| self.internal.get(name))?;
        let opened = found.and_then(|stored| open_envelope(name.as_bytes(), &stored).ok());
        Ok(opened.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes))
    }

    /// Keeps a number; durable with the next [`Database::sync`].
    pub(crate) fn set_number(&self, name: &str, number: u64) -> Result<(), DatabaseError> {
        let stored = envelope(name.as_bytes(), &number.to_le_bytes());
        guarded(|| self.internal.insert(name, stored)).map(drop)
    }

    /// Everything written so far survives a power cut.
    pub(crate) fn sync(&self) -> Result<(), DatabaseError> {
        guarded(|| self.sled.flush())?;
        self.file.sync_data().map_err(|cause| DatabaseError::Io { path: self.path.clone(), cause })
    }

    /// Size of the database: its file, and the files in which sled keeps pages of large values.
    pub(crate) fn file_bytes(&self) -> u64 {
        guarded(|| self.sled.size_on_disk()).unwrap_or_else(|_| self.file.metadata().map_or(0, |metadata| metadata.len()))
    }

    /// Bytes of all keys and values: summed up once, counted from then on.
    pub(crate) fn live_bytes(&self) -> Result<u64, DatabaseError> {
        let known = *self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = known {
            return Ok(bytes);
        }
        let bytes = self.sum()?;
        self.set_live(Some(bytes));
        Ok(bytes)
    }

    fn set_live(&self, bytes: Option<u64>) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = bytes;
    }

    /// How big a copy will be, after what the last one cost.
    pub(crate) fn copy_bytes(&self) -> Result<u64, DatabaseError> {
        self.live_bytes().map(|live| self.cost(live))
    }

    /// What of the file is not garbage: all of it, until a copy has shown what live bytes cost.
    pub(crate) fn used_bytes(&self) -> u64 {
        let live = *self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let file = self.file_bytes();
        live.filter(|_| self.knows_cost()).map_or(file, |live| self.cost(live).min(file))
    }

    /// Whether a copy of this, or of what this is a copy of, was made since the store was opened.
    pub(crate) fn knows_cost(&self) -> bool {
        self.last_copy().is_some()
    }

    fn last_copy(&self) -> Option<(u64, u64)> {
        *self.copied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cost(&self, live: u64) -> u64 {
        match self.last_copy() {
            Some((copied, file)) if copied > 0 => u64::try_from(u128::from(live) * u128::from(file) / u128::from(copied)).unwrap_or(live),
            Some(_) | None => live,
        }
    }

    fn sum(&self) -> Result<u64, DatabaseError> {
        let mut bytes = 0;
        for tree in &self.trees {
            let mut stored = tree.iter();
            while let Some((key, value)) = guarded(|| stored.next().transpose())? {
                bytes += (key.len() + value.len()) as u64;
            }
        }
        Ok(bytes)
    }

    /// Copies everything into `target`, damaged values included: they stay known as damaged.
    pub(crate) fn copy_into(&self, target: &Self) -> Result<(), DatabaseError> {
        let pairs = self.trees.iter().zip(&target.trees);
        let mut unsynced = 0;
        for (from, to) in pairs.chain([(&self.internal, &target.internal)]) {
            let mut stored = from.iter();
            while let Some((key, value)) = guarded(|| stored.next().transpose())? {
                unsynced += key.len() + value.len();
                guarded(|| to.insert(key, value))?;
                if unsynced >= COPY_SYNC_BYTES {
                    // What sled wrote over in between is free for the rest only then.
                    target.sync()?;
                    unsynced = 0;
                }
            }
        }
        target.sync()?;
        let live = self.live_bytes()?;
        target.set_live(Some(live));
        // sled does not always write a copy more tightly: then what is there is the measure.
        let cost = Some((live, target.file_bytes().min(self.file_bytes())));
        for database in [self, target] {
            *database.copied.lock().unwrap_or_else(PoisonError::into_inner) = cost;
        }
        Ok(())
    }
}

fn open_sled(path: &Path, cache_bytes: u64) -> Result<sled::Db, DatabaseError> {
    let mut attempt = 1;
    loop {
        let opened = sled::Config::new().path(path).cache_capacity(cache_bytes).flush_every_ms(Some(FLUSH_EVERY_MS)).open();
        match opened {
            Err(error) if attempt < LOCK_ATTEMPTS_MAX && is_locked(&error) => {
                attempt += 1;
                thread::sleep(Duration::from_millis(LOCK_PAUSE_MS));
            }
            other => return other.map_err(DatabaseError::Refused),
        }
    }
}

/// sled tells a held lock by its text alone.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(cause) if is_locked_text(cause))
}

fn is_locked_text(cause: &io::Error) -> bool {
    cause.to_string().contains("could not acquire lock")
}

fn remove_torn_snapshots(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(&path)?;
            log::info!(file:% = path.display(); "torn snapshot removed");
        }
    }
    Ok(())
}

fn guarded<T>(operation: impl FnOnce() -> sled::Result<T>) -> Result<T, DatabaseError> {
    match catch_unwind(AssertUnwindSafe(operation)) {
        Ok(outcome) => outcome.map_err(DatabaseError::Refused),
        Err(_) => Err(DatabaseError::Panicked),
    }
}

fn envelope(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(ENVELOPE_BYTES + value.len());
    stored.push(VALUE_VERSION);
    stored.extend(value_checksum(key, value).to_le_bytes());
    stored.extend(value);
    stored
}

fn open_envelope(key: &[u8], stored: &[u8]) -> Checked {
    let (&version, rest) = stored.split_first().ok_or(Damaged)?;
    let (crc, value) = rest.split_first_chunk::<4>().ok_or(Damaged)?;
    let sound = version == VALUE_VERSION && value_checksum(key, value) == u32::from_le_bytes(*crc);
    if sound { Ok(value.to_vec()) } else { Err(Damaged) }
}

fn value_checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_value_is_an_error_of_its_key_alone() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(directory.path(), 8 * 1024 * 1024).unwrap();
        let sound = envelope(b"sound", b"value");
        let mut wrong_version = envelope(b"version", b"value");
        wrong_version[0] = 9;
        let tree = &database.trees[Tree::Meta.index()];
        for (key, stored) in
            [("sound", sound.clone()), ("moved", sound), ("version", wrong_version), ("short", vec![VALUE_VERSION]), ("empty", Vec::new())]
        {
            tree.insert(key, stored).unwrap();
        }
        let get = |key: &str| database.get(Tree::Meta, key.as_bytes()).unwrap().unwrap();
        assert_eq!(get("sound"), Ok(b"value".to_vec()));
        for key in ["moved", "version", "short", "empty"] {
            assert_eq!(get(key), Err(Damaged), "{key}");
        }
    }
}
