//! Core dumps of functions whose authors asked for them: a few files, the newest, written where they hold nobody up.
//!
//! ```text
//! <data_dir>/core-dumps/<function>-<milliseconds since 1970>-<invocation>.wasm-core
//! ```

use crate::clock;
use crate::limits::{CORE_DUMP_PAUSE_MS, CORE_DUMPS_BYTES_MAX, CORE_DUMPS_MAX};
use sedge_node_core::Mono;
use sedge_protocol::FunctionName;
use sedge_runtime::CallInfo;
use sedge_store::durable;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

const EXTENSION: &str = "wasm-core";

/// Where core dumps lie. Cheap to clone.
// A leaf lock, held for a look at a small map.
#[derive(Debug, Clone)]
pub(crate) struct Dumps {
    dir: PathBuf,
    /// When the last one of each function was taken: flash wears out.
    taken: Arc<Mutex<BTreeMap<FunctionName, Mono>>>,
}

impl Dumps {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, taken: Arc::default() }
    }

    /// Keeps `dump` for the invocation, unless the function had one a moment ago. Says where it will lie; the writing blocks and is
    /// for the caller to do elsewhere.
    pub(crate) fn take(&self, call: &CallInfo) -> Option<PathBuf> {
        let (function, now) = (&call.revision.function, clock::mono());
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.get(function).is_some_and(|last| now.0 < last.0 + CORE_DUMP_PAUSE_MS) {
            return None;
        }
        taken.retain(|_, last| now.0 < last.0 + CORE_DUMP_PAUSE_MS);
        taken.insert(function.clone(), now);
        Some(self.dir.join(format!("{function}-{}-{}.{EXTENSION}", clock::wall().0, call.invocation)))
    }

    /// Writes one, readable by the daemon alone because it holds what the function knew, and removes the oldest above the bounds. Blocks.
    pub(crate) fn write(&self, path: &Path, dump: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        self.make_room(dump.len() as u64)?;
        durable::replace_private(path, dump).map_err(io::Error::other)
    }

    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            files.push((metadata.modified()?, metadata.len(), entry.path()));
        }
        files.sort();
        let mut total: u64 = bytes + files.iter().map(|(_, size, _)| size).sum::<u64>();
        let mut count = files.len() + 1;
        for (_, size, path) in files {
            if count <= CORE_DUMPS_MAX && total <= CORE_DUMPS_BYTES_MAX {
                break;
            }
            fs::remove_file(path)?;
            (count, total) = (count - 1, total - size);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_few_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let dumps = Dumps::new(dir.path().join("core-dumps"));
        for number in 0..CORE_DUMPS_MAX + 2 {
            dumps.write(&dumps.dir.join(format!("{number:02}.{EXTENSION}")), b"dump").unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(&dumps.dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!((names.len(), names[0].as_str()), (CORE_DUMPS_MAX, "02.wasm-core"));
    }

    #[test]
    fn their_bytes_are_bounded_together() {
        let dir = tempfile::tempdir().unwrap();
        let dumps = Dumps::new(dir.path().to_owned());
        for name in ["old", "older"] {
            // A file with a hole: as large as it says, and nothing on the disk.
            fs::File::create(dir.path().join(name)).unwrap().set_len(CORE_DUMPS_BYTES_MAX / 2).unwrap();
        }
        dumps.write(&dir.path().join("new"), b"dump").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(dir.path().join("new").exists());
    }
}
