//! The image for gateways on the disks and network cards that they have.

use super::online;
use crate::support::directory;
use anyhow::Result;
use fleet_tests::hardware::{Card, Drive, Hardware};
use fleet_tests::machine::HOST;
use fleet_tests::{Disk, Fleet, Machine};
use std::time::Instant;

/// Each disk with another card. NVMe and e1000e are those of the gateway that is looked at from inside.
const BOARDS: [(Drive, Card); 3] = [(Drive::Sd, Card::Igb), (Drive::Sata, Card::Rtl8139), (Drive::Usb, Card::Usb)];

#[test]
#[ignore = "boots the image for gateways three times: `cargo xtask test --all`"]
fn a_gateway_boots_from_every_kind_of_disk_and_reaches_its_fleet_by_every_card() -> Result<()> {
    for (drive, card) in BOARDS {
        let directory = directory()?;
        let fleet = Fleet::start_as(HOST, directory.path())?;
        // Onto the stick without `sedge`.
        let disk = match drive {
            Drive::Usb => Disk::of_gateway_by_hand(directory.path(), &fleet.membership()?)?,
            _ => Disk::of_gateway(directory.path(), &fleet.membership()?, &[])?,
        };
        let begin = Instant::now();
        let mut machine = Machine::boot_on(&disk, &Hardware { drive, card, ..Hardware::default() }, &[])?;
        online(&fleet, &mut machine, 0)?;
        println!("{drive:?} and {card:?}: power to enrolled {:.1} s", begin.elapsed().as_secs_f64());
    }
    Ok(())
}
