//! The main path, end to end.

use crate::support::{directory, function, idle, usage_is_equal};
use anyhow::Result;
use fleet_tests::cli::sedge;
use fleet_tests::{Fleet, Load, Membership, Node, Subscriber, artifact, until};
use sedge_protocol::api::{CreatedClaim, NodeState, Revision, Rollout};
use std::time::Duration;

const EVENTS: usize = 100;

/// Five sensors in turn; each tenth reading is above the alarm.
fn reading(number: u64) -> (String, String) {
    let value = if number.is_multiple_of(10) { 95 } else { 20 };
    (format!("plant/s{}/temperature", number % 5), format!(r#"{{"value":{value}}}"#))
}

#[test]
fn from_the_claim_to_the_usage_on_the_fleets_ledger() -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start(directory.path())?;
    let data = Some(fleet.data());
    let sedge = |arguments: &[&str]| sedge(data.as_deref(), arguments);

    let claim: CreatedClaim = sedge(&["claim", "create", "--label", "site=berlin", "--json"])?.json()?;
    let membership = Membership { url: claim.fleet, ca_pin: claim.ca_pin, claim: claim.token };
    let node = Node::start(directory.path(), "gateway", Some(&membership))?;
    node.online()?;
    let nodes = fleet.nodes()?;
    assert_eq!((nodes.len(), nodes[0].state, nodes[0].labels.value("site")), (1, NodeState::Online, Some("berlin")));

    for name in ["average", "hello"] {
        let (wasm, manifest) = (artifact::guest_path(name)?, artifact::manifest_path(name));
        let wasm = wasm.to_string_lossy().into_owned();
        let revision: Revision = sedge(&["publish", &wasm, "--manifest", &manifest.to_string_lossy(), "--json"])?.json()?;
        assert_eq!(revision.function, function(name));
        let rollout: Rollout = sedge(&["rollout", name, "--nodes", "site=berlin", "--wait", "--json"])?.json()?;
        assert_eq!((rollout.nodes, rollout.done, rollout.failed), (1, 1, 0));
    }

    let averages = Subscriber::start(node.mqtt(), "plant/average")?;
    let alarms = Subscriber::start(node.mqtt(), "alarm/#")?;
    let load = Load::start(node.mqtt(), Duration::from_millis(5), reading);
    until("enough events are acknowledged", || Ok((load.acknowledged() >= EVENTS).then_some(())))?;
    let acknowledged = load.stop()?;
    idle(&node)?;
    until("every event has its reply", || Ok((averages.received().len() == acknowledged.len()).then_some(())))?;
    let high = acknowledged.iter().filter(|number| number.is_multiple_of(10)).count();
    until("every high reading has its alarm", || Ok((alarms.received().len() == high).then_some(())))?;
    assert_eq!(node.totals(&function("average"))?.calls_ok, acknowledged.len() as u64);

    let answer = node.fetch("/hello")?;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "hello from the edge"));
    assert_eq!(node.fetch("/nobody")?.status.as_u16(), 404);
    commands_and_timers(&fleet, &node)?;
    for name in ["average", "hello", "convert"] {
        usage_is_equal(&fleet, &node, &function(name))?;
    }
    let usage = fleet.usage(&function("average"), None)?;
    assert!(usage.cpu_us > 0 && usage.memory_mib_ms > 0 && usage.bytes_in > 0 && usage.bytes_out > 0 && usage.kv_ops > 0, "{usage:?}");
    assert!(sedge(&["usage"])?.success()?.contains("average"));
    Ok(())
}

/// A WASI command answers an event; a timer starts a function again and again.
fn commands_and_timers(fleet: &Fleet, node: &Node) -> Result<()> {
    fleet.roll_out(&artifact::manifest("convert")?, &artifact::guest("convert")?)?;
    let degrees = node.invoke(&function("convert"), "line/1/celsius", "100")?;
    assert!(degrees.ok && degrees.output.contains("212"), "{degrees:?}");

    let beats = Subscriber::start(node.mqtt(), "beat")?;
    let manifest = artifact::manifest_of("name = 'beat'\n[[trigger]]\nevery = '200ms'\nreply = 'beat'\n")?;
    fleet.roll_out(&manifest, &artifact::guest("beat")?)?;
    until("the timer has fired three times", || Ok((beats.received().len() >= 3).then_some(())))
}
