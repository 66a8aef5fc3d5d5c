//! What is refused, and why: decided for a whole batch before any of it is applied.

use std::sync::Arc;

use super::{Closing, Health, Room, State};
use crate::batch::{Batch, Record, Tree};
use crate::commit::CommitError;
use crate::config::Durability;
use crate::limits::{BATCH_RECORDS_MAX, ITEM_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX, WAITING_FACTOR};
use crate::{buffer, queue};

impl State {
    /// Whether all of `batch` may be applied now.
    pub(super) fn admit(&self, batch: &Batch, durability: Durability) -> Result<(), CommitError> {
        if self.closing != Closing::No {
            return Err(CommitError::Closed);
        }
        if let Health::Degraded { reason, .. } = &self.health
            && durability != Durability::None
        {
            return Err(CommitError::Degraded { reason: Arc::clone(reason) });
        }
        let bytes: usize = batch.records.iter().map(buffer::weight).sum();
        let bytes_max = self.config.buffer_bytes_max();
        if bytes > bytes_max || batch.len() > BATCH_RECORDS_MAX {
            return Err(CommitError::BatchTooBig { records: batch.len(), bytes });
        }
        let grows = |record: &Record| matches!(record, Record::Set { tree: Tree::Keyvalue, .. });
        if let Some(full) = self.functions_full().filter(|_| batch.records.iter().any(grows)) {
            return Err(full);
        }
        for record in &batch.records {
            self.admit_record(record)?;
        }
        if self.buffer.bytes() + bytes > bytes_max {
            return Err(CommitError::Full { waiting: self.buffer.bytes() });
        }
        if self.memory.bytes() + bytes > self.config.memory_bytes_max.saturating_mul(2) {
            return Err(CommitError::Full { waiting: self.memory_bytes() });
        }
        self.admit_items(batch)
    }

    fn admit_record(&self, record: &Record) -> Result<(), CommitError> {
        match record {
            Record::Set { tree, key, .. } | Record::Delete { tree, key } if key.len() > KEY_BYTES_MAX => {
                Err(CommitError::KeyTooLong { tree: *tree, bytes: key.len() })
            }
            Record::Set { tree, value, .. } if value.len() > VALUE_BYTES_MAX => {
                Err(CommitError::ValueTooLong { tree: *tree, bytes: value.len() })
            }
            Record::Accept { bytes, .. } if bytes.len() > ITEM_BYTES_MAX => Err(CommitError::ItemTooLong { bytes: bytes.len() }),
            // What the node is told, what it has to account for, and how calls ended are small and bounded: they may use half of
            // the space that is kept, and pass the bound of the database.
            Record::Set { tree: Tree::Assignment | Tree::Usage | Tree::Invocation, .. } if self.room.free >= self.room.free_min / 2 => {
                Ok(())
            }
            Record::Set { .. } if self.room.database > self.room.database_max => {
                let Room { database: bytes, database_max: bytes_max, .. } = self.room;
                Err(CommitError::DatabaseFull { bytes, bytes_max })
            }
            Record::Set { .. } | Record::Accept { .. } if self.room.free < self.room.free_min => {
                Err(CommitError::DiskFull { free: self.room.free, needed: self.room.free_min })
            }
            Record::Set { .. } | Record::Delete { .. } | Record::Accept { .. } | Record::Attempt { .. } | Record::Finish { .. } => Ok(()),
        }
    }

    /// Counts what waits too: a checkpoint takes its time, and functions write on meanwhile.
    fn functions_full(&self) -> Option<CommitError> {
        let waiting = (self.memory_bytes() as u64).saturating_mul(WAITING_FACTOR);
        let room = &self.room;
        let bounds = [(room.database_used, room.functions_max()), (room.database, room.garbage_max())];
        let mut passed = bounds.into_iter().map(|(bytes, max)| (bytes.saturating_add(waiting), max)).filter(|(bytes, max)| bytes > max);
        passed.next().map(|(bytes, bytes_max)| CommitError::FunctionsFull { bytes, bytes_max })
    }

    fn admit_items(&self, batch: &Batch) -> Result<(), CommitError> {
        let mut items = self.queue.len();
        let mut bytes = self.queue.bytes();
        let before = items;
        for record in &batch.records {
            if let Record::Accept { bytes: item, .. } = record {
                items += 1;
                bytes += queue::weight(item.len());
            }
        }
        let full = items > self.config.queue_items_max || bytes > self.config.queue_bytes_max;
        if full && items > before {
            return Err(CommitError::QueueFull { items: before, bytes: self.queue.bytes() });
        }
        Ok(())
    }
}
