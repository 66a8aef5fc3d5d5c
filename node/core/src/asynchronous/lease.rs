//! The right to run a call, on disk before the run begins.
//!
//! Guests end with the daemon, so after a `kill -9` nothing of a run is left on the node. What goes on is what the run has set off
//! elsewhere: a machine that still works on its request. It may do so until the run's deadline, and so long nobody starts the call
//! again. After a start of the machine the lease is void: the night without power was longer, or nobody can tell.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a lease has beyond the longest run: time to reach the disk and to end.
pub const LEASE_MARGIN: Duration = Duration::from_secs(1);

/// One life of the machine, from start to start: the kernel's boot id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot(pub [u8; 16]);

/// A moment of the machine's life. No calendar is involved, so a clock that is set, or begins in 1970, changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Which life.
    pub boot: Boot,
    /// Milliseconds since its start, sleep included. Goes on when the daemon starts anew.
    pub uptime_ms: u64,
}

/// Until when a run may last and nobody else may start it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    boot: Boot,
    granted_ms: u64,
    until_ms: u64,
}

impl Lease {
    /// A lease for `span` from `now` on.
    #[must_use]
    pub fn grant(now: Moment, span: Duration) -> Self {
        let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self { boot: now.boot, granted_ms: now.uptime_ms, until_ms: now.uptime_ms.saturating_add(span) }
    }

    /// How long it holds; zero when it is over or void.
    #[must_use]
    pub fn left(&self, now: Moment) -> Duration {
        if !self.same_boot(now) {
            return Duration::ZERO;
        }
        Duration::from_millis(self.until_ms.saturating_sub(now.uptime_ms))
    }

    /// Whether the machine has not been started since it was granted. A node that cannot tell one boot from another is still told
    /// apart by its uptime, which never goes back.
    #[must_use]
    pub fn same_boot(&self, now: Moment) -> bool {
        self.boot == now.boot && now.uptime_ms >= self.granted_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_lease_ends_exactly_once_and_never_outlives_its_span(start in 0_u64..1 << 40, span in 0_u64..1 << 30, later in 0_u64..1 << 31) {
            let boot = Boot([7; 16]);
            let lease = Lease::grant(Moment { boot, uptime_ms: start }, Duration::from_millis(span));
            let left = lease.left(Moment { boot, uptime_ms: start + later });
            prop_assert_eq!(left, Duration::from_millis(span.saturating_sub(later)));
            prop_assert_eq!(lease.left(Moment { boot: Boot([8; 16]), uptime_ms: start + later }), Duration::ZERO);
            if start > 0 {
                prop_assert_eq!(lease.left(Moment { boot, uptime_ms: start - 1 }), Duration::ZERO, "the machine was started since");
            }
        }
    }
}
