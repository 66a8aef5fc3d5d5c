//! What one invocation used, counted while it runs and handed over exactly once.
//!
//! ```text
//!  guest poll ─ cpu ─┐
//!  limiter ─ memory ─┤
//!  bodies ─ bytes ───┼──▶ Call ── last owner drops it ──▶ ended(Ending { result, usage })
//!  host calls ───────┘
//! ```

use crate::failure::Failure;
use crate::host::{CallInfo, RevisionRef};
use crate::idle::Warm;
use crate::last_words::LastWords;
use crate::trace::Trace;
use cpu_time::ThreadTime;
use sedge_protocol::FunctionName;
use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What one invocation used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of guest and host calls together, microseconds.
    pub cpu_us: u64,
    /// From the start of the call to the end of its guest, microseconds. How long a client takes to read is not the function's time.
    pub wall_us: u64,
    /// How long it ran or could have run, microseconds: wall time without waiting for the host. The excess over `cpu_us` is waiting
    /// for a processor.
    pub runnable_us: u64,
    /// Most memory at one time: linear, and what lay in the scratch directory.
    pub memory_peak_bytes: u64,
    /// Body bytes and event data that the function read, answers to its own requests and its files included.
    pub bytes_in: u64,
    /// Body bytes, replies and messages that it produced, its own requests and its files included.
    pub bytes_out: u64,
    /// Operations on key-value stores; each key of a batch counts.
    pub kv_ops: u64,
    /// The first invocation since the revision was prepared.
    pub cold: bool,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Whether it did what it should.
    pub result: Result<(), Failure>,
    /// What it used, final.
    pub usage: Usage,
}

pub(crate) type Gone = Box<dyn FnOnce(Usage) + Send>;
pub(crate) type Ended = Box<dyn FnOnce(Ending) + Send>;

/// The name that stands in logs where an instance does something before it has an invocation.
const PREPARATION: &str = "preparation";

/// One invocation before it begins: its name, what it holds, and who hears of its end.
pub struct Invocation {
    pub(crate) id: Arc<str>,
    pub(crate) callers: Arc<[FunctionName]>,
    pub(crate) causes: u32,
    pub(crate) trace: Option<Trace>,
    pub(crate) warm: Option<Warm>,
    pub(crate) hold: Box<dyn Any + Send>,
    pub(crate) gone: Option<Gone>,
    pub(crate) room: Box<dyn Any + Send>,
    pub(crate) ended: Ended,
}

impl Invocation {
    /// `hold` is dropped as soon as the guest is gone: the place for an admission permit.
    /// `ended` is called exactly once, when the last byte of the answer is delivered or given up, on whatever thread
    /// that happens; it must not block.
    pub fn new(id: impl Into<Arc<str>>, hold: impl Send + 'static, ended: impl FnOnce(Ending) + Send + 'static) -> Self {
        let (hold, room, ended) = (Box::new(hold), Box::new(()), Box::new(ended));
        Self { id: id.into(), trace: None, callers: Arc::default(), causes: 0, warm: None, hold, gone: None, room, ended }
    }

    /// Says which functions wait for this one, the outermost first.
    #[must_use]
    pub fn called_by(self, callers: Arc<[FunctionName]>) -> Self {
        Self { callers, ..self }
    }

    /// Says how many calls and events of functions led to this invocation, one after the other and without waiting for it.
    #[must_use]
    pub fn caused_by(self, causes: u32) -> Self {
        Self { causes, ..self }
    }

    /// `gone` hears what was used as soon as the guest is gone, which is before the last byte of the answer is delivered; or it is
    /// dropped uncalled, when the invocation is given up before its guest began. It must not block.
    #[must_use]
    pub fn on_gone(mut self, gone: impl FnOnce(Usage) + Send + 'static) -> Self {
        self.gone = Some(Box::new(gone));
        self
    }

    /// The memory that is reserved for the instance. It is dropped when the memory is free again, which may be long after the
    /// invocation: an idle instance keeps it until [`Function::release`](crate::Function::release).
    #[must_use]
    pub fn in_room(mut self, room: impl Send + 'static) -> Self {
        self.room = Box::new(room);
        self
    }

    /// The span of the invocation; the guest sees it as `traceparent`.
    #[must_use]
    pub fn in_trace(mut self, trace: Trace) -> Self {
        self.trace = Some(trace);
        self
    }

    /// Runs in an instance that waited, in the room that is reserved for that.
    #[must_use]
    pub fn in_warm(mut self, warm: Warm) -> Self {
        self.warm = Some(warm);
        self
    }
}

impl fmt::Debug for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation").field("id", &self.id).finish_non_exhaustive()
    }
}

/// One running invocation. Dropping the last reference ends it.
pub(crate) struct Call {
    info: CallInfo,
    started: Instant,
    cold: bool,
    /// When the guest had ended and its memory was free again.
    guest_gone: OnceLock<Instant>,
    cpu_ns: AtomicU64,
    runnable_ns: AtomicU64,
    memory_peak_bytes: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    kv_ops: AtomicU64,
    /// Whether the guest has computed for a whole turn.
    turned: AtomicBool,
    /// Whether it gave way at the end of a turn, and not to wait for the host.
    gave_way: AtomicBool,
    traffic: Arc<Traffic>,
    /// Parts (guest, response body) that have not come to their end; not zero at the end means cancelled.
    open_parts: AtomicU32,
    failure: OnceLock<Failure>,
    last_words: Mutex<LastWords>,
    ended: Mutex<Option<Ended>>,
}

impl Call {
    /// Starts the clock.
    pub(crate) fn begin(info: CallInfo, cold: bool, ended: Ended) -> Arc<Self> {
        Arc::new(Self::new(info, cold, Some(ended)))
    }

    /// What happens in an instance before it has an invocation; the one that gets it [takes it over](Self::take_over).
    pub(crate) fn preparation(revision: Arc<RevisionRef>) -> Arc<Self> {
        Arc::new(Self::new(
            CallInfo { revision, invocation: PREPARATION.into(), callers: Arc::default(), causes: 0, trace: None },
            false,
            None,
        ))
    }

    fn new(info: CallInfo, cold: bool, ended: Option<Ended>) -> Self {
        Self {
            info,
            started: Instant::now(),
            cold,
            guest_gone: OnceLock::new(),
            cpu_ns: AtomicU64::new(0),
            runnable_ns: AtomicU64::new(0),
            memory_peak_bytes: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            kv_ops: AtomicU64::new(0),
            turned: AtomicBool::new(false),
            gave_way: AtomicBool::new(false),
            traffic: Arc::default(),
            open_parts: AtomicU32::new(1),
            failure: OnceLock::new(),
            last_words: Mutex::default(),
            ended: Mutex::new(ended),
        }
    }

    /// What was used to prepare the instance is part of the invocation that gets it.
    pub(crate) fn take_over(&self, preparation: &Self) {
        self.cpu_ns.fetch_add(preparation.cpu_ns.swap(0, Relaxed), Relaxed);
        self.kv_ops.fetch_add(preparation.kv_ops.swap(0, Relaxed), Relaxed);
        self.bytes_out.fetch_add(preparation.bytes_out.swap(0, Relaxed), Relaxed);
        self.traffic.take_over(&preparation.traffic);
    }

    /// The guest has computed for a whole turn.
    pub(crate) fn turn(&self) {
        self.turned.store(true, Relaxed);
        self.gave_way.store(true, Relaxed);
    }

    /// Whether the guest gave way since the last question, and not to wait for the host.
    pub(crate) fn gave_way(&self) -> bool {
        self.gave_way.swap(false, Relaxed)
    }

    /// It could have run for so long.
    pub(crate) fn count_runnable(&self, time: Duration) {
        self.runnable_ns.fetch_add(nanos(time), Relaxed);
    }

    /// Whether the guest has computed for a whole turn.
    pub(crate) fn has_turned(&self) -> bool {
        self.turned.load(Relaxed)
    }

    pub(crate) const fn info(&self) -> &CallInfo {
        &self.info
    }

    pub(crate) fn limit_ms(&self) -> u64 {
        self.info.revision.manifest.limits.timeout_ms
    }

    /// When the guest is stopped.
    pub(crate) fn deadline(&self) -> Instant {
        self.started + Duration::from_millis(self.limit_ms())
    }

    /// Runs `work` and counts the processor time of this thread meanwhile.
    pub(crate) fn metered<T>(&self, work: impl FnOnce() -> T) -> T {
        let begin = ThreadTime::now();
        let result = work();
        self.cpu_ns.fetch_add(nanos(begin.elapsed()), Relaxed);
        result
    }

    pub(crate) fn count_in(&self, bytes: usize) -> u64 {
        add(&self.bytes_in, bytes)
    }

    pub(crate) fn count_out(&self, bytes: usize) -> u64 {
        add(&self.bytes_out, bytes)
    }

    pub(crate) fn count_kv(&self, operations: usize) {
        add(&self.kv_ops, operations);
    }

    /// Where bytes to and from other machines and files are counted.
    pub(crate) const fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    pub(crate) fn count_memory(&self, bytes: usize) {
        self.memory_peak_bytes.fetch_max(bytes as u64, Relaxed);
    }

    /// Records why the call fails; the first reason stands.
    pub(crate) fn fail(&self, failure: Failure) -> Failure {
        self.failure.get_or_init(|| failure).clone()
    }

    /// Why the call fails, if that is known already.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.get()
    }

    /// The guest wrote a line on standard error.
    pub(crate) fn hear(&self, line: &str) {
        self.last_words.lock().unwrap_or_else(PoisonError::into_inner).hear(line);
    }

    /// What the guest said last.
    pub(crate) fn last_words(&self) -> Option<String> {
        self.last_words.lock().unwrap_or_else(PoisonError::into_inner).text().map(ToOwned::to_owned)
    }

    /// One more part has to come to its end.
    pub(crate) fn open_part(&self) {
        self.open_parts.fetch_add(1, Relaxed);
    }

    /// The guest is gone, and its memory free.
    pub(crate) fn guest_gone(&self) {
        self.guest_gone.get_or_init(Instant::now);
    }

    /// A part came to its end.
    pub(crate) fn close_part(&self) {
        self.open_parts.fetch_sub(1, Relaxed);
    }

    /// Whether it stands for what an instance does before it has an invocation.
    pub(crate) fn is_preparation(&self) -> bool {
        *self.info.invocation == *PREPARATION
    }

    /// Processor time so far, microseconds.
    pub(crate) fn cpu_us(&self) -> u64 {
        self.cpu_ns.load(Relaxed) / 1000
    }

    /// What was used so far.
    pub(crate) fn usage(&self) -> Usage {
        let end = self.guest_gone.get().copied().unwrap_or_else(Instant::now);
        Usage {
            cpu_us: self.cpu_us(),
            wall_us: u64::try_from(end.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX),
            runnable_us: self.runnable_ns.load(Relaxed) / 1000,
            memory_peak_bytes: self.memory_peak_bytes.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed) + self.traffic.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed) + self.traffic.bytes_out.load(Relaxed),
            kv_ops: self.kv_ops.load(Relaxed),
            cold: self.cold,
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let usage = self.usage();
        let result = match self.failure.take() {
            Some(failure) => Err(failure),
            None if self.open_parts.load(Relaxed) > 0 => Err(Failure::Cancelled),
            None => Ok(()),
        };
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            ended(Ending { result, usage });
        }
    }
}

/// Bytes that a function exchanged with other machines, other functions and its files. A connection's own task counts here, so it
/// is not the call that it holds.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Traffic {
    fn take_over(&self, preparation: &Self) {
        self.bytes_in.fetch_add(preparation.bytes_in.swap(0, Relaxed), Relaxed);
        self.bytes_out.fetch_add(preparation.bytes_out.swap(0, Relaxed), Relaxed);
    }

    pub(crate) fn count_in(&self, bytes: usize) {
        add(&self.bytes_in, bytes);
    }

    pub(crate) fn count_out(&self, bytes: usize) {
        add(&self.bytes_out, bytes);
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("info", &self.info).finish_non_exhaustive()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn add(counter: &AtomicU64, amount: usize) -> u64 {
    let amount = amount as u64;
    counter.fetch_add(amount, Relaxed) + amount
}
