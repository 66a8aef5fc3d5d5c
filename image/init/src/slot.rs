//! Finds the slot that holds the root file system with a given root hash.
//!
//! Slots are the partitions named `root-a` and `root-b`. Disks appear when their drivers are ready, so the search is repeated for a while.

use crate::command_line::CommandLine;
use crate::verity::{BLOCK_BYTES, OnFault, Superblock};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

const DEVICES: &str = "/sys/class/block";
/// Partition names of the slots.
const SLOTS: [&str; 2] = ["root-a", "root-b"];
/// Partition name of the boot partition.
const BOOT: &str = "esp";
/// That of the partition for what lasts.
const DATA: &str = "data";
/// How long disks may take to appear: a card reader or a USB bridge needs seconds.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A slot with the right root file system.
#[derive(Debug)]
pub(crate) struct Found {
    partition: Partition,
    superblock: Superblock,
    command_line: CommandLine,
    has_data: bool,
}

/// Nothing that was seen holds it.
#[derive(Debug, thiserror::Error)]
#[error("no slot holds the root file system of this kernel: {}", if .seen.is_empty() { "no partition is named root-a or root-b".to_owned() } else { .seen.join("; ") })]
pub(crate) struct NotFound {
    seen: Vec<String>,
    boot_partition: Option<String>,
}

impl NotFound {
    /// The boot partition of a disk that has slots.
    pub(crate) fn boot_partition(&self) -> Option<&str> {
        self.boot_partition.as_deref()
    }
}

/// A partition of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Partition {
    /// Its name in the partition table.
    name: String,
    /// Its file below `/dev`.
    device: String,
    /// Its number, `major:minor`.
    number: String,
    /// The number of its disk.
    disk: String,
}

/// Looks until a slot is found or patience ends.
pub(crate) fn find(command_line: &CommandLine) -> Result<Found, NotFound> {
    let begin = Instant::now();
    loop {
        match look(command_line) {
            Err(seen) if begin.elapsed() <= PATIENCE => drop(seen),
            found => return found,
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Looks once, at the disks that are there.
pub(crate) fn look(command_line: &CommandLine) -> Result<Found, NotFound> {
    let (mut seen, mut boot_partition, partitions) = (Vec::new(), None, partitions());
    for partition in partitions.iter().filter(|partition| SLOTS.contains(&partition.name.as_str())) {
        match superblock(partition, command_line) {
            Ok(superblock) => {
                let has_data = partitions.iter().any(|other| other.name == DATA && other.disk == partition.disk);
                return Ok(Found { partition: partition.clone(), superblock, command_line: command_line.clone(), has_data });
            }
            Err(reason) => {
                seen.push(format!("{}: {reason}", partition.device));
                boot_partition = boot_partition.or_else(|| boot_partition_of(&partition.disk));
            }
        }
    }
    Err(NotFound { seen, boot_partition })
}

/// The hash tree's head, if it is that of the right root file system.
fn superblock(partition: &Partition, command_line: &CommandLine) -> Result<Superblock, String> {
    let mut head = vec![0; 2 * BLOCK_BYTES];
    let file = File::open(format!("/dev/{}", partition.device)).map_err(|error| error.to_string())?;
    file.read_exact_at(&mut head, command_line.hash_offset).map_err(|error| error.to_string())?;
    let (superblock, top) = head.split_at(BLOCK_BYTES);
    let superblock = Superblock::parse(superblock).map_err(|fault| fault.to_string())?;
    let holds = superblock.digest(top) == command_line.root_hash;
    holds.then_some(superblock).ok_or_else(|| "another root file system, or a damaged one".to_owned())
}

/// The boot partition of a disk.
fn boot_partition_of(disk: &str) -> Option<String> {
    let boot = partitions().into_iter().find(|partition| partition.name == BOOT && partition.disk == disk)?;
    Some(format!("/dev/{}", boot.device))
}

/// Every partition of every disk.
fn partitions() -> Vec<Partition> {
    let Ok(entries) = fs::read_dir(DEVICES) else { return Vec::new() };
    entries.flatten().filter_map(|entry| Partition::read(entry.path()).ok().flatten()).collect()
}

impl Partition {
    /// Reads an entry of `/sys/class/block`; none for a disk.
    fn read(path: PathBuf) -> io::Result<Option<Self>> {
        let uevent = fs::read_to_string(path.join("uevent"))?;
        let value = |key: &str| uevent.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
        let (Some(name), Some(device)) = (value("PARTNAME="), value("DEVNAME=")) else { return Ok(None) };
        let number = fs::read_to_string(path.join("dev"))?.trim().to_owned();
        let disk = fs::read_to_string(fs::canonicalize(path)?.join("../dev"))?.trim().to_owned();
        Ok(Some(Self { name, device, number, disk }))
    }
}

impl Found {
    /// What device-mapper is told.
    pub(crate) fn table(&self, on_fault: OnFault) -> String {
        let CommandLine { root_hash, hash_offset, .. } = &self.command_line;
        self.superblock.table(&self.partition.number, *hash_offset, root_hash, on_fault)
    }

    /// Its file.
    pub(crate) fn device(&self) -> String {
        format!("/dev/{}", self.partition.device)
    }

    /// The boot partition of its disk.
    pub(crate) fn boot_partition(&self) -> Option<String> {
        boot_partition_of(&self.partition.disk)
    }

    /// For the keeper of the operating system: the partition's name, and how many of its bytes are in use, hash tree included.
    pub(crate) fn place(&self) -> String {
        let hash_offset = self.command_line.hash_offset;
        // A tree of SHA-256 over blocks of 4096 bytes has a 127th of what it covers.
        format!("{} {}\n", self.partition.name, hash_offset + hash_offset / 127 + 16 * BLOCK_BYTES as u64)
    }

    /// Names the partitions of the boot disk `/dev/sedge/NAME`, so that a stick with partitions of the same names is not mistaken for it.
    /// The names are those that udev itself reads: the kernel does not know that of a partition which was made while it ran.
    pub(crate) fn udev_rule(&self) -> String {
        let disk = &self.partition.disk;
        let ours = format!(r#"SUBSYSTEM=="block", ENV{{ID_PART_ENTRY_DISK}}=="{disk}", ENV{{ID_PART_ENTRY_NAME}}!="""#);
        format!("{ours}, SYMLINK+=\"sedge/$env{{ID_PART_ENTRY_NAME}}\"\n")
    }

    /// Whether its disk has a data partition: it is made at the first boot.
    pub(crate) fn has_data(&self) -> bool {
        self.has_data
    }

    pub(crate) fn partition(&self) -> impl fmt::Display {
        format!("/dev/{} ({})", self.partition.device, self.partition.name)
    }
}
