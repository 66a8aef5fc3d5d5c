//! What a caller asks the store to change, all of it or nothing.

use std::fmt;
use std::sync::Arc;

/// One of the maps of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tree {
    /// State of functions (`wasi:keyvalue`).
    Keyvalue,
    /// Usage windows that the fleet has not confirmed.
    Usage,
    /// What this node is told to run.
    Assignment,
    /// Events whose attempts are used up.
    DeadLetter,
    /// Everything the node remembers about itself.
    Meta,
    /// What is known of each asynchronous call.
    Invocation,
    /// What asynchronous calls were answered.
    Answer,
}

impl Tree {
    /// All trees, in the order of [`Tree::index`].
    pub const ALL: [Self; 7] =
        [Self::Keyvalue, Self::Usage, Self::Assignment, Self::DeadLetter, Self::Meta, Self::Invocation, Self::Answer];

    /// Position in [`Tree::ALL`]; also the byte in the journal, so it never changes.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Name in the database; never changes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keyvalue => "keyvalue",
            Self::Usage => "usage",
            Self::Assignment => "assignment",
            Self::DeadLetter => "dead-letter",
            Self::Meta => "meta",
            Self::Invocation => "invocation",
            Self::Answer => "answer",
        }
    }
}

/// Number of a queued item: increasing for the life of the store, restarts included; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(pub u64);

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One change. Absolute, so that applying it twice changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    Set { tree: Tree, key: Arc<[u8]>, value: Arc<[u8]> },
    Delete { tree: Tree, key: Arc<[u8]> },
    Accept { id: ItemId, attempts: u32, bytes: Arc<[u8]> },
    Attempt { id: ItemId, attempts: u32 },
    Finish { id: ItemId },
}

/// Changes that are applied, and become durable, together.
///
/// ```
/// use sedge_store::{Batch, Tree};
/// let mut batch = Batch::new();
/// batch.set(Tree::Keyvalue, "counter", "7").delete(Tree::Keyvalue, "old");
/// assert_eq!(batch.len(), 2);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(crate) records: Vec<Record>,
}

impl Batch {
    /// A batch that changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is nothing to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Gives `key` this value.
    pub fn set(&mut self, tree: Tree, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.push(Record::Set { tree, key: key.into().into(), value: value.into().into() })
    }

    /// Removes `key`, present or not.
    pub fn delete(&mut self, tree: Tree, key: impl Into<Vec<u8>>) -> &mut Self {
        self.push(Record::Delete { tree, key: key.into().into() })
    }

    /// Queues an item under an id of [`crate::Store::next_item_id`]. A live id stays as it is.
    pub fn accept(&mut self, id: ItemId, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.push(Record::Accept { id, attempts: 0, bytes: bytes.into().into() })
    }

    /// Notes how often the item has been tried. An unknown id is ignored.
    pub fn attempt(&mut self, id: ItemId, attempts: u32) -> &mut Self {
        self.push(Record::Attempt { id, attempts })
    }

    /// Takes the item out of the queue. An unknown id is ignored.
    pub fn finish(&mut self, id: ItemId) -> &mut Self {
        self.push(Record::Finish { id })
    }

    fn push(&mut self, record: Record) -> &mut Self {
        self.records.push(record);
        self
    }
}
