//! `kill -9` under load: what was acknowledged is there, what was finished is gone.
//!
//! The test starts its own binary again as the writer, reads what it acknowledges and kills it.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead as _, BufReader, Write as _, stdout};
use std::path::Path;
use std::process::{Command, Stdio};

use sedge_store::{Batch, Durability, Store, StoreConfig, Tree};

const DIRECTORY: &str = "SEDGE_STORE_KILL_TEST";
const ROUNDS: u64 = 12;

fn config() -> StoreConfig {
    StoreConfig { group_ms: 3, lazy_ms: 3, checkpoint_ms: 15, segment_bytes: 0, cache_bytes: Some(8 << 20), ..StoreConfig::default() }
}

/// Runs until it is killed: accepts, sets, and finishes every second item.
#[test]
#[ignore = "the writer of the test below"]
fn writer() {
    let Some(directory) = env::var_os(DIRECTORY) else {
        return;
    };
    let (store, _) = Store::open(Path::new(&directory), config()).unwrap();
    for n in 0_u64.. {
        let id = store.next_item_id();
        let mut batch = Batch::new();
        batch.accept(id, vec![7; 3_000]).set(Tree::Keyvalue, id.0.to_be_bytes(), vec![1; 100]);
        let durability = if n.is_multiple_of(3) { Durability::Each } else { Durability::Grouped };
        store.commit(batch, durability).unwrap().durable_blocking().unwrap();
        say("accepted", id.0);
        if n.is_multiple_of(2) {
            say("finishing", id.0);
            let mut batch = Batch::new();
            batch.finish(id).set(Tree::Usage, id.0.to_be_bytes(), "done");
            store.commit(batch, Durability::Grouped).unwrap().durable_blocking().unwrap();
            say("finished", id.0);
        }
    }
}

/// One whole line in one write, so that a kill cannot cut it short of its meaning.
fn say(what: &str, id: u64) {
    let line = format!("\n@{what} {id}\n");
    stdout().write_all(line.as_bytes()).unwrap();
    stdout().flush().unwrap();
}

#[derive(Debug, Default)]
struct Acknowledged {
    accepted: BTreeSet<u64>,
    finishing: BTreeSet<u64>,
    finished: BTreeSet<u64>,
}

impl Acknowledged {
    fn note(&mut self, line: &str) -> bool {
        let Some((what, id)) = line.strip_prefix('@').and_then(|line| line.split_once(' ')) else {
            return false;
        };
        let id = id.parse().unwrap();
        match what {
            "accepted" => self.accepted.insert(id),
            "finishing" => self.finishing.insert(id),
            "finished" => self.finished.insert(id),
            other => panic!("unknown word {other}"),
        }
    }

    fn check(&self, directory: &Path) {
        let (store, recovery) = Store::open(directory, config()).unwrap();
        assert!(recovery.set_aside.is_empty() && recovery.groups_lost == 0);
        let pending: BTreeSet<_> = recovery.pending.iter().map(|item| item.id.0).collect();
        let lost: Vec<_> = self.accepted.difference(&self.finishing).filter(|id| !pending.contains(id)).collect();
        assert!(lost.is_empty(), "lost {lost:?}");
        let risen: Vec<_> = self.finished.intersection(&pending).collect();
        assert!(risen.is_empty(), "finished, but back: {risen:?}");
        for id in &self.accepted {
            assert!(store.get(Tree::Keyvalue, &id.to_be_bytes()).unwrap().is_some());
        }
        for id in &self.finishing {
            let effect = store.get(Tree::Usage, &id.to_be_bytes()).unwrap().is_some();
            assert_eq!(effect, !pending.contains(id), "a batch is whole or absent");
        }
        assert!(store.next_item_id().0 > self.accepted.last().copied().unwrap_or(0));
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut all = Acknowledged::default();
    for round in 0..ROUNDS {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "writer", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut left = 10 + round * 37 % 120;
        while left > 0 {
            let line = lines.next().expect("the writer runs until it is killed").unwrap();
            left -= u64::from(all.note(&line));
        }
        child.kill().unwrap();
        for line in lines {
            all.note(&line.unwrap());
        }
        child.wait().unwrap();
        all.check(directory.path());
    }
    assert!(all.finished.len() > 20);
}
