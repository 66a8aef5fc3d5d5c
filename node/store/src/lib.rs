//! The disk of a node: keys and values, a queue of items, and content-addressed files, durable at the
//! price of few flash writes.
//!
//! ```text
//! commit(batch) ─▶ memtable (visible at once) ─┐ get, scan
//!       └──▶ buffer ──group──▶ journal segment (one fdatasync) ──▶ Commit::durable
//! checkpoint (memory big, journal long, interval): memtable ─▶ sled ─▶ flush ─▶ fdatasync ─▶ segments recycled
//! item finished before its group was written: neither record ever reaches the disk
//! ```
//!
//! Invariants:
//! - A batch is applied, and survives a power cut, as a whole or not at all.
//! - [`Commit::durable`] resolves only when the batch and all before it are on the disk, or when an item in
//!   it was finished and what that left behind is.
//! - The database never runs ahead of the journal, and a segment is recycled only after its keys are in the
//!   database and its live items in a younger segment.
//! - Item ids grow for ever; nothing here panics because of what is on the disk.
//!
//! Absent on purpose: transactions that read (one task owns its keys), values above 64 KiB (they are
//! [`Files`]), and any knowledge of what the bytes mean.

mod batch;
mod blobs;
mod buffer;
mod commit;
mod config;
mod database;
pub mod durable;
mod files;
mod generation;
mod journal;
pub mod limits;
mod memtable;
mod queue;
mod record;
mod recovery;
mod segment;
mod space;
mod state;
mod store;

pub use batch::{Batch, ItemId, Tree};
pub use blobs::{BlobError, BlobInfo, BlobWriter, Blobs, Container};
pub use commit::{Commit, CommitError, JournalLost};
pub use config::{Durability, StoreConfig};
pub use database::DatabaseError;
pub use files::{FileError, Files, FinishError, Partial};
pub use journal::JournalMode;
pub use recovery::{OpenError, Pending, Recovery};
pub use store::{CloseError, Pair, ReadError, Status, Store};
