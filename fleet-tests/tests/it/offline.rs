//! Without a fleet: nodes go on, start again from disk, stop in order, and report later, once.

use crate::support::{directory, fleet_with_node, function, idle, own_sensor, usage_is_equal};
use anyhow::Result;
use fleet_tests::http::Target;
use fleet_tests::{Load, artifact, until};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// How often the fleet is killed.
const KILLS: usize = 20;
/// Events until the next time, at most: three seconds of the load.
const EVENTS_BETWEEN_MAX: usize = 300;

#[test]
fn a_fleet_killed_for_a_while_gets_all_usage_later_and_once() -> Result<()> {
    let directory = directory()?;
    let (mut fleet, node) = fleet_with_node(&directory)?;
    let average = function("average");
    fleet.roll_out(&artifact::manifest("average")?, &artifact::guest("average")?)?;
    fleet.roll_out(&artifact::manifest("hello")?, &artifact::guest("hello")?)?;
    let load = Load::start(node.mqtt(), Duration::from_millis(10), own_sensor);
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..KILLS {
        // At any moment: whether a batch of usage was applied when the fleet died is anybody's guess.
        let moment = load.acknowledged() + rng.random_range(0..EVENTS_BETWEEN_MAX);
        until("the moment has come", || Ok((load.acknowledged() >= moment).then_some(())))?;
        fleet.kill9()?;
        let (acknowledged, ran) = (load.acknowledged(), node.totals(&average)?.calls_ok);
        until("events are processed without the fleet", || {
            Ok((load.acknowledged() > acknowledged + 20 && node.totals(&average)?.calls_ok > ran + 20).then_some(()))
        })?;
        assert_eq!(node.fetch("/hello")?.status.as_u16(), 200);
        fleet.restart()?;
    }
    node.online()?;
    let acknowledged = load.stop()?.len() as u64;
    idle(&node)?;
    usage_is_equal(&fleet, &node, &average)?;
    usage_is_equal(&fleet, &node, &function("hello"))?;
    let billed = fleet.usage(&average, None)?.calls_ok;
    println!(
        "{KILLS} kills of the fleet: {acknowledged} events acknowledged, {} lost, {billed} billed",
        acknowledged.saturating_sub(billed)
    );
    assert_eq!(billed, acknowledged);
    Ok(())
}

#[test]
fn a_node_starts_again_from_its_disk_without_a_fleet() -> Result<()> {
    let directory = directory()?;
    let (mut fleet, mut node) = fleet_with_node(&directory)?;
    fleet.roll_out(&artifact::manifest("average")?, &artifact::guest("average")?)?;
    fleet.roll_out(&artifact::manifest("hello")?, &artifact::guest("hello")?)?;
    assert!(node.invoke(&function("average"), "plant/a/temperature", r#"{"value":1}"#)?.ok);
    fleet.kill9()?;
    assert!(node.stop()?.success());
    node.restart()?;
    assert_eq!(node.fetch("/hello")?.status.as_u16(), 200);
    let second = node.invoke(&function("average"), "plant/a/temperature", r#"{"value":3}"#)?;
    assert!(second.ok && second.output.contains(r#""count":2"#), "{second:?}");

    node.kill9()?;
    node.restart()?;
    assert_eq!(node.fetch("/hello")?.status.as_u16(), 200);
    fleet.restart()?;
    node.online()
}

#[test]
fn a_node_that_is_told_to_stop_finishes_what_it_has_begun() -> Result<()> {
    let directory = directory()?;
    let mut node = fleet_tests::Node::start(directory.path(), "node-1", None)?;
    let mut manifest = artifact::manifest("faulty")?;
    manifest.limits.timeout_ms = 60_000;
    node.give(&manifest, &artifact::guest("faulty")?)?;
    let Target::Tcp(address) = node.http() else { anyhow::bail!("not a TCP address") };
    let mut request = TcpStream::connect(address)?;
    request.write_all(b"POST /faulty/ HTTP/1.1\r\nhost: node\r\nexpect: 100-continue\r\ncontent-length: 4\r\nconnection: close\r\n\r\n")?;
    // The answer to the expectation comes when the function reads the body: it runs.
    let mut go_on = [0; 25];
    request.read_exact(&mut go_on)?;
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    node.process().terminate()?;
    until("the node takes nothing new", || Ok(TcpStream::connect(address).is_err().then_some(())))?;
    request.write_all(b"slow")?;
    let mut answer = String::new();
    request.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("slow"), "{answer}");
    assert!(node.ended()?.success());
    Ok(())
}
