//! Which database directory counts, and how a smaller copy takes its place.
//!
//! ```text
//! db-1 ──copy──▶ db-2/incomplete ──sync, remove the mark──▶ db-2 counts ──▶ db-1 is removed
//! ```
//!
//! A crash at any point leaves exactly one directory that counts: the highest without the mark.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::database::{Database, DatabaseError};
use crate::durable::{parent, sync_directory};
use crate::limits::{BROKEN_KEPT_MAX, COMPACT_BYTES_MIN, COMPACT_EIGHTHS_MAX, COMPACT_RATIO};

const INCOMPLETE: &str = "incomplete";

/// The database directory that counts; others are removed. It need not exist.
pub(crate) fn current(directory: &Path) -> io::Result<PathBuf> {
    let mut found: Vec<u64> = numbered(directory, "db-")?;
    while let Some(newest) = found.pop() {
        let path = generation_path(directory, newest);
        if path.join(INCOMPLETE).exists() {
            fs::remove_dir_all(path)?;
            continue;
        }
        for older in found {
            fs::remove_dir_all(generation_path(directory, older))?;
        }
        return Ok(path);
    }
    Ok(generation_path(directory, 1))
}

/// Why a database should become smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// It may be mostly garbage.
    Tidy,
    /// There is little room.
    Pressed,
    /// There is none, and nothing changes: what a copy will cost is not known better than by making it.
    Full,
}

/// A smaller copy of a database. `None` if it is not worth it, or would take more than the disk has to `spare`.
pub(crate) fn compact(old: &Database, need: Need, spare: u64, cache_bytes: u64) -> Result<Option<Database>, DatabaseError> {
    let size = old.file_bytes();
    if size < COMPACT_BYTES_MIN && need == Need::Tidy {
        return Ok(None);
    }
    let copied = old.copy_bytes()?;
    let worth = match need {
        Need::Tidy => old.live_bytes()? <= size / COMPACT_RATIO,
        Need::Pressed => copied <= size / 8 * COMPACT_EIGHTHS_MAX,
        Need::Full => true,
    };
    if worth && copied <= spare { copy(old, size, cache_bytes) } else { Ok(None) }
}

/// Copies `old` into the next generation and lets that count if it is smaller than `bytes_max`; [`discard`] the old one when it is
/// closed.
fn copy(old: &Database, bytes_max: u64, cache_bytes: u64) -> Result<Option<Database>, DatabaseError> {
    let io = |cause| DatabaseError::Io { path: old.path().to_path_buf(), cause };
    let directory = parent(old.path());
    let number = numbered(directory, "db-").map_err(io)?.last().copied().unwrap_or(0) + 1;
    let path = generation_path(directory, number);
    let copied = copy_to(old, &path, bytes_max, cache_bytes);
    if !matches!(copied, Ok(Some(_))) {
        discard(&path);
    }
    copied
}

fn copy_to(old: &Database, path: &Path, bytes_max: u64, cache_bytes: u64) -> Result<Option<Database>, DatabaseError> {
    let io = |cause| DatabaseError::Io { path: path.to_path_buf(), cause };
    fs::create_dir(path).map_err(io)?;
    File::create(path.join(INCOMPLETE)).and_then(|mark| mark.sync_all()).map_err(io)?;
    sync_directory(path).and_then(|()| sync_directory(parent(path))).map_err(io)?;
    let new = Database::open(path, cache_bytes)?;
    old.copy_into(&new)?;
    if new.file_bytes() >= bytes_max {
        return Ok(None);
    }
    fs::remove_file(path.join(INCOMPLETE)).map_err(io)?;
    sync_directory(path).map_err(io)?;
    Ok(Some(new))
}

/// Removes a generation that does not count. What stays is removed at the next opening.
pub(crate) fn discard(path: &Path) {
    if let Err(cause) = fs::remove_dir_all(path) {
        log::warn!(path:% = path.display(), cause:% = cause; "old database stays");
    }
}

/// Renames a damaged file or directory to `<path>.broken-<n>` and keeps only the newest few of those.
pub(crate) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let directory = parent(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let prefix = format!("{name}.broken-");
    let kept = numbered(directory, &prefix)?;
    let number = kept.last().copied().unwrap_or(0) + 1;
    let aside = directory.join(format!("{prefix}{number}"));
    fs::rename(path, &aside)?;
    sync_directory(directory)?;
    let surplus = (kept.len() + 1).saturating_sub(BROKEN_KEPT_MAX);
    for old in kept.iter().take(surplus) {
        remove_any(&directory.join(format!("{prefix}{old}")))?;
    }
    Ok(aside)
}

pub(crate) fn remove_any(path: &Path) -> io::Result<()> {
    let is_directory = fs::symlink_metadata(path)?.is_dir();
    if is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn generation_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("db-{number}"))
}

/// The numbers after `prefix` in the names of a directory, ascending.
fn numbered(directory: &Path, prefix: &str) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(|name| name.strip_prefix(prefix)?.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Tree;
    use crate::memtable::Memtable;

    const CACHE_BYTES: u64 = 8 * 1024 * 1024;

    fn filled(directory: &Path) -> Database {
        let database = Database::open(&current(directory).unwrap(), CACHE_BYTES).unwrap();
        let mut changes = Memtable::default();
        for tree in Tree::ALL {
            changes.put(tree, tree.name().as_bytes().into(), Some(vec![1; 1000].into()));
        }
        database.apply(&changes).unwrap();
        database.set_number("epoch", 7).unwrap();
        database
    }

    fn check(database: &Database) {
        for tree in Tree::ALL {
            let value = database.get(tree, tree.name().as_bytes()).unwrap();
            assert_eq!(value, Some(Ok(vec![1; 1000])));
        }
        assert_eq!(database.number("epoch").unwrap(), Some(7));
    }

    #[test]
    fn a_copy_holds_everything_and_counts_from_then_on() {
        let directory = tempfile::tempdir().unwrap();
        let old = filled(directory.path());
        check(&copy(&old, u64::MAX, CACHE_BYTES).unwrap().unwrap());
        drop(old);
        let path = current(directory.path()).unwrap();
        assert!(path.ends_with("db-2") && !directory.path().join("db-1").exists());
        check(&Database::open(&path, CACHE_BYTES).unwrap());
    }

    #[test]
    fn a_copy_that_was_cut_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        drop(filled(directory.path()));
        fs::create_dir(directory.path().join("db-2")).unwrap();
        File::create(directory.path().join("db-2").join(INCOMPLETE)).unwrap();
        let path = current(directory.path()).unwrap();
        assert!(path.ends_with("db-1") && !directory.path().join("db-2").exists());
        check(&Database::open(&path, CACHE_BYTES).unwrap());
    }

    #[test]
    fn a_full_database_is_copied_only_if_that_helps() {
        let directory = tempfile::tempdir().unwrap();
        let old = filled(directory.path());
        assert!(compact(&old, Need::Tidy, u64::MAX, CACHE_BYTES).unwrap().is_none(), "it is small");
        assert!(compact(&old, Need::Full, 0, CACHE_BYTES).unwrap().is_none(), "the disk has no room for two");
        assert!(copy(&old, 1, CACHE_BYTES).unwrap().is_none(), "a copy that is no smaller does not count");
        assert!(current(directory.path()).unwrap().ends_with("db-1"));
        let copy = copy(&old, u64::MAX, CACHE_BYTES).unwrap().unwrap();
        assert!(copy.knows_cost(), "what a copy costs is known from then on");
        assert!(compact(&copy, Need::Pressed, u64::MAX, CACHE_BYTES).unwrap().is_none(), "another would be as big");
    }
}
