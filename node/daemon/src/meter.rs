//! Counts what ran: per window for the ledger, per function for live tables, per revision for metrics.
//!
//! ```text
//! Ending ─▶ Counts of the revision (atomics) ─ every few seconds, and when the hour changes ─▶ windows ─▶ ledger ─▶ store ─▶ fleet
//!                     └──────────────────────▶ totals, /metrics, OTLP
//! ```
//! Each revision has its counts, looked up once when it is prepared; they only grow. What goes to the ledger is how much they have
//! grown since the last look, under the lock, so that nothing is counted twice or lost, whoever looks.

use crate::clock;
use crate::telemetry::{DURATION_US, Distribution, EVENT_US, Histogram, MEMORY_BYTES, Requests};
use sedge_node_core::controller::Why;
use sedge_node_core::health::Failures;
use sedge_protocol::limits::HEALTH_REASON_BYTES_MAX;
use sedge_protocol::message::{FunctionReport, Health, LastFailure};
use sedge_protocol::usage::{Counters, WINDOW_MS, Window};
use sedge_protocol::{FunctionName, RevisionId};
use sedge_runtime::{Ending, Failure, Fault};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const MIB: u64 = 1024 * 1024;

/// Counters in memory. Cheap to clone.
// A leaf lock, held for memory operations and never across an await; no invocation takes it but the first of an hour.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    books: Mutex<Books>,
    refused: [AtomicU64; REFUSALS.len()],
}

/// Why an invocation was refused, as words for metrics.
const REFUSALS: [(Why, &str); 4] =
    [(Why::Concurrency, "concurrency"), (Why::Overload, "overload"), (Why::Memory, "memory"), (Why::Gone, "gone")];

#[derive(Debug, Default)]
struct Books {
    entries: BTreeMap<(FunctionName, RevisionId), Entry>,
    routes: BTreeMap<Option<String>, Arc<Requests>>,
    windows: BTreeMap<Window, Counters>,
    /// What revisions that are gone have counted.
    retired: BTreeMap<FunctionName, Counters>,
    /// Functions that have failed since the daemon started.
    troubles: BTreeMap<FunctionName, Trouble>,
}

#[derive(Debug)]
struct Trouble {
    failures: Failures,
    last: LastFailure,
}

#[derive(Debug)]
struct Entry {
    counts: Arc<Counts>,
    /// What of them is in windows already.
    folded: Counters,
}

/// What starts an invocation, as the semantic conventions tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request.
    Http,
    /// An event on a topic.
    Pubsub,
    /// A timer.
    Timer,
    /// `sedge invoke`.
    Other,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Http, Self::Pubsub, Self::Timer, Self::Other];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Pubsub => "pubsub",
            Self::Timer => "timer",
            Self::Other => "other",
        }
    }
}

/// What one revision has done since it was prepared.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) function: FunctionName,
    pub(crate) revision: RevisionId,
    /// Begin of the hour that the counts since the last fold belong to.
    hour_ms: AtomicU64,
    used: Used,
    runs: [Runs; Kind::ALL.len()],
    /// Most memory of an invocation, bytes.
    pub(crate) memory_bytes: Histogram,
    /// From the artifact to code that runs, microseconds.
    pub(crate) init_us: Histogram,
    /// From the bus taking an event to the end of its first attempt, if that succeeded, microseconds.
    event_us: Histogram,
}

/// [`Counters`] as atomics.
#[derive(Debug, Default)]
struct Used {
    calls_ok: AtomicU64,
    calls_failed: AtomicU64,
    calls_platform: AtomicU64,
    calls_shed: AtomicU64,
    cold_starts: AtomicU64,
    cpu_us: AtomicU64,
    wall_ms: AtomicU64,
    memory_mib_ms: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    kv_ops: AtomicU64,
}

/// Invocations of one kind.
#[derive(Debug)]
pub(crate) struct Runs {
    pub(crate) errors: AtomicU64,
    pub(crate) timeouts: AtomicU64,
    pub(crate) cold_starts: AtomicU64,
    pub(crate) succeeded: AtomicU64,
    duration_us: Histogram,
}

impl Runs {
    /// How long they took; nothing when there were none.
    pub(crate) fn durations(&self) -> Option<Distribution> {
        Some(self.duration_us.read()).filter(|read| read.count() > 0)
    }
}

impl Used {
    fn fields(&self) -> [&AtomicU64; 11] {
        [
            &self.calls_ok,
            &self.calls_failed,
            &self.calls_platform,
            &self.calls_shed,
            &self.cold_starts,
            &self.cpu_us,
            &self.wall_ms,
            &self.memory_mib_ms,
            &self.bytes_in,
            &self.bytes_out,
            &self.kv_ops,
        ]
    }

    fn add(&self, delta: &Counters) {
        let amounts = [
            delta.calls_ok,
            delta.calls_failed,
            delta.calls_platform,
            delta.calls_shed,
            delta.cold_starts,
            delta.cpu_us,
            delta.wall_ms,
            delta.memory_mib_ms,
            delta.bytes_in,
            delta.bytes_out,
            delta.kv_ops,
        ];
        for (counter, amount) in self.fields().into_iter().zip(amounts).filter(|(_, amount)| *amount > 0) {
            counter.fetch_add(amount, Relaxed);
        }
    }

    fn read(&self) -> Counters {
        let [calls_ok, calls_failed, calls_platform, calls_shed, cold_starts, cpu_us, wall_ms, memory_mib_ms, bytes_in, bytes_out, kv_ops] =
            self.fields().map(|counter| counter.load(Relaxed));
        Counters {
            calls_ok,
            calls_failed,
            calls_platform,
            calls_shed,
            cold_starts,
            cpu_us,
            wall_ms,
            memory_mib_ms,
            bytes_in,
            bytes_out,
            kv_ops,
        }
    }
}

impl Counts {
    fn new(function: FunctionName, revision: RevisionId) -> Self {
        let runs = || Runs {
            errors: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
            cold_starts: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
            duration_us: Histogram::new(DURATION_US),
        };
        Self {
            function,
            revision,
            hour_ms: AtomicU64::new(hour(clock::wall().0)),
            used: Used::default(),
            runs: [runs(), runs(), runs(), runs()],
            memory_bytes: Histogram::new(MEMORY_BYTES),
            init_us: Histogram::new(DURATION_US),
            event_us: Histogram::new(EVENT_US),
        }
    }

    /// Its invocations, by what started them.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (Kind, &Runs)> {
        Kind::ALL.into_iter().zip(&self.runs)
    }

    /// An event was handled at the first attempt, so long after the bus took it.
    pub(crate) fn event_done(&self, after: Duration) {
        self.event_us.observe(u64::try_from(after.as_micros()).unwrap_or(u64::MAX));
    }

    /// How long events took from the bus to the end of their invocation; nothing when there were none.
    pub(crate) fn events(&self) -> Option<Distribution> {
        Some(self.event_us.read()).filter(|read| read.count() > 0)
    }

    /// What it has used.
    pub(crate) fn used(&self) -> Counters {
        self.used.read()
    }
}

impl Meter {
    /// The counts of a revision: ask once, when it is prepared.
    pub(crate) fn of(&self, function: &FunctionName, revision: RevisionId) -> Arc<Counts> {
        let mut books = self.books();
        let counts = || Entry { counts: Arc::new(Counts::new(function.clone(), revision)), folded: Counters::default() };
        Arc::clone(&books.entries.entry((function.clone(), revision)).or_insert_with(counts).counts)
    }

    /// The requests of a route, or those that no route takes: ask once.
    pub(crate) fn route(&self, route: Option<&str>) -> Arc<Requests> {
        let mut books = self.books();
        Arc::clone(books.routes.entry(route.map(str::to_owned)).or_insert_with(|| Arc::new(Requests::of(route))))
    }

    /// Counts the end of an invocation.
    pub(crate) fn ended(&self, counts: &Counts, kind: Kind, ending: &Ending) {
        if let Err(failure) = &ending.result
            && failure.fault() == Fault::Function
        {
            self.note(&counts.function, failure);
        }
        let (runs, usage) = (&counts.runs[kind as usize], &ending.usage);
        match &ending.result {
            Ok(()) => &runs.succeeded,
            Err(Failure::Timeout { .. }) => &runs.timeouts,
            Err(_) => &runs.errors,
        }
        .fetch_add(1, Relaxed);
        if usage.cold {
            runs.cold_starts.fetch_add(1, Relaxed);
        }
        runs.duration_us.observe(usage.wall_us);
        counts.memory_bytes.observe(usage.memory_peak_bytes);
        self.count(counts, &counters(ending));
    }

    /// Counts an invocation that was refused for overload.
    pub(crate) fn shed(&self, counts: &Counts, why: Why) {
        if let Some(at) = REFUSALS.iter().position(|(known, _)| *known == why) {
            self.0.refused[at].fetch_add(1, Relaxed);
        }
        self.count(counts, &Counters { calls_shed: 1, ..Counters::default() });
    }

    /// What has been counted since the last call.
    pub(crate) fn take(&self) -> BTreeMap<Window, Counters> {
        let mut books = self.books();
        books.fold();
        books.retire();
        std::mem::take(&mut books.windows)
    }

    /// The reports with the sums since the daemon started.
    pub(crate) fn with_totals(&self, mut reports: Vec<FunctionReport>) -> Vec<FunctionReport> {
        let books = self.books();
        for report in &mut reports {
            if let Some(trouble) = books.troubles.get(&report.function) {
                let failed_hour = trouble.failures.last_hour(clock::mono());
                report.health = Health { failed_hour, last_failure: Some(trouble.last.clone()), ..std::mem::take(&mut report.health) };
            }
            report.totals = books.retired.get(&report.function).copied().unwrap_or_default();
            for (_, entry) in books.entries.iter().filter(|((function, _), _)| *function == report.function) {
                report.totals.add(&entry.counts.used());
            }
        }
        reports
    }

    fn note(&self, function: &FunctionName, failure: &Failure) {
        let mut reason = crate::fault::clip(&failure.to_string());
        reason.truncate(reason.floor_char_boundary(HEALTH_REASON_BYTES_MAX));
        let last = LastFailure { time_ms: clock::wall().0, reason };
        let mut books = self.books();
        let fresh = || Trouble { failures: Failures::default(), last: last.clone() };
        let trouble = books.troubles.entry(function.clone()).or_insert_with(fresh);
        trouble.failures.note(clock::mono());
        trouble.last = last;
    }

    /// All that is counted of revisions, and of routes.
    pub(crate) fn all(&self) -> (Vec<Arc<Counts>>, Vec<Arc<Requests>>) {
        let books = self.books();
        (books.entries.values().map(|entry| Arc::clone(&entry.counts)).collect(), books.routes.values().cloned().collect())
    }

    /// How often invocations were refused, by reason.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REFUSALS.into_iter().zip(&self.0.refused).map(|((_, name), count)| (name, count.load(Relaxed)))
    }

    /// Adds, into the window of this hour. An hour that has changed (also backwards, when the clock was set) closes the one before first.
    fn count(&self, counts: &Counts, delta: &Counters) {
        let hour_ms = hour(clock::wall().0);
        if counts.hour_ms.load(Relaxed) != hour_ms {
            let mut books = self.books();
            books.fold();
            counts.hour_ms.store(hour_ms, Relaxed);
        }
        counts.used.add(delta);
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// Brings what was counted into windows.
    fn fold(&mut self) {
        for ((function, revision), entry) in &mut self.entries {
            let now = entry.counts.used();
            let delta = now.since(&entry.folded);
            entry.folded = now;
            if delta != Counters::default() {
                let window = Window { function: function.clone(), revision: *revision, start_ms: entry.counts.hour_ms.load(Relaxed) };
                self.windows.entry(window).or_default().add(&delta);
            }
        }
    }

    /// Forgets revisions and routes that nobody can count for any more; what they have counted stays in the totals.
    fn retire(&mut self) {
        let retired = &mut self.retired;
        self.entries.retain(|(function, _), entry| {
            let alive = Arc::strong_count(&entry.counts) > 1 || entry.counts.used() != entry.folded;
            if !alive {
                retired.entry(function.clone()).or_default().add(&entry.folded);
            }
            alive
        });
        self.routes.retain(|route, requests| route.is_none() || Arc::strong_count(requests) > 1);
    }
}

fn hour(wall_ms: u64) -> u64 {
    wall_ms - wall_ms % WINDOW_MS
}

fn counters(ending: &Ending) -> Counters {
    let usage = &ending.usage;
    let mut counters = Counters {
        cold_starts: u64::from(usage.cold),
        cpu_us: usage.cpu_us,
        wall_ms: usage.wall_us.div_ceil(1000),
        memory_mib_ms: usage.memory_peak_bytes.saturating_mul(usage.wall_us) / (MIB * 1000),
        bytes_in: usage.bytes_in,
        bytes_out: usage.bytes_out,
        kv_ops: usage.kv_ops,
        ..Counters::default()
    };
    match &ending.result {
        Ok(()) => counters.calls_ok = 1,
        Err(failure) => match failure.fault() {
            Fault::Function | Fault::Caller => counters.calls_failed = 1,
            // Free of charge: only the call itself is counted.
            Fault::Platform => return Counters { calls_platform: 1, ..Counters::default() },
        },
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::{Digest, Manifest};
    use sedge_runtime::Usage;

    fn revision() -> (FunctionName, RevisionId) {
        let manifest = Manifest::from_toml("f", "name = 'f'").unwrap().0;
        (manifest.name.clone(), RevisionId::of(&Digest::of(b""), &manifest))
    }

    fn ending() -> Ending {
        Ending { result: Ok(()), usage: Usage { cpu_us: 5, wall_us: 2_000, memory_peak_bytes: MIB, ..Usage::default() } }
    }

    #[test]
    fn faults_of_the_platform_are_free() {
        let count = |result| counters(&Ending { result, ..ending() });
        assert_eq!((count(Ok(())).calls_ok, count(Ok(())).memory_mib_ms), (1, 2));
        assert_eq!(count(Err(Failure::NoResponse)).calls_failed, 1);
        let free = count(Err(Failure::Busy { reason: String::new() }));
        assert_eq!((free.calls_platform, free.cpu_us), (1, 0));
    }

    #[test]
    fn every_invocation_of_every_thread_is_in_one_window_once() {
        let (meter, (name, id)) = (Meter::default(), revision());
        let counts = meter.of(&name, id);
        let taken = std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5_000).for_each(|_| meter.ended(&counts, Kind::Http, &ending())));
            }
            let mut sum = Counters::default();
            for _ in 0..200 {
                meter.take().values().for_each(|counters| sum.add(counters));
            }
            sum
        });
        let mut sum = taken;
        meter.take().values().for_each(|counters| sum.add(counters));
        assert_eq!((sum.calls_ok, sum.cpu_us, sum.wall_ms, sum.memory_mib_ms), (20_000, 100_000, 40_000, 40_000));
        assert!(meter.take().is_empty(), "nothing twice");
        let (_, runs) = counts.runs().next().unwrap();
        assert_eq!((runs.succeeded.load(Relaxed), runs.durations().unwrap().count()), (20_000, 20_000));
    }

    #[test]
    fn what_was_counted_before_the_hour_changed_stays_in_its_hour() {
        let (meter, (name, id)) = (Meter::default(), revision());
        let counts = meter.of(&name, id);
        let now = hour(clock::wall().0);
        for start_ms in [now - 2 * WINDOW_MS, now + WINDOW_MS] {
            counts.hour_ms.store(start_ms, Relaxed);
            counts.used.add(&Counters { calls_ok: 3, ..Counters::default() });
            meter.shed(&counts, Why::Memory);
            let taken = meter.take();
            assert_eq!(taken.len(), 2);
            assert!(taken.iter().all(|(window, counters)| match window.start_ms == start_ms {
                true => (counters.calls_ok, counters.calls_shed) == (3, 0),
                false => (counters.calls_ok, counters.calls_shed) == (0, 1),
            }));
        }
        assert_eq!(meter.refused().collect::<Vec<_>>()[2], ("memory", 2));
    }

    #[test]
    fn a_revision_that_is_gone_leaves_its_sums() {
        let (meter, (name, id)) = (Meter::default(), revision());
        let counts = meter.of(&name, id);
        meter.ended(&counts, Kind::Timer, &ending());
        drop(counts);
        let state = sedge_protocol::message::FunctionState::Running;
        let report = || FunctionReport {
            function: name.clone(),
            running: None,
            state: state.clone(),
            assigned: None,
            totals: Counters::default(),
            missing_secrets: Vec::new(),
            health: Health::default(),
        };
        assert_eq!(meter.take().len(), 1);
        assert!(meter.all().0.is_empty(), "nobody can count for it any more");
        assert_eq!(meter.with_totals(vec![report()])[0].totals.calls_ok, 1);
        let again = meter.of(&name, id);
        meter.ended(&again, Kind::Timer, &ending());
        assert_eq!(meter.with_totals(vec![report()])[0].totals.calls_ok, 2);
    }

    #[test]
    fn health_is_the_last_failure_of_the_functions_own_and_how_many_there_were() {
        let (meter, (name, id)) = (Meter::default(), revision());
        let counts = meter.of(&name, id);
        let end = |result| meter.ended(&counts, Kind::Http, &Ending { result, usage: Usage::default() });
        let report = || FunctionReport {
            function: name.clone(),
            running: None,
            state: sedge_protocol::message::FunctionState::Running,
            assigned: None,
            totals: Counters::default(),
            missing_secrets: Vec::new(),
            health: Health::default(),
        };
        let health = || meter.with_totals(vec![report()]).remove(0).health;
        end(Ok(()));
        end(Err(Failure::Cancelled));
        end(Err(Failure::Busy { reason: String::new() }));
        assert!(health().is_good(), "neither a caller's nor the node's fault is the function's");
        end(Err(Failure::NoResponse));
        end(Err(Failure::Trap { message: "x".repeat(5000) }));
        assert_eq!(health().failed_hour, 2);
        let reason = health().last_failure.unwrap().reason;
        assert!(reason.starts_with("trap: x") && reason.len() == HEALTH_REASON_BYTES_MAX, "{reason}");
    }
}
