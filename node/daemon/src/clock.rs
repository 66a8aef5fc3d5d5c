//! The two clocks of the daemon; the only place that reads them for decisions.

use sedge_node_core::{Micros, Mono, Wall};
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds since the daemon started.
pub(crate) fn mono() -> Mono {
    Mono(u64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// Microseconds since the daemon started.
pub(crate) fn micros() -> Micros {
    Micros(u64::try_from(BEGAN.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// Milliseconds since 1970 by the system's clock.
pub(crate) fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// When the daemon started, milliseconds since 1970 as the clock was then; the same for the whole run, whatever the clock does.
pub(crate) fn started() -> Wall {
    static STARTED: LazyLock<Wall> = LazyLock::new(|| Wall(wall().0.saturating_sub(mono().0)));
    *STARTED
}

/// The runtime's instant for a moment of ours.
pub(crate) fn instant(at: Mono) -> tokio::time::Instant {
    tokio::time::Instant::from_std(*BEGAN + Duration::from_millis(at.0))
}
