//! `kill -9` under load, again and again: nothing acknowledged is lost, and usage is never too high.

use crate::support::{directory, fleet_with_node, function, idle, own_sensor, processed};
use anyhow::Result;
use fleet_tests::{Fleet, Load, Node, artifact, until};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sedge_protocol::FunctionName;
use std::time::{Duration, Instant};

/// Kills.
const KILLS: u64 = 20;
/// Each so many kills, one comes so late that usage has to have reached the disk.
const LATE_EVERY: u64 = 10;
/// What a power cut may take of the usage.
const USAGE_LOST_MAX: Duration = Duration::from_secs(10);
/// Time between two events.
const PACE: Duration = Duration::from_millis(25);

#[test]
fn a_node_killed_twenty_times_under_load_loses_no_event_and_never_bills_too_much() -> Result<()> {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let directory = directory()?;
    let (fleet, mut node) = fleet_with_node(&directory)?;
    let average = function("average");
    fleet.deploy(&artifact::manifest("average")?, &artifact::guest("average")?)?;
    let load = Load::start(node.mqtt(), PACE, own_sensor);
    let mut billed_min = 0;
    for kill in 1..=KILLS {
        let late = kill.is_multiple_of(LATE_EVERY).then_some(USAGE_LOST_MAX).unwrap_or_default();
        let life = late + Duration::from_millis(rng.random_range(100..2500));
        billed_min += live(&node, &average, life)?;
        node.kill9()?;
        load.aim(None);
        node.restart()?;
        load.aim(Some(node.mqtt()));
    }
    let published = load.published();
    let acknowledged = load.stop()?;
    idle(&node)?;
    let ran_last = node.totals(&average)?.calls_ok;
    let billed = billed(&fleet, &node, &average, billed_min + ran_last)?;

    let counts = processed(&node, &acknowledged)?;
    let lost: Vec<_> = counts.iter().filter(|(_, count)| **count == 0).map(|(event, _)| *event).collect();
    let doubled = counts.values().filter(|count| **count > 1).count();
    let ran: u64 = counts.values().sum();
    println!(
        "{KILLS} kills, {} events acknowledged ({published} published): {} lost, {doubled} doubled; {ran} invocations ran, {billed} billed, at least {} expected",
        acknowledged.len(),
        lost.len(),
        billed_min + ran_last
    );
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(billed <= ran, "{billed} invocations billed, {ran} ran");
    Ok(())
}

/// Lets the node live for a while; answers what it had run [`USAGE_LOST_MAX`] before the end.
fn live(node: &Node, average: &FunctionName, life: Duration) -> Result<u64> {
    let begin = Instant::now();
    let mut samples = Vec::new();
    until("the node has lived long enough", || {
        samples.push((begin.elapsed(), node.totals(average)?.calls_ok));
        Ok((begin.elapsed() >= life).then_some(()))
    })?;
    let end = begin.elapsed();
    let safe = samples.iter().rev().find(|(at, _)| *at + USAGE_LOST_MAX <= end);
    Ok(safe.map_or(0, |(_, ran)| *ran))
}

/// The invocations on the fleet's ledger, once it has all that the node has.
fn billed(fleet: &Fleet, node: &Node, average: &FunctionName, at_least: u64) -> Result<u64> {
    until("the fleet has the usage", || {
        let billed = fleet.usage(average, None)?.calls_ok;
        let all_sent = node.status()?.usage_unsent == 0;
        Ok((all_sent && billed >= at_least).then_some(billed))
    })
}
