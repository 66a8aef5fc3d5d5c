//! Block bytes of ten durable commits a second, for docs/decisions/0003. Each measurement takes a minute and
//! a process of its own: `cargo nextest run -p sedge-store --run-ignored only --test wear --no-capture`.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs::{self, File};
use std::thread;
use std::time::{Duration, Instant};

use sedge_store::{Batch, Durability, Store, StoreConfig, Tree};

const SECONDS: u32 = 60;
const PER_SECOND: u32 = 10;
const VALUE: [u8; 120] = [7; 120];

/// Does something ten times a second and prints what the kernel sent to the disk for this process.
fn measure(name: &str, mut commit: impl FnMut(u32)) {
    let begin = Instant::now();
    let before = block_bytes();
    for n in 0..SECONDS * PER_SECOND {
        let due = begin + Duration::from_secs(1) * n / PER_SECOND;
        thread::park_timeout(due.saturating_duration_since(Instant::now()));
        commit(n);
    }
    let bytes = block_bytes() - before;
    let day = bytes * 86_400 / u64::from(SECONDS);
    eprintln!("{name}: {bytes} bytes in {SECONDS} s, {} MB a day", day / 1_000_000);
}

fn block_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap();
    line.parse().unwrap()
}

fn store(durability: Durability, direct: bool) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let config = StoreConfig { direct, ..StoreConfig::default() };
    let (store, _) = Store::open(directory.path(), config).unwrap();
    let before = store.status().write_bytes;
    measure(&format!("journal, {durability:?}, {:?}", store.status().mode), |n| {
        let mut batch = Batch::new();
        batch.accept(store.next_item_id(), VALUE).set(Tree::Keyvalue, n.to_be_bytes(), VALUE);
        drop(store.commit(batch, durability).unwrap());
    });
    eprintln!("   of which the journal wrote {}", store.status().write_bytes - before);
    store.close().unwrap();
}

#[test]
#[ignore = "a measurement of a minute"]
fn grouped() {
    store(Durability::Grouped, true);
}

#[test]
#[ignore = "a measurement of a minute"]
fn each() {
    store(Durability::Each, true);
}

#[test]
#[ignore = "a measurement of a minute"]
fn grouped_through_the_page_cache() {
    store(Durability::Grouped, false);
}

#[test]
#[ignore = "a measurement of a minute"]
fn finished_within_the_group() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (store, _) = Store::open(directory.path(), StoreConfig::default()).unwrap();
    measure("journal, finished within the group", |_| {
        let id = store.next_item_id();
        let mut batch = Batch::new();
        batch.accept(id, VALUE);
        let accepted = store.commit(batch, Durability::Grouped).unwrap();
        let mut batch = Batch::new();
        batch.finish(id);
        drop(store.commit(batch, Durability::None).unwrap());
        accepted.durable_blocking().unwrap();
    });
}

#[test]
#[ignore = "a measurement of a minute"]
fn sled_alone() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let sled = sled::Config::new().path(directory.path()).flush_every_ms(Some(5_000)).open().unwrap();
    let file = File::open(directory.path().join("db")).unwrap();
    measure("sled alone: insert, flush, fdatasync", |n| {
        sled.insert([b"q", &n.to_be_bytes()[..]].concat(), VALUE.as_slice()).unwrap();
        sled.insert([b"k", &n.to_be_bytes()[..]].concat(), VALUE.as_slice()).unwrap();
        sled.flush().unwrap();
        file.sync_data().unwrap();
    });
}
