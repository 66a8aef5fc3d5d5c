//! Everything the store holds in memory, and the rules that change it. Pure: time is an argument.
//!
//! Draining order for the journal thread: [`State::poll_step`], do it, [`State::handle_written`] or
//! [`State::handle_write_failed`]; for the checkpoint thread: [`State::poll_checkpoint`], do it,
//! [`State::handle_checkpoint`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::{Batch, ItemId, Record, Tree};
use crate::buffer::{Buffer, Flight, Slot};
use crate::commit::{Commit, CommitError};
use crate::config::{Durability, StoreConfig};
use crate::limits::{FUNCTIONS_EIGHTHS, GARBAGE_EIGHTHS, RECOPIES_MAX, RETRY_MS_MAX, RETRY_MS_MIN, ROOM_CHECKPOINT_MS};
use crate::memtable::{Change, Memtable};
use crate::queue::{Home, Item, Queue};

/// Changes on their way into the database; every one of them is in the journal.
#[derive(Debug, Clone)]
pub(crate) struct Frozen {
    pub(crate) changes: Arc<Memtable>,
    /// Segments below this one hold no change that is not in `changes` or in the database.
    pub(crate) covers: u64,
    /// Whether the group that closes the journal over `changes` is written.
    journaled: bool,
    /// Whether functions are refused and nothing changes: the database itself is all that can become smaller.
    pub(crate) recopy: bool,
}

/// What the journal thread does next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Write this group; it may close the journal over a checkpoint.
    Write(Flight),
    /// Everything in this segment is elsewhere: make it a spare.
    Recycle(u64),
    /// Write these items again, so that their old segment can be recycled.
    Move(Flight),
    /// A checkpoint began and the journal has all of it: tell the other thread.
    Frozen,
    /// Wait for a change, at most until then.
    Wait(Option<Instant>),
    /// Nothing is left to do, for ever.
    Stop,
}

/// Whether the journal takes writes.
#[derive(Debug, Clone)]
pub(crate) enum Health {
    Good,
    Degraded { reason: Arc<str>, failures: u32, retry_at: Instant },
}

/// How the store ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Closing {
    No,
    /// Write what waits and stop.
    Flush,
    /// Write what waits, move all changes into the database and stop.
    Checkpoint,
}

/// Room on the partition and in the database, as it was last looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Room {
    pub(crate) free: u64,
    pub(crate) free_min: u64,
    pub(crate) database: u64,
    /// What of `database` is not garbage that the next changes are written over.
    pub(crate) database_used: u64,
    pub(crate) database_max: u64,
}

impl Room {
    /// How much of the database may be used before functions are refused.
    pub(crate) fn functions_max(&self) -> u64 {
        self.database_max / 8 * FUNCTIONS_EIGHTHS
    }

    /// How big the database may be with its garbage before functions are refused. What is used is then so much less that a copy is
    /// always worth it.
    pub(crate) fn garbage_max(&self) -> u64 {
        self.database_max / 8 * GARBAGE_EIGHTHS
    }
}

#[derive(Debug)]
pub(crate) struct State {
    config: StoreConfig,
    memory: Memtable,
    frozen: Option<Frozen>,
    pub(crate) queue: Queue,
    buffer: Buffer,
    next_item: u64,
    /// The segment that is being written.
    current: u64,
    /// Segments before it, oldest first.
    sealed: Vec<u64>,
    /// Segments below this one hold no change that the database lacks.
    checkpointed: u64,
    checkpoint_due: Instant,
    checkpoint_wanted: bool,
    checkpoint_failure: Option<(Arc<str>, u32, Instant)>,
    pub(crate) room: Room,
    /// From when a checkpoint may be begun again because functions have no room.
    room_checkpoint_at: Option<Instant>,
    /// Whether the next checkpoint shall write the database anew.
    recopy: bool,
    /// How often that may still be until something changes.
    recopies_left: u32,
    pub(crate) health: Health,
    closing: Closing,
    stopped: bool,
    reclaim_at: Option<Instant>,
    /// Until when the journal thread sleeps, if it sleeps.
    sleep_until: Option<Instant>,
}

impl State {
    pub(crate) fn new(config: StoreConfig, queue: Queue, next_item: u64, now: Instant) -> Self {
        Self {
            checkpoint_due: now + Duration::from_millis(config.checkpoint_ms),
            config,
            memory: Memtable::default(),
            frozen: None,
            queue,
            buffer: Buffer::default(),
            next_item,
            current: 0,
            sealed: Vec::new(),
            checkpointed: 0,
            checkpoint_wanted: false,
            checkpoint_failure: None,
            room: Room { free: u64::MAX, database_max: u64::MAX, ..Room::default() },
            room_checkpoint_at: None,
            recopy: false,
            recopies_left: RECOPIES_MAX,
            health: Health::Good,
            closing: Closing::No,
            stopped: false,
            reclaim_at: None,
            sleep_until: None,
        }
    }

    /// The journal is written in `current`; nothing in it is newer than the database.
    pub(crate) fn handle_started(&mut self, current: u64, sealed: &[u64]) {
        self.current = current;
        self.sealed = sealed.to_vec();
        self.checkpointed = current;
    }

    // ---- commands

    /// Applies a batch: all of it, or nothing with the reason.
    pub(crate) fn commit(&mut self, batch: Batch, durability: Durability, now: Instant) -> Result<Commit, CommitError> {
        if let Err(refused) = self.admit(&batch, durability) {
            if matches!(refused, CommitError::FunctionsFull { .. }) {
                self.look_for_room(now);
            }
            return Err(refused);
        }
        self.recopies_left = RECOPIES_MAX;
        for record in batch.records {
            self.apply(record);
        }
        self.buffer.end_batch(now + Duration::from_millis(self.config.lazy_ms));
        let group = Duration::from_millis(self.config.group_ms);
        let answer = match durability {
            Durability::Grouped => self.buffer.wait(now + group, false),
            Durability::Each => self.buffer.wait(now, true),
            Durability::None => None,
        };
        Ok(Commit { answer })
    }

    pub(crate) fn next_item_id(&mut self) -> ItemId {
        let id = self.next_item;
        self.next_item += 1;
        ItemId(id)
    }

    /// Asks for a checkpoint without its usual reasons.
    pub(crate) fn want_checkpoint(&mut self) {
        self.checkpoint_wanted = true;
    }

    /// Takes no more commits; a later, gentler wish does not weaken an earlier one.
    pub(crate) fn close(&mut self, closing: Closing) {
        self.closing = self.closing.max(closing);
        self.checkpoint_wanted |= closing == Closing::Checkpoint;
    }

    // ---- inputs of the journal thread

    /// The group is on the disk, in `current`, after `sealed`.
    pub(crate) fn handle_written(&mut self, flight: &[(u64, Record)], current: u64, sealed: &[u64]) {
        self.current = current;
        self.sealed = sealed.to_vec();
        self.queue.settle(flight, current);
        self.buffer.settle();
        self.health = Health::Good;
        if let Some(frozen) = &mut self.frozen {
            frozen.journaled = true;
        }
    }

    /// The group may not be on the disk. The checkpoint that relied on it is off.
    pub(crate) fn handle_write_failed(&mut self, reason: &str, now: Instant) {
        let reason: Arc<str> = reason.into();
        let failures = match &self.health {
            Health::Good => 0,
            Health::Degraded { failures, .. } => failures + 1,
        };
        let retry_at = now + retry_pause(failures);
        self.buffer.fail(&reason, retry_at);
        self.health = Health::Degraded { reason, failures, retry_at };
        if self.frozen.as_ref().is_some_and(|frozen| !frozen.journaled)
            && let Some(frozen) = self.frozen.take()
        {
            self.memory.absorb_older(&frozen.changes);
            self.checkpoint_wanted = true;
        }
    }

    /// A segment became a spare.
    pub(crate) fn handle_recycled(&mut self, segment: u64) {
        self.sealed.retain(|sealed| *sealed != segment);
    }

    /// A segment could not be recycled. Nothing younger may go before it, so all of them wait.
    pub(crate) fn handle_recycle_failed(&mut self, now: Instant) {
        self.reclaim_at = Some(now + Duration::from_millis(RETRY_MS_MAX));
    }

    /// The journal thread is done.
    pub(crate) fn handle_stopped(&mut self) {
        self.stopped = true;
        self.buffer.abandon();
    }

    // ---- inputs of the checkpoint thread

    /// The frozen changes are in the database, or are not and will be tried again.
    pub(crate) fn handle_checkpoint(&mut self, outcome: Result<(), String>, now: Instant) {
        match outcome {
            Ok(()) => {
                let frozen = self.frozen.take().expect("only a frozen table is checkpointed");
                self.checkpointed = frozen.covers;
                self.checkpoint_failure = None;
            }
            Err(reason) => {
                let failures = self.checkpoint_failure.as_ref().map_or(0, |(_, n, _)| n + 1);
                let retry_at = now + retry_pause(failures);
                self.checkpoint_failure = Some((reason.into(), failures, retry_at));
            }
        }
        self.checkpoint_due = now + Duration::from_millis(self.config.checkpoint_ms);
    }

    // ---- outputs

    /// What the journal thread does now.
    pub(crate) fn poll_step(&mut self, now: Instant) -> Step {
        if let Health::Degraded { retry_at, .. } = &self.health
            && now < *retry_at
        {
            let retry_at = *retry_at;
            self.sleep_until = Some(retry_at);
            let waits = self.closing == Closing::No;
            return if waits { Step::Wait(Some(retry_at)) } else { Step::Stop };
        }
        if self.checkpoint_is_due(now) {
            return self.freeze();
        }
        if self.write_is_due(now)
            && let Some(flight) = self.take()
        {
            return Step::Write(flight);
        }
        if let Some(step) = self.reclaim(now) {
            return step;
        }
        if matches!(self.health, Health::Degraded { .. }) {
            return Step::Write(Flight::default());
        }
        let waits_for_checkpoint = self.frozen.is_some() && self.checkpoint_failure.is_none();
        if self.closing != Closing::No && !waits_for_checkpoint {
            return Step::Stop;
        }
        self.sleep_until = self.next_due(now);
        Step::Wait(self.sleep_until)
    }

    /// What the checkpoint thread does now: changes to move, a time to wait for, or `Err` to stop.
    pub(crate) fn poll_checkpoint(&self, now: Instant) -> Result<CheckpointStep, Stopped> {
        let Some(frozen) = self.frozen.as_ref().filter(|frozen| frozen.journaled) else {
            return if self.stopped { Err(Stopped) } else { Ok(CheckpointStep::Wait(None)) };
        };
        match &self.checkpoint_failure {
            Some(_) if self.closing != Closing::No => Err(Stopped),
            Some((_, _, retry_at)) if now < *retry_at => Ok(CheckpointStep::Wait(Some(*retry_at))),
            Some(_) | None => Ok(CheckpointStep::Move(frozen.clone())),
        }
    }

    /// Whether a commit just gave the journal thread something to do before it wakes by itself.
    pub(crate) fn must_wake(&self, now: Instant) -> bool {
        let crowded = self.buffer.bytes() >= self.config.buffer_bytes_max() / 2 || self.memory.bytes() >= self.config.memory_bytes_max;
        match (self.next_due(now), self.sleep_until) {
            (Some(due), Some(sleep_until)) => crowded || due < sleep_until,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    // ---- getters

    /// The newest change of a key that the database may lack.
    pub(crate) fn change(&self, tree: Tree, key: &[u8]) -> Option<Change> {
        let older = || self.frozen.as_ref().and_then(|frozen| frozen.changes.get(tree, key));
        self.memory.get(tree, key).or_else(older).cloned()
    }

    /// Changes under a prefix, ordered, up to the one at which `limit` values have been seen.
    pub(crate) fn changes(&self, tree: Tree, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<(Arc<[u8]>, Change)> {
        let mut newer = self.memory.range(tree, prefix, after).peekable();
        let frozen = self.frozen.as_ref().map(|frozen| frozen.changes.range(tree, prefix, after));
        let mut older = frozen.into_iter().flatten().peekable();
        let mut found = Vec::new();
        let mut values = 0;
        while values < limit {
            let (key, change) = match (newer.peek(), older.peek()) {
                (None, None) => break,
                (Some((new, _)), Some((old, _))) if new == old => {
                    older.next();
                    newer.next().expect("it was just seen")
                }
                (Some((new, _)), Some((old, _))) if new > old => older.next().expect("it was just seen"),
                (None, Some(_)) => older.next().expect("it was just seen"),
                (Some(_), _) => newer.next().expect("it was just seen"),
            };
            values += usize::from(change.is_some());
            found.push((Arc::clone(key), change.clone()));
        }
        found
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory.bytes() + self.frozen.as_ref().map_or(0, |frozen| frozen.changes.bytes())
    }

    pub(crate) fn buffer_bytes(&self) -> usize {
        self.buffer.bytes()
    }

    pub(crate) fn segments(&self) -> usize {
        self.sealed.len() + 1
    }

    pub(crate) fn checkpoint_failure(&self) -> Option<&Arc<str>> {
        self.checkpoint_failure.as_ref().map(|(reason, _, _)| reason)
    }

    // ---- rules

    /// What waits may hold the deletions that give functions room again, or be smaller in the database than it was taken for: a
    /// checkpoint tells. Where nothing waits, the last copy may have been written less tightly than another would be, so a few more are
    /// made. Now and then only, however often functions ask.
    fn look_for_room(&mut self, now: Instant) {
        if self.room_checkpoint_at.is_some_and(|at| now < at) {
            return;
        }
        if self.memory.is_empty() {
            if self.frozen.is_some() || self.recopies_left == 0 {
                return;
            }
            self.recopies_left -= 1;
            self.recopy = true;
        } else {
            self.checkpoint_wanted = true;
        }
        self.room_checkpoint_at = Some(now + Duration::from_millis(ROOM_CHECKPOINT_MS));
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Set { tree, key, value } => {
                self.memory.put(tree, Arc::clone(&key), Some(Arc::clone(&value)));
                self.buffer.put(Record::Set { tree, key, value });
            }
            Record::Delete { tree, key } => {
                self.memory.put(tree, Arc::clone(&key), None);
                self.buffer.put(Record::Delete { tree, key });
            }
            Record::Accept { id, attempts, bytes } => self.accept(id, attempts, bytes),
            Record::Attempt { id, attempts } => self.attempt(id, attempts),
            Record::Finish { id } => self.finish(id),
        }
    }

    fn accept(&mut self, id: ItemId, attempts: u32, bytes: Arc<[u8]>) {
        let item = Item { attempts, bytes: Arc::clone(&bytes), home: Home::Buffer };
        if self.queue.insert(id, item) {
            self.next_item = self.next_item.max(id.0.saturating_add(1));
            self.buffer.put(Record::Accept { id, attempts, bytes });
        }
    }

    fn attempt(&mut self, id: ItemId, count: u32) {
        let Some(item) = self.queue.item_mut(id) else {
            return;
        };
        item.attempts = count;
        match self.buffer.waiting_accept(id) {
            Some(Record::Accept { attempts, .. }) => *attempts = count,
            Some(_) | None => self.buffer.put(Record::Attempt { id, attempts: count }),
        }
    }

    fn finish(&mut self, id: ItemId) {
        let Some(item) = self.queue.remove(id) else {
            return;
        };
        self.buffer.cancel(&Slot::Accept(id));
        self.buffer.cancel(&Slot::Attempt(id));
        match item.home {
            Home::Buffer => {}
            Home::Segment(_) => self.buffer.put(Record::Finish { id }),
        }
    }

    fn take(&mut self) -> Option<Flight> {
        let flight = self.buffer.take()?;
        self.queue.settle(&flight, self.current);
        Some(flight)
    }

    /// Starts a checkpoint: the journal is closed over exactly the changes that are frozen, so the
    /// database never runs ahead of the journal.
    fn freeze(&mut self) -> Step {
        self.checkpoint_wanted = false;
        let recopy = std::mem::take(&mut self.recopy);
        let changes = Arc::new(std::mem::take(&mut self.memory));
        let flight = self.take();
        self.frozen = Some(Frozen { changes, covers: self.current, journaled: flight.is_none(), recopy });
        match flight {
            Some(flight) => Step::Write(flight),
            None => Step::Frozen,
        }
    }

    fn checkpoint_is_due(&self, now: Instant) -> bool {
        if self.frozen.is_some() {
            return false;
        }
        let crowded = self.sealed.len() >= self.config.sealed_segments_max();
        let uncovered = self.sealed.first().is_some_and(|oldest| *oldest >= self.checkpointed);
        let dirty = !self.memory.is_empty();
        (crowded && uncovered)
            || self.recopy
            || (dirty && self.memory.bytes() >= self.config.memory_bytes_max)
            || (dirty && (self.checkpoint_wanted || now >= self.checkpoint_due))
    }

    fn write_is_due(&self, now: Instant) -> bool {
        let big = self.buffer.bytes() >= self.config.buffer_bytes_max() / 2;
        let due = self.buffer.due(now).is_some_and(|due| due <= now);
        big || due || self.closing != Closing::No
    }

    /// Gives sealed segments back: freely when nothing lives in them, by force when there are many.
    fn reclaim(&self, now: Instant) -> Option<Step> {
        let paused = self.reclaim_at.is_some_and(|reclaim_at| now < reclaim_at);
        if paused || self.closing != Closing::No {
            return None;
        }
        let oldest = *self.sealed.first()?;
        if oldest >= self.checkpointed {
            return None;
        }
        if !self.queue.lives_in(oldest) {
            return Some(Step::Recycle(oldest));
        }
        if self.sealed.len() < self.config.sealed_segments_max() {
            return None;
        }
        let residents = self.queue.residents(oldest, self.config.buffer_bytes_max());
        Some(Step::Move(Arc::new(residents)))
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        let checkpoint = (self.frozen.is_none() && !self.memory.is_empty()).then_some(self.checkpoint_due);
        [self.buffer.due(now), checkpoint].into_iter().flatten().min()
    }
}

/// What the checkpoint thread does next.
#[derive(Debug)]
pub(crate) enum CheckpointStep {
    Move(Frozen),
    Wait(Option<Instant>),
}

/// The store closes and the database cannot be written: the journal keeps the changes.
#[derive(Debug)]
pub(crate) struct Stopped;

fn retry_pause(failures: u32) -> Duration {
    let doubled = RETRY_MS_MIN.saturating_mul(1_u64 << failures.min(20));
    Duration::from_millis(doubled.min(RETRY_MS_MAX))
}

mod admission;
#[cfg(test)]
mod tests;
