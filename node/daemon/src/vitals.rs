//! How the box is: memory, processors, load, and what the bus counts.

use crate::bus::BusStats;
use crate::clock;
use crate::device::Board;
use crate::fault::clip;
use anyhow::Context as _;
use sedge_protocol::message::Vitals;
use sedge_store::Store;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use sysinfo::{MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System};

/// What the daemon may use: of the machine, or of its control group when that is less.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
}

/// Reads what the box has.
pub(crate) fn measure() -> anyhow::Result<Machine> {
    let memory = MemoryRefreshKind::nothing().with_ram();
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(memory)).context("read the memory of the box")?;
    let memory_bytes = system.total_memory();
    let memory_bytes = group_limit(system).map_or(memory_bytes, |limit| memory_bytes.min(limit));
    Ok(Machine { cores: cores(), memory_bytes })
}

/// What the daemon's own control group, or one above it, may have; `None` without a limit.
fn group_limit(mut system: System) -> Option<u64> {
    let own = sysinfo::get_current_pid().ok()?;
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), false, ProcessRefreshKind::nothing());
    let limits = system.process(own)?.cgroup_limits()?;
    Some(limits.total_memory).filter(|bytes| *bytes > 0)
}

/// Reads the vitals now. Reads files of /proc: call it from a blocking thread.
pub(crate) fn read(stats: &Arc<BusStats>, store: &Store, devices: &Board) -> Vitals {
    let memory = MemoryRefreshKind::nothing().with_ram();
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(memory)).ok();
    let load = System::load_average().map_or(0.0, |load| load.one);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range before")]
    let load_centi = (load * 100.0).clamp(0.0, 1_000_000.0) as u32;
    Vitals {
        uptime_ms: clock::mono().0,
        started_ms: clock::started().0,
        memory_used: system.as_ref().map_or(0, System::used_memory),
        memory_total: system.as_ref().map_or(0, System::total_memory),
        cores: u32::try_from(cores()).unwrap_or(u32::MAX),
        load_centi,
        events_in: stats.events_in.load(Ordering::Relaxed),
        events_dropped: stats.dropped.load(Ordering::Relaxed),
        events_waiting: stats.waiting.load(Ordering::Relaxed),
        dead_letters: stats.dead_letters.load(Ordering::Relaxed),
        store_trouble: store_trouble(store),
        device_trouble: devices.trouble(),
    }
}

fn store_trouble(store: &Store) -> Option<String> {
    let status = store.status();
    let full = || status.disk_full.then(|| "the disk is full: events and state are refused until there is room".into());
    let trouble = status.degraded.clone().or(status.checkpoint_failure.clone()).or_else(full);
    trouble.map(|reason| clip(&reason))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
