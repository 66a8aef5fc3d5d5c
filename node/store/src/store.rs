//! The handle, and the two threads behind it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::batch::{Batch, ItemId, Record, Tree};
use crate::commit::{Commit, CommitError};
use crate::config::{Durability, StoreConfig};
use crate::database::{Checked, Database, DatabaseError};
use crate::generation::{self, Need};
use crate::journal::{Journal, JournalMode};
use crate::limits::{SPACE_CHECK_MS, WAITING_FACTOR};
use crate::recovery::{self, OpenError, Opened, Recovery};
use crate::space;
use crate::state::{CheckpointStep, Closing, Frozen, Health, State, Step, Stopped};

/// Why something cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The stored value is damaged. Other keys are not affected; setting the key heals it.
    #[error("value of {key:?} in {tree:?} is damaged")]
    Damaged {
        /// Tree of the key.
        tree: Tree,
        /// The key.
        key: Vec<u8>,
    },
    /// The database does not answer.
    #[error("read {tree:?}")]
    Database {
        /// Tree that was read.
        tree: Tree,
        /// What the database said.
        #[source]
        cause: DatabaseError,
    },
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Why the last changes are only in the journal. Nothing durable is lost: the next opening replays it.
#[derive(Debug, Error)]
pub enum CloseError {
    /// The journal did not take the last commits.
    #[error("the journal cannot be written: {0}")]
    Journal(Arc<str>),
    /// The database did not take the last changes.
    #[error("the checkpoint failed: {0}")]
    Checkpoint(Arc<str>),
}

/// What the store is doing, for people and for the bench.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// How groups reach the disk.
    pub mode: JournalMode,
    /// Why durable commits are refused, while they are.
    pub degraded: Option<Arc<str>>,
    /// Why the last checkpoint failed, until one succeeds.
    pub checkpoint_failure: Option<Arc<str>>,
    /// Whether sets and accepts are refused for lack of space.
    pub disk_full: bool,
    /// Items accepted and not finished.
    pub queue_items: usize,
    /// Their bytes.
    pub queue_bytes: usize,
    /// Bytes of changed keys that the database lacks.
    pub memory_bytes: usize,
    /// Bytes that wait for the next group.
    pub buffer_bytes: usize,
    /// Journal segments in use.
    pub segments: usize,
    /// Groups written since the store was opened.
    pub groups: u64,
    /// Checkpoints done since the store was opened.
    pub checkpoints: u64,
    /// Damaged values met since the store was opened.
    pub values_damaged: u64,
    /// Size of the database file.
    pub database_bytes: u64,
    /// Bytes written since the store was opened: the journal exactly, and what was handed to the database.
    pub write_bytes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    groups: AtomicU64,
    journal_bytes: AtomicU64,
    checkpoints: AtomicU64,
    checkpoint_bytes: AtomicU64,
    values_damaged: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    config: StoreConfig,
    cache_bytes: u64,
    mode: JournalMode,
    state: Mutex<State>,
    journal_wake: Condvar,
    checkpoint_wake: Condvar,
    database: RwLock<Arc<Database>>,
    counters: Counters,
}

/// Ends the threads with the last handle.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held until the threads are gone.
    lock: File,
}

/// A store that is open. Clones are handles to the same store; the last one that is dropped flushes it.
///
/// [`Store::commit`] does no disk access and may be called from asynchronous code; [`Store::get`] and
/// [`Store::scan`] may read the disk and belong on a blocking thread.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
    owner: Arc<Owner>,
}

impl Store {
    /// Opens or creates the store in `directory`, and repairs what a power cut left. Blocking.
    ///
    /// # Errors
    /// [`OpenError`]; damage is not an error but is set aside and reported in [`Recovery`].
    pub fn open(directory: &Path, config: StoreConfig) -> Result<(Self, Recovery), OpenError> {
        let opened = recovery::open(directory, &config)?;
        let Opened { lock, queue, next_item, journal, database, cache_bytes, recovery } = opened;
        let mut state = State::new(config.clone(), queue, next_item, Instant::now());
        state.handle_started(journal.current(), journal.sealed());
        state.room = space::room(directory, &config, database.file_bytes());
        let shared = Arc::new(Shared {
            directory: directory.to_path_buf(),
            config,
            cache_bytes,
            mode: journal.mode(),
            state: Mutex::new(state),
            journal_wake: Condvar::new(),
            checkpoint_wake: Condvar::new(),
            database: RwLock::new(Arc::new(database)),
            counters: Counters { journal_bytes: journal.written().into(), ..Counters::default() },
        });
        let owner = Owner { shared: Arc::clone(&shared), threads: Mutex::default(), lock };
        let for_journal = Arc::clone(&shared);
        let for_checkpoint = Arc::clone(&shared);
        owner.start("sedge-journal", move || for_journal.run_journal(journal))?;
        owner.start("sedge-checkpoint", move || for_checkpoint.run_checkpoints())?;
        Ok((Self { shared, owner: Arc::new(owner) }, recovery))
    }

    /// A number for the next item. A number that is not used is lost, and that is fine.
    #[must_use]
    pub fn next_item_id(&self) -> ItemId {
        self.shared.state().next_item_id()
    }

    /// Applies a batch. When this returns, every reader sees it; [`Commit::durable`] tells when it is safe.
    ///
    /// Takes a short lock and never waits for the disk.
    ///
    /// # Errors
    /// [`CommitError`]; then nothing of the batch is applied.
    pub fn commit(&self, batch: Batch, durability: Durability) -> Result<Commit, CommitError> {
        let now = Instant::now();
        let mut state = self.shared.state();
        let commit = state.commit(batch, durability, now);
        // A refusal may have asked for a checkpoint.
        let wake = state.must_wake(now) || matches!(commit, Err(CommitError::FunctionsFull { .. }));
        drop(state);
        if wake {
            self.shared.journal_wake.notify_one();
        }
        commit
    }

    /// The value of a key. May read the disk.
    ///
    /// # Errors
    /// [`ReadError`] if the value is damaged or the database does not answer.
    pub fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        if let Some(change) = self.shared.state().change(tree, key) {
            return Ok(change.map(|value| value.to_vec()));
        }
        let found = self.shared.database().get(tree, key);
        match found.map_err(|cause| ReadError::Database { tree, cause })? {
            Some(stored) => self.checked(tree, key, stored).map(Some),
            None => Ok(None),
        }
    }

    /// Up to `limit` keys that start with `prefix` and come after `after`, with their values, in order of
    /// the bytes. May read the disk. Concurrent commits may show partly.
    ///
    /// # Errors
    /// [`ReadError`] if one of the values is damaged or the database does not answer.
    pub fn scan(&self, tree: Tree, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, ReadError> {
        let changes = self.shared.state().changes(tree, prefix, after, limit);
        let database = self.shared.database();
        let mut newer = changes.into_iter().peekable();
        let mut older = database.range(tree, prefix, after).peekable();
        let mut found = Vec::new();
        while found.len() < limit {
            let newer_first = match (newer.peek(), older.peek()) {
                (None, None) => break,
                (Some((new, _)), Some(Ok((old, _)))) if **new == **old => {
                    older.next();
                    true
                }
                (Some((new, _)), Some(Ok((old, _)))) => **new < **old,
                (Some(_), None) => true,
                (None, Some(_)) | (Some(_), Some(Err(_))) => false,
            };
            if newer_first {
                let change = newer.next();
                found.extend(change.and_then(|(key, value)| Some((key.to_vec(), value?.to_vec()))));
            } else if let Some(next) = older.next() {
                let (key, stored) = next.map_err(|cause| ReadError::Database { tree, cause })?;
                let value = self.checked(tree, &key, stored)?;
                found.push((key, value));
            }
        }
        Ok(found)
    }

    /// Starts moving changed keys into the database now. Does not wait for it.
    pub fn checkpoint(&self) {
        self.shared.state().want_checkpoint();
        self.shared.journal_wake.notify_one();
    }

    /// What the store is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        let database_bytes = self.shared.database().file_bytes();
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let state = self.shared.state();
        Status {
            mode: self.shared.mode,
            degraded: match &state.health {
                Health::Good => None,
                Health::Degraded { reason, .. } => Some(Arc::clone(reason)),
            },
            checkpoint_failure: state.checkpoint_failure().cloned(),
            disk_full: state.room.free < state.room.free_min,
            queue_items: state.queue.len(),
            queue_bytes: state.queue.bytes(),
            memory_bytes: state.memory_bytes(),
            buffer_bytes: state.buffer_bytes(),
            segments: state.segments(),
            groups: read(&counters.groups),
            checkpoints: read(&counters.checkpoints),
            values_damaged: read(&counters.values_damaged),
            database_bytes,
            write_bytes: read(&counters.journal_bytes) + read(&counters.checkpoint_bytes),
        }
    }

    /// Writes everything, moves all changes into the database and ends the threads. Other handles answer
    /// [`CommitError::Closed`] from now on; reading goes on. Blocking; a second call does nothing.
    ///
    /// # Errors
    /// [`CloseError`] if that did not work. Commits that were durable stay durable.
    pub fn close(&self) -> Result<(), CloseError> {
        self.owner.end(Closing::Checkpoint);
        let state = self.shared.state();
        if let Health::Degraded { reason, .. } = &state.health {
            return Err(CloseError::Journal(Arc::clone(reason)));
        }
        match state.checkpoint_failure() {
            Some(reason) => Err(CloseError::Checkpoint(Arc::clone(reason))),
            None => Ok(()),
        }
    }

    fn checked(&self, tree: Tree, key: &[u8], stored: Checked) -> Result<Vec<u8>, ReadError> {
        stored.map_err(|_damaged| {
            self.shared.counters.values_damaged.fetch_add(1, Ordering::Relaxed);
            ReadError::Damaged { tree, key: key.to_vec() }
        })
    }
}

impl Owner {
    fn start(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(body).map_err(OpenError::Thread)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    fn end(&self, closing: Closing) {
        self.shared.state().close(closing);
        self.shared.journal_wake.notify_all();
        self.shared.checkpoint_wake.notify_all();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                log::error!("store thread panicked");
            }
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.end(Closing::Flush);
        self.lock.unlock().ok();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> Arc<Database> {
        Arc::clone(&self.database.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn run_journal(&self, mut journal: Journal) {
        let mut room_due = Instant::now();
        loop {
            self.look_at_room(&mut room_due);
            match self.next_step(room_due) {
                Step::Write(flight) | Step::Move(flight) => self.write(&mut journal, &flight),
                Step::Recycle(segment) => self.recycle(&mut journal, segment),
                Step::Frozen => self.checkpoint_wake.notify_one(),
                Step::Wait(_) => {}
                Step::Stop => break,
            }
            self.counters.journal_bytes.store(journal.written(), Ordering::Relaxed);
        }
        self.state().handle_stopped();
        self.checkpoint_wake.notify_all();
    }

    /// What to do now; waits for it, but only until the room is to be looked at.
    fn next_step(&self, room_due: Instant) -> Step {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            let until = match state.poll_step(now) {
                Step::Wait(until) => until.map_or(room_due, |until| until.min(room_due)),
                step => return step,
            };
            if now >= room_due {
                return Step::Wait(None);
            }
            let pause = until.saturating_duration_since(now);
            let waited = self.journal_wake.wait_timeout(state, pause);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn look_at_room(&self, due: &mut Instant) {
        let now = Instant::now();
        if now < *due {
            return;
        }
        *due = now + Duration::from_millis(SPACE_CHECK_MS);
        self.measure_room();
    }

    fn measure_room(&self) {
        let database = self.database();
        let mut room = space::room(&self.directory, &self.config, database.file_bytes());
        room.database_used = database.used_bytes();
        self.state().room = room;
    }

    fn write(&self, journal: &mut Journal, records: &[(u64, Record)]) {
        let outcome = journal.append(records);
        self.counters.journal_bytes.store(journal.written(), Ordering::Relaxed);
        let mut state = self.state();
        match outcome {
            Ok(()) => {
                if matches!(state.health, Health::Degraded { .. }) {
                    log::info!("journal is written again");
                }
                self.counters.groups.fetch_add(1, Ordering::Relaxed);
                state.handle_written(records, journal.current(), journal.sealed());
            }
            Err(cause) => {
                if matches!(state.health, Health::Good) {
                    log::error!(cause:% = cause; "journal cannot be written");
                }
                state.handle_write_failed(&cause.to_string(), Instant::now());
            }
        }
        drop(state);
        self.checkpoint_wake.notify_one();
    }

    fn recycle(&self, journal: &mut Journal, segment: u64) {
        match journal.recycle(segment) {
            Ok(()) => self.state().handle_recycled(segment),
            Err(cause) => {
                log::warn!(segment, cause:% = cause; "segment cannot be recycled");
                self.state().handle_recycle_failed(Instant::now());
            }
        }
    }

    fn run_checkpoints(&self) {
        while let Ok(step) = self.next_checkpoint() {
            let CheckpointStep::Move(frozen) = step else {
                continue;
            };
            let outcome = self.move_changes(&frozen).map_err(|error| {
                log::error!(cause:? = error; "checkpoint failed");
                error.to_string()
            });
            if outcome.is_ok() {
                self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
            }
            self.state().handle_checkpoint(outcome, Instant::now());
            self.journal_wake.notify_one();
        }
    }

    fn next_checkpoint(&self) -> Result<CheckpointStep, Stopped> {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            let until = match state.poll_checkpoint(now)? {
                CheckpointStep::Wait(until) => until,
                step @ CheckpointStep::Move(_) => return Ok(step),
            };
            state = match until {
                None => self.checkpoint_wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let pause = until.saturating_duration_since(now);
                    let waited = self.checkpoint_wake.wait_timeout(state, pause);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn move_changes(&self, frozen: &Frozen) -> Result<(), DatabaseError> {
        let database = self.database();
        let bytes = database.apply(&frozen.changes)?;
        self.counters.checkpoint_bytes.fetch_add(bytes, Ordering::Relaxed);
        let room = self.state().room;
        let soon = database.file_bytes() + (self.config.memory_bytes_max as u64).saturating_mul(WAITING_FACTOR);
        // The first copy is made early: it shows what of the file is garbage.
        let pressed = soon > room.garbage_max() || (soon > room.functions_max() && !database.knows_cost());
        let spare = room.free.saturating_sub(room.free_min / 2);
        let need = match pressed {
            _ if frozen.recopy => Need::Full,
            true => Need::Pressed,
            false => Need::Tidy,
        };
        match generation::compact(&database, need, spare, self.cache_bytes) {
            Ok(Some(smaller)) => self.swap_database(database, smaller),
            Ok(None) => {}
            // The changes are in the database that is there.
            Err(error) => log::warn!(cause:? = error; "the database could not be compacted"),
        }
        self.measure_room();
        Ok(())
    }

    fn swap_database(&self, old: Arc<Database>, new: Database) {
        let after = new.file_bytes();
        log::info!(before = old.file_bytes(), after; "database compacted");
        self.counters.checkpoint_bytes.fetch_add(after, Ordering::Relaxed);
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        let path = old.path().to_path_buf();
        drop(old);
        generation::discard(&path);
    }
}
