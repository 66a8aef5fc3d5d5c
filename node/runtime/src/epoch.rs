//! The clock of all deadlines: one thread that ticks while guests run and sleeps while none do.

use crate::limits::EPOCH;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, Thread};
use wasmtime::Engine;

/// Epochs without a guest before the thread sleeps: waking it for every request would cost more than these ticks.
const IDLE_EPOCHS: u32 = 100;

/// Ticks an engine's epochs. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct EpochClock {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Shared {
    guests: AtomicUsize,
    parked: AtomicBool,
    ended: AtomicBool,
}

/// Keeps the clock ticking while a guest runs.
#[derive(Debug)]
pub(crate) struct Ticking(Arc<Shared>);

impl EpochClock {
    pub(crate) fn start(engine: &Engine) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (engine, of_thread) = (engine.clone(), Arc::clone(&shared));
        let tick = move || {
            let mut idle = 0;
            while !of_thread.ended.load(SeqCst) {
                idle = if of_thread.guests.load(SeqCst) == 0 { idle + 1 } else { 0 };
                if idle > IDLE_EPOCHS {
                    // An idle node wakes for nothing. Whoever starts the first guest unparks us.
                    of_thread.parked.store(true, SeqCst);
                    if of_thread.guests.load(SeqCst) == 0 {
                        thread::park();
                    }
                    of_thread.parked.store(false, SeqCst);
                    idle = 0;
                } else {
                    engine.increment_epoch();
                    thread::sleep(EPOCH);
                }
            }
        };
        let thread = thread::Builder::new().name("sedge-epoch".to_owned()).spawn(tick)?.thread().clone();
        Ok(Self { shared, thread })
    }

    /// Counts one more guest for as long as the answer lives.
    pub(crate) fn ticking(&self) -> Ticking {
        if self.shared.guests.fetch_add(1, SeqCst) == 0 && self.shared.parked.load(SeqCst) {
            self.thread.unpark();
        }
        Ticking(Arc::clone(&self.shared))
    }
}

impl Drop for EpochClock {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        self.thread.unpark();
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.guests.fetch_sub(1, SeqCst);
    }
}
