//! Instances between invocations: those that waited too long give their memory back, and those that are reserved are made.

use crate::functions::{Active, Functions};
use crate::gate::Gate;
use crate::limits::WARM_SWEEP;
use crate::supervisor::Supervisor;
use std::sync::Arc;

/// Runs until the daemon stops.
pub(crate) async fn run(mut functions: Functions, gate: Gate, supervisor: Supervisor) -> anyhow::Result<()> {
    loop {
        let table = functions.table();
        for active in table.active.values() {
            active.function.sweep(reserved(active));
            keep_reserved(active, &gate, &supervisor);
        }
        let idle = table.active.values().all(|active| active.function.waiting() <= reserved(active));
        tokio::select! {
            () = supervisor.stop().cancelled() => return Ok(()),
            changed = functions.changed() => changed?,
            // What was used meanwhile is seen at the next look; an idle node wakes less often.
            () = tokio::time::sleep(if idle { WARM_SWEEP * 5 } else { WARM_SWEEP }) => {}
        }
    }
}

fn reserved(active: &Active) -> usize {
    active.assignment.manifest.limits.reserved as usize
}

/// Makes one instance ahead for each reserved slot that has neither an instance nor an invocation.
fn keep_reserved(active: &Arc<Active>, gate: &Gate, supervisor: &Supervisor) {
    for _ in active.function.waiting()..reserved(active) {
        let Some(room) = gate.reserve(active.name()) else { return };
        let active = Arc::clone(active);
        supervisor.spread(async move {
            if let Err(failure) = active.function.prepare(room).await {
                log::warn!(function:% = active.name(), reason:% = failure; "an instance could not be made ahead");
            }
        });
    }
}
