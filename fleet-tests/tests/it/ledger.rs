//! Usage when one of the two sides begins anew: what ran is counted once, and nothing waits for ever.

use crate::support::{directory, feed, fleet_with_node, function};
use anyhow::Result;
use fleet_tests::{Fleet, Node, artifact, until};
use std::fs;
use std::path::Path;

const EVENTS: usize = 30;

/// Waits until the fleet has counted `calls` of `average`, on whatever nodes, and the node has nothing more to tell.
fn counted(fleet: &Fleet, node: &Node, calls: u64) -> Result<()> {
    let average = function("average");
    until(&format!("{calls} calls are counted, and nothing is left to send"), || {
        let (sum, unsent) = (fleet.usage(&average, None)?.calls_ok, node.status()?.usage_unsent);
        anyhow::ensure!(sum <= calls, "{sum} calls are billed; {calls} ran");
        Ok((sum == calls && unsent == 0).then_some(()))
    })
}

#[test]
fn a_node_that_lost_its_identity_is_billed_once_and_on() -> Result<()> {
    let directory = directory()?;
    let (mut fleet, mut node) = fleet_with_node(&directory)?;
    fleet.roll_out(&artifact::manifest("average")?, &artifact::guest("average")?)?;
    let mut ran = feed(&node, EVENTS)?;
    counted(&fleet, &node, ran)?;
    // More runs that the fleet does not have when the identity is lost.
    fleet.kill9()?;
    ran += feed(&node, EVENTS)?;
    until("usage waits on the node's disk", || Ok((node.status()?.usage_unsent > 0).then_some(())))?;
    assert!(node.stop()?.success());
    fs::remove_file(node.data().join("identity.json"))?;
    fleet.restart()?;
    let mut node = Node::start(directory.path(), "node-1", Some(&fleet.membership()?))?;
    node.online()?;
    assert_eq!(fleet.nodes()?.len(), 2, "a new key is a new node");
    counted(&fleet, &node, ran)?;
    ran += feed(&node, EVENTS)?;
    counted(&fleet, &node, ran)?;
    assert!(node.stop()?.success());
    Ok(())
}

#[test]
fn a_node_that_moves_to_another_fleet_tells_it_what_no_fleet_has() -> Result<()> {
    let (first_directory, directory) = (directory()?, directory()?);
    let first = Fleet::start(first_directory.path())?;
    let mut node = Node::start(directory.path(), "node-1", Some(&first.membership()?))?;
    node.online()?;
    let (manifest, wasm) = (artifact::manifest("average")?, artifact::guest("average")?);
    first.roll_out(&manifest, &wasm)?;
    let before = feed(&node, EVENTS)?;
    counted(&first, &node, before)?;
    assert!(node.stop()?.success());

    let second = Fleet::start(directory.path())?;
    let node = Node::start(directory.path(), "node-1", Some(&second.membership()?))?;
    node.online()?;
    until("the new fleet's desired state replaces the old one", || Ok(node.running(&manifest.name)?.is_none().then_some(())))?;
    second.roll_out(&manifest, &wasm)?;
    let after = feed(&node, EVENTS)?;
    counted(&second, &node, after)?;
    assert_eq!(first.usage(&manifest.name, None)?.calls_ok, before);
    Ok(())
}

#[test]
fn a_fleet_restored_from_an_older_copy_goes_on_counting() -> Result<()> {
    let directory = directory()?;
    let (mut fleet, node) = fleet_with_node(&directory)?;
    let average = function("average");
    fleet.roll_out(&artifact::manifest("average")?, &artifact::guest("average")?)?;
    let first = feed(&node, EVENTS)?;
    counted(&fleet, &node, first)?;
    let copy = directory.path().join("copy");
    fleet.kill9()?;
    copy_all(&fleet.data(), &copy)?;
    fleet.restart()?;
    let second = feed(&node, EVENTS)?;
    counted(&fleet, &node, first + second)?;

    fleet.kill9()?;
    fs::remove_dir_all(fleet.data())?;
    copy_all(&copy, &fleet.data())?;
    fleet.restart()?;
    node.online()?;
    let third = feed(&node, EVENTS)?;
    // What was acknowledged after the copy was made is gone with the fleet that had it.
    counted(&fleet, &node, first + third)?;
    assert_eq!(fleet.usage(&average, None)?.calls_ok, first + third);
    Ok(())
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
