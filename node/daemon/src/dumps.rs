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

    /// Those of one function. Blocks.
    pub(crate) fn of(&self, function: &FunctionName) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        Ok(paths.into_iter().filter(|path| owner(path) == Some(function.as_str())).collect())
    }

    /// Removes those of one function. Blocks.
    pub(crate) fn remove(&self, function: &FunctionName) -> io::Result<()> {
        for path in self.of(function)? {
            match fs::remove_file(path) {
                // A newer one took its place meanwhile.
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        Ok(())
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

/// Whose a file is: all but the time and the two parts of the invocation. Names of functions may hold what stands between the parts.
fn owner(path: &Path) -> Option<&str> {
    path.file_stem()?.to_str()?.rsplitn(4, '-').nth(3)
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
    fn those_of_one_function_are_told_from_those_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let dumps = Dumps::new(dir.path().join("core-dumps"));
        assert!(dumps.of(&"hello".parse().unwrap()).unwrap().is_empty(), "there is no directory before the first");
        for name in ["hello-1700000000000-0a1b2c3d-7", "hello-2-1700000000000-0a1b2c3d-7", "hello-2-1700000000001-0a1b2c3d-8"] {
            dumps.write(&dumps.dir.join(format!("{name}.{EXTENSION}")), b"dump").unwrap();
        }
        let left = |name: &str| dumps.of(&name.parse().unwrap()).unwrap().len();
        assert_eq!((left("hello"), left("hello-2"), left("hello-2-1700000000000")), (1, 2, 0));
        dumps.remove(&"hello-2".parse().unwrap()).unwrap();
        assert_eq!((left("hello"), left("hello-2")), (1, 0));
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
