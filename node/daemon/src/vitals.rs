//! How the box is: memory, processors, load, and what the bus counts.

use crate::bus::BusStats;
use crate::clock;
use sedge_protocol::message::Vitals;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// What the daemon may use: of the machine, or of its control group when that is less.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
}

/// Reads what the box has.
pub(crate) fn measure() -> Machine {
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()));
    let limit = system.cgroup_limits().map_or(u64::MAX, |limits| limits.total_memory);
    let memory_bytes = match limit {
        0 => system.total_memory(),
        limit => system.total_memory().min(limit),
    };
    Machine { cores: cores(), memory_bytes }
}

/// Reads the vitals now. Reads files of /proc: call it from a blocking thread or rarely.
pub(crate) fn read(stats: &Arc<BusStats>) -> Vitals {
    let mut system = System::new();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let load = System::load_average().one;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range before")]
    let load_centi = (load * 100.0).clamp(0.0, 1_000_000.0) as u32;
    Vitals {
        uptime_ms: clock::mono().0,
        started_ms: clock::started().0,
        memory_used: system.used_memory(),
        memory_total: system.total_memory(),
        cores: u32::try_from(cores()).unwrap_or(u32::MAX),
        load_centi,
        events_in: stats.events_in.load(Ordering::Relaxed),
        events_dropped: stats.dropped.load(Ordering::Relaxed),
        events_waiting: stats.waiting.load(Ordering::Relaxed),
        dead_letters: stats.dead_letters.load(Ordering::Relaxed),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
