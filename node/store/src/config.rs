//! What an operator may tune.

use crate::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};

/// When a commit becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// With the next group, at most [`StoreConfig::group_ms`] later.
    #[default]
    Grouped,
    /// At once: a write of its own, shared only with what waits already.
    Each,
    /// Whenever a group is written next, at most [`StoreConfig::lazy_ms`] later. Nobody waits for it.
    None,
}

/// Sizes and times of a store. All sizes in bytes, all times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// How long the first waiting commit may wait for others.
    pub group_ms: u64,
    /// How long a commit without durability may stay in memory only.
    pub lazy_ms: u64,
    /// How often changed keys move from memory and journal into the database.
    pub checkpoint_ms: u64,
    /// Changed keys held in memory before a checkpoint starts; commits are refused at twice this.
    pub memory_bytes_max: usize,
    /// Size of one journal segment, clamped to the bounds of [`crate::limits`].
    pub segment_bytes: u64,
    /// Bytes of the items that are accepted and not finished.
    pub queue_bytes_max: usize,
    /// Number of the items that are accepted and not finished.
    pub queue_items_max: usize,
    /// Free space that is never used. `None`: 64 MiB or 5 % of the partition, whichever is less.
    pub free_bytes_min: Option<u64>,
    /// Page cache of the database. `None`: 1/64 of the memory, between 8 MiB and 64 MiB.
    pub cache_bytes: Option<u64>,
    /// Largest database file. `None`: 10 % of the partition, at most 256 MiB.
    pub database_bytes_max: Option<u64>,
    /// Try `O_DIRECT` for the journal. Off, every group goes through the page cache.
    pub direct: bool,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            group_ms: 250,
            lazy_ms: 5_000,
            checkpoint_ms: 600_000,
            memory_bytes_max: 4 * 1024 * 1024,
            segment_bytes: 4 * 1024 * 1024,
            queue_bytes_max: 8 * 1024 * 1024,
            queue_items_max: 20_000,
            free_bytes_min: None,
            cache_bytes: None,
            database_bytes_max: None,
            direct: true,
        }
    }
}

impl StoreConfig {
    /// Size of a segment: clamped, and a multiple of the biggest sector.
    pub(crate) fn segment_bytes(&self) -> u64 {
        let clamped = self.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        clamped - clamped % 4096
    }

    /// Bytes that may wait for the next group. Two such buffers and their padding fit in one segment.
    pub(crate) fn buffer_bytes_max(&self) -> usize {
        usize::try_from(self.segment_bytes() / 4).unwrap_or(usize::MAX).min(1024 * 1024)
    }

    /// Sealed segments at which the oldest is emptied by force. Twice the queue, so that moving live
    /// items writes each of them at most about once more.
    pub(crate) fn sealed_segments_max(&self) -> usize {
        let queue = u64::try_from(self.queue_bytes_max).unwrap_or(u64::MAX).saturating_mul(2);
        usize::try_from(queue.div_ceil(self.segment_bytes())).unwrap_or(usize::MAX).saturating_add(2)
    }
}
