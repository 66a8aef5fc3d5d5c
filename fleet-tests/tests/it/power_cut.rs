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
/// Each so many kills, one comes so late that usage of [`LATE`] has to have reached the disk.
const LATE_EVERY: u64 = 10;
/// By how much.
const LATE: Duration = Duration::from_secs(4);
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
    fleet.roll_out(&artifact::manifest("average")?, &artifact::guest("average")?)?;
    let load = Load::start(node.mqtt(), PACE, own_sensor);
    let mut billed_min = 0;
    for kill in 1..=KILLS {
        let late = if kill.is_multiple_of(LATE_EVERY) { USAGE_LOST_MAX + LATE } else { Duration::ZERO };
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

/// Bytes that pass before the network breaks: more than `average`, less than what is assigned after it.
const CUT_AFTER_BYTES: u64 = 1 << 20;

#[test]
fn a_power_cut_during_a_download_keeps_what_runs_already_and_its_events() -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start(directory.path())?;
    let (average, mut manifest) = (function("average"), artifact::manifest("average")?);
    manifest.retry.backoff_ms = 60_000;
    for (manifest, wasm) in [
        (manifest, artifact::guest("average")?),
        (artifact::manifest("hello")?, artifact::padded(&artifact::guest("hello")?, &vec![7; 6 << 20])),
    ] {
        let revision = fleet.publish(&manifest, &wasm)?;
        fleet.rollout(&manifest.name, revision.id)?;
    }
    fleet.link.cut_after(CUT_AFTER_BYTES);
    let mut node = Node::start(directory.path(), "node-1", Some(&fleet.membership()?))?;
    until("average runs", || Ok(node.running(&average)?.map(drop)))?;
    until("the download of hello is cut", || Ok(fleet.link.is_cut().then_some(())))?;

    // Not a reading: it fails, and waits a minute for its second attempt.
    let load = Load::start(node.mqtt(), PACE, |_| ("plant/a/temperature".to_owned(), "not a reading".to_owned()));
    until("an event is acknowledged and has failed", || {
        Ok((load.acknowledged() > 0 && node.totals(&average)?.calls_failed > 0).then_some(()))
    })?;
    let acknowledged = load.stop()?.len() as u64;
    node.kill9()?;
    node.restart()?;
    let status = node.status()?;
    assert_eq!((node.running(&average)?.is_some(), status.vitals.dead_letters), (true, 0));
    until("its events wait", || Ok((node.status()?.vitals.events_waiting >= acknowledged).then_some(())))?;
    fleet.link.mend();
    until("hello runs", || Ok(node.running(&function("hello"))?.map(drop)))
}
