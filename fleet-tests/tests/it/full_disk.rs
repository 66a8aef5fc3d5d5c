//! A node whose disk fills up, by its own functions and by others: it goes on, says so, and recovers.

use crate::support::{directory, feed, idle, own_sensor};
use anyhow::{Context as _, Result};
use fleet_tests::{Fleet, Load, Node, artifact, until};
use sedge_protocol::message::FunctionState;
use std::fs;
use std::time::Duration;

/// Size of the disk, mebibytes.
const DISK_MIB: u32 = 48;
/// An artifact that has no room beside what is kept free and its own machine code.
const LARGE_BYTES: usize = 30 << 20;
const EVENTS: usize = 20;

fn partials(node: &Node) -> Result<usize> {
    let disk = node.disk().context("the node has a disk of its own")?;
    let entries = fs::read_dir(disk.outside().join("artifacts"))?;
    Ok(entries.flatten().filter(|entry| entry.path().extension().is_some_and(|extension| extension == "part")).count())
}

#[test]
fn an_artifact_without_room_is_refused_by_name_and_harms_nothing() -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start(directory.path())?;
    let mut node = Node::start_on_small_disk(directory.path(), "node-1", Some(&fleet.membership()?), DISK_MIB)?;
    node.online()?;
    fleet.roll_out(&artifact::manifest("average")?, &artifact::guest("average")?)?;
    let large = artifact::manifest_of("name = 'large'")?;
    let revision = fleet.publish(&large, &artifact::padded(&artifact::guest("hello")?, &vec![0; LARGE_BYTES]))?;
    fleet.rollout(&large.name, revision.id)?;
    until("the fleet knows why the node does not take it", || {
        let functions = fleet.nodes()?.into_iter().flat_map(|node| node.functions);
        let state = functions.filter(|report| report.function == large.name).map(|report| report.state).next();
        Ok(matches!(state, Some(FunctionState::Failed { reason }) if reason.contains("no room")).then_some(()))
    })?;
    feed(&node, EVENTS)?;
    fleet.remove(&large.name)?;
    until("the node lets go of it", || {
        Ok((!node.status()?.functions.iter().any(|report| report.function == large.name) && partials(&node)? == 0).then_some(()))
    })?;
    assert!(node.stop()?.success());
    node.restart()?;
    feed(&node, EVENTS)?;
    Ok(())
}

#[test]
fn a_disk_that_others_fill_holds_events_back_until_there_is_room() -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start(directory.path())?;
    let node = Node::start_on_small_disk(directory.path(), "node-1", Some(&fleet.membership()?), DISK_MIB)?;
    node.online()?;
    fleet.roll_out(&artifact::manifest("average")?, &artifact::guest("average")?)?;
    fleet.roll_out(&artifact::manifest("hello")?, &artifact::guest("hello")?)?;
    feed(&node, EVENTS)?;
    let ballast = node.disk().context("the node has a disk of its own")?.fill()?;
    until("everybody can see it", || {
        let known = fleet.nodes()?.into_iter().all(|node| node.vitals.store_trouble.is_some());
        Ok((known && node.status()?.vitals.store_trouble.is_some()).then_some(()))
    })?;
    let load = Load::start(node.mqtt(), Duration::from_millis(5), own_sensor);
    until("events are sent", || Ok((load.published() > 0).then_some(())))?;
    assert_eq!(node.fetch("/hello")?.status.as_u16(), 200, "what needs no disk goes on");
    assert_eq!(load.acknowledged(), 0, "what cannot be kept is not acknowledged");
    fs::remove_file(ballast)?;
    until("events are acknowledged again", || Ok((load.acknowledged() >= EVENTS).then_some(())))?;
    load.stop()?;
    idle(&node)?;
    until("the trouble is over", || Ok(node.status()?.vitals.store_trouble.is_none().then_some(())))
}
