//! Secure Boot: a board that has our key starts what is signed by it, and nothing else.

use super::{kept, online};
use crate::support::{directory, now_ms};
use anyhow::{Context as _, Result};
use fleet_tests::hardware::Hardware;
use fleet_tests::login::Key;
use fleet_tests::machine::HOST;
use fleet_tests::{Board, Disk, Fleet, Machine, wait};

/// Firmware that is in setup mode, with SMM to keep its variables.
const SECURE: Hardware =
    Hardware { drive: fleet_tests::hardware::Drive::Virtio, card: fleet_tests::hardware::Card::Virtio, secure_boot: true, more: &[] };
/// One byte each, behind four of attributes; and what the kernel makes of it.
const STATE: &str =
    "cd /sys/firmware/efi/efivars; for name in SecureBoot SetupMode; do od -An -tu1 -j4 $name-*; done; cat /sys/kernel/security/lockdown";

#[test]
#[ignore = "boots the image for gateways four times: `cargo xtask test --all`"]
fn a_board_with_our_key_starts_what_is_signed_and_nothing_that_was_altered() -> Result<()> {
    let directory = directory()?;
    let fleet = Fleet::start_as(HOST, directory.path())?;
    let key = Key::new(directory.path(), "key")?;
    let disk = Disk::of_gateway(directory.path(), &fleet.membership()?, &["--debug-login", &key.public()?])?;
    // As somebody who holds the space bar and chooses it in the menu: the boot loader enrols the keys and restarts.
    disk.copy("loader/keys/sedge", "loader/keys/auto")?;
    let settings = disk.read("loader/loader.conf")?;
    disk.write("loader.conf", &settings.replace("secure-boot-enroll manual", "secure-boot-enroll force"))?;
    disk.copy("loader.conf", "loader")?;

    let mut machine = Machine::boot_on(&disk, &SECURE, &[])?;
    online(&fleet, &mut machine, 0)?;
    let state = wait::until_within(Board::Pc.patience(), "the key signs in", || Ok(key.ask(machine.ssh, STATE).ok()))?;
    let words: Vec<&str> = state.split_ascii_whitespace().collect();
    assert_eq!(words, ["1", "0", "none", "[integrity]", "confidentiality"], "it is on, and the keys are ours");
    kept(&disk)?;
    drop(machine);

    // One byte of the kernel image; then one of the boot loader.
    let names = disk.kernel_images()?;
    let kernel = format!("EFI/Linux/{}", names.first().context("no kernel image")?);
    for (file, refusal) in [(kernel.as_str(), ".efi: Access denied"), ("EFI/BOOT/BOOTX64.EFI", "failed to load Boot0001")] {
        disk.alter(file)?;
        let begin_ms = now_ms()?;
        let mut machine = Machine::boot_on(&disk, &SECURE, &[])?;
        wait::until_within(Board::Pc.patience(), &format!("an altered {file} is refused"), || {
            machine.check()?;
            Ok(machine.console().contains(refusal).then_some(()))
        })?;
        assert!(!fleet.nodes()?.iter().any(|node| node.vitals.started_ms >= begin_ms), "it runs all the same");
        drop(machine);
        disk.alter(file)?;
    }
    // As it was: it was the byte.
    let begin_ms = now_ms()?;
    let mut machine = Machine::boot_on(&disk, &SECURE, &[])?;
    online(&fleet, &mut machine, begin_ms)?;
    Ok(())
}
