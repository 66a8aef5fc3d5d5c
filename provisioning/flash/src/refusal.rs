//! Which disks are left alone, and why. Pure: a snapshot and a name go in.

use crate::Size;
use crate::machine::{Disk, Machine, Number};
use std::collections::BTreeSet;

/// Directories without which this machine would not go on.
const SYSTEM: [&str; 5] = ["/", "/boot", "/boot/efi", "/efi", "/usr"];
/// The sectors that images are made for.
const SECTOR_BYTES: u64 = 512;

/// Why a disk is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a disk that the kernel lists.
    #[error("it is a device without a disk behind it")]
    Unknown,
    /// Part of a disk.
    #[error("it is a partition of the disk /dev/{disk}")]
    Partition {
        /// The whole.
        disk: String,
    },
    /// This machine runs from it.
    #[error("it is the disk that this machine runs from: {point} is on {part}")]
    System {
        /// A directory.
        point: String,
        /// Where it lies.
        part: String,
    },
    /// In use.
    #[error("{part} is mounted at {point}")]
    Mounted {
        /// Which part of it, or what is made of it.
        part: String,
        /// Where.
        point: String,
    },
    /// In use.
    #[error("{part} is swap of this machine")]
    Swap {
        /// Which part of it, or what is made of it.
        part: String,
    },
    /// In use.
    #[error("{part} is part of {holder}")]
    Held {
        /// Which part of it.
        part: String,
        /// An array, a volume or an encrypted disk.
        holder: String,
    },
    /// Write-protected.
    #[error("it is read-only")]
    ReadOnly,
    /// Sectors of another size: the table of the image would be nowhere.
    #[error("it has sectors of {bytes} bytes, and images are made for sectors of 512")]
    Sectors {
        /// Of the disk.
        bytes: u64,
    },
    /// No room.
    #[error("it has {}, and the image with its data partition needs {}", Size(*bytes), Size(*needed))]
    Small {
        /// The disk.
        bytes: u64,
        /// The image.
        needed: u64,
    },
}

impl Refusal {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Unknown => "name a disk, as `lsblk` lists them".to_owned(),
            Self::Partition { disk } => format!("name the disk: --to /dev/{disk}; all that is on it goes"),
            Self::System { .. } => "name another disk; `lsblk` lists them".to_owned(),
            Self::Mounted { part, .. } => format!("see that nothing on it is needed, `umount /dev/{part}`, and try again"),
            Self::Swap { part } => format!("`swapoff /dev/{part}` if it is the right disk, and try again"),
            Self::Held { holder, .. } => format!("see what /dev/{holder} is with `lsblk`, close it if it is the right disk, and try again"),
            Self::ReadOnly => "look for a switch on the card or stick".to_owned(),
            Self::Sectors { .. } | Self::Small { .. } => "take another disk".to_owned(),
        }
    }
}

/// The disk with this number, when nothing speaks against writing to it; its size is looked at in [`room`].
pub(crate) fn judge(machine: &Machine, number: Number) -> Result<Disk, Refusal> {
    let name = machine.name(number).ok_or(Refusal::Unknown)?;
    let block = &machine.blocks[name];
    if let Some(disk) = &block.disk {
        return Err(Refusal::Partition { disk: disk.clone() });
    }
    let family = family(machine, name);
    in_use(machine, &family)?;
    if block.read_only {
        return Err(Refusal::ReadOnly);
    }
    if block.sector_bytes != SECTOR_BYTES {
        return Err(Refusal::Sectors { bytes: block.sector_bytes });
    }
    Ok(Disk { name: name.to_owned(), model: block.model.clone(), bytes: block.bytes, number })
}

/// Whether an image of `image_bytes` and a data partition fit on `disk`.
pub(crate) fn room(disk: &Disk, image_bytes: u64) -> Result<(), Refusal> {
    let needed = image_bytes.saturating_add(crate::DATA_BYTES_MIN);
    if disk.bytes >= needed { Ok(()) } else { Err(Refusal::Small { bytes: disk.bytes, needed }) }
}

/// The disk, its partitions, and all that is made of them.
fn family(machine: &Machine, disk: &str) -> BTreeSet<String> {
    let (mut family, mut open) = (BTreeSet::new(), vec![disk.to_owned()]);
    while let Some(name) = open.pop() {
        let partitions = machine.blocks.iter().filter(|(_, block)| block.disk.as_ref() == Some(&name)).map(|(name, _)| name.clone());
        open.extend(partitions);
        open.extend(machine.blocks.get(&name).into_iter().flat_map(|block| block.holders.iter().cloned()));
        // Seen once is enough, whatever circle the tables describe.
        if !family.insert(name) {
            open.retain(|other| !family.contains(other));
        }
    }
    family
}

/// The gravest use comes first: people read one line.
fn in_use(machine: &Machine, family: &BTreeSet<String>) -> Result<(), Refusal> {
    let part_with = |number: &Number| family.iter().find(|name| machine.blocks.get(*name).is_some_and(|block| block.number == *number));
    let mounted: Vec<_> =
        machine.mounts.iter().filter_map(|mount| Some((mount.numbers.iter().find_map(part_with)?.clone(), mount.point.clone()))).collect();
    if let Some((part, point)) = mounted.iter().find(|(_, point)| SYSTEM.contains(&point.as_str())).cloned() {
        return Err(Refusal::System { point, part });
    }
    if let Some((part, point)) = mounted.into_iter().next() {
        return Err(Refusal::Mounted { part, point });
    }
    if let Some(part) = machine.swaps.iter().find_map(part_with) {
        return Err(Refusal::Swap { part: part.clone() });
    }
    let holder = |name: &String| Some((name.clone(), machine.blocks.get(name)?.holders.first()?.clone()));
    match family.iter().find_map(holder) {
        Some((part, holder)) => Err(Refusal::Held { part, holder }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Block, Mount};

    const GIB: u64 = 1 << 30;

    fn block(minor: u32, disk: Option<&str>, holders: &[&str]) -> Block {
        let holders = holders.iter().map(|&holder| holder.to_owned()).collect();
        let disk = disk.map(str::to_owned);
        Block { number: (8, minor), disk, holders, bytes: 8 * GIB, read_only: false, sector_bytes: 512, model: "Stick".to_owned() }
    }

    /// A laptop that runs from an encrypted volume on `sda`, has a stick `sdb`, a disk of an array `sdc` and a free card `sdd`.
    fn machine() -> Machine {
        let mut machine = Machine::default();
        for (name, number, disk, holders) in [
            ("sda", 0, None, &[][..]),
            ("sda1", 1, Some("sda"), &[]),
            ("sda2", 2, Some("sda"), &["dm-0"]),
            ("dm-0", 100, None, &["dm-1", "dm-2"]),
            ("dm-1", 101, None, &[]),
            ("dm-2", 102, None, &[]),
            ("sdb", 16, None, &[]),
            ("sdb1", 17, Some("sdb"), &[]),
            ("sdc", 32, None, &["md0"]),
            ("md0", 200, None, &[]),
            ("sdd", 48, None, &[]),
            ("sdd1", 49, Some("sdd"), &[]),
        ] {
            machine.blocks.insert(name.to_owned(), block(number, disk, holders));
        }
        mount(&mut machine, 101, "/");
        mount(&mut machine, 1, "/boot/efi");
        mount(&mut machine, 17, "/media/stick");
        machine.swaps.push((8, 102));
        machine
    }

    fn mount(machine: &mut Machine, minor: u32, point: &str) {
        machine.mounts.push(Mount { numbers: vec![(0, 30), (8, minor)], point: point.to_owned() });
    }

    fn told(machine: &Machine, minor: u32) -> String {
        judge(machine, (8, minor)).map_or_else(|refusal| refusal.to_string(), |disk| format!("{} is free", disk.name))
    }

    #[test]
    fn only_a_disk_that_nobody_uses_is_written_to() {
        let machine = machine();
        for (minor, expected) in [
            (0, "it is the disk that this machine runs from: / is on dm-1"),
            (100, "it is the disk that this machine runs from: / is on dm-1"),
            (1, "it is a partition of the disk /dev/sda"),
            (16, "sdb1 is mounted at /media/stick"),
            (17, "it is a partition of the disk /dev/sdb"),
            (32, "sdc is part of md0"),
            (102, "dm-2 is swap of this machine"),
            (48, "sdd is free"),
            (7, "it is a device without a disk behind it"),
        ] {
            assert_eq!(told(&machine, minor), expected, "{minor}");
        }
    }

    #[test]
    fn a_use_that_comes_to_a_free_disk_is_seen() {
        type Change = fn(&mut Machine);
        let cases: [(Change, &str); 8] = [
            (|machine| mount(machine, 48, "/srv"), "sdd is mounted at /srv"),
            (|machine| mount(machine, 49, "/usr"), "it is the disk that this machine runs from: /usr is on sdd1"),
            (|machine| machine.swaps.push((8, 49)), "sdd1 is swap of this machine"),
            (|machine| machine.blocks.get_mut("sdd1").unwrap().holders.push("dm-9".to_owned()), "sdd1 is part of dm-9"),
            (|machine| machine.blocks.get_mut("sdd").unwrap().read_only = true, "it is read-only"),
            (
                |machine| machine.blocks.get_mut("sdd").unwrap().sector_bytes = 4096,
                "it has sectors of 4096 bytes, and images are made for sectors of 512",
            ),
            // What cannot be looked up is no reason to believe the worst, and what is not on it neither.
            (|machine| mount(machine, 250, "/elsewhere"), "sdd is free"),
            (|machine| machine.mounts.push(Mount { numbers: Vec::new(), point: "/proc".to_owned() }), "sdd is free"),
        ];
        for (change, expected) in cases {
            let mut machine = machine();
            change(&mut machine);
            assert_eq!(told(&machine, 48), expected);
        }
    }

    #[test]
    fn circles_in_the_tables_end() {
        let mut machine = machine();
        machine.blocks.get_mut("dm-2").unwrap().holders.push("dm-0".to_owned());
        machine.blocks.get_mut("dm-0").unwrap().holders.push("sda".to_owned());
        assert!(judge(&machine, (8, 0)).is_err());
    }

    #[test]
    fn the_data_partition_needs_room_too() {
        let disk = judge(&machine(), (8, 48)).unwrap();
        assert_eq!(room(&disk, 8 * GIB - crate::DATA_BYTES_MIN), Ok(()));
        let refusal = room(&disk, 8 * GIB - crate::DATA_BYTES_MIN + 1).unwrap_err();
        assert_eq!(refusal.to_string(), "it has 8 GiB, and the image with its data partition needs 8.0 GiB");
        assert!(room(&disk, u64::MAX).is_err());
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        assert!(judge(&machine(), (8, 17)).unwrap_err().advice().contains("--to /dev/sdb"));
        assert!(judge(&machine(), (8, 16)).unwrap_err().advice().contains("umount /dev/sdb1"));
    }
}
