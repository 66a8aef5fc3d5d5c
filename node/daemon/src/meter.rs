//! Counts what ran: per window for the ledger, per function for live tables.
//!
//! ```text
//! Ending ─▶ Meter (memory) ─ every few seconds ─▶ ledger ─▶ store ─▶ usage_sync ─▶ fleet
//! ```

use crate::clock;
use sedge_node_core::health::Failures;
use sedge_protocol::limits::HEALTH_REASON_BYTES_MAX;
use sedge_protocol::message::{FunctionReport, Health, LastFailure};
use sedge_protocol::usage::{Counters, WINDOW_MS, Window};
use sedge_protocol::{FunctionName, RevisionId};
use sedge_runtime::{Ending, Failure, Fault};
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
    /// Functions that have failed since the daemon started.
    troubles: BTreeMap<FunctionName, Trouble>,
}

#[derive(Debug)]
struct Trouble {
    failures: Failures,
    last: LastFailure,
}

impl Meter {
    /// Counts the end of an invocation.
    pub(crate) fn ended(&self, function: &FunctionName, revision: RevisionId, ending: &Ending) {
        self.count(function, revision, &counters(ending));
        if let Err(failure) = &ending.result
            && failure.fault() == Fault::Function
        {
            self.note(function, failure);
        }
    }

    fn note(&self, function: &FunctionName, failure: &Failure) {
        let mut reason = crate::fault::clip(&failure.to_string());
        reason.truncate(reason.floor_char_boundary(HEALTH_REASON_BYTES_MAX));
        let last = LastFailure { time_ms: clock::wall().0, reason };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Trouble { failures: Failures::default(), last: last.clone() };
        let trouble = counts.troubles.entry(function.clone()).or_insert_with(fresh);
        trouble.failures.note(clock::mono());
        trouble.last = last;
    }

    /// Counts an invocation that was refused for overload.
    pub(crate) fn shed(&self, function: &FunctionName, revision: RevisionId) {
        self.count(function, revision, &Counters { calls_shed: 1, ..Counters::default() });
    }

    /// What has been counted since the last call.
    pub(crate) fn take(&self) -> BTreeMap<Window, Counters> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).windows)
    }

    /// The reports with the sums and the health since the daemon started.
    pub(crate) fn with_totals(&self, mut reports: Vec<FunctionReport>) -> Vec<FunctionReport> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for report in &mut reports {
            report.totals = counts.totals.get(&report.function).copied().unwrap_or_default();
            if let Some(trouble) = counts.troubles.get(&report.function) {
                let failed_hour = trouble.failures.last_hour(clock::mono());
                report.health = Health { failed_hour, last_failure: Some(trouble.last.clone()) };
            }
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
    use sedge_protocol::message::FunctionState;
    use sedge_runtime::Usage;

    #[test]
    fn faults_of_the_platform_are_free() {
        let usage = Usage { cpu_us: 5, wall_us: 2_000, memory_peak_bytes: MIB, ..Usage::default() };
        let count = |result| counters(&Ending { result, usage });
        assert_eq!((count(Ok(())).calls_ok, count(Ok(())).memory_mib_ms), (1, 2));
        assert_eq!(count(Err(Failure::NoResponse)).calls_failed, 1);
        let free = count(Err(Failure::Busy { reason: String::new() }));
        assert_eq!((free.calls_platform, free.cpu_us), (1, 0));
    }

    #[test]
    fn health_is_the_last_failure_of_the_functions_own_and_how_many_there_were() {
        let meter = Meter::default();
        let (function, revision) = ("f".parse().unwrap(), "ab".repeat(32).parse().unwrap());
        let end = |result| meter.ended(&function, revision, &Ending { result, usage: Usage::default() });
        let report = || FunctionReport {
            function: function.clone(),
            running: None,
            state: FunctionState::Running,
            assigned: None,
            missing_secrets: Vec::new(),
            totals: Counters::default(),
            health: Health::default(),
        };
        let health = || meter.with_totals(vec![report()]).remove(0).health;
        end(Ok(()));
        end(Err(Failure::Cancelled));
        end(Err(Failure::Busy { reason: String::new() }));
        assert!(health().is_good(), "neither a caller's nor the node's fault is the function's");
        end(Err(Failure::NoResponse));
        end(Err(Failure::Trap { message: "x".repeat(5000) }));
        assert_eq!(health().failed_hour, 2);
        let reason = health().last_failure.unwrap().reason;
        assert!(reason.starts_with("trap: x") && reason.len() == HEALTH_REASON_BYTES_MAX, "{reason}");
    }
}
