//! Admission: memory in bytes and a number of invocations, both reserved before an instance starts.
//!
//! Order of reservation: the function's own concurrency, then an invocation, then memory; each queue is first come, first served.
//! A small function may pass a large one only when that waits for its own concurrency.

use crate::functions::Active;
use crate::limits::ADMISSION_WAIT_MAX;
use sedge_node_core::Capacity;
use sedge_runtime::Warm;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const UNIT_BYTES: u64 = 64 * 1024;

/// What the box gives to functions.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    memory: Arc<Semaphore>,
    invocations: Arc<Semaphore>,
    waiting: Arc<AtomicU32>,
    capacity: Capacity,
}

/// The right to run; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Permit {
    _function: OwnedSemaphorePermit,
    _invocation: OwnedSemaphorePermit,
}

/// Memory that is reserved; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Room(#[expect(dead_code, reason = "held for what dropping it does")] OwnedSemaphorePermit);

/// Where an admitted invocation runs.
#[derive(Debug)]
pub(crate) enum Place {
    /// In memory that was reserved for it.
    Room(Room),
    /// In an instance that waited, which has its memory already.
    Warm(Warm),
}

/// Why an invocation is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// So many wait already that another would only wait in vain.
    #[error("overloaded: {0} invocations wait already")]
    Full(u32),
    /// It waited as long as it is sensible.
    #[error("overloaded: no room within {0:?}")]
    TooLong(Duration),
}

/// Counts one that waits.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    pub(crate) fn new(capacity: Capacity) -> Self {
        let units = usize::try_from(capacity.memory_bytes / UNIT_BYTES).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            memory: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))),
            invocations: Arc::new(Semaphore::new(capacity.invocations as usize)),
            waiting: Arc::default(),
            capacity,
        }
    }

    /// Whether an instance of this size can ever run here.
    pub(crate) fn fits(&self, bytes: u64) -> bool {
        bytes <= self.capacity.memory_bytes
    }

    /// What the gate hands out.
    pub(crate) fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Waits for room, at most [`ADMISSION_WAIT_MAX`] and in a bounded crowd.
    ///
    /// Cancel safe: what was reserved is given back.
    pub(crate) async fn admit(&self, active: &Active) -> Result<(Permit, Place), Refused> {
        if let Some(admitted) = self.try_admit(active) {
            return Ok(admitted);
        }
        let crowd = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if crowd >= self.capacity.waiting {
            return Err(Refused::Full(crowd));
        }
        tokio::time::timeout(ADMISSION_WAIT_MAX, self.reserve(active)).await.map_err(|_| Refused::TooLong(ADMISSION_WAIT_MAX))
    }

    fn try_admit(&self, active: &Active) -> Option<(Permit, Place)> {
        let permit = Permit {
            _function: Arc::clone(&active.concurrency).try_acquire_owned().ok()?,
            _invocation: Arc::clone(&self.invocations).try_acquire_owned().ok()?,
        };
        if let Some(warm) = active.function.warm() {
            return Some((permit, Place::Warm(warm)));
        }
        let room = Arc::clone(&self.memory).try_acquire_many_owned(units(active.function.memory_reservation())).ok()?;
        Some((permit, Place::Room(Room(room))))
    }

    async fn reserve(&self, active: &Active) -> (Permit, Place) {
        const OPEN: &str = "the gate's semaphores are never closed";
        let permit = Permit {
            _function: Arc::clone(&active.concurrency).acquire_owned().await.expect(OPEN),
            _invocation: Arc::clone(&self.invocations).acquire_owned().await.expect(OPEN),
        };
        let room = Arc::clone(&self.memory).acquire_many_owned(units(active.function.memory_reservation())).await.expect(OPEN);
        (permit, Place::Room(Room(room)))
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}
