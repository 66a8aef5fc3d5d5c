//! The image, booted: QEMU, a real fleet, and only what a user could see of both.

mod faults;
mod gateway;
mod hardware;
mod secure_boot;
mod stick;

use crate::support::{directory, function, now_ms, roll_out};
use anyhow::{Context as _, Result};
use fleet_tests::machine::HOST;
use fleet_tests::process::run;
use fleet_tests::wire::Wire;
use fleet_tests::{Board, Disk, Fleet, Machine, wait};
use sedge_protocol::api::{Node, NodeState};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// One request to a box that is up.
const REQUEST: Duration = Duration::from_secs(5);

/// Waits until the one node of the fleet has been heard since `begin_ms`.
fn online(fleet: &Fleet, machine: &mut Machine, begin_ms: u64) -> Result<Node> {
    wait::until_within(machine.board().patience(), "the box is in the fleet", || {
        machine.check()?;
        let heard = |node: &Node| node.state == NodeState::Online && node.vitals.started_ms >= begin_ms;
        Ok(fleet.nodes()?.into_iter().find(heard))
    })
}

/// Waits until the version that runs is kept: from then on its name does not change.
fn kept(disk: &Disk) -> Result<()> {
    wait::until("the version is kept", || Ok(disk.kernel_images()?.iter().all(|name| !name.contains('+')).then_some(())))
}

/// Waits until `hello` answers.
fn hello(machine: &mut Machine) -> Result<()> {
    let answer = wait::until_within(machine.board().patience(), "the function answers", || {
        machine.check()?;
        Ok(get(machine.http, "/hello").ok().filter(|answer| answer.starts_with("HTTP/1.1 200 ")))
    })?;
    anyhow::ensure!(answer.contains("hello from the edge"), "{answer}");
    Ok(())
}

/// One request. What emulates the network takes connections for a box that is not up yet, so patience with each is short.
fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(REQUEST))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: box\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A reading, as a sensor on the same network sends it, until the broker has taken it.
fn publish(machine: &Machine) -> Result<()> {
    let (host, port) = (machine.mqtt.ip().to_string(), machine.mqtt.port().to_string());
    let reading = ["-q", "1", "-t", "plant/s1/temperature", "-m", r#"{"value":20}"#];
    wait::until("the broker takes a reading", || {
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", &host, "-p", &port, "-u", "sensor", "-P", "reading"]).args(reading);
        Ok(run(&mut command)?.status.success().then_some(()))
    })
}

#[test]
fn from_the_flashed_disk_to_the_usage_at_the_fleet() -> Result<()> {
    from_flash_to_usage(Board::Pc)
}

#[test]
#[ignore = "boots twice a processor that takes long to emulate: `cargo xtask test --all`"]
fn from_the_flashed_disk_to_the_usage_at_the_fleet_on_arm64() -> Result<()> {
    from_flash_to_usage(Board::Arm64)
}

fn from_flash_to_usage(board: Board) -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start_as(HOST, directory.path())?;
    let wire = Wire::new(directory.path())?;
    let membership = fleet.membership()?;
    let disk = Disk::new(board, directory.path(), &membership)?;
    let begin = Instant::now();
    let mut machine = Machine::boot_with(&disk, &wire.arguments())?;
    let node = online(&fleet, &mut machine, 0)?;
    println!("power to enrolled: {:.1} s", begin.elapsed().as_secs_f64());
    roll_out(&fleet, &machine, "hello")?;
    hello(&mut machine)?;
    println!("power to first answer: {:.1} s", begin.elapsed().as_secs_f64());

    roll_out(&fleet, &machine, "average")?;
    publish(&machine)?;
    let average = function("average");
    wait::until_within(board.patience(), "the reading is usage at the fleet", || {
        Ok((fleet.usage(&average, Some(&node.id))?.calls_ok > 0).then_some(()))
    })?;
    only_what_the_node_serves_is_reached(&machine, &wire)?;

    // A version that was tried once and is good; the claim in its file is blank and nothing else.
    kept(&disk)?;
    let claim = disk.read("claim.toml")?;
    assert!(!claim.contains(&membership.claim) && claim.contains(&membership.url), "{claim}");
    wait::until("warnings are on the disk", || Ok(disk.read_data("/log/warnings")?.contains("kernel").then_some(())))?;
    let used = fleet.nodes()?.first().context("the node is gone")?.vitals.memory_used;
    println!("memory in use, two functions at rest: {} MB", used / 1_000_000);

    // The plug is pulled and put in again: the box knows its fleet and its functions.
    drop(machine);
    assert!(disk.read_data("/log/warnings")?.contains("kernel"), "warnings survive");
    let begin = Instant::now();
    hello(&mut Machine::boot(&disk)?)?;
    println!("power to first answer of a known box: {:.1} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// A port on which the box listens, and which it does not serve, is silent: over IPv4 and IPv6.
fn only_what_the_node_serves_is_reached(machine: &Machine, wire: &Wire) -> Result<()> {
    wait::until("the listener answers inside the box", || {
        Ok(machine.console().contains("inside the box port 9999 says reached").then_some(()))
    })?;
    let mut shut = TcpStream::connect(machine.shut)?;
    assert_eq!(wire.answering(Machine::SHUT, Machine::HTTP)?, [Machine::HTTP].into(), "over IPv6");
    // What emulates the network takes the connection itself; from the box nothing comes.
    shut.set_nonblocking(true)?;
    let mut said = Vec::new();
    let _silent = shut.read_to_end(&mut said);
    assert_eq!(String::from_utf8_lossy(&said), "", "over IPv4");
    Ok(())
}

#[test]
#[ignore = "boots the image three times: `cargo xtask test --all`"]
fn a_full_data_partition_stops_nothing_and_a_factory_reset_empties_it() -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start_as(HOST, directory.path())?;
    let disk = Disk::new(Board::Pc, directory.path(), &fleet.membership()?)?;
    let mut machine = Machine::boot(&disk)?;
    let node = online(&fleet, &mut machine, 0)?;
    roll_out(&fleet, &machine, "hello")?;
    hello(&mut machine)?;
    drop(machine);

    disk.fill_data()?;
    let begin_ms = now_ms()?;
    let mut machine = Machine::boot(&disk)?;
    assert_eq!(online(&fleet, &mut machine, begin_ms)?.id, node.id);
    hello(&mut machine)?;
    drop(machine);

    // The same node again, without a claim: the identity is kept, and the fleet gives it its functions anew.
    disk.write("factory-reset", "# everything but who it is\n")?;
    let begin_ms = now_ms()?;
    let mut machine = Machine::boot(&disk)?;
    assert_eq!(online(&fleet, &mut machine, begin_ms)?.id, node.id);
    hello(&mut machine)?;
    assert_eq!(fleet.nodes()?.len(), 1);
    assert!(disk.read("factory-reset").is_err(), "the request is gone");
    assert_eq!(disk.read_data("/fill")?, "");
    Ok(())
}
