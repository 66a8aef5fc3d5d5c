//! All that is kept for one function: read, replaced, removed as a whole.
//!
//! What a function keeps in the store lies in the trees of [`TREES`] under its name and a zero byte, what it keeps as files among the
//! objects. Events, calls and dead letters are removed by those who keep them.

use crate::dumps::Dumps;
use crate::host::keyvalue::Keyvalue;
use crate::limits::{REMOVAL_PAUSE, REMOVAL_PAUSES_MAX, STATE_PAGE_KEYS, TRACE_KEYS_MAX, TRACE_STATE_BYTES_MAX};
use anyhow::Context as _;
use sedge_protocol::FunctionName;
use sedge_protocol::local::{Change, Kept, Payload, State};
use sedge_store::{Batch, Blobs, CommitError, Durability, Store, Tree};
use std::collections::BTreeMap;

/// Where functions keep state in the store.
const TREES: [Tree; 1] = [Tree::Keyvalue];

/// Where functions keep state. Everything here blocks. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) store: Store,
    pub(crate) keyvalue: Keyvalue,
    pub(crate) blobs: Blobs,
    pub(crate) dumps: Dumps,
}

/// The begin of every key of a function.
fn prefix(function: &FunctionName) -> Vec<u8> {
    [function.as_str().as_bytes(), b"\0"].concat()
}

/// Calls `each` with every key and value of `function` in `tree`, a page at a time, until it says false.
fn for_each(
    store: &Store,
    tree: Tree,
    function: &FunctionName,
    mut each: impl FnMut(&[u8], Vec<u8>) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let prefix = prefix(function);
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = store.scan(tree, &prefix, after.as_deref(), STATE_PAGE_KEYS).context("read the state")?;
        let last = page.len() < STATE_PAGE_KEYS;
        after = page.last().map(|(key, _)| key.clone());
        for (key, value) in page {
            if !each(&key, value)? {
                return Ok(());
            }
        }
        if last {
            return Ok(());
        }
    }
}

fn read(store: &Store, function: &FunctionName) -> anyhow::Result<Option<State>> {
    let (mut state, mut keys, mut bytes) = (State::new(), 0, 0);
    let start = prefix(function).len();
    for_each(store, Tree::Keyvalue, function, |key, value| {
        keys += 1;
        bytes += value.len();
        let mut parts = key[start..].splitn(2, |byte| *byte == 0);
        let mut part = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        let (name, key) = (part(), part());
        state.entry(name).or_default().insert(key, Payload::from(value.as_slice()));
        Ok(keys <= TRACE_KEYS_MAX && bytes <= TRACE_STATE_BYTES_MAX)
    })?;
    Ok((keys <= TRACE_KEYS_MAX && bytes <= TRACE_STATE_BYTES_MAX).then_some(state))
}

/// What became of each key between two moments.
pub(crate) fn compare(before: State, after: State) -> Vec<Change> {
    let flat = |state: State| -> BTreeMap<(String, String), Payload> {
        let pairs = state.into_iter().flat_map(|(name, pairs)| pairs.into_iter().map(move |(key, value)| ((name.clone(), key), value)));
        pairs.collect()
    };
    let (mut before, after) = (flat(before), flat(after));
    let mut changes = Vec::new();
    for ((store, key), value) in after {
        match before.remove(&(store.clone(), key.clone())) {
            Some(same) if same == value => {}
            old => changes.push(Change { store, key, before: old, after: Some(value) }),
        }
    }
    changes.extend(before.into_iter().map(|((store, key), value)| Change { store, key, before: Some(value), after: None }));
    changes.sort_by(|a, b| (&a.store, &a.key).cmp(&(&b.store, &b.key)));
    changes
}

impl Places {
    /// How much is kept; events, calls and dead letters are counted elsewhere.
    pub(crate) fn measure(&self, function: &FunctionName) -> anyhow::Result<Kept> {
        let blob_bytes = self.blobs.used(function.as_str()).context("read the objects")?;
        let core_dumps = self.dumps.of(function).context("read the core dumps")?.len() as u64;
        let mut kept = Kept { blob_bytes, core_dumps, ..Kept::default() };
        for tree in TREES {
            for_each(&self.store, tree, function, |_, value| {
                kept.keys += 1;
                kept.bytes += value.len() as u64;
                Ok(true)
            })?;
        }
        Ok(kept)
    }

    /// Removes everything and answers how much it was.
    pub(crate) fn clear(&self, function: &FunctionName) -> anyhow::Result<Kept> {
        let kept = self.measure(function)?;
        self.keyvalue.rewrite(function, |store| clear(store, function))?;
        // The room of what is gone is there with the next checkpoint, which may be minutes away.
        self.store.checkpoint();
        self.blobs.remove_owner(function.as_str()).context("remove the objects")?;
        self.dumps.remove(function).context("remove the core dumps")?;
        Ok(kept)
    }

    /// Makes the key-value stores of `function` equal to `state`.
    pub(crate) fn replace(&self, function: &FunctionName, state: &State) -> anyhow::Result<()> {
        self.keyvalue.rewrite(function, |store| {
            clear(store, function)?;
            write(store, function, state)
        })
    }

    /// The key-value stores of `function`; `None` when they hold more than a trace compares.
    pub(crate) fn read(&self, function: &FunctionName) -> anyhow::Result<Option<State>> {
        read(&self.store, function)
    }
}

fn clear(store: &Store, function: &FunctionName) -> anyhow::Result<()> {
    for tree in TREES {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = store.scan(tree, &prefix(function), after.as_deref(), STATE_PAGE_KEYS).context("read the state")?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            let mut batch = Batch::new();
            for (key, _) in page {
                batch.delete(tree, key);
            }
            remove(store, &batch).context("remove the state")?;
        }
    }
    Ok(())
}

/// Millions of keys are removed faster than the disk takes it: then the disk is waited for.
fn remove(store: &Store, batch: &Batch) -> Result<(), CommitError> {
    for _ in 0..REMOVAL_PAUSES_MAX {
        match store.commit(batch.clone(), Durability::Grouped) {
            Err(CommitError::Full { .. }) => std::thread::sleep(REMOVAL_PAUSE),
            other => return other.map(drop),
        }
    }
    store.commit(batch.clone(), Durability::Grouped).map(drop)
}

fn write(store: &Store, function: &FunctionName, state: &State) -> anyhow::Result<()> {
    for (name, pairs) in state {
        for (key, value) in pairs {
            let value = value.decode().map_err(|broken| anyhow::anyhow!("the value of `{key}` in the store `{name}`: {broken}"))?;
            let mut batch = Batch::new();
            batch.set(Tree::Keyvalue, [&prefix(function), name.as_bytes(), b"\0", key.as_bytes()].concat(), value.into_owned());
            let commit = store.commit(batch, Durability::Grouped);
            drop(commit.with_context(|| format!("write `{key}` of the store `{name}`"))?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_runtime::StoreRef;
    use sedge_store::{BlobWriter, StoreConfig};
    use std::path::Path;

    fn places(dir: &Path) -> Places {
        let (store, _) = Store::open(&dir.join("store"), StoreConfig::default()).unwrap();
        let keyvalue = Keyvalue::new(store.clone(), 0);
        Places { store, keyvalue, blobs: Blobs::open(&dir.join("blobs"), None).unwrap(), dumps: Dumps::new(dir.join("core-dumps")) }
    }

    fn state(pairs: &[(&str, &str, &str)]) -> State {
        let mut state = State::new();
        for (name, key, value) in pairs {
            state.entry((*name).to_owned()).or_default().insert((*key).to_owned(), Payload::Text((*value).to_owned()));
        }
        state
    }

    #[test]
    fn state_is_replaced_read_and_removed_and_that_of_others_stays() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let (one, other) = ("hello".parse().unwrap(), "hello-2".parse().unwrap());
        let wanted = state(&[("a", "x", "1"), ("a", "y", ""), ("b", "x", "3")]);
        places.replace(&other, &wanted).unwrap();
        places.replace(&one, &state(&[("a", "gone", "0")])).unwrap();
        places.replace(&one, &wanted).unwrap();
        assert_eq!(places.read(&one).unwrap().as_ref(), Some(&wanted));
        assert_eq!(places.clear(&one).unwrap(), Kept { keys: 3, bytes: 2, ..Kept::default() });
        assert_eq!(places.read(&one).unwrap(), Some(State::new()));
        assert_eq!(places.read(&other).unwrap(), Some(wanted));
    }

    #[test]
    fn objects_and_what_quotas_have_counted_go_too() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let (one, other) = ("hello".parse().unwrap(), "hello-2".parse().unwrap());
        for function in [&one, &other] {
            let mut object = BlobWriter::begin(&places.blobs, FunctionName::as_str(function), u64::MAX).unwrap();
            object.write(b"picture").unwrap();
            object.finish(&places.blobs.container(function.as_str(), "images"), "a").unwrap();
            let own = StoreRef { owner: Some(function), bucket: "a", quota_bytes: 10 };
            places.keyvalue.set(own, vec![("k".to_owned(), b"123456789".to_vec())]).unwrap();
        }
        let before = places.measure(&other).unwrap();
        assert!(before.blob_bytes > 7 && before.bytes == 9, "{before:?}");
        assert_eq!(places.clear(&one).unwrap(), before);
        assert_eq!(places.measure(&one).unwrap(), Kept::default());
        assert_eq!(places.measure(&other).unwrap(), before, "that of others stays");
        let own = |function| StoreRef { owner: Some(function), bucket: "a", quota_bytes: 10 };
        assert!(places.keyvalue.set(own(&other), vec![("l".to_owned(), b"1".to_vec())]).is_err());
        places.keyvalue.set(own(&one), vec![("l".to_owned(), b"123456789".to_vec())]).unwrap();
        places.replace(&one, &state(&[("a", "k", "1234")])).unwrap();
        assert!(places.keyvalue.set(own(&one), vec![("l".to_owned(), b"12345".to_vec())]).is_err(), "what was given counts");
    }

    #[test]
    fn more_than_a_trace_compares_is_said_and_removed_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let function = "f".parse().unwrap();
        let keys: Vec<String> = (0..=TRACE_KEYS_MAX).map(|key| key.to_string()).collect();
        let pairs: Vec<(&str, &str, &str)> = keys.iter().map(|key| ("a", key.as_str(), "v")).collect();
        places.replace(&function, &state(&pairs)).unwrap();
        assert_eq!(places.read(&function).unwrap(), None);
        assert_eq!(places.clear(&function).unwrap().keys, TRACE_KEYS_MAX as u64 + 1);
        assert_eq!(places.measure(&function).unwrap(), Kept::default());
    }

    #[test]
    fn what_changed_is_told_key_by_key() {
        let before = state(&[("a", "same", "1"), ("a", "changed", "1"), ("a", "removed", "1")]);
        let after = state(&[("a", "same", "1"), ("a", "changed", "2"), ("b", "new", "1")]);
        let changes = compare(before, after);
        let keys: Vec<(&str, bool, bool)> = changes.iter().map(|c| (c.key.as_str(), c.before.is_some(), c.after.is_some())).collect();
        assert_eq!(keys, [("changed", true, true), ("removed", true, false), ("new", false, true)]);
    }
}
