//! What failed every attempt, of events and of asynchronous calls: kept, listed, read, replayed, removed.
//!
//! Invariant: a letter comes and goes in one batch with what it stands for, so nothing is in line and among the letters at once.

use crate::bus::BusStats;
use crate::limits::{DEAD_LETTER_BYTES_MAX, DEAD_LETTERS_MAX, RECORDS_PAGE};
use crate::{chunks, clock, fault::clip};
use sedge_protocol::FunctionName;
use sedge_protocol::local::{DeadLetter, DeadLetterHead, Letter};
use sedge_store::{Batch, Commit, CommitError, Durability, ReadError, Store, Tree};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The dead letters of the node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetters(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    stats: Arc<BusStats>,
    /// A leaf lock, held for memory operations and a commit in memory: the bus, the calls and the local API write here.
    index: Mutex<Index>,
}

/// Why something does not take the place of a letter.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// Somebody was faster.
    #[error("there is no dead letter {id} any more")]
    Gone {
        /// Its number.
        id: u64,
    },
    /// The store does not take it.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Which letters there are, and how large each is.
#[derive(Debug, Default)]
struct Index {
    sizes: BTreeMap<u64, usize>,
    bytes: u64,
}

impl DeadLetters {
    /// What the store has kept.
    pub(crate) fn open(store: Store, stats: Arc<BusStats>) -> Result<Self, ReadError> {
        let mut index = Index::default();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = store.scan(Tree::DeadLetter, b"", after.as_deref(), RECORDS_PAGE)?;
            for (key, bytes) in &page {
                if let Some(number) = chunks::number(key) {
                    *index.sizes.entry(number).or_default() += bytes.len();
                    index.bytes += bytes.len() as u64;
                }
            }
            match page.into_iter().next_back() {
                Some((key, _)) => after = Some(key),
                None => break,
            }
        }
        stats.dead_letters.store(index.sizes.len() as u64, Ordering::Relaxed);
        Ok(Self(Arc::new(Inner { store, stats, index: Mutex::new(index) })))
    }

    /// Keeps a letter in the batch that takes what it stands for out of line. What has no room any more goes, oldest first.
    pub(crate) fn bury(&self, mut batch: Batch, letter: &DeadLetter) -> Result<Commit, CommitError> {
        let mut bytes = Vec::new();
        ciborium::into_writer(letter, &mut bytes).expect("writing to memory does not fail");
        chunks::set(&mut batch, Tree::DeadLetter, letter.id, &bytes);
        let mut index = self.index();
        let dropped = index.crowded_out(bytes.len() as u64);
        for (id, size) in &dropped {
            chunks::delete(&mut batch, Tree::DeadLetter, *id, *size);
        }
        let commit = self.0.store.commit(batch, Durability::Grouped)?;
        index.insert(letter.id, bytes.len());
        for (id, _) in &dropped {
            index.remove(*id);
        }
        if !dropped.is_empty() {
            log::warn!(dropped = dropped.len(); "the oldest dead letters are dropped for a newer one");
            self.0.stats.dropped.fetch_add(dropped.len() as u64, Ordering::Relaxed);
        }
        self.count(&index);
        Ok(commit)
    }

    /// Removes a letter in the same batch as what takes its place. A second time, when it is gone, nothing happens.
    pub(crate) fn exchange(&self, batch: Batch, id: u64) -> Result<Commit, ExchangeError> {
        let mut index = self.index();
        if !index.sizes.contains_key(&id) {
            return Err(ExchangeError::Gone { id });
        }
        Ok(self.remove_from(&mut index, batch, &[id])?)
    }

    /// Removes letters.
    pub(crate) fn remove(&self, ids: &[u64]) -> Result<Commit, CommitError> {
        self.remove_from(&mut self.index(), Batch::new(), ids)
    }

    fn remove_from(&self, index: &mut Index, mut batch: Batch, ids: &[u64]) -> Result<Commit, CommitError> {
        for id in ids {
            if let Some(size) = index.sizes.get(id) {
                chunks::delete(&mut batch, Tree::DeadLetter, *id, *size);
            }
        }
        let commit = self.0.store.commit(batch, Durability::Grouped)?;
        for id in ids {
            index.remove(*id);
        }
        self.count(index);
        Ok(commit)
    }

    /// Whether this letter is here.
    pub(crate) fn contains(&self, id: u64) -> bool {
        self.index().sizes.contains_key(&id)
    }

    /// One letter. May read the disk.
    pub(crate) fn read(&self, id: u64) -> Result<Option<DeadLetter>, ReadError> {
        let bytes = chunks::get(&self.0.store, Tree::DeadLetter, id)?;
        Ok(bytes.and_then(|bytes| {
            let letter = ciborium::from_reader(bytes.as_slice());
            letter.map_err(|cause| log::error!(letter = id, cause:% = cause; "a dead letter cannot be read")).ok()
        }))
    }

    /// All letters, or those of one function, without their payloads, oldest first. Reads the disk.
    pub(crate) fn heads(&self, function: Option<&FunctionName>) -> Result<Vec<DeadLetterHead>, ReadError> {
        let ids: Vec<u64> = self.index().sizes.keys().copied().collect();
        let mut heads = Vec::new();
        for id in ids {
            let letter = self.read(id)?.filter(|letter| function.is_none_or(|name| letter.function == *name));
            heads.extend(letter.map(|letter| letter.head()));
        }
        Ok(heads)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.0.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, index: &Index) {
        self.0.stats.dead_letters.store(index.sizes.len() as u64, Ordering::Relaxed);
    }
}

impl Index {
    fn insert(&mut self, id: u64, size: usize) {
        self.remove(id);
        self.sizes.insert(id, size);
        self.bytes += size as u64;
    }

    fn remove(&mut self, id: u64) {
        if let Some(size) = self.sizes.remove(&id) {
            self.bytes -= size as u64;
        }
    }

    /// The oldest letters that have to go before one of so many bytes comes.
    fn crowded_out(&self, bytes: u64) -> Vec<(u64, usize)> {
        let (mut count, mut sum, mut gone) = (self.sizes.len() + 1, self.bytes + bytes, Vec::new());
        for (id, size) in &self.sizes {
            if count <= DEAD_LETTERS_MAX && sum <= DEAD_LETTER_BYTES_MAX {
                break;
            }
            count -= 1;
            sum -= *size as u64;
            gone.push((*id, *size));
        }
        gone
    }
}

/// A letter that is written now.
pub(crate) fn letter(id: u64, function: &FunctionName, attempts: u32, reason: &str, letter: Letter) -> DeadLetter {
    DeadLetter { id, function: function.clone(), attempts, reason: clip(reason), time_ms: clock::wall().0, letter }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::Event;
    use sedge_store::StoreConfig;

    fn dead(id: u64, bytes: usize) -> DeadLetter {
        let event = Event {
            id: id.to_string(),
            source: "/s".to_owned(),
            kind: "t".to_owned(),
            time_ms: None,
            topic: "a".parse().unwrap(),
            content_type: None,
            extensions: BTreeMap::new(),
            data: vec![7; bytes],
        };
        letter(id, &"f".parse().unwrap(), 5, "trap", Letter::Event(event))
    }

    fn open(directory: &std::path::Path) -> DeadLetters {
        let (store, _) = Store::open(directory, StoreConfig::default()).unwrap();
        DeadLetters::open(store, Arc::default()).unwrap()
    }

    #[test]
    fn large_letters_are_kept_and_the_oldest_go_first_by_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let letters = open(directory.path());
        let large = 250 * 1024;
        let fit = usize::try_from(DEAD_LETTER_BYTES_MAX).unwrap() / (large + 200);
        for id in 0..=fit as u64 {
            while letters.bury(Batch::new(), &dead(id, large)).is_err() {
                letters.0.store.checkpoint();
                std::thread::yield_now();
            }
        }
        assert!(!letters.contains(0) && letters.contains(1));
        assert_eq!(letters.0.stats.dropped.load(Ordering::Relaxed), 1);
        let newest = letters.read(fit as u64).unwrap().unwrap();
        assert_eq!(newest.letter.payload().len(), large);
        drop(letters);
        let letters = open(directory.path());
        assert_eq!(letters.heads(None).unwrap().len(), fit);
        drop(letters.remove(&[1, 2]).unwrap());
        assert!(matches!(letters.exchange(Batch::new(), 2), Err(ExchangeError::Gone { id: 2 })));
        assert_eq!((letters.contains(2), letters.read(2).unwrap()), (false, None));
        assert_eq!(letters.heads(Some(&"g".parse().unwrap())).unwrap(), []);
    }
}
