//! The node's usage ledger: folds invocations into windows, numbers them, and knows what the fleet has.
//!
//! ```text
//! add ─▶ record of the window (open) ─ take_changes ─▶ disk ─ handle_persisted ─▶ next_batch ─▶ fleet ─ handle_applied ─▶ gone
//! ```
//! A record may grow in place until it was sent; from then on the window goes on in a new record that carries the sum so far.
//! So a node that is alone for weeks keeps one record an hour and function, and one that is connected sends small ones often.
//!
//! A fleet may not be able to go on with a ledger: the node has enrolled anew, or the fleet was restored from an older copy. Then the
//! ledger begins anew under another epoch with what no fleet has yet (`begin_anew`). For that, the newest applied record of a window
//! stays until a newer one is applied: it is what the open sum is reduced by.
//!
//! Invariants: numbers have no gaps; what is sent was persisted before, so that after a power cut no number means two things;
//! the sum of a window never shrinks and never passes what ran; all epochs of a window together never pass what ran.

use sedge_protocol::limits::USAGE_BATCH_MAX;
use sedge_protocol::message::UsageBatch;
use sedge_protocol::usage::{Counters, LedgerEpoch, UsageRecord, WINDOW_MS, Window};
use std::collections::{BTreeMap, BTreeSet};

/// What is to be written to disk, all of it or nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct Changes {
    /// The ledger that the numbers belong to.
    pub epoch: LedgerEpoch,
    /// Highest number that the fleet has.
    pub applied: u64,
    /// Whether the disk does not know that number yet: another fleet must not be told again what this one has.
    pub applied_is_news: bool,
    /// Records to write under their numbers.
    pub put: Vec<UsageRecord>,
    /// Numbers to delete.
    pub delete: Vec<u64>,
}

impl Changes {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.delete.is_empty() && !self.applied_is_news
    }
}

/// The ledger of one node and one store.
#[derive(Debug)]
pub struct Ledger {
    epoch: LedgerEpoch,
    records: BTreeMap<u64, UsageRecord>,
    newest: BTreeMap<Window, u64>,
    dirty: BTreeSet<u64>,
    doomed: Vec<u64>,
    next_seq: u64,
    persisted: u64,
    sent: u64,
    applied: u64,
    /// The number that the disk knows as applied.
    applied_kept: u64,
}

impl Ledger {
    /// A ledger that goes on from the records of the disk. An empty disk begins one.
    ///
    /// Everything on disk may have been sent, so none of it grows any more.
    #[must_use]
    pub fn restore(epoch: LedgerEpoch, applied: u64, records: Vec<UsageRecord>) -> Self {
        let last = records.iter().map(|record| record.seq).max().unwrap_or(0).max(applied);
        let mut newest = BTreeMap::new();
        for record in &records {
            let seq = newest.entry(record.window.clone()).or_insert(record.seq);
            *seq = record.seq.max(*seq);
        }
        Self {
            epoch,
            records: records.into_iter().map(|record| (record.seq, record)).collect(),
            newest,
            dirty: BTreeSet::new(),
            doomed: Vec::new(),
            next_seq: last + 1,
            persisted: last,
            sent: last,
            applied,
            applied_kept: applied,
        }
    }

    /// Counts one or more invocations in the window of this hour.
    pub fn add(&mut self, mut window: Window, delta: &Counters) {
        window.start_ms -= window.start_ms % WINDOW_MS;
        let seq = match self.newest.get(&window) {
            Some(seq) if *seq > self.sent => *seq,
            before => {
                let counters = before.and_then(|seq| self.records.get(seq)).map(|record| record.counters).unwrap_or_default();
                let seq = self.next_seq;
                self.next_seq += 1;
                self.records.insert(seq, UsageRecord { seq, window: window.clone(), counters });
                self.newest.insert(window, seq);
                seq
            }
        };
        if let Some(record) = self.records.get_mut(&seq) {
            record.counters.add(delta);
            self.dirty.insert(seq);
        }
    }

    /// What has changed since the last call. `hour_ms` is the begin of the present hour: windows before it are closed.
    pub fn take_changes(&mut self, hour_ms: u64) -> Changes {
        self.prune(hour_ms - hour_ms % WINDOW_MS);
        let dirty = std::mem::take(&mut self.dirty);
        let mut delete = std::mem::take(&mut self.doomed);
        // A ledger that has begun anew uses the numbers of the one before.
        delete.retain(|seq| !self.records.contains_key(seq));
        let put = dirty.iter().filter_map(|seq| self.records.get(seq).cloned()).collect();
        Changes { epoch: self.epoch, applied: self.applied, applied_is_news: self.applied != self.applied_kept, put, delete }
    }

    /// The changes of the last call are durable.
    pub fn handle_persisted(&mut self, changes: &Changes) {
        self.applied_kept = changes.applied;
        if let Some(last) = changes.put.iter().map(|record| record.seq).max() {
            self.persisted = self.persisted.max(last);
        }
    }

    /// The changes could not be written: they are to be written again.
    pub fn handle_not_persisted(&mut self, changes: Changes) {
        self.dirty.extend(changes.put.iter().map(|record| record.seq));
        self.doomed.extend(changes.delete);
    }

    /// The next records to send: persisted, not applied, without changes that are not on disk yet.
    pub fn next_batch(&mut self) -> Option<UsageBatch> {
        if self.applied >= self.persisted {
            return None;
        }
        let records: Vec<UsageRecord> = self
            .records
            .range(self.applied + 1..=self.persisted)
            .take_while(|(seq, _)| !self.dirty.contains(seq))
            .take(USAGE_BATCH_MAX)
            .map(|(_, record)| record.clone())
            .collect();
        self.sent = self.sent.max(records.last()?.seq);
        Some(UsageBatch { epoch: self.epoch, records })
    }

    /// The fleet has every record up to `through`.
    pub fn handle_applied(&mut self, epoch: LedgerEpoch, through: u64) {
        if epoch == self.epoch {
            self.applied = self.applied.max(through.min(self.sent));
        }
    }

    /// The fleet cannot go on with this ledger, and has its records up to `through`. What it does not have begins the ledger `epoch`.
    pub fn begin_anew(&mut self, epoch: LedgerEpoch, through: u64) {
        let had = self.applied.max(through.min(self.sent));
        let before = std::mem::replace(self, Self::restore(epoch, 0, Vec::new()));
        self.doomed = before.doomed.into_iter().chain(before.records.keys().copied()).collect();
        for (window, newest) in before.newest.into_iter().filter(|(_, newest)| *newest > had) {
            let base = before.records.range(..=had).rev().map(|(_, record)| record).find(|record| record.window == window);
            let Some(record) = before.records.get(&newest) else { continue };
            self.add(window, &record.counters.since(&base.map(|record| record.counters).unwrap_or_default()));
        }
    }

    /// Records that the fleet does not have.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        self.next_seq - 1 - self.applied
    }

    /// Forgets what the fleet has and nobody needs to go on from: closed windows, and records that a newer applied one replaced.
    fn prune(&mut self, hour_ms: u64) {
        let mut seen = BTreeSet::new();
        let mut gone = Vec::new();
        for (seq, record) in self.records.range(..=self.applied).rev() {
            let replaced = !seen.insert(&record.window);
            let closed = record.window.start_ms < hour_ms && self.newest.get(&record.window) == Some(seq);
            if replaced || closed {
                gone.push(*seq);
            }
        }
        for seq in gone {
            let Some(record) = self.records.remove(&seq) else { continue };
            if self.newest.get(&record.window) == Some(&seq) {
                self.newest.remove(&record.window);
            }
            self.doomed.push(seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sedge_protocol::{Digest, Manifest, RevisionId};

    const EPOCH: LedgerEpoch = LedgerEpoch(7);

    fn window(function: &str, hour: u64) -> Window {
        let manifest = Manifest::from_toml("f", &format!("name = '{function}'")).unwrap().0;
        Window { function: manifest.name.clone(), revision: RevisionId::of(&Digest::of(b""), &manifest), start_ms: hour * WINDOW_MS + 17 }
    }

    fn one() -> Counters {
        Counters { calls_ok: 1, ..Counters::default() }
    }

    fn persist(ledger: &mut Ledger, disk: &mut BTreeMap<u64, UsageRecord>, hour: u64) -> (LedgerEpoch, u64) {
        let changes = ledger.take_changes(hour * WINDOW_MS);
        for record in &changes.put {
            disk.insert(record.seq, record.clone());
        }
        for seq in &changes.delete {
            disk.remove(seq);
        }
        ledger.handle_persisted(&changes);
        (changes.epoch, changes.applied)
    }

    #[test]
    fn alone_a_window_is_one_record_and_connected_it_goes_on_in_the_next() {
        let (mut ledger, mut disk) = (Ledger::restore(EPOCH, 0, Vec::new()), BTreeMap::new());
        for _ in 0..5 {
            ledger.add(window("f", 0), &one());
            persist(&mut ledger, &mut disk, 0);
        }
        assert_eq!(disk.len(), 1);
        let batch = ledger.next_batch().unwrap();
        assert_eq!((batch.records[0].seq, batch.records[0].counters.calls_ok), (1, 5));
        ledger.add(window("f", 0), &one());
        assert_eq!(ledger.next_batch().unwrap(), batch, "what is not on disk is not sent");
        ledger.handle_applied(EPOCH, 1);
        assert_eq!(ledger.next_batch(), None);
        persist(&mut ledger, &mut disk, 0);
        let next = ledger.next_batch().unwrap();
        assert_eq!((next.records[0].seq, next.records[0].counters.calls_ok), (2, 6));
        persist(&mut ledger, &mut disk, 0);
        assert_eq!(disk.keys().copied().collect::<Vec<_>>(), [1, 2], "what the fleet has stays until it has more");
        ledger.handle_applied(EPOCH, 2);
        assert_eq!(persist(&mut ledger, &mut disk, 0).1, 2, "the disk learns what the fleet has");
        assert!(ledger.take_changes(0).is_empty());
        assert_eq!(disk.keys().copied().collect::<Vec<_>>(), [2], "the replaced record is deleted");
    }

    #[test]
    fn another_fleet_gets_what_none_had() {
        let (mut ledger, mut disk) = (Ledger::restore(EPOCH, 0, Vec::new()), BTreeMap::new());
        for round in 0..3 {
            ledger.add(window("f", 0), &one());
            ledger.add(window("g", 0), &one());
            persist(&mut ledger, &mut disk, 0);
            let last = ledger.next_batch().unwrap().records.last().unwrap().seq;
            if round < 2 {
                ledger.handle_applied(EPOCH, last);
            }
        }
        ledger.begin_anew(LedgerEpoch(8), 0);
        assert_eq!(ledger.next_batch(), None, "not before the new numbers are on disk");
        persist(&mut ledger, &mut disk, 0);
        let batch = ledger.next_batch().unwrap();
        assert_eq!(batch.epoch, LedgerEpoch(8));
        assert_eq!(batch.records.iter().map(|record| (record.seq, record.counters.calls_ok)).collect::<Vec<_>>(), [(1, 1), (2, 1)]);
        assert_eq!(disk.values().cloned().collect::<Vec<_>>(), batch.records, "nothing of the old ledger is left");
        ledger.begin_anew(LedgerEpoch(9), 1);
        persist(&mut ledger, &mut disk, 0);
        assert_eq!(ledger.next_batch().unwrap().records.len(), 1, "what the fleet says it has is not sent again");
    }

    #[test]
    fn an_applied_record_stays_while_its_hour_lasts() {
        let (mut ledger, mut disk) = (Ledger::restore(EPOCH, 0, Vec::new()), BTreeMap::new());
        ledger.add(window("f", 0), &one());
        persist(&mut ledger, &mut disk, 0);
        ledger.next_batch().unwrap();
        ledger.handle_applied(EPOCH, 1);
        persist(&mut ledger, &mut disk, 0);
        let mut again = Ledger::restore(EPOCH, 1, disk.values().cloned().collect());
        again.add(window("f", 0), &one());
        let put = again.take_changes(0).put;
        assert_eq!((put[0].seq, put[0].counters.calls_ok), (2, 2));
        persist(&mut ledger, &mut disk, 1);
        assert!(disk.is_empty());
    }

    #[test]
    fn a_failed_write_is_written_again() {
        let mut ledger = Ledger::restore(EPOCH, 0, Vec::new());
        ledger.add(window("f", 0), &one());
        let changes = ledger.take_changes(0);
        ledger.handle_not_persisted(changes);
        assert_eq!(ledger.next_batch(), None);
        assert_eq!(ledger.take_changes(0).put.len(), 1);
    }

    /// The fleet's side: max per counter and window, watermark by number, for each node and ledger.
    #[derive(Default, Clone)]
    struct Fleet {
        through: BTreeMap<(u8, LedgerEpoch), u64>,
        windows: BTreeMap<(u8, LedgerEpoch, Window), Counters>,
    }

    impl Fleet {
        /// What is applied now, or from where on the ledger must begin anew.
        fn apply(&mut self, node: u8, batch: &UsageBatch) -> Result<u64, u64> {
            let known = self.through.iter().filter(|((_, epoch), _)| *epoch == batch.epoch).map(|(_, through)| *through).max();
            let mut through = match (self.through.get(&(node, batch.epoch)), known) {
                (None, Some(elsewhere)) => return Err(elsewhere),
                (own, _) => own.copied().unwrap_or(0),
            };
            for record in &batch.records {
                if record.seq > through + 1 {
                    return Err(known.unwrap_or(0));
                }
                through = through.max(record.seq);
                let window = self.windows.entry((node, batch.epoch, record.window.clone())).or_default();
                window.max(&record.counters);
            }
            self.through.insert((node, batch.epoch), through);
            Ok(through)
        }

        fn sum(&self) -> u64 {
            self.windows.values().map(|counters| counters.calls_ok).sum()
        }
    }

    /// One node, its disk and its fleet.
    struct World {
        ledger: Ledger,
        disk: BTreeMap<u64, UsageRecord>,
        kept: (LedgerEpoch, u64),
        fleet: Fleet,
        copy: Fleet,
        node: u8,
        epochs: u64,
        hour: u64,
        ran: u64,
        in_memory: u64,
        lost: u64,
    }

    impl World {
        fn new() -> Self {
            let ledger = Ledger::restore(EPOCH, 0, Vec::new());
            let (disk, fleet, copy) = (BTreeMap::new(), Fleet::default(), Fleet::default());
            Self { ledger, disk, kept: (EPOCH, 0), fleet, copy, node: 0, epochs: EPOCH.0, hour: 0, ran: 0, in_memory: 0, lost: 0 }
        }

        fn invoke(&mut self, function: &str) {
            self.ledger.add(window(function, self.hour), &one());
            self.ran += 1;
            self.in_memory += 1;
        }

        fn persist(&mut self) {
            self.kept = persist(&mut self.ledger, &mut self.disk, self.hour);
            self.in_memory = 0;
        }

        fn fail_to_write(&mut self) {
            let changes = self.ledger.take_changes(self.hour * WINDOW_MS);
            self.ledger.handle_not_persisted(changes);
        }

        fn cut_power(&mut self) {
            self.ledger = Ledger::restore(self.kept.0, self.kept.1, self.disk.values().cloned().collect());
            self.lost += std::mem::take(&mut self.in_memory);
        }

        /// Whether there was something to send.
        fn send(&mut self, answered: bool) -> bool {
            let Some(batch) = self.ledger.next_batch() else { return false };
            let answer = self.fleet.apply(self.node, &batch);
            if answered {
                match answer {
                    Ok(through) => self.ledger.handle_applied(batch.epoch, through),
                    Err(through) => {
                        self.epochs += 1;
                        self.ledger.begin_anew(LedgerEpoch(self.epochs), through);
                    }
                }
            }
            true
        }
    }

    impl World {
        /// What happens next; each kind of step may come at any time.
        fn step(&mut self, kind: u8, which: u8) {
            match kind {
                0 | 1 => self.invoke(["f", "g"][usize::from(which)]),
                2 => self.persist(),
                3 => drop(self.send(which == 0)),
                4 => self.hour += u64::from(which),
                5 => self.cut_power(),
                6 => self.fail_to_write(),
                7 => self.node += which,
                8 => self.copy = self.fleet.clone(),
                _ => self.fleet = self.copy.clone(),
            }
        }

        /// Lets everything that waits reach the fleet.
        fn settle(&mut self) {
            self.persist();
            while self.send(true) {
                self.persist();
            }
        }
    }

    proptest! {
        /// Power cuts, lost answers, repeats and new identities at any point: the fleet never has more than ran, and in the end has
        /// all but what was in memory at the cuts.
        #[test]
        fn the_fleet_never_over_counts_and_loses_only_memory(steps in proptest::collection::vec((0_u8..8, 0_u8..2), 1..120)) {
            let mut world = World::new();
            for (kind, which) in steps {
                world.step(kind, which);
                prop_assert!(world.fleet.sum() <= world.ran);
            }
            world.settle();
            prop_assert_eq!(world.fleet.sum(), world.ran - world.lost);
        }

        /// A fleet that was restored from an older copy never has more than ran either, and goes on counting.
        #[test]
        fn a_restored_fleet_never_over_counts(steps in proptest::collection::vec((0_u8..10, 0_u8..2), 1..120)) {
            let mut world = World::new();
            for (kind, which) in steps {
                world.step(kind, which);
                prop_assert!(world.fleet.sum() <= world.ran);
            }
            world.settle();
            let before = world.fleet.sum();
            world.invoke("f");
            world.settle();
            prop_assert_eq!(world.fleet.sum(), before + 1);
        }
    }
}
