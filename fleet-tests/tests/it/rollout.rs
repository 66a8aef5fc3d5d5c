//! New revisions under load.

use crate::support::{directory, fleet_with_node, function, idle, own_sensor, processed, usage_is_equal};
use anyhow::Result;
use fleet_tests::{Load, artifact, until};
use std::time::Duration;

/// Changes of the revision.
const ROLLOUTS: usize = 6;
/// Bytes that make a revision slow to arrive.
const PADDING_BYTES: usize = 2 << 20;

#[test]
fn rollouts_under_load_lose_no_event_and_run_each_once() -> Result<()> {
    let directory = directory()?;
    let (fleet, node) = fleet_with_node(&directory)?;
    let (average, manifest) = (function("average"), artifact::manifest("average")?);
    let first = fleet.roll_out(&manifest, &artifact::guest("average")?)?;
    let second = fleet.publish(&manifest, &artifact::padded(&artifact::guest("average-v2")?, &vec![0; PADDING_BYTES]))?;
    let load = Load::start(node.mqtt(), Duration::from_millis(10), own_sensor);
    for revision in [second.id, first.id].into_iter().cycle().take(ROLLOUTS) {
        let begun = load.acknowledged();
        fleet.rollout(&average, revision)?;
        fleet.runs_everywhere(&average, revision)?;
        until("events go on", || Ok((load.acknowledged() > begun + 20).then_some(())))?;
    }
    let acknowledged = load.stop()?;
    idle(&node)?;
    let ran = node.totals(&average)?;
    assert_eq!(ran.calls_ok, acknowledged.len() as u64, "{ran:?}");
    usage_is_equal(&fleet, &node, &average)?;
    let rows: Vec<sedge_protocol::api::UsageRow> = fleet.get("/api/v1/usage?function=average")?;
    for revision in [first.id, second.id] {
        assert!(rows.iter().any(|row| row.revision == revision && row.usage.calls_ok > 0), "{revision} ran nothing");
    }
    let counts = processed(&node, &acknowledged)?;
    let wrong: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
    println!("{} events over {ROLLOUTS} rollouts, lost or doubled: {wrong:?}", acknowledged.len());
    assert!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}
