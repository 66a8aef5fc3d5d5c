//! The image, booted: QEMU, a real fleet, and only what a user could see of both.

use crate::support::directory;
use anyhow::Result;
use fleet_tests::http::{self, Target};
use fleet_tests::machine::HOST;
use fleet_tests::{Disk, Fleet, Machine, artifact, wait};
use hyper::Method;
use sedge_protocol::api::NodeState;
use std::time::{Duration, Instant};

/// From power to a node in the fleet: emulated, on a machine that does other things beside.
const BOOT: Duration = Duration::from_secs(300);

#[test]
#[ignore = "builds and boots the image: needs root and Debian's mirror; `cargo xtask test --all`"]
fn from_the_flashed_disk_to_the_answer_of_a_function() -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start_as(HOST, directory.path())?;
    let membership = fleet.membership()?;
    let disk = Disk::new(directory.path(), &membership)?;
    let begin = Instant::now();
    let mut machine = Machine::boot(&disk)?;
    wait::until_within(BOOT, "the box is in the fleet", || {
        machine.check()?;
        Ok(fleet.nodes()?.iter().any(|node| node.state == NodeState::Online).then_some(()))
    })?;
    println!("power to enrolled: {:.1} s", begin.elapsed().as_secs_f64());
    fleet.roll_out(&artifact::manifest("hello")?, &artifact::guest("hello")?)?;
    let answer = wait::until("the function answers", || {
        let answer = http::exchange(&Target::Tcp(machine.http), Method::GET, "/hello", "");
        Ok(answer.ok().filter(|answer| answer.status == 200))
    })?;
    println!("power to first answer: {:.1} s", begin.elapsed().as_secs_f64());
    assert!(answer.text().contains("hello"), "{}", answer.text());
    // A version that was tried once and is good; the claim in its file is blank and nothing else.
    wait::until("the version is kept", || Ok((disk.kernel_images()?.iter().all(|name| !name.contains('+'))).then_some(())))?;
    let claim = disk.read("claim.toml")?;
    assert!(!claim.contains(&membership.claim) && claim.contains(&membership.url), "{claim}");
    Ok(())
}
