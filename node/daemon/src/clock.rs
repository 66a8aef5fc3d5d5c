//! The clocks of the daemon; the only place that reads them for decisions.

use sedge_node_core::asynchronous::{Boot, Moment};
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

/// The moment of the machine's life: goes on when the daemon starts anew, begins again with the machine.
pub(crate) fn moment() -> Moment {
    static BOOT: LazyLock<Boot> = LazyLock::new(boot);
    let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(uptime.tv_sec).unwrap_or(0), u64::try_from(uptime.tv_nsec).unwrap_or(0));
    Moment { boot: *BOOT, uptime_ms: seconds.saturating_mul(1000) + nanos / 1_000_000 }
}

/// The kernel's id of this start of the machine; all zero where there is none, and then only the uptime tells starts apart.
fn boot() -> Boot {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let number = u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0);
    Boot(number.to_be_bytes())
}
