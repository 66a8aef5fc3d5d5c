//! Counts what ran: per window for the ledger, per function for live tables.
//!
//! ```text
//! Ending ─▶ Meter (memory) ─ every few seconds ─▶ ledger ─▶ store ─▶ usage_sync ─▶ fleet
//! ```

use crate::clock;
use sedge_protocol::message::FunctionReport;
use sedge_protocol::usage::{Counters, WINDOW_MS, Window};
use sedge_protocol::{FunctionName, RevisionId};
use sedge_runtime::{Ending, Fault};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

const MIB: u64 = 1024 * 1024;

/// Counters in memory. Cheap to clone.
// A leaf lock, held for a few additions and never across an await: the end of every invocation writes here from whatever thread it is on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    windows: BTreeMap<Window, Counters>,
    totals: BTreeMap<FunctionName, Counters>,
}

impl Meter {
    /// Counts the end of an invocation.
    pub(crate) fn ended(&self, function: &FunctionName, revision: RevisionId, ending: &Ending) {
        self.count(function, revision, &counters(ending));
    }

    /// Counts an invocation that was refused for overload.
    pub(crate) fn shed(&self, function: &FunctionName, revision: RevisionId) {
        self.count(function, revision, &Counters { calls_shed: 1, ..Counters::default() });
    }

    /// What has been counted since the last call.
    pub(crate) fn take(&self) -> BTreeMap<Window, Counters> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).windows)
    }

    /// The reports with the sums since the daemon started.
    pub(crate) fn with_totals(&self, mut reports: Vec<FunctionReport>) -> Vec<FunctionReport> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for report in &mut reports {
            report.totals = counts.totals.get(&report.function).copied().unwrap_or_default();
        }
        reports
    }

    fn count(&self, function: &FunctionName, revision: RevisionId, delta: &Counters) {
        let now = clock::wall().0;
        let window = Window { function: function.clone(), revision, start_ms: now - now % WINDOW_MS };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.windows.entry(window).or_default().add(delta);
        if !counts.totals.contains_key(function) {
            counts.totals.insert(function.clone(), Counters::default());
        }
        if let Some(total) = counts.totals.get_mut(function) {
            total.add(delta);
        }
    }
}

fn counters(ending: &Ending) -> Counters {
    let usage = &ending.usage;
    let mut counters = Counters {
        cold_starts: u64::from(usage.cold),
        cpu_us: usage.cpu_us,
        wall_ms: usage.wall_us.div_ceil(1000),
        memory_mib_ms: usage.memory_peak_bytes.saturating_mul(usage.wall_us) / (MIB * 1000),
        bytes_in: usage.bytes_in,
        bytes_out: usage.bytes_out,
        kv_ops: usage.kv_ops,
        ..Counters::default()
    };
    match &ending.result {
        Ok(()) => counters.calls_ok = 1,
        Err(failure) => match failure.fault() {
            Fault::Function | Fault::Caller => counters.calls_failed = 1,
            // Free of charge: only the call itself is counted.
            Fault::Platform => return Counters { calls_platform: 1, ..Counters::default() },
        },
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_runtime::{Failure, Usage};

    #[test]
    fn faults_of_the_platform_are_free() {
        let usage = Usage { cpu_us: 5, wall_us: 2_000, memory_peak_bytes: MIB, ..Usage::default() };
        let count = |result| counters(&Ending { result, usage });
        assert_eq!((count(Ok(())).calls_ok, count(Ok(())).memory_mib_ms), (1, 2));
        assert_eq!(count(Err(Failure::NoResponse)).calls_failed, 1);
        let free = count(Err(Failure::Busy { reason: String::new() }));
        assert_eq!((free.calls_platform, free.cpu_us), (1, 0));
    }
}
