//! Admission: memory in bytes and a number of invocations, both reserved before an instance starts.
//!
//! Order of reservation: the function's own concurrency, then an invocation, then memory; each queue is first come, first served.
//! A small function may pass a large one only when that waits for its own concurrency.

use crate::limits::ADMISSION_WAIT_MAX;
use sedge_node_core::Capacity;
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

/// A reservation; dropping it gives everything back.
#[derive(Debug)]
pub(crate) struct Permit {
    _function: OwnedSemaphorePermit,
    _invocation: OwnedSemaphorePermit,
    _memory: OwnedSemaphorePermit,
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
    pub(crate) async fn admit(&self, function: &Arc<Semaphore>, bytes: u64) -> Result<Permit, Refused> {
        if let Some(permit) = self.try_admit(function, bytes) {
            return Ok(permit);
        }
        let crowd = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if crowd >= self.capacity.waiting {
            return Err(Refused::Full(crowd));
        }
        tokio::time::timeout(ADMISSION_WAIT_MAX, self.reserve(function, bytes)).await.map_err(|_| Refused::TooLong(ADMISSION_WAIT_MAX))
    }

    fn try_admit(&self, function: &Arc<Semaphore>, bytes: u64) -> Option<Permit> {
        Some(Permit {
            _function: Arc::clone(function).try_acquire_owned().ok()?,
            _invocation: Arc::clone(&self.invocations).try_acquire_owned().ok()?,
            _memory: Arc::clone(&self.memory).try_acquire_many_owned(units(bytes)).ok()?,
        })
    }

    async fn reserve(&self, function: &Arc<Semaphore>, bytes: u64) -> Permit {
        const OPEN: &str = "the gate's semaphores are never closed";
        Permit {
            _function: Arc::clone(function).acquire_owned().await.expect(OPEN),
            _invocation: Arc::clone(&self.invocations).acquire_owned().await.expect(OPEN),
            _memory: Arc::clone(&self.memory).acquire_many_owned(units(bytes)).await.expect(OPEN),
        }
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(memory_bytes: u64, invocations: u32) -> Gate {
        Gate::new(Capacity { memory_bytes, invocations, waiting: 0 })
    }

    #[tokio::test]
    async fn memory_is_exact_and_comes_back() {
        let gate = gate(4 * UNIT_BYTES, 10);
        let function = Arc::new(Semaphore::new(10));
        let first = gate.admit(&function, 3 * UNIT_BYTES).await.unwrap();
        assert_eq!(gate.admit(&function, 2 * UNIT_BYTES).await.err(), Some(Refused::Full(0)));
        drop(first);
        assert!(gate.admit(&function, 4 * UNIT_BYTES).await.is_ok());
        assert!(gate.fits(4 * UNIT_BYTES) && !gate.fits(4 * UNIT_BYTES + 1));
    }

    #[tokio::test]
    async fn a_function_keeps_to_its_own_concurrency() {
        let gate = gate(1 << 30, 10);
        let function = Arc::new(Semaphore::new(1));
        let held = gate.admit(&function, 1).await.unwrap();
        assert!(gate.admit(&function, 1).await.is_err());
        assert!(gate.admit(&Arc::new(Semaphore::new(1)), 1).await.is_ok());
        drop(held);
    }
}
