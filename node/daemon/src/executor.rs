//! The threads that serve requests and run functions: one for each processor, each with a runtime of its own.
//!
//! ```text
//! listener (control runtime) ─▶ place: the least loaded ─▶ executor: connection, instance, answer — all on one thread
//! bus (on an executor) ───────▶ place ───────────────────▶ executor: event, instance, outcome
//! ```
//! What belongs to one request never crosses threads, so no processor is woken for it but the one that has its socket. Guests that
//! compute on leave for threads of their own (the runtime's turns). Broker, store and session stay on the control runtime, which
//! sleeps most of the time and therefore goes first when it has something to do.

use crate::limits::{LAG_BEAT, LAG_BEATS_IDLE, SPIN};
use anyhow::Context as _;
use std::cell::{Cell, OnceCell};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// Timers of the runtime are at most so much late by themselves.
const TIMER_GRAIN: Duration = Duration::from_millis(1);

#[derive(Debug)]
struct Executor {
    handle: Handle,
    load: AtomicUsize,
}

/// All executors. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Executors(Arc<[Executor]>);

/// The threads, to be ended after all work is done.
#[derive(Debug)]
pub(crate) struct Threads {
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

/// How late the executor of this thread is.
#[derive(Debug, Default)]
struct Beat {
    beating: Cell<bool>,
    touched: Cell<bool>,
    due: Cell<Option<Instant>>,
    lag: Cell<Duration>,
    last: Cell<Option<Instant>>,
    spinning: Cell<bool>,
}

thread_local! {
    /// The number of this thread among the executors.
    static HERE: Cell<Option<usize>> = const { Cell::new(None) };
    static BEAT: OnceCell<Beat> = const { OnceCell::new() };
}

/// A request came. How late the executor of this thread is, microseconds: it has waited about so long before anybody looked at it, which no
/// line shows. 0 on other threads.
pub(crate) fn lag_us() -> u64 {
    BEAT.with(|beat| {
        let Some(beat) = beat.get() else { return 0 };
        beat.touched.set(true);
        let now = Instant::now();
        let soon = beat.last.replace(Some(now)).is_some_and(|last| now - last < SPIN);
        if soon && !beat.spinning.replace(true) {
            tokio::spawn(spin());
        }
        if !beat.beating.replace(true) {
            tokio::spawn(watch_lag());
        }
        let overdue = beat.due.get().map_or(Duration::ZERO, |due| due.elapsed());
        u64::try_from(beat.lag.get().max(overdue).as_micros()).unwrap_or(u64::MAX)
    })
}

/// Keeps this executor awake for a moment after a request that came soon after another: a client that waits for its answer before it
/// asks again finds a thread that looks, instead of one that a processor has to be woken for. Ends as soon as requests come apart.
async fn spin() {
    let last = || BEAT.with(|beat| beat.get().and_then(|beat| beat.last.get()));
    while last().is_some_and(|last| last.elapsed() < SPIN) {
        tokio::task::yield_now().await;
    }
    BEAT.with(|beat| {
        if let Some(beat) = beat.get() {
            beat.spinning.set(false);
        }
    });
}

/// Sleeps and looks how much too long, for as long as there are requests.
async fn watch_lag() {
    let mut idle = 0;
    while idle < LAG_BEATS_IDLE {
        let due = Instant::now() + LAG_BEAT;
        let here = BEAT.with(|beat| beat.get().map(|beat| beat.due.set(Some(due))));
        if here.is_none() {
            return;
        }
        tokio::time::sleep_until(due.into()).await;
        idle += 1;
        BEAT.with(|beat| {
            if let Some(beat) = beat.get() {
                beat.lag.set(due.elapsed().saturating_sub(TIMER_GRAIN));
                if beat.touched.replace(false) {
                    idle = 0;
                }
            }
        });
    }
    BEAT.with(|beat| {
        if let Some(beat) = beat.get() {
            beat.lag.set(Duration::ZERO);
            beat.due.set(None);
            beat.beating.set(false);
        }
    });
}

/// A place on one executor; counts as load for as long as it lives.
#[derive(Debug)]
pub(crate) struct Seat {
    executors: Executors,
    at: usize,
}

impl Executors {
    /// Starts so many threads.
    pub(crate) fn start(count: usize) -> anyhow::Result<(Self, Threads)> {
        let stop = CancellationToken::new();
        let (mut executors, mut threads) = (Vec::new(), Vec::new());
        for number in 0..count.max(1) {
            let runtime = Builder::new_current_thread().enable_all().build().context("start an executor")?;
            executors.push(Executor { handle: runtime.handle().clone(), load: AtomicUsize::new(0) });
            let stop = stop.clone();
            let serve = move || {
                HERE.set(Some(number));
                BEAT.with(|beat| drop(beat.set(Beat::default())));
                runtime.block_on(stop.cancelled());
                runtime.shutdown_background();
            };
            threads.push(thread::Builder::new().name(format!("sedge-exec-{number}")).spawn(serve).context("start an executor")?);
        }
        Ok((Self(executors.into()), Threads { stop, threads }))
    }

    /// A place on the executor that has the least to do; of several such on the one that asks, so that no other thread is woken.
    pub(crate) fn place(&self) -> Seat {
        let here = HERE.get();
        let least = self.0.iter().enumerate().min_by_key(|(at, executor)| (executor.load.load(Relaxed), Some(*at) != here));
        let at = least.map_or(0, |(at, _)| at);
        self.0[at].load.fetch_add(1, Relaxed);
        Seat { executors: self.clone(), at }
    }
}

impl Seat {
    /// Where tasks of this place are spawned.
    pub(crate) fn handle(&self) -> &Handle {
        &self.executors.0[self.at].handle
    }

    /// Keeps the place for as long as `task` runs.
    pub(crate) async fn keep<F: Future<Output = ()>>(self, task: F) {
        task.await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.executors.0[self.at].load.fetch_sub(1, Relaxed);
    }
}

impl Threads {
    /// Ends the threads, and with them what still runs there.
    pub(crate) fn end(self) {
        self.stop.cancel();
        for thread in self.threads {
            // A panic there was reported when it happened.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_goes_where_least_is_done() {
        let (executors, threads) = Executors::start(2).unwrap();
        let (first, second) = (executors.place(), executors.place());
        assert_ne!(first.at, second.at);
        let freed = first.at;
        drop(first);
        assert_eq!(executors.place().at, freed);
        drop(second);
        threads.end();
    }
}
