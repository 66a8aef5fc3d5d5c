//! Answers to a commit.

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::oneshot;

use crate::batch::Tree;

/// Why a batch was not applied. Nothing of it is visible.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommitError {
    /// The journal or the database does not keep up; try again shortly.
    #[error("the store is busy: {waiting} bytes wait to be written, try again shortly")]
    Full {
        /// Bytes that wait.
        waiting: usize,
    },
    /// As many items as configured are accepted and not finished.
    #[error("the queue is full: {items} items of {bytes} bytes")]
    QueueFull {
        /// Live items.
        items: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// The partition is nearly full; only deletions and finishes are taken.
    #[error("the disk is full: {free} bytes free, {needed} are kept")]
    DiskFull {
        /// Free bytes when it was last looked at.
        free: u64,
        /// Bytes that are never used.
        needed: u64,
    },
    /// The database reached its bound; only deletions and items are taken.
    #[error("the database is full: {bytes} of {bytes_max} bytes")]
    DatabaseFull {
        /// Size of its file.
        bytes: u64,
        /// Configured bound.
        bytes_max: u64,
    },
    /// What functions keep reached its part of the database; deletions and the node's own records are taken.
    #[error(
        "the part of the node's database that is for functions is full: {bytes} of {bytes_max} bytes; the rest is kept for the node itself. \
         Remove state that is not needed: `sedge rm FUNCTION --state`"
    )]
    FunctionsFull {
        /// Size of the database's file, and of what is on its way there.
        bytes: u64,
        /// The part of the bound that functions may take.
        bytes_max: u64,
    },
    /// The last write failed; durable commits are refused until one succeeds.
    #[error("the journal cannot be written: {reason}")]
    Degraded {
        /// What the operating system said.
        reason: Arc<str>,
    },
    /// One key is longer than [`crate::limits::KEY_BYTES_MAX`].
    #[error("key of {bytes} bytes in {tree:?} is too long")]
    KeyTooLong {
        /// Tree of the key.
        tree: Tree,
        /// Its length.
        bytes: usize,
    },
    /// One value is longer than [`crate::limits::VALUE_BYTES_MAX`].
    #[error("value of {bytes} bytes in {tree:?} is too long")]
    ValueTooLong {
        /// Tree of the value.
        tree: Tree,
        /// Its length.
        bytes: usize,
    },
    /// One item is longer than [`crate::limits::ITEM_BYTES_MAX`].
    #[error("item of {bytes} bytes is too long")]
    ItemTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The batch does not fit into one group, or has too many records.
    #[error("batch of {records} records and {bytes} bytes is too big")]
    BatchTooBig {
        /// Records in it.
        records: usize,
        /// Bytes in it.
        bytes: usize,
    },
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// Why an applied batch did not become durable in time.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JournalLost {
    /// Writing failed. The batch stays visible and is tried again, but nobody may rely on it.
    #[error("the journal cannot be written: {reason}")]
    Write {
        /// What the operating system said.
        reason: Arc<str>,
    },
    /// The store closed before the batch was written.
    #[error("the store closed before the commit was durable")]
    Closed,
}

/// A batch that is applied and visible; [`Commit::durable`] says when it is on the disk.
#[derive(Debug)]
#[must_use = "a commit is durable only once `durable` says so; drop it on purpose with `drop`"]
pub struct Commit {
    pub(crate) answer: Option<oneshot::Receiver<Result<(), JournalLost>>>,
}

impl Commit {
    /// Resolves once the batch, and everything committed before it, survives a power cut. At once with
    /// [`crate::Durability::None`], which promises nothing.
    ///
    /// Cancel safe: the batch is written whether or not someone waits.
    ///
    /// # Errors
    /// [`JournalLost`] if the write failed or the store closed before.
    pub async fn durable(self) -> Result<(), JournalLost> {
        match self.answer {
            Some(answer) => answer.await.unwrap_or(Err(JournalLost::Closed)),
            None => Ok(()),
        }
    }

    /// [`Commit::durable`] for threads.
    ///
    /// # Errors
    /// As [`Commit::durable`].
    ///
    /// # Panics
    /// Inside an asynchronous task.
    pub fn durable_blocking(self) -> Result<(), JournalLost> {
        match self.answer {
            Some(answer) => answer.blocking_recv().unwrap_or(Err(JournalLost::Closed)),
            None => Ok(()),
        }
    }

    /// Whether the batch is durable already, or nothing was promised.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.answer.is_none()
    }
}
