//! A gateway that has nothing but a stick, booted.

use super::{hello, online};
use crate::support::{directory, function};
use anyhow::{Context as _, Result};
use fleet_tests::machine::HOST;
use fleet_tests::{Board, Disk, Fleet, Machine, wait};
use fleet_tests::{artifact, cli};
use sedge_protocol::api::{NewRollout, Rollout};
use std::fs;

#[test]
#[ignore = "boots the image three times: `cargo xtask test --all`"]
fn a_box_without_a_way_to_its_fleet_runs_what_a_stick_grants_and_joins_when_there_is_one() -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start_as(HOST, directory.path())?;
    let disk = Disk::new(Board::Pc, directory.path(), &fleet.membership()?)?;
    disk.remove("claim.toml")?;
    let mut manifest = artifact::manifest("hello")?;
    manifest.limits.timeout_ms = 20_000;
    fleet.publish(&manifest, &artifact::guest("hello")?)?;
    let rollout = NewRollout { function: function("hello"), revision: None, filter: "site=barn".to_owned() };
    let _made: Rollout = fleet.post("/api/v1/rollouts", &rollout)?;
    let bundle = directory.path().join("barn.sedge-claim");
    let path = bundle.to_str().context("a path of letters")?;
    // By another name than that by which the box knows the fleet.
    let (pin, token) = (fleet.ca_pin().to_string(), fleet.data().join("admin-token").to_string_lossy().into_owned());
    let connection = ["--fleet", fleet.https(), "--ca-pin", &pin, "--token-file", &token];
    cli::sedge(None, &[&["claim", "bundle", "--out", path, "--label", "site=barn"], &connection[..]].concat())?.success()?;

    // A stick that was pulled out while it was written says so; the box goes on.
    let bytes = fs::read(&bundle)?;
    fs::write(&bundle, &bytes[..bytes.len() - 1])?;
    let cut = disk.plug_in(&bundle)?;
    fs::write(&bundle, &bytes)?;
    fleet.process().pause()?;
    let machine = Machine::boot_with(&disk, &cut)?;
    let said = wait::until_within(machine.board().patience(), "the stick says what is wrong", || {
        Ok(disk.read_stick("sedge-claim-fault.txt").ok().filter(|said| said.ends_with('\n')))
    })?;
    assert!(said.starts_with("barn.sedge-claim: it was cut off"), "{said}");
    drop(machine);

    let mut machine = Machine::boot_with(&disk, &disk.plug_in(&bundle)?)?;
    hello(&mut machine)?;
    drop(machine);
    // Without the stick, and without a network.
    let mut machine = Machine::boot(&disk)?;
    hello(&mut machine)?;
    fleet.process().resume()?;
    let node = online(&fleet, &mut machine, 0)?;
    assert_eq!(node.labels.value("site"), Some("barn"));
    wait::until_within(machine.board().patience(), "the fleet knows what runs", || {
        Ok(fleet.nodes()?.iter().any(|node| node.functions.iter().any(|ran| ran.function == function("hello"))).then_some(()))
    })?;
    wait::until("nothing of the claim is left", || {
        let named = disk.read_data("/sedge/fleet.json")?;
        Ok((named.contains("\"claim\":null") && disk.read_data("/stick/claim.sedge-claim")?.is_empty()).then_some(()))
    })
}
