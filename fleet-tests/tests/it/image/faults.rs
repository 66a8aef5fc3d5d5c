//! What happens to boxes in the field: power that comes and goes, clocks without a battery, disks that rot.

use super::{hello, kept, online};
use crate::support::{directory, now_ms};
use anyhow::Result;
use fleet_tests::machine::HOST;
use fleet_tests::{Board, Disk, Fleet, Machine, artifact, wait};

/// What the kernel says when the first program has found a root and hands over.
const STARTED: &str = "watchdog did not stop";
/// As many as a version on trial has tries.
const QUICK_CYCLES: usize = 3;

/// The power comes and goes again as soon as the system begins.
fn quick_cycles(disk: &Disk) -> Result<()> {
    for _ in 0..QUICK_CYCLES {
        let mut machine = Machine::boot(disk)?;
        wait::until_within(machine.board().patience(), "the system begins", || {
            machine.check()?;
            Ok(machine.console().contains(STARTED).then_some(()))
        })?;
        machine.pull_the_plug()?;
        println!("{:?}", disk.kernel_images()?);
    }
    Ok(())
}

#[test]
#[ignore = "boots the image nine times: `cargo xtask test --all`"]
fn quick_power_cycles_a_clock_at_1970_and_a_scrambled_database_stop_no_box() -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start_as(HOST, directory.path())?;
    let disk = Disk::new(Board::Pc, directory.path(), &fleet.membership()?)?;
    // Out of the box: nothing has been kept yet, and the data partition is made.
    quick_cycles(&disk)?;
    let mut machine = Machine::boot_in_1970(&disk)?;
    let node = online(&fleet, &mut machine, 0)?;
    fleet.roll_out(&artifact::manifest("hello")?, &artifact::guest("hello")?)?;
    hello(&mut machine)?;
    kept(&disk)?;
    drop(machine);

    let before = disk.kernel_images()?;
    quick_cycles(&disk)?;
    assert_eq!(disk.kernel_images()?, before, "a version that was kept is not counted");
    let mut machine = Machine::boot_in_1970(&disk)?;
    hello(&mut machine)?;
    drop(machine);

    let scrambled = disk.scramble_data("/sedge/store")?;
    println!("{scrambled} files of the store are noise");
    assert!(scrambled > 0);
    let begin_ms = now_ms()?;
    let mut machine = Machine::boot(&disk)?;
    assert_eq!(online(&fleet, &mut machine, begin_ms)?.id, node.id);
    hello(&mut machine)?;
    assert_eq!(fleet.nodes()?.len(), 1);
    Ok(())
}
