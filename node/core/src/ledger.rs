//! The node's usage ledger: folds invocations into windows, numbers them, and knows what the fleet has.
//!
//! ```text
//! add ─▶ record of the window (open) ─ take_changes ─▶ disk ─ handle_persisted ─▶ next_batch ─▶ fleet ─ handle_applied ─▶ gone
//! ```
//! A record may grow in place until it was sent; from then on the window goes on in a new record that carries the sum so far.
//! So a node that is alone for weeks keeps one record an hour and function, and one that is connected sends small ones often.
//!
//! Invariants: numbers have no gaps; what is sent was persisted before, so that after a power cut no number means two things;
//! the sum of a window never shrinks and never passes what ran.

use sedge_protocol::limits::USAGE_BATCH_MAX;
use sedge_protocol::message::UsageBatch;
use sedge_protocol::usage::{Counters, LedgerEpoch, UsageRecord, WINDOW_MS, Window};
use std::collections::{BTreeMap, BTreeSet};

/// What is to be written to disk, all of it or nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Records to write under their numbers.
    pub put: Vec<UsageRecord>,
    /// Numbers to delete.
    pub delete: Vec<u64>,
}

impl Changes {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.delete.is_empty()
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
        Changes { put: dirty.iter().filter_map(|seq| self.records.get(seq).cloned()).collect(), delete: std::mem::take(&mut self.doomed) }
    }

    /// The changes of the last call are durable.
    pub fn handle_persisted(&mut self, put: &[UsageRecord]) {
        if let Some(last) = put.iter().map(|record| record.seq).max() {
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

    /// Which ledger this is.
    #[must_use]
    pub fn epoch(&self) -> LedgerEpoch {
        self.epoch
    }

    /// Highest number that the fleet has.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Records that the fleet does not have.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        self.next_seq - 1 - self.applied
    }

    /// Forgets what the fleet has and nobody needs to go on from: closed windows, and records that a newer one of their window replaced.
    fn prune(&mut self, hour_ms: u64) {
        let gone: Vec<u64> = self
            .records
            .range(..=self.applied)
            .filter(|(seq, record)| self.newest.get(&record.window) != Some(*seq) || record.window.start_ms < hour_ms)
            .map(|(seq, _)| *seq)
            .collect();
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

    fn persist(ledger: &mut Ledger, disk: &mut BTreeMap<u64, UsageRecord>, hour: u64) {
        let changes = ledger.take_changes(hour * WINDOW_MS);
        for record in &changes.put {
            disk.insert(record.seq, record.clone());
        }
        for seq in &changes.delete {
            disk.remove(seq);
        }
        ledger.handle_persisted(&changes.put);
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
        assert_eq!(disk.keys().copied().collect::<Vec<_>>(), [2], "the replaced record is deleted");
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

    /// The fleet's side: max per counter and window, watermark by number.
    #[derive(Default)]
    struct Fleet {
        through: u64,
        windows: BTreeMap<Window, Counters>,
    }

    impl Fleet {
        fn apply(&mut self, batch: &UsageBatch) -> u64 {
            for record in &batch.records {
                assert!(record.seq <= self.through + 1, "a gap before {}", record.seq);
                self.through = self.through.max(record.seq);
                self.windows.entry(record.window.clone()).or_default().max(&record.counters);
            }
            self.through
        }

        fn sum(&self) -> u64 {
            self.windows.values().map(|counters| counters.calls_ok).sum()
        }
    }

    proptest! {
        /// Power cuts, lost answers and repeats at any point: the fleet never has more than ran, and in the end has all but what
        /// was in memory at the cuts.
        #[test]
        fn the_fleet_never_over_counts_and_loses_only_memory(steps in proptest::collection::vec((0_u8..7, 0_u8..2), 1..120)) {
            let (mut ledger, mut disk, mut fleet) = (Ledger::restore(EPOCH, 0, Vec::new()), BTreeMap::new(), Fleet::default());
            let (mut ran, mut lost, mut memory, mut hour, mut applied_on_disk) = (0, 0, 0, 0, 0);
            for (kind, which) in steps {
                match kind {
                    0 | 1 => { ledger.add(window(["f", "g"][usize::from(which)], hour), &one()); ran += 1; memory += 1; }
                    2 => { persist(&mut ledger, &mut disk, hour); memory = 0; applied_on_disk = ledger.applied(); }
                    3 => if let Some(batch) = ledger.next_batch() { let through = fleet.apply(&batch); if which == 0 { ledger.handle_applied(EPOCH, through); } },
                    4 => hour += u64::from(which),
                    5 => { ledger = Ledger::restore(EPOCH, applied_on_disk, disk.values().cloned().collect()); lost += memory; memory = 0; }
                    _ => { let changes = ledger.take_changes(hour * WINDOW_MS); ledger.handle_not_persisted(changes); }
                }
                prop_assert!(fleet.sum() <= ran);
            }
            persist(&mut ledger, &mut disk, hour);
            while let Some(batch) = ledger.next_batch() {
                let through = fleet.apply(&batch);
                ledger.handle_applied(EPOCH, through);
            }
            prop_assert_eq!(fleet.sum(), ran - lost);
        }
    }
}
