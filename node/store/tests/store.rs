//! The store through its own door: reopening, damage, bounds, degradation.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use sedge_store::{Batch, CommitError, Durability, ItemId, JournalLost, OpenError, Store, StoreConfig, Tree};

fn open(directory: &Path) -> Store {
    Store::open(directory, config()).unwrap().0
}

fn config() -> StoreConfig {
    StoreConfig { cache_bytes: Some(8 << 20), ..StoreConfig::default() }
}

fn set(store: &Store, key: &str, value: &str) {
    let mut batch = Batch::new();
    batch.set(Tree::Keyvalue, key, value);
    store.commit(batch, Durability::Each).unwrap().durable_blocking().unwrap();
}

fn get(store: &Store, key: &str) -> Option<String> {
    let value = store.get(Tree::Keyvalue, key.as_bytes()).unwrap();
    value.map(|bytes| String::from_utf8(bytes).unwrap())
}

fn accept(store: &Store, bytes: &str) -> ItemId {
    let id = store.next_item_id();
    let mut batch = Batch::new();
    batch.accept(id, bytes);
    store.commit(batch, Durability::Each).unwrap().durable_blocking().unwrap();
    id
}

/// Waits for a condition; the bound only ends a test that would hang.
fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

#[test]
fn what_was_committed_is_there_after_a_close_and_after_a_drop() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    set(&store, "a", "1");
    store.close().unwrap();
    assert_eq!(store.status().memory_bytes, 0, "a close is a checkpoint");
    assert_eq!(get(&store, "a").as_deref(), Some("1"));
    let refused = store.commit(Batch::new(), Durability::None);
    assert_eq!(refused.unwrap_err(), CommitError::Closed);
    drop(store);

    let store = open(directory.path());
    let mut lazy = Batch::new();
    lazy.set(Tree::Keyvalue, "b", "2").delete(Tree::Keyvalue, "a");
    assert!(store.commit(lazy, Durability::None).unwrap().is_settled());
    drop(store);

    let store = open(directory.path());
    assert_eq!((get(&store, "a"), get(&store, "b").as_deref()), (None, Some("2")));
}

#[test]
fn items_come_back_in_order_with_their_attempts_and_ids_only_grow() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let ids: Vec<_> = (0..4).map(|n| accept(&store, &format!("event {n}"))).collect();
    let mut batch = Batch::new();
    batch.attempt(ids[2], 5).finish(ids[1]).finish(ids[1]).attempt(ids[1], 9);
    drop(store.commit(batch, Durability::None).unwrap());
    drop(store);

    for _ in 0..2 {
        let (store, recovery) = Store::open(directory.path(), config()).unwrap();
        let found: Vec<_> = recovery.pending.iter().map(|p| (p.id, p.attempts)).collect();
        assert_eq!(found, [(ids[0], 0), (ids[2], 5), (ids[3], 0)]);
        assert_eq!(recovery.pending[1].bytes, b"event 2");
        assert!(store.next_item_id() > ids[3]);
        assert_eq!(store.status().queue_items, 3);
    }
}

#[test]
fn a_scan_merges_memory_over_the_database() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for key in ["k1", "k2", "k3", "k4", "l"] {
        set(&store, key, "old");
    }
    store.checkpoint();
    until("a checkpoint", || store.status().checkpoints == 1);
    let mut batch = Batch::new();
    batch.set(Tree::Keyvalue, "k0", "new").set(Tree::Keyvalue, "k2", "new").delete(Tree::Keyvalue, "k3").set(Tree::Keyvalue, "k5", "new");
    drop(store.commit(batch, Durability::None).unwrap());

    let scan = |after: Option<&str>, limit| -> Vec<(String, String)> {
        let pairs = store.scan(Tree::Keyvalue, b"k", after.map(str::as_bytes), limit).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        pairs.into_iter().map(|(key, value)| (text(key), text(value))).collect()
    };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let all = [("k0", "new"), ("k1", "old"), ("k2", "new"), ("k4", "old"), ("k5", "new")];
    let all = all.map(|(key, value)| pair(key, value));
    assert_eq!(scan(None, 100), all);
    assert_eq!(scan(None, 2), all[..2]);
    assert_eq!(scan(Some("k2"), 100), all[3..]);
    assert_eq!(scan(Some("k2"), 1), all[3..4]);
    assert!(scan(Some("k9"), 100).is_empty() && scan(None, 0).is_empty());
}

#[test]
fn a_second_process_is_told_that_the_store_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let _store = open(directory.path());
    let second = Store::open(directory.path(), config());
    assert!(matches!(second, Err(OpenError::InUse { .. })));
}

#[test]
fn a_torn_snapshot_is_removed_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    set(&store, "a", "1");
    store.close().unwrap();
    drop(store);
    fs::write(directory.path().join("db-1/snap.0000000000001234.generating"), b"torn").unwrap();
    let (store, recovery) = Store::open(directory.path(), config()).unwrap();
    assert!(recovery.set_aside.is_empty());
    assert_eq!(get(&store, "a").as_deref(), Some("1"));
}

/// Damages a store that holds an item and a key; answers what was set aside.
fn damage(damage: impl Fn(&Path)) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    set(&store, "a", "1");
    store.close().unwrap();
    drop(store);
    damage(&path);
    let (store, recovery) = Store::open(&path, config()).unwrap();
    set(&store, "b", "2");
    drop(store);
    let (store, again) = Store::open(&path, config()).unwrap();
    assert!(again.set_aside.is_empty(), "it is set aside once");
    assert_eq!(get(&store, "b").as_deref(), Some("2"));
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    recovery.set_aside.iter().map(|path| name(path)).collect()
}

fn garbage(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_database_of_random_bytes_is_set_aside() {
    for seed in 1..6 {
        let aside = damage(|path| fs::write(path.join("db-1/db"), garbage(seed, 100_000)).unwrap());
        assert_eq!(aside, ["db-1.broken-1"], "also when sled takes it for an empty database");
    }
    let aside = damage(|path| fs::write(path.join("db-1/conf"), b"segment_size: what").unwrap());
    assert_eq!(aside, ["db-1.broken-1"]);
}

#[test]
fn garbage_in_place_of_a_directory_is_set_aside() {
    let aside = damage(|path| {
        fs::remove_dir_all(path.join("db-1")).unwrap();
        fs::write(path.join("db-1"), b"not a directory").unwrap();
    });
    assert_eq!(aside, ["db-1.broken-1"]);
    let aside = damage(|path| {
        fs::remove_dir_all(path.join("journal")).unwrap();
        fs::write(path.join("journal"), b"not a directory").unwrap();
    });
    assert_eq!(aside, ["journal.broken-1"]);
    let aside = damage(|path| {
        fs::remove_dir_all(path).unwrap();
        fs::write(path, b"not a directory").unwrap();
    });
    assert_eq!(aside, ["store.broken-1"]);
}

#[test]
fn a_damaged_database_does_not_cost_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    set(&store, "a", "1");
    let id = accept(&store, "event");
    drop(store);
    fs::write(directory.path().join("db-1/conf"), b"segment_size: what").unwrap();
    let (store, recovery) = Store::open(directory.path(), config()).unwrap();
    assert_eq!(recovery.set_aside.len(), 1);
    assert_eq!(get(&store, "a").as_deref(), Some("1"));
    assert_eq!(recovery.pending[0].id, id);
}

#[test]
fn only_the_newest_broken_directories_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..4 {
        drop(open(directory.path()));
        fs::write(directory.path().join("db-1/conf"), b"segment_size: what").unwrap();
    }
    drop(open(directory.path()));
    let names = fs::read_dir(directory.path()).unwrap();
    let mut broken: Vec<_> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|name| name.contains("broken")).collect();
    broken.sort();
    assert_eq!(broken, ["db-1.broken-3", "db-1.broken-4"]);
}

#[test]
fn segments_are_recycled_and_live_items_move_along() {
    let directory = tempfile::tempdir().unwrap();
    let config = StoreConfig { segment_bytes: 0, queue_bytes_max: 1 << 20, ..config() };
    let (store, _) = Store::open(directory.path(), config.clone()).unwrap();
    let id = accept(&store, "long lived");
    let journal = directory.path().join("journal");
    let first = fs::read_dir(&journal).unwrap().next().unwrap().unwrap().path();
    let mut round = 0_u32;
    while first.exists() {
        round += 1;
        assert!(round < 5_000, "the oldest segment must go");
        let mut batch = Batch::new();
        batch.set(Tree::Keyvalue, format!("key {}", round % 7), vec![1; 60_000]);
        let commit = store.commit(batch, Durability::Each);
        match commit {
            Ok(commit) => commit.durable_blocking().unwrap(),
            Err(CommitError::Full { .. }) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
    let files = fs::read_dir(&journal).unwrap().count();
    assert!(files <= 8, "{files} files");
    drop(store);
    let (store, recovery) = Store::open(directory.path(), config).unwrap();
    assert_eq!(recovery.pending.len(), 1);
    assert_eq!((recovery.pending[0].id, recovery.groups_lost), (id, 0));
    assert_eq!(store.get(Tree::Keyvalue, b"key 3").unwrap().unwrap().len(), 60_000);
}

#[test]
fn a_journal_that_cannot_grow_degrades_and_heals() {
    let directory = tempfile::tempdir().unwrap();
    let config = StoreConfig { segment_bytes: 0, ..config() };
    let (store, _) = Store::open(directory.path(), config.clone()).unwrap();
    let away = directory.path().join("away");
    fs::rename(directory.path().join("journal"), &away).unwrap();
    let mut acked = 0;
    let error = loop {
        let mut batch = Batch::new();
        batch.set(Tree::Usage, format!("{acked:04}"), vec![1; 60_000]);
        match store.commit(batch, Durability::Each).unwrap().durable_blocking() {
            Ok(()) => acked += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, JournalLost::Write { .. }));
    assert!(store.status().degraded.is_some() && acked > 20);
    let refused = store.commit(Batch::new(), Durability::Grouped);
    assert!(matches!(refused, Err(CommitError::Degraded { .. })));

    fs::rename(&away, directory.path().join("journal")).unwrap();
    until("the journal heals", || store.status().degraded.is_none());
    set(&store, "after", "all");
    drop(store);
    let (store, _) = Store::open(directory.path(), config).unwrap();
    let kept = store.scan(Tree::Usage, b"", None, 10_000).unwrap().len();
    assert!(kept == acked + 1, "{kept} of {acked}, and the one that was tried again");
    assert_eq!(get(&store, "after").as_deref(), Some("all"));
}

#[test]
fn a_full_disk_is_refused_before_it_happens() {
    let directory = tempfile::tempdir().unwrap();
    let full = StoreConfig { free_bytes_min: Some(u64::MAX), ..config() };
    let id = accept(&open(directory.path()), "event");
    let (store, recovery) = Store::open(directory.path(), full).unwrap();
    assert_eq!(recovery.pending.len(), 1);
    assert!(store.status().disk_full);
    let mut batch = Batch::new();
    batch.set(Tree::Keyvalue, "k", "v");
    let refused = store.commit(batch, Durability::Grouped);
    assert!(matches!(refused, Err(CommitError::DiskFull { .. })));
    let mut batch = Batch::new();
    batch.finish(id);
    store.commit(batch, Durability::Each).unwrap().durable_blocking().unwrap();
}

#[test]
fn quick_items_write_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(directory.path(), config()).unwrap();
    let before = store.status();
    for _ in 0..1000 {
        let id = store.next_item_id();
        let mut batch = Batch::new();
        batch.accept(id, "reading");
        let accepted = store.commit(batch, Durability::Grouped).unwrap();
        let mut batch = Batch::new();
        batch.finish(id);
        drop(store.commit(batch, Durability::None).unwrap());
        accepted.durable_blocking().unwrap();
    }
    let after = store.status();
    // A scheduler that stops this thread for a whole group may cost a write or two.
    assert!(after.groups - before.groups < 20, "{} groups", after.groups - before.groups);
}

#[test]
fn many_threads_share_groups_and_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let config = StoreConfig { group_ms: 5, checkpoint_ms: 20, ..config() };
    let (store, _) = Store::open(directory.path(), config).unwrap();
    thread::scope(|scope| {
        for writer in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..200 {
                    let mut batch = Batch::new();
                    batch.set(Tree::Keyvalue, format!("{writer}-{}", n % 10), format!("{n}"));
                    let commit = store.commit(batch, Durability::Grouped).unwrap();
                    let seen = get(store, &format!("{writer}-{}", n % 10)).unwrap();
                    assert_eq!(seen, format!("{n}"), "visible at once");
                    commit.durable_blocking().unwrap();
                }
            });
        }
    });
    let status = store.status();
    assert!(status.checkpoints > 0);
    drop(store);
    let store = open(directory.path());
    for writer in 0..4 {
        for last in 190..200 {
            assert_eq!(get(&store, &format!("{writer}-{}", last % 10)), Some(format!("{last}")));
        }
    }
}

#[test]
fn the_page_cache_is_used_where_direct_writes_are_not_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let config = StoreConfig { direct: false, ..config() };
    let (store, _) = Store::open(directory.path(), config).unwrap();
    assert_eq!(store.status().mode, sedge_store::JournalMode::Buffered);
    set(&store, "a", "1");
    drop(store);
    assert_eq!(get(&open(directory.path()), "a").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_commit_is_awaited_from_a_task() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut batch = Batch::new();
    batch.set(Tree::Assignment, "epoch", "7");
    let commit = store.commit(batch, Durability::Grouped).unwrap();
    assert!(!commit.is_settled());
    commit.durable().await.unwrap();
    assert!(store.status().write_bytes > 0);
}
