//! Instances of one function that wait for their next invocation, each with the memory that is reserved for it.
//!
//! Two kinds: fresh ones, made when the one before was done, so that the next request finds its instance ready; and, where the
//! manifest allows reuse, ones that have served before. The newest goes first: its memory is the warmest.

use crate::instance::Instance;
use crate::usage::Call;
use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An instance that waits for an invocation, and the memory that is reserved for it.
pub struct Warm {
    pub(crate) instance: Box<Instance>,
    /// What making it used, if nobody has paid for that yet.
    pub(crate) preparation: Option<Arc<Call>>,
    pub(crate) room: Box<dyn Any + Send>,
    since: Instant,
}

impl Warm {
    pub(crate) fn new(instance: Box<Instance>, preparation: Option<Arc<Call>>, room: Box<dyn Any + Send>) -> Self {
        Self { instance, preparation, room, since: Instant::now() }
    }
}

impl fmt::Debug for Warm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warm").field("served", &self.instance.served()).finish_non_exhaustive()
    }
}

// A leaf lock, held to push or pop one pointer.
#[derive(Debug, Default)]
pub(crate) struct Idle(Mutex<Vec<Warm>>);

impl Idle {
    fn list(&self) -> MutexGuard<'_, Vec<Warm>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len(&self) -> usize {
        self.list().len()
    }

    pub(crate) fn take(&self) -> Option<Warm> {
        self.list().pop()
    }

    /// Keeps it, or lets it go when `max` wait already.
    pub(crate) fn put(&self, warm: Warm, max: usize) {
        let mut list = self.list();
        if list.len() < max {
            list.push(warm);
        } else {
            // Clearing it away takes a while, and giving its memory back another lock.
            drop(list);
            drop(warm);
        }
    }

    /// Takes out all but the newest `keep` that have waited for `age` or longer.
    pub(crate) fn older_than(&self, age: Duration, keep: usize) -> Vec<Warm> {
        let mut list = self.list();
        let spare = list.len().saturating_sub(keep);
        let old = list.iter().take(spare).take_while(|warm| warm.since.elapsed() >= age).count();
        list.drain(..old).collect()
    }
}
