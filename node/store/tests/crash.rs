//! Crashes at any byte: the store after it is the store after some whole number of batches, and never fewer
//! than were acknowledged.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use sedge_store::{Batch, Durability, ItemId, JournalMode, Store, StoreConfig, Tree};

/// A change that a model can follow; items are numbered by how many were accepted before.
#[derive(Debug, Clone)]
enum Change {
    Set(u8, u16),
    Delete(u8),
    Accept(u16),
    Attempt(u8, u32),
    Finish(u8),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0..6_u8, any::<u16>()).prop_map(|(key, value)| Change::Set(key, value)),
        1 => (0..6_u8).prop_map(Change::Delete),
        2 => any::<u16>().prop_map(Change::Accept),
        1 => (any::<u8>(), 1..9_u32).prop_map(|(item, attempts)| Change::Attempt(item, attempts)),
        2 => any::<u8>().prop_map(Change::Finish),
    ]
}

/// What a reader sees: keys, and items with attempts and bytes in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    keys: BTreeMap<Vec<u8>, Vec<u8>>,
    items: BTreeMap<ItemId, (u32, Vec<u8>)>,
    accepted: Vec<ItemId>,
}

impl Model {
    fn apply(&mut self, store: &Store, changes: &[Change]) -> Batch {
        let mut batch = Batch::new();
        for change in changes {
            self.apply_one(store, change, &mut batch);
        }
        batch
    }

    fn apply_one(&mut self, store: &Store, change: &Change, batch: &mut Batch) {
        let pick = |item: u8| self.accepted.get(usize::from(item) % self.accepted.len().max(1)).copied();
        match *change {
            Change::Set(key, value) => {
                self.keys.insert(vec![key], value.to_be_bytes().to_vec());
                batch.set(Tree::Keyvalue, [key], value.to_be_bytes());
            }
            Change::Delete(key) => {
                self.keys.remove([key].as_slice());
                batch.delete(Tree::Keyvalue, [key]);
            }
            Change::Accept(bytes) => {
                let id = store.next_item_id();
                self.accepted.push(id);
                self.items.insert(id, (0, bytes.to_be_bytes().to_vec()));
                batch.accept(id, bytes.to_be_bytes());
            }
            Change::Attempt(item, attempts) => {
                let Some(id) = pick(item) else { return };
                if let Some(item) = self.items.get_mut(&id) {
                    item.0 = attempts;
                }
                batch.attempt(id, attempts);
            }
            Change::Finish(item) => {
                let Some(id) = pick(item) else { return };
                self.items.remove(&id);
                batch.finish(id);
            }
        }
    }

    fn read(directory: &Path) -> Self {
        let (store, recovery) = Store::open(directory, config()).unwrap();
        let pairs = store.scan(Tree::Keyvalue, b"", None, 1000).unwrap();
        let items = recovery.pending.into_iter().map(|p| (p.id, (p.attempts, p.bytes)));
        Self { keys: pairs.into_iter().collect(), items: items.collect(), accepted: Vec::new() }
    }

    fn looks_like(&self, other: &Self) -> bool {
        self.keys == other.keys && self.items == other.items
    }
}

fn config() -> StoreConfig {
    StoreConfig { segment_bytes: 0, cache_bytes: Some(8 << 20), ..StoreConfig::default() }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Cuts or garbles the only segment from `at` on.
fn crash(directory: &Path, at: usize, garble: bool) {
    let entry = fs::read_dir(directory.join("journal")).unwrap().next().unwrap().unwrap();
    let mut bytes = fs::read(entry.path()).unwrap();
    if garble {
        bytes[at..].iter_mut().take(64).for_each(|byte| *byte ^= 0x5a);
    } else {
        bytes.truncate(at);
    }
    fs::write(entry.path(), bytes).unwrap();
}

fn check(batches: &[Vec<Change>], at: f64, garble: bool) -> Result<(), TestCaseError> {
    let directory = tempfile::tempdir().unwrap();
    let live = directory.path().join("live");
    let (store, _) = Store::open(&live, config()).unwrap();
    let sector = if store.status().mode == JournalMode::Direct512 { 512 } else { 4096 };
    let opened = store.status().write_bytes;
    let mut model = Model::default();
    let mut states = vec![(0, model.clone())];
    for changes in batches {
        let batch = model.apply(&store, changes);
        store.commit(batch, Durability::Each).unwrap().durable_blocking().unwrap();
        let end = sector + usize::try_from(store.status().write_bytes - opened).unwrap();
        states.push((end, model.clone()));
    }
    let end = states.last().unwrap().0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a size")]
    #[expect(clippy::cast_precision_loss, reason = "sizes of a few sectors")]
    let at = (at * end as f64) as usize;
    let crashed = directory.path().join("crashed");
    copy(&live, &crashed);
    crash(&crashed, at, garble);

    let found = Model::read(&crashed);
    let acknowledged = states.iter().rposition(|(end, _)| *end <= at).unwrap_or(0);
    let is_state = states[acknowledged..].iter().any(|(_, state)| state.looks_like(&found));
    prop_assert!(is_state, "cut at {at} of {end}: {found:?}");
    prop_assert!(Model::read(&crashed).looks_like(&found), "opening again changes nothing");
    drop(store);
    prop_assert!(Model::read(&live).looks_like(&model), "without a crash all is there");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn every_acknowledged_batch_survives_a_crash_at_any_byte(
        batches in prop::collection::vec(prop::collection::vec(change(), 1..6), 1..12),
        at in 0.0..=1.0_f64,
        garble: bool,
    ) {
        check(&batches, at, garble)?;
    }
}
