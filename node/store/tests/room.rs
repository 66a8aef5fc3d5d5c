//! What functions keep takes its part of the database and no more, and gives it back.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use sedge_store::{Batch, CommitError, Durability, Store, StoreConfig, Tree};

const BOUND: u64 = 32 << 20;
/// More than any of these tests writes before it is refused.
const WRITES_MAX: u32 = 1_000_000;

fn open(directory: &Path) -> Store {
    let config = StoreConfig {
        cache_bytes: Some(8 << 20),
        database_bytes_max: Some(BOUND),
        memory_bytes_max: 1 << 20,
        free_bytes_min: Some(0),
        direct: false,
        ..StoreConfig::default()
    };
    Store::open(directory, config).unwrap().0
}

fn set(store: &Store, tree: Tree, key: &str, bytes: usize) -> Result<(), CommitError> {
    let mut batch = Batch::new();
    batch.set(tree, key, vec![7; bytes]);
    store.commit(batch, Durability::Grouped).map(drop)
}

fn name(number: u32) -> String {
    format!("function\0bucket\0{:08x}", number.wrapping_mul(0x9E37_79B1))
}

/// Writes until functions have no room, waiting where the disk does not keep up. Answers how many keys that were.
fn fill(store: &Store, bytes: usize) -> u32 {
    for number in 0..WRITES_MAX {
        loop {
            match set(store, Tree::Keyvalue, &name(number), bytes) {
                Ok(()) => break,
                Err(CommitError::Full { .. }) => thread::park_timeout(Duration::from_millis(2)),
                // The end only once nothing waits any more: until then the store is careful.
                Err(CommitError::FunctionsFull { .. }) if store.status().memory_bytes > 0 => {
                    store.checkpoint();
                    thread::park_timeout(Duration::from_millis(2));
                }
                Err(CommitError::FunctionsFull { bytes, bytes_max }) => {
                    assert!(bytes > bytes_max && [BOUND / 8 * 5, BOUND / 8 * 6].contains(&bytes_max));
                    return number;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    panic!("the store took everything")
}

fn remove(store: &Store, keys: impl Iterator<Item = u32>) {
    for number in keys {
        let mut batch = Batch::new();
        batch.delete(Tree::Keyvalue, name(number));
        while matches!(store.commit(batch.clone(), Durability::Grouped).map(drop), Err(CommitError::Full { .. })) {
            thread::park_timeout(Duration::from_millis(2));
        }
    }
}

fn until_there_is_room(store: &Store) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = set(store, Tree::Keyvalue, "new", 1000) {
        assert!(Instant::now() < deadline, "{error}: {:?}", store.status());
        thread::park_timeout(Duration::from_millis(2));
    }
}

fn the_node_keeps_its_own(store: &Store) {
    for tree in Tree::ALL.into_iter().filter(|tree| *tree != Tree::Keyvalue) {
        for number in 0..100 {
            set(store, tree, &number.to_string(), 1000).unwrap();
        }
    }
    assert!(store.status().database_bytes <= BOUND, "{:?}", store.status());
}

#[test]
fn functions_that_fill_the_database_leave_the_node_its_part() {
    for bytes in [0, 1000, 60_000] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        fill(&store, bytes);
        the_node_keeps_its_own(&store);
    }
}

#[test]
fn what_is_removed_is_room_again_without_a_restart() {
    for (bytes, share) in [(100, 1), (30_000, 1), (1000, 4)] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let written = fill(&store, bytes);
        remove(&store, (0..written).filter(|number| number % share == 0));
        store.checkpoint();
        until_there_is_room(&store);
        assert_eq!(store.get(Tree::Keyvalue, name(1).as_bytes()).unwrap().is_some(), share > 1);
    }
}

#[test]
fn values_that_are_written_over_and_over_take_no_more_room() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for round in 0..100_000_u32 {
        while let Err(error) = set(&store, Tree::Keyvalue, &name(round % 100), 1000) {
            let wait = matches!(error, CommitError::Full { .. } | CommitError::FunctionsFull { .. }) && store.status().memory_bytes > 0;
            assert!(wait, "round {round}: {error}, {:?}", store.status());
            thread::park_timeout(Duration::from_millis(2));
        }
    }
}
