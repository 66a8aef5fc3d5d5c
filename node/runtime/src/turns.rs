//! Where long guests go: threads that give them turns, fairly over functions by processor time.
//!
//! ```text
//! Guest computes on ─▶ Turns::run ─▶ Fair (node/core) ─▶ worker: one turn ─┬─ done ─▶ Away resolves
//!                                          ▲                                └─ more ─▶ its credit shrinks, back in line
//!                                          └──────────────── woken ◀─────────────────┘
//! ```
//! An invocation begins on the thread that took its request, which is fastest for the many short ones. One that computes longer than
//! its first turn comes here, so that it never holds up the connections of that thread, and shares the processors with its like.

use crate::limits::TURNS_NICENESS;
use async_task::Runnable;
use sedge_node_core::fair::Fair;
use sedge_protocol::FunctionName;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::Instant;
use tokio::runtime::Handle;

/// The place of one guest here: whose it is, and the runtime that serves its timers and sockets.
struct Place {
    function: FunctionName,
    home: Handle,
}

type Turn = Runnable<Place>;

#[derive(Default)]
struct Waiting {
    fair: Fair<FunctionName, Turn>,
    idle_workers: usize,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    work: Condvar,
}

/// The threads. Dropping it ends them when nothing waits any more.
#[derive(Debug)]
pub(crate) struct Turns(Arc<Shared>);

/// A guest that runs here. Dropping it stops the guest.
#[derive(Debug)]
pub(crate) struct Away<T>(async_task::Task<T, Place>);

impl Turns {
    /// Starts so many threads; they sleep until a guest comes.
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        let turns = Self(Arc::default());
        for number in 0..threads.max(1) {
            let shared = Arc::clone(&turns.0);
            thread::Builder::new().name(format!("sedge-turns-{number}")).spawn(move || shared.serve_less_urgently())?;
        }
        Ok(turns)
    }

    /// Goes on with `work` here, on behalf of `function`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn run<T: Send + 'static>(&self, function: FunctionName, work: impl Future<Output = T> + Send + 'static) -> Away<T> {
        let shared = Arc::downgrade(&self.0);
        let place = Place { function, home: Handle::current() };
        let schedule = move |turn: Turn| {
            // Without threads nobody will ever run it: dropping it cancels it.
            if let Some(shared) = shared.upgrade() {
                shared.push(turn);
            }
        };
        let (turn, task) = async_task::Builder::new().metadata(place).spawn(|_| work, schedule);
        turn.schedule();
        Away(task)
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.work.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, turn: Turn) {
        let mut waiting = self.lock();
        let function = turn.metadata().function.clone();
        waiting.fair.push(&function, turn);
        if waiting.idle_workers > 0 {
            self.work.notify_one();
        }
    }

    /// What takes requests and keeps the books goes first, however many guests compute.
    fn serve_less_urgently(&self) {
        if let Err(cause) = rustix::process::nice(TURNS_NICENESS) {
            log::warn!(cause:%; "long guests are as urgent as requests");
        }
        self.serve();
    }

    fn serve(&self) {
        while let Some((function, turn)) = self.next() {
            let begin = Instant::now();
            let home = turn.metadata().home.clone();
            let _timers_and_sockets = home.enter();
            turn.run();
            // Wall time of the turn stands for processor time: a worker does nothing else, and the guest's own bill is exact elsewhere.
            let cost_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.lock().fair.charge(&function, cost_us);
        }
    }

    fn next(&self) -> Option<(FunctionName, Turn)> {
        let mut waiting = self.lock();
        loop {
            if let Some(next) = waiting.fair.pop() {
                return Some(next);
            }
            if waiting.ended {
                return None;
            }
            waiting.idle_workers += 1;
            waiting = self.work.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.idle_workers -= 1;
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("waiting", &self.lock().fair.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("function", &self.function).finish_non_exhaustive()
    }
}

impl<T> Future for Away<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

    #[tokio::test]
    async fn what_runs_here_wakes_who_waits_for_it() {
        let turns = Turns::start(2).unwrap();
        let name: FunctionName = "f".parse().unwrap();
        let sleeper = turns.run(name.clone(), async {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            7
        });
        assert_eq!(turns.run(name, async { 5 }).await + sleeper.await, 12);
    }

    #[tokio::test]
    async fn dropping_stops() {
        let turns = Turns::start(1).unwrap();
        let (dropped, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        struct Flag(Arc<AtomicBool>);
        impl Drop for Flag {
            fn drop(&mut self) {
                self.0.store(true, SeqCst);
            }
        }
        let (flag, count) = (Flag(Arc::clone(&dropped)), Arc::clone(&begun));
        let away = turns.run("f".parse().unwrap(), async move {
            let _flag = flag;
            loop {
                count.fetch_add(1, SeqCst);
                tokio::task::yield_now().await;
            }
        });
        while begun.load(SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        drop(away);
        while !dropped.load(SeqCst) {
            tokio::task::yield_now().await;
        }
    }
}
