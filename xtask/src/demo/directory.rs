//! The demonstration's own directory: found, locked, swept and emptied before use.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::progress;
use crate::stage::child;

/// Makes a directory ours: nothing else is ever emptied.
const MARK: &str = ".sedge-demo";

/// A directory that only this run uses.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Takes `path`: ends what a killed run left running, and empties it unless `keep`.
    pub(crate) fn take(path: &Path, keep: bool) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
        let path = fs::canonicalize(path).with_context(|| format!("find {}", path.display()))?;
        let mark = path.join(MARK);
        if !mark.exists() && fs::read_dir(&path)?.next().is_some() {
            bail!("{} holds something else: name an empty or a new directory with --dir", path.display());
        }
        let lock = File::options().create(true).append(true).open(&mark).with_context(|| format!("write {}", mark.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("another demonstration uses {}: name another directory with --dir", path.display()),
            Err(TryLockError::Error(cause)) => return Err(cause).with_context(|| format!("lock {}", mark.display())),
        }
        let directory = Self { path, _lock: lock };
        let ended = child::sweep(&directory.run()).context("end what a run before left")?;
        if ended > 0 {
            progress::say(&format!("ended {ended} processes that a killed run had left"));
        }
        if !keep {
            directory.clear()?;
        }
        fs::create_dir_all(directory.run()).with_context(|| format!("create {}", directory.run().display()))?;
        Ok(directory)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Logs and marks of the processes.
    pub(crate) fn run(&self) -> PathBuf {
        self.path.join("run")
    }

    fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let path = entry.path();
            let removed = match (entry.file_name() == MARK, entry.file_type()?.is_dir()) {
                (true, _) => Ok(()),
                (false, true) => fs::remove_dir_all(&path),
                (false, false) => fs::remove_file(&path),
            };
            removed.with_context(|| format!("remove {}", path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_begins_clean_or_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("demo");
        let write = |directory: &Directory| fs::write(directory.path().join("state"), "1").unwrap();
        write(&Directory::take(&path, false).unwrap());
        let kept = Directory::take(&path, true).unwrap();
        assert!(kept.path().join("state").exists() && kept.run().is_dir());
        drop(kept);
        assert!(!Directory::take(&path, false).unwrap().path().join("state").exists());
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "").unwrap();
        assert!(Directory::take(dir.path(), false).unwrap_err().to_string().contains("holds something else"));
        assert!(dir.path().join("thesis.txt").exists());
    }

    #[test]
    fn two_runs_do_not_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("demo");
        let _first = Directory::take(&path, false).unwrap();
        assert!(Directory::take(&path, true).unwrap_err().to_string().contains("another demonstration"));
    }
}
