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
use rustix::time::{ClockId, clock_gettime};
use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What one invocation used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of guest and host calls together, microseconds.
    pub cpu_us: u64,
    /// From the start of the call to the end of its guest, microseconds. How long a client takes to read is not the function's time.
    pub wall_us: u64,
    /// Most linear memory at one time.
    pub memory_peak_bytes: u64,
    /// Body bytes and event data that the function read.
    pub bytes_in: u64,
    /// Body bytes, replies and messages that it produced.
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

type Ended = Box<dyn FnOnce(Ending) + Send>;

/// One invocation before it begins: its name, what it holds, and who hears of its end.
pub struct Invocation {
    id: Arc<str>,
    hold: Box<dyn Any + Send>,
    ended: Ended,
}

impl Invocation {
    /// `hold` is dropped as soon as the instance is gone and its memory free again: the place for an admission permit.
    /// `ended` is called exactly once, when the last byte of the answer is delivered or given up, on whatever thread
    /// that happens; it must not block.
    pub fn new(id: impl Into<Arc<str>>, hold: impl Send + 'static, ended: impl FnOnce(Ending) + Send + 'static) -> Self {
        Self { id: id.into(), hold: Box::new(hold), ended: Box::new(ended) }
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
    memory_peak_bytes: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    kv_ops: AtomicU64,
    /// Parts (guest, response body) that have not come to their end; not zero at the end means cancelled.
    open_parts: AtomicU32,
    failure: OnceLock<Failure>,
    ended: Mutex<Option<Ended>>,
}

impl Call {
    /// Starts the clock. The second half is for the guest to hold.
    pub(crate) fn begin(revision: Arc<RevisionRef>, invocation: Invocation, cold: bool) -> (Arc<Self>, Box<dyn Any + Send>) {
        let Invocation { id, hold, ended } = invocation;
        let call = Self {
            info: CallInfo { revision, invocation: id },
            started: Instant::now(),
            cold,
            guest_gone: OnceLock::new(),
            cpu_ns: AtomicU64::new(0),
            memory_peak_bytes: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            kv_ops: AtomicU64::new(0),
            open_parts: AtomicU32::new(1),
            failure: OnceLock::new(),
            ended: Mutex::new(Some(ended)),
        };
        (Arc::new(call), hold)
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
        let before = thread_cpu();
        let result = work();
        self.cpu_ns.fetch_add(thread_cpu().saturating_sub(before), Relaxed);
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

    fn usage(&self) -> Usage {
        let end = self.guest_gone.get().copied().unwrap_or_else(Instant::now);
        Usage {
            cpu_us: self.cpu_ns.load(Relaxed) / 1000,
            wall_us: u64::try_from(end.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX),
            memory_peak_bytes: self.memory_peak_bytes.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
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

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("info", &self.info).finish_non_exhaustive()
    }
}

fn add(counter: &AtomicU64, amount: usize) -> u64 {
    let amount = amount as u64;
    counter.fetch_add(amount, Relaxed) + amount
}

/// Processor time of this thread so far, nanoseconds.
fn thread_cpu() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
