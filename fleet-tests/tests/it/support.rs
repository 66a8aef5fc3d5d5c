//! What several cases share.

use anyhow::{Context as _, Result};
use fleet_tests::{Fleet, Load, Machine, Node, artifact};
use sedge_protocol::FunctionName;
use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// Threads that ask a node at the same time.
const ASKING: usize = 4;

/// A directory with a short name: paths of Unix sockets are bounded.
pub(crate) fn directory() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("sedge-").tempdir()?)
}

/// A fleet with one node that is connected.
pub(crate) fn fleet_with_node(directory: &TempDir) -> Result<(Fleet, Node)> {
    let fleet = Fleet::start(directory.path())?;
    let node = Node::start(directory.path(), "node-1", Some(&fleet.membership()?))?;
    node.online()?;
    Ok((fleet, node))
}

/// A name that is known to be one.
pub(crate) fn function(name: &str) -> FunctionName {
    name.parse().unwrap()
}

/// One reading of a sensor of its own: `average` then counts how often this one event was processed.
pub(crate) fn own_sensor(number: u64) -> (String, String) {
    (format!("plant/e{number}/temperature"), r#"{"value":20}"#.to_owned())
}

/// How often `average` has processed each of the events of [`own_sensor`], as its own durable state says.
pub(crate) fn processed(node: &Node, events: &BTreeSet<u64>) -> Result<BTreeMap<u64, u64>> {
    let events: Vec<u64> = events.iter().copied().collect();
    let share = events.len().div_ceil(ASKING).max(1);
    thread::scope(|scope| {
        let asking: Vec<_> = events.chunks(share).map(|events| scope.spawn(|| ask(node, events))).collect();
        let mut counts = BTreeMap::new();
        for answer in asking {
            counts.extend(answer.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??);
        }
        Ok(counts)
    })
}

fn ask(node: &Node, events: &[u64]) -> Result<Vec<(u64, u64)>> {
    let average = function("average");
    events.iter().map(|event| Ok((*event, count(node, &average, *event)? - 1))).collect()
}

/// The number of readings of a sensor, this question included.
fn count(node: &Node, average: &FunctionName, event: u64) -> Result<u64> {
    let (topic, data) = own_sensor(event);
    let result = node.invoke(average, &topic, &data)?;
    anyhow::ensure!(result.ok, "{topic}: {}", result.output);
    let answer: serde_json::Value = serde_json::from_str(&result.output)?;
    answer["count"].as_u64().with_context(|| result.output.clone())
}

/// Waits until nothing waits on the node any more.
pub(crate) fn idle(node: &Node) -> Result<()> {
    fleet_tests::until("every event was processed", || Ok((node.status()?.vitals.events_waiting == 0).then_some(())))
}

/// Feeds the node until it has acknowledged so many events and processed all; answers how many it acknowledged.
pub(crate) fn feed(node: &Node, events: usize) -> Result<u64> {
    let load = Load::start(node.mqtt(), Duration::from_millis(5), own_sensor);
    fleet_tests::until("enough events are acknowledged", || Ok((load.acknowledged() >= events).then_some(())))?;
    let acknowledged = load.stop()?.len() as u64;
    idle(node)?;
    Ok(acknowledged)
}

/// Waits until the fleet's ledger says for `name` what the node has counted since its start.
pub(crate) fn usage_is_equal(fleet: &Fleet, node: &Node, name: &FunctionName) -> Result<()> {
    let id = node.id()?;
    fleet_tests::until("the usage at the fleet equals the usage at the node", || {
        Ok((fleet.usage(name, Some(&id))? == node.totals(name)?).then_some(()))
    })
}

/// The time, milliseconds since 1970.
pub(crate) fn now_ms() -> Result<u64> {
    Ok(u64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_millis())?)
}

/// Rolls a guest out to a machine. An emulated processor takes long to compile it, and to run it longer than its deadline is meant for.
pub(crate) fn roll_out(fleet: &Fleet, machine: &Machine, name: &str) -> Result<()> {
    let mut manifest = artifact::manifest(name)?;
    manifest.limits.timeout_ms = 20_000;
    fleet.roll_out_within(machine.board().patience(), &manifest, &artifact::guest(name)?).map(drop)
}
