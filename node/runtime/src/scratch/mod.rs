//! The scratch directory of an instance: a file system in memory that never takes more than it was granted.
//!
//! ```text
//!  wasi:filesystem ─▶ Handle ─▶ Scratch ── a lock ──▶ Tree: names, files, what they cost
//!  streams of files ──┘             └─▶ Call: memory of the instance, linear and scratch together
//! ```
//! Invariants: what is in it is counted as it grows, and what does not fit is refused before it takes memory; no path leads out of it; it
//! ends with the last handle of its instance. Nothing in it waits, and no single call takes long, whatever the guest asks for.

mod content;
mod path;
#[cfg(test)]
mod proof;
mod tree;

use crate::usage::Call;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tree::Tree;

/// Where a guest finds it.
pub(crate) const SCRATCH: &str = "/scratch";

/// The number of a file or directory, which no other one in the same scratch directory ever has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(u64);

/// Why something was not done. The words are those of `wasi:filesystem`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScratchError {
    #[error("not open for this")]
    BadDescriptor,
    #[error("in use by the system itself")]
    Busy,
    #[error("exists already")]
    Exist,
    #[error("a file cannot be that large")]
    FileTooLarge,
    #[error("the scratch directory is full: raise access.scratch_mb in function.toml, or remove files")]
    InsufficientSpace,
    #[error("not a valid argument")]
    Invalid,
    #[error("a directory")]
    IsDirectory,
    #[error("too deep")]
    Loop,
    #[error("the name or path is too long")]
    NameTooLong,
    #[error("there is no such file or directory")]
    NoEntry,
    #[error("not a directory")]
    NotDirectory,
    #[error("the directory is not empty")]
    NotEmpty,
    #[error("the path leads out of its directory")]
    NotPermitted,
}

/// How something is opened.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "flags of `open-at`, which are independent of each other")]
pub(crate) struct Open {
    pub(crate) create: bool,
    pub(crate) exclusive: bool,
    pub(crate) truncate: bool,
    pub(crate) directory: bool,
    pub(crate) read: bool,
    pub(crate) write: bool,
}

/// What is known of a file or directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stat {
    pub(crate) directory: bool,
    /// Names: one, or none when it was removed.
    pub(crate) links: u64,
    pub(crate) size: u64,
    pub(crate) accessed: SystemTime,
    pub(crate) modified: SystemTime,
    pub(crate) changed: SystemTime,
}

type Result<T> = std::result::Result<T, ScratchError>;

/// The directory of one instance. Clones are the same one.
#[derive(Clone)]
// A leaf lock, held for one step in memory.
pub(crate) struct Scratch(Arc<Mutex<Inner>>);

struct Inner {
    tree: Tree,
    call: Arc<Call>,
    /// Linear memory of the instance.
    linear_bytes: usize,
}

impl Scratch {
    /// An empty directory for so many bytes.
    pub(crate) fn new(limit_bytes: u64, call: &Arc<Call>) -> Self {
        let tree = Tree::new(limit_bytes, SystemTime::now());
        Self(Arc::new(Mutex::new(Inner { tree, call: Arc::clone(call), linear_bytes: 0 })))
    }

    /// From now on its memory is used by `call`.
    pub(crate) fn enter(&self, call: &Arc<Call>) {
        let mut inner = self.lock();
        inner.call = Arc::clone(call);
        inner.count();
    }

    /// The linear memory of the instance has become so large.
    pub(crate) fn linear_is(&self, bytes: usize) {
        let mut inner = self.lock();
        inner.linear_bytes = bytes;
        inner.count();
    }

    /// Opens the directory itself.
    pub(crate) fn top(&self) -> Handle {
        self.lock().tree.keep(Tree::TOP);
        Handle { scratch: self.clone(), node: Tree::TOP, read: true, write: false }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something that may need memory, and counts it.
    fn edit<T>(&self, step: impl FnOnce(&mut Tree, SystemTime) -> T) -> T {
        let now = SystemTime::now();
        let mut inner = self.lock();
        let result = step(&mut inner.tree, now);
        inner.count();
        result
    }
}

impl Inner {
    fn count(&self) {
        let used = usize::try_from(self.tree.used()).unwrap_or(usize::MAX);
        self.call.count_memory(self.linear_bytes.saturating_add(used));
    }
}

/// An open file or directory.
pub(crate) struct Handle {
    scratch: Scratch,
    node: NodeId,
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Handle {
    pub(crate) fn open(&self, path: &str, how: Open) -> Result<Self> {
        let node = self.scratch.edit(|tree, now| tree.open(self.node, path, how, now))?;
        // What is opened for nothing can be read, as with files of the system.
        Ok(Self { scratch: self.scratch.clone(), node, read: how.read || !how.write, write: how.write })
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.scratch.lock().tree.is_directory(self.node)
    }

    /// At most `length` bytes from `offset`; none is the end.
    pub(crate) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        self.ensure(self.read)?;
        self.scratch.lock().tree.read(self.node, offset, length)
    }

    /// Writes what there is room for, and answers how much that was.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<usize> {
        self.ensure(self.write)?;
        self.scratch.edit(|tree, now| tree.write(self.node, offset, bytes, now))
    }

    /// Writes at the end what there is room for, and answers how much that was.
    pub(crate) fn append(&self, bytes: &[u8]) -> Result<usize> {
        self.ensure(self.write)?;
        self.scratch.edit(|tree, now| {
            let end = tree.size(self.node)?;
            tree.write(self.node, end, bytes, now)
        })
    }

    /// How many bytes can be written at `offset`, or at the end.
    pub(crate) fn room(&self, offset: Option<u64>) -> Result<u64> {
        self.ensure(self.write)?;
        let inner = self.scratch.lock();
        let offset = offset.map_or_else(|| inner.tree.size(self.node), Ok)?;
        inner.tree.room(self.node, offset)
    }

    pub(crate) fn set_size(&self, size: u64) -> Result<()> {
        self.ensure(self.write)?;
        self.scratch.edit(|tree, now| tree.set_size(self.node, size, now))
    }

    pub(crate) fn stat(&self) -> Stat {
        self.scratch.lock().tree.stat(self.node)
    }

    pub(crate) fn stat_at(&self, path: &str) -> Result<Stat> {
        let inner = self.scratch.lock();
        Ok(inner.tree.stat(inner.tree.at(self.node, path)?))
    }

    /// The number of what is at `path`, or of this.
    pub(crate) fn number(&self, path: Option<&str>) -> Result<u64> {
        let inner = self.scratch.lock();
        path.map_or(Ok(self.node), |path| inner.tree.at(self.node, path)).map(|id| id.0)
    }

    pub(crate) fn set_times(&self, path: Option<&str>, accessed: Option<SystemTime>, modified: Option<SystemTime>) -> Result<()> {
        self.scratch.edit(|tree, now| {
            let id = path.map_or(Ok(self.node), |path| tree.at(self.node, path))?;
            tree.set_times(id, accessed, modified, now);
            Ok(())
        })
    }

    pub(crate) fn create_directory(&self, path: &str) -> Result<()> {
        self.scratch.edit(|tree, now| tree.create_directory(self.node, path, now))
    }

    pub(crate) fn remove_directory(&self, path: &str) -> Result<()> {
        self.scratch.edit(|tree, now| tree.remove_directory(self.node, path, now))
    }

    pub(crate) fn unlink(&self, path: &str) -> Result<()> {
        self.scratch.edit(|tree, now| tree.unlink(self.node, path, now))
    }

    /// Renames what is at `path` here to `new_path` in `to`, which is of the same scratch directory.
    pub(crate) fn rename(&self, path: &str, to: &Self, new_path: &str) -> Result<()> {
        debug_assert!(Arc::ptr_eq(&self.scratch.0, &to.scratch.0), "an instance has one scratch directory");
        self.scratch.edit(|tree, now| tree.rename((self.node, path), (to.node, new_path), now))
    }

    /// The first name behind `after`, in the order of names, and whether it is a directory.
    pub(crate) fn name_after(&self, after: Option<&str>) -> Result<Option<(Box<str>, bool)>> {
        let inner = self.scratch.lock();
        let next = inner.tree.name_after(self.node, after)?;
        Ok(next.map(|(name, id)| (name, inner.tree.is_directory(id))))
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.node == other.node && Arc::ptr_eq(&self.scratch.0, &other.scratch.0)
    }

    /// The kind of access that it was opened for; a directory is not opened for either.
    fn ensure(&self, granted: bool) -> Result<()> {
        if granted || self.is_directory() { Ok(()) } else { Err(ScratchError::BadDescriptor) }
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        self.scratch.lock().tree.keep(self.node);
        Self { scratch: self.scratch.clone(), ..*self }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.scratch.lock().tree.close(self.node);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("node", &self.node).finish_non_exhaustive()
    }
}
