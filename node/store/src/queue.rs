//! Items that are accepted and not finished. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::batch::{ItemId, Record};

/// Fixed cost of an item, counted on top of its bytes.
const ITEM_BYTES: usize = 64;

/// Where the accept record of an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// Only in the buffer: if the item finishes now, the disk never hears of it.
    Buffer,
    /// In this segment, or perhaps in it after a failed write.
    Segment(u64),
}

#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) attempts: u32,
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) home: Home,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    items: BTreeMap<ItemId, Item>,
    bytes: usize,
}

impl Queue {
    /// Adds an item; false if the id is live already.
    pub(crate) fn insert(&mut self, id: ItemId, item: Item) -> bool {
        if self.items.contains_key(&id) {
            return false;
        }
        self.bytes += weight(item.bytes.len());
        self.items.insert(id, item);
        true
    }

    pub(crate) fn remove(&mut self, id: ItemId) -> Option<Item> {
        let item = self.items.remove(&id)?;
        self.bytes -= weight(item.bytes.len());
        Some(item)
    }

    pub(crate) fn item_mut(&mut self, id: ItemId) -> Option<&mut Item> {
        self.items.get_mut(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ItemId, &Item)> {
        self.items.iter().map(|(id, item)| (*id, item))
    }

    pub(crate) fn lives_in(&self, segment: u64) -> bool {
        self.items.values().any(|item| item.home == Home::Segment(segment))
    }

    /// Accept records of items that live in `segment`, at most about `bytes_max` but at least one.
    pub(crate) fn residents(&self, segment: u64, bytes_max: usize) -> Vec<(u64, Record)> {
        let mut size = 0;
        self.iter()
            .filter(|(_, item)| item.home == Home::Segment(segment))
            .map(|(id, item)| accept_record(id, item))
            .take_while(|record| {
                let first = size == 0;
                size += record.encoded_len();
                first || size <= bytes_max
            })
            .map(|record| (0, record))
            .collect()
    }

    /// The accept records of `records` are in `segment` now.
    pub(crate) fn settle(&mut self, records: &[(u64, Record)], segment: u64) {
        for (_, record) in records {
            if let Record::Accept { id, .. } = record
                && let Some(item) = self.items.get_mut(id)
            {
                item.home = Home::Segment(segment);
            }
        }
    }
}

/// The whole of an item in one record.
pub(crate) fn accept_record(id: ItemId, item: &Item) -> Record {
    Record::Accept { id, attempts: item.attempts, bytes: Arc::clone(&item.bytes) }
}

/// What an item of `length` bytes costs against the bound of the queue.
pub(crate) fn weight(length: usize) -> usize {
    ITEM_BYTES + length
}
