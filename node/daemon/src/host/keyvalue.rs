//! Key-value stores of functions, and those that they share, each with a quota that holds exactly.
//!
//! Keys in the store: owner, 0, bucket, 0, key. The owner is a function, or empty for what is shared. Names cannot hold a zero
//! byte, so no function reads another's state. What an owner uses is written in the batch that changes it, so it is right after
//! a power cut too.

use crate::limits::{KV_PAGE_KEYS, KV_SUM_KEYS};
use sedge_protocol::FunctionName;
use sedge_runtime::{HostError, KeyPage, StoreRef, Swap};
use sedge_store::{Batch, CommitError, Durability, Store, Tree};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const USED_PREFIX: &[u8] = b"keyvalue-used/";

/// The stores of all functions. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Keyvalue {
    store: Store,
    shared_quota_bytes: u64,
    /// Bytes of keys and values of each owner that has written since the start.
    // Makes read-modify-write atomic: held for reads and a commit in memory, and while somebody else changes a whole owner.
    used: Arc<Mutex<BTreeMap<String, u64>>>,
}

type Used<'a> = MutexGuard<'a, BTreeMap<String, u64>>;
/// New values; `None` removes.
type Changes = Vec<(String, Option<Vec<u8>>)>;

impl Keyvalue {
    pub(crate) fn new(store: Store, shared_quota_bytes: u64) -> Self {
        Self { store, shared_quota_bytes, used: Arc::default() }
    }

    pub(crate) fn get(&self, store: StoreRef<'_>, key: &str) -> Result<Option<Vec<u8>>, HostError> {
        self.read(&full_key(store, key))
    }

    pub(crate) fn set(&self, store: StoreRef<'_>, pairs: Vec<(String, Vec<u8>)>) -> Result<(), HostError> {
        let changes = pairs.into_iter().map(|(key, value)| (key, Some(value))).collect();
        self.change(&mut self.lock(), store, changes)
    }

    pub(crate) fn delete(&self, store: StoreRef<'_>, keys: &[String]) -> Result<(), HostError> {
        let changes = keys.iter().map(|key| (key.clone(), None)).collect();
        self.change(&mut self.lock(), store, changes)
    }

    pub(crate) fn list(&self, store: StoreRef<'_>, cursor: Option<&str>) -> Result<KeyPage, HostError> {
        let prefix = full_key(store, "");
        let after = cursor.map(|key| full_key(store, key));
        let pairs = self
            .store
            .scan(Tree::Keyvalue, &prefix, after.as_deref(), KV_PAGE_KEYS + 1)
            .map_err(|error| HostError::Failed(error.to_string()))?;
        let more = pairs.len() > KV_PAGE_KEYS;
        let keys: Vec<String> =
            pairs.into_iter().take(KV_PAGE_KEYS).map(|(key, _)| String::from_utf8_lossy(&key[prefix.len()..]).into_owned()).collect();
        let cursor = if more { keys.last().cloned() } else { None };
        Ok(KeyPage { keys, cursor })
    }

    pub(crate) fn increment(&self, store: StoreRef<'_>, key: &str, delta: i64) -> Result<i64, HostError> {
        let mut used = self.lock();
        let present = match self.read(&full_key(store, key))? {
            None => 0,
            Some(bytes) => parse_number(&bytes)?,
        };
        let sum = present.checked_add(delta).ok_or_else(|| HostError::Failed("the sum does not fit".to_owned()))?;
        self.change(&mut used, store, vec![(key.to_owned(), Some(sum.to_string().into_bytes()))])?;
        Ok(sum)
    }

    pub(crate) fn swap(&self, store: StoreRef<'_>, key: &str, swap: Swap<'_>) -> Result<bool, HostError> {
        let mut used = self.lock();
        if self.read(&full_key(store, key))?.as_deref() != swap.expected {
            return Ok(false);
        }
        self.change(&mut used, store, vec![(key.to_owned(), Some(swap.value.to_vec()))])?;
        Ok(true)
    }

    /// Lets `work` change the stores of `function` in the store itself, past all quotas, while nobody else writes. What the function
    /// uses is summed up anew at its next write.
    pub(crate) fn rewrite<T>(&self, function: &FunctionName, work: impl FnOnce(&Store) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mut used = self.lock();
        // The counter goes first: a power cut leaves none rather than a wrong one.
        let mut batch = Batch::new();
        batch.delete(Tree::Meta, used_key(function.as_str()));
        drop(self.store.commit(batch, Durability::Grouped)?);
        used.remove(function.as_str());
        work(&self.store)
    }

    fn lock(&self) -> Used<'_> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, HostError> {
        self.store.get(Tree::Keyvalue, key).map_err(|error| HostError::Failed(error.to_string()))
    }

    /// Makes all changes or none; what shrinks an owner always goes through.
    fn change(&self, used: &mut Used<'_>, store: StoreRef<'_>, changes: Changes) -> Result<(), HostError> {
        let before = self.used_by(used, store)?;
        let (batch, after) = self.plan(store, changes, before)?;
        let quota = store.owner.map_or(self.shared_quota_bytes, |_| store.quota_bytes);
        if after > before && after > quota {
            let what = if store.owner.is_some() { "key-value stores of this function" } else { "shared key-value stores of this node" };
            let wanted = after - before;
            return Err(HostError::Full(format!("the {what} have a quota of {quota} bytes: {before} are used, {wanted} more were wanted")));
        }
        self.commit(batch)?;
        used.insert(owner_of(store).to_owned(), after);
        Ok(())
    }

    /// The batch of some changes, and what their owner uses after it.
    fn plan(&self, store: StoreRef<'_>, changes: Changes, before: u64) -> Result<(Batch, u64), HostError> {
        let mut batch = Batch::new();
        let mut after = before;
        // A key that comes twice replaces itself.
        let mut sizes: BTreeMap<String, Option<u64>> = BTreeMap::new();
        for (key, value) in changes {
            let full = full_key(store, &key);
            let old = match sizes.get(&key) {
                Some(size) => *size,
                None => self.read(&full)?.map(|value| size_of(&key, &value)),
            };
            let new = value.as_ref().map(|value| size_of(&key, value));
            after = after.saturating_sub(old.unwrap_or(0)) + new.unwrap_or(0);
            sizes.insert(key, new);
            match value {
                Some(value) => batch.set(Tree::Keyvalue, full, value),
                None => batch.delete(Tree::Keyvalue, full),
            };
        }
        if after != before {
            batch.set(Tree::Meta, used_key(owner_of(store)), after.to_be_bytes());
        }
        Ok((batch, after))
    }

    /// What an owner uses: from memory, from the store, or summed up when nobody has written it down yet.
    fn used_by(&self, used: &Used<'_>, store: StoreRef<'_>) -> Result<u64, HostError> {
        if let Some(bytes) = used.get(owner_of(store)) {
            return Ok(*bytes);
        }
        let failed = |error: sedge_store::ReadError| HostError::Failed(error.to_string());
        let kept = self.store.get(Tree::Meta, &used_key(owner_of(store))).map_err(failed)?;
        match kept.and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => Ok(u64::from_be_bytes(bytes)),
            None => self.sum(owner_of(store)).map_err(failed),
        }
    }

    fn sum(&self, owner: &str) -> Result<u64, sedge_store::ReadError> {
        let prefix = [owner.as_bytes(), b"\0"].concat();
        let (mut sum, mut after) = (0, None);
        loop {
            let pairs = self.store.scan(Tree::Keyvalue, &prefix, after.as_deref(), KV_SUM_KEYS)?;
            for (key, value) in &pairs {
                let of_bucket = key[prefix.len()..].iter().position(|byte| *byte == 0).map_or(0, |end| end + 1);
                sum += (key.len() - prefix.len() - of_bucket + value.len()) as u64;
            }
            after = pairs.last().map(|(key, _)| key.clone());
            if pairs.len() < KV_SUM_KEYS {
                return Ok(sum);
            }
        }
    }

    fn commit(&self, batch: Batch) -> Result<(), HostError> {
        if batch.is_empty() {
            return Ok(());
        }
        match self.store.commit(batch, Durability::Grouped) {
            Ok(commit) => {
                drop(commit);
                Ok(())
            }
            // The last is over in a moment: nothing is full, neither a quota nor the disk.
            Err(
                error @ (CommitError::KeyTooLong { .. }
                | CommitError::ValueTooLong { .. }
                | CommitError::BatchTooBig { .. }
                | CommitError::Full { .. }),
            ) => Err(HostError::Failed(error.to_string())),
            Err(error) => Err(HostError::Full(error.to_string())),
        }
    }
}

fn owner_of<'a>(store: StoreRef<'a>) -> &'a str {
    store.owner.map_or("", |function| function.as_str())
}

fn used_key(owner: &str) -> Vec<u8> {
    [USED_PREFIX, owner.as_bytes()].concat()
}

fn full_key(store: StoreRef<'_>, key: &str) -> Vec<u8> {
    [owner_of(store).as_bytes(), b"\0", store.bucket.as_bytes(), b"\0", key.as_bytes()].concat()
}

/// What a key and its value count.
fn size_of(key: &str, value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}

fn parse_number(bytes: &[u8]) -> Result<i64, HostError> {
    let text = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| HostError::Failed("the value is not a whole number".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_store::StoreConfig;
    use std::path::Path;

    fn open(dir: &Path) -> Keyvalue {
        let (store, _) = Store::open(dir, StoreConfig::default()).unwrap();
        Keyvalue::new(store, 20)
    }

    fn own<'a>(function: &'a FunctionName, bucket: &'a str) -> StoreRef<'a> {
        StoreRef { owner: Some(function), bucket, quota_bytes: 10 }
    }

    fn set(keyvalue: &Keyvalue, store: StoreRef<'_>, pairs: &[(&str, &str)]) -> Result<(), HostError> {
        keyvalue.set(store, pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect())
    }

    #[test]
    fn a_quota_is_exact_over_all_stores_of_a_function_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let f: FunctionName = "f".parse().unwrap();
        let keyvalue = open(dir.path());
        set(&keyvalue, own(&f, "a"), &[("k1", "123")]).unwrap();
        set(&keyvalue, own(&f, "b"), &[("k2", "123")]).unwrap();
        let fault = set(&keyvalue, own(&f, "b"), &[("k", "")]).unwrap_err().to_string();
        assert_eq!(fault, "full: the key-value stores of this function have a quota of 10 bytes: 10 are used, 1 more were wanted");
        set(&keyvalue, own(&f, "b"), &[("k2", "456")]).unwrap();
        assert!(keyvalue.increment(own(&f, "a"), "n", 1).is_err());
        let swap = Swap { expected: Some(b"123"), value: b"1234" };
        assert!(keyvalue.swap(own(&f, "a"), "k1", swap).is_err());
        keyvalue.store.close().unwrap();
        drop(keyvalue);
        let keyvalue = open(dir.path());
        assert!(set(&keyvalue, own(&f, "c"), &[("k", "")]).is_err());
        keyvalue.delete(own(&f, "a"), &["k1".to_owned(), "k1".to_owned(), "absent".to_owned()]).unwrap();
        set(&keyvalue, own(&f, "c"), &[("k3", "1"), ("k3", "123")]).unwrap();
        assert!(set(&keyvalue, own(&f, "c"), &[("k", "")]).is_err(), "a key that came twice counts once, as it is in the end");
        assert_eq!(keyvalue.get(own(&f, "c"), "k3").unwrap().unwrap(), b"123");
    }

    #[test]
    fn a_batch_that_does_not_fit_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let f: FunctionName = "f".parse().unwrap();
        let keyvalue = open(dir.path());
        assert!(set(&keyvalue, own(&f, "a"), &[("k1", "1"), ("k2", "1234567890")]).is_err());
        assert_eq!(keyvalue.get(own(&f, "a"), "k1").unwrap(), None);
        set(&keyvalue, own(&f, "a"), &[("k1", "12345678")]).unwrap();
    }

    #[test]
    fn shared_stores_are_one_for_all_and_have_the_quota_of_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let (f, g): (FunctionName, FunctionName) = ("f".parse().unwrap(), "g".parse().unwrap());
        let keyvalue = open(dir.path());
        let shared = StoreRef { owner: None, bucket: "plant", quota_bytes: 1 };
        set(&keyvalue, shared, &[("k", "v")]).unwrap();
        assert_eq!(keyvalue.get(own(&f, "plant"), "k").unwrap(), None, "a function's own store of that name is another");
        assert_eq!(keyvalue.get(own(&g, "plant"), "k").unwrap(), None);
        assert_eq!(keyvalue.list(shared, None).unwrap().keys, ["k"]);
        let fault = set(&keyvalue, shared, &[("l", "1234567890123456789")]).unwrap_err().to_string();
        assert!(fault.contains("shared key-value stores of this node have a quota of 20 bytes: 2 are used, 20 more"), "{fault}");
    }

    #[test]
    fn state_from_before_quotas_is_summed_up() {
        let dir = tempfile::tempdir().unwrap();
        let f: FunctionName = "f".parse().unwrap();
        let keyvalue = open(dir.path());
        let mut batch = Batch::new();
        batch.set(Tree::Keyvalue, full_key(own(&f, "a"), "old"), "12345");
        batch.set(Tree::Keyvalue, full_key(own(&"f2".parse().unwrap(), "a"), "other"), "12345");
        keyvalue.commit(batch).unwrap();
        let fault = set(&keyvalue, own(&f, "b"), &[("k", "12")]).unwrap_err().to_string();
        assert!(fault.contains("8 are used, 3 more"), "{fault}");
    }
}
