//! Records that wait for the next group, and the commits that wait for them. Pure.
//!
//! ```text
//! put ──▶ records ──take──▶ flight ──settle──▶ on disk      A commit waits `until` a sequence number:
//!            │                 └─────fail────▶ records      it is durable once no live record is that old.
//!            └─ cancel / replace: never written
//! ```
//!
//! Invariant: whatever makes a record unnecessary comes after it, so every waiter that covered the
//! record then waits for that later batch too. An item acknowledged is on disk, or its effects are.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::batch::{ItemId, Record, Tree};
use crate::commit::JournalLost;
use crate::limits::GROUP_WAITERS_MAX;

/// Fixed cost of a waiting record, counted on top of its bytes.
const RECORD_BYTES: usize = 16;

/// What a record replaces: a newer one with the same slot makes an older one unnecessary.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Slot {
    Key(Tree, Arc<[u8]>),
    Accept(ItemId),
    Attempt(ItemId),
    Finish(ItemId),
}

/// Records on their way to the disk.
pub(crate) type Flight = Arc<Vec<(u64, Record)>>;

#[derive(Debug)]
struct Waiter {
    until: u64,
    due: Instant,
    answer: oneshot::Sender<Result<(), JournalLost>>,
}

#[derive(Debug, Default)]
pub(crate) struct Buffer {
    records: BTreeMap<u64, Record>,
    slots: HashMap<Slot, u64>,
    bytes: usize,
    /// Last sequence number given out.
    last: u64,
    flight: Option<Flight>,
    waiters: VecDeque<Waiter>,
    /// Oldest cancelled record of the batch being applied.
    cancelled: Option<u64>,
    urgent: bool,
    lazy_due: Option<Instant>,
}

impl Buffer {
    /// Adds a record; one that replaces a waiting record takes its place in the order.
    pub(crate) fn put(&mut self, record: Record) {
        let slot = record.slot();
        self.bytes += weight(&record);
        if let Some(seq) = self.slots.get(&slot) {
            let old = self.records.insert(*seq, record).expect("every slot points at a record");
            self.bytes -= weight(&old);
            return;
        }
        self.last += 1;
        self.slots.insert(slot, self.last);
        self.records.insert(self.last, record);
    }

    /// Removes a waiting record; true if there was one.
    pub(crate) fn cancel(&mut self, slot: &Slot) -> bool {
        let Some(seq) = self.slots.remove(slot) else {
            return false;
        };
        let old = self.records.remove(&seq).expect("every slot points at a record");
        self.bytes -= weight(&old);
        self.cancelled = Some(self.cancelled.map_or(seq, |oldest| oldest.min(seq)));
        true
    }

    /// The waiting accept of an item, to change its attempts in place.
    pub(crate) fn waiting_accept(&mut self, id: ItemId) -> Option<&mut Record> {
        self.records.get_mut(self.slots.get(&Slot::Accept(id))?)
    }

    /// Ends a batch: waiters of what it cancelled now wait for it, and nobody waits without need.
    pub(crate) fn end_batch(&mut self, lazy_due: Instant) {
        if let Some(oldest) = self.cancelled.take() {
            self.last += 1;
            let covered = self.waiters.partition_point(|waiter| waiter.until < oldest);
            for waiter in self.waiters.iter_mut().skip(covered) {
                waiter.until = self.last;
            }
        }
        if self.records.is_empty() {
            self.lazy_due = None;
        } else {
            self.lazy_due.get_or_insert(lazy_due);
        }
        self.resolve();
    }

    /// Waits for everything up to now; `None` if it is durable already.
    pub(crate) fn wait(&mut self, due: Instant, urgent: bool) -> Option<oneshot::Receiver<Result<(), JournalLost>>> {
        self.oldest_live()?;
        let (answer, receiver) = oneshot::channel();
        self.waiters.push_back(Waiter { until: self.last, due, answer });
        self.urgent |= urgent;
        Some(receiver)
    }

    /// When the next group has to be written; `None` if nothing waits.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let lazy = self.lazy_due.filter(|_| !self.records.is_empty())?;
        let urgent = self.urgent && !self.waiters.is_empty();
        if urgent || self.waiters.len() >= GROUP_WAITERS_MAX {
            return Some(now);
        }
        Some(self.waiters.front().map_or(lazy, |waiter| waiter.due.min(lazy)))
    }

    /// Estimate of the bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sends everything on its way. [`Buffer::settle`] or [`Buffer::fail`] must follow.
    pub(crate) fn take(&mut self) -> Option<Flight> {
        assert!(self.flight.is_none(), "one group is written at a time");
        if self.records.is_empty() {
            return None;
        }
        self.slots.clear();
        self.bytes = 0;
        self.urgent = false;
        self.lazy_due = None;
        let flight: Flight = Arc::new(std::mem::take(&mut self.records).into_iter().collect());
        self.flight = Some(Arc::clone(&flight));
        Some(flight)
    }

    /// The flight is on the disk.
    pub(crate) fn settle(&mut self) {
        self.flight = None;
        self.resolve();
    }

    /// The flight may not be on the disk: it goes back under what came since, and its waiters hear of it.
    pub(crate) fn fail(&mut self, reason: &Arc<str>, lazy_due: Instant) {
        let Some(flight) = self.flight.take() else {
            return;
        };
        let last = flight.last().map_or(0, |(seq, _)| *seq);
        for (seq, record) in flight.iter() {
            let slot = record.slot();
            if let std::collections::hash_map::Entry::Vacant(vacant) = self.slots.entry(slot) {
                vacant.insert(*seq);
                self.bytes += weight(record);
                self.records.insert(*seq, record.clone());
            }
        }
        self.lazy_due = Some(lazy_due);
        while self.waiters.front().is_some_and(|waiter| waiter.until <= last) {
            let waiter = self.waiters.pop_front().expect("the front was just seen");
            waiter.answer.send(Err(JournalLost::Write { reason: Arc::clone(reason) })).ok();
        }
    }

    /// The store closes: whoever still waits hears of it.
    pub(crate) fn abandon(&mut self) {
        for waiter in self.waiters.drain(..) {
            waiter.answer.send(Err(JournalLost::Closed)).ok();
        }
    }

    fn oldest_live(&self) -> Option<u64> {
        let flying = self.flight.as_ref().and_then(|flight| flight.first()).map(|(seq, _)| *seq);
        flying.or_else(|| self.records.keys().next().copied())
    }

    fn resolve(&mut self) {
        let frontier = self.oldest_live().unwrap_or(u64::MAX);
        while self.waiters.front().is_some_and(|waiter| waiter.until < frontier) {
            let waiter = self.waiters.pop_front().expect("the front was just seen");
            waiter.answer.send(Ok(())).ok();
        }
    }
}

impl Record {
    fn slot(&self) -> Slot {
        match self {
            Self::Set { tree, key, .. } | Self::Delete { tree, key } => Slot::Key(*tree, Arc::clone(key)),
            Self::Accept { id, .. } => Slot::Accept(*id),
            Self::Attempt { id, .. } => Slot::Attempt(*id),
            Self::Finish { id } => Slot::Finish(*id),
        }
    }
}

/// What a record costs against the bound of the buffer.
pub(crate) fn weight(record: &Record) -> usize {
    RECORD_BYTES + record.encoded_len()
}
