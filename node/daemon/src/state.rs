//! All that is kept for one function: read, replaced, removed as a whole.
//!
//! Everything a function keeps lies in the trees of [`TREES`] under its name and a zero byte; a new kind of state is one more line there.

use crate::limits::{STATE_PAGE_KEYS, TRACE_KEYS_MAX, TRACE_STATE_BYTES_MAX};
use anyhow::Context as _;
use sedge_protocol::FunctionName;
use sedge_protocol::local::{Change, Kept, Payload, State};
use sedge_store::{Batch, Durability, Store, Tree};
use std::collections::BTreeMap;

/// Where functions keep state.
const TREES: [Tree; 1] = [Tree::Keyvalue];

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

/// The key-value stores of `function`; `None` when they hold more than a trace compares.
pub(crate) fn read(store: &Store, function: &FunctionName) -> anyhow::Result<Option<State>> {
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

/// How much is kept; events and dead letters are counted elsewhere.
pub(crate) fn measure(store: &Store, function: &FunctionName) -> anyhow::Result<Kept> {
    let mut kept = Kept::default();
    for tree in TREES {
        for_each(store, tree, function, |_, value| {
            kept.keys += 1;
            kept.bytes += value.len() as u64;
            Ok(true)
        })?;
    }
    Ok(kept)
}

/// Removes everything and answers how much it was.
pub(crate) fn clear(store: &Store, function: &FunctionName) -> anyhow::Result<Kept> {
    let kept = measure(store, function)?;
    for tree in TREES {
        loop {
            let page = store.scan(tree, &prefix(function), None, STATE_PAGE_KEYS).context("read the state")?;
            if page.is_empty() {
                break;
            }
            let mut batch = Batch::new();
            for (key, _) in page {
                batch.delete(tree, key);
            }
            drop(store.commit(batch, Durability::Grouped).context("remove the state")?);
        }
    }
    Ok(kept)
}

/// Makes the key-value stores of `function` equal to `state`.
pub(crate) fn replace(store: &Store, function: &FunctionName, state: &State) -> anyhow::Result<()> {
    clear(store, function)?;
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
    use sedge_store::StoreConfig;

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
        let (store, _) = Store::open(dir.path(), StoreConfig::default()).unwrap();
        let (one, other) = ("hello".parse().unwrap(), "hello-2".parse().unwrap());
        let wanted = state(&[("a", "x", "1"), ("a", "y", ""), ("b", "x", "3")]);
        replace(&store, &other, &wanted).unwrap();
        replace(&store, &one, &state(&[("a", "gone", "0")])).unwrap();
        replace(&store, &one, &wanted).unwrap();
        assert_eq!(read(&store, &one).unwrap().as_ref(), Some(&wanted));
        assert_eq!(clear(&store, &one).unwrap(), Kept { keys: 3, bytes: 2, ..Kept::default() });
        assert_eq!(read(&store, &one).unwrap(), Some(State::new()));
        assert_eq!(read(&store, &other).unwrap(), Some(wanted));
    }

    #[test]
    fn more_than_a_trace_compares_is_said_and_removed_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path(), StoreConfig::default()).unwrap();
        let function = "f".parse().unwrap();
        let keys: Vec<String> = (0..=TRACE_KEYS_MAX).map(|key| key.to_string()).collect();
        let pairs: Vec<(&str, &str, &str)> = keys.iter().map(|key| ("a", key.as_str(), "v")).collect();
        replace(&store, &function, &state(&pairs)).unwrap();
        assert_eq!(read(&store, &function).unwrap(), None);
        assert_eq!(clear(&store, &function).unwrap().keys, TRACE_KEYS_MAX as u64 + 1);
        assert_eq!(measure(&store, &function).unwrap(), Kept::default());
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
