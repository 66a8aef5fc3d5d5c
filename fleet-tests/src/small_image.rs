//! An image of a node that boots nowhere and is like one otherwise: partition table, boot partition, two slots. Made by other code than what
//! `sedge flash` reads it with.

use anyhow::{Context as _, Result};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use gpt::disk::LogicalBlockSize::Lb512;
use gpt::mbr::ProtectiveMBR;
use gpt::{GptConfig, partition_types};
use rand::RngExt as _;
use std::fs::{self, File};
use std::io::{Cursor, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

const MIB: usize = 1 << 20;
/// The least that FAT32 takes, and some more.
const BOOT_BYTES: usize = 40 * MIB;
/// Size of the second slot, which is empty.
const EMPTY_BYTES: usize = 8 * MIB;
/// Where the boot partition is.
const BOOT: Range<usize> = MIB..MIB + BOOT_BYTES;

/// One image.
#[derive(Debug, Clone)]
pub struct SmallImage {
    /// The disk that it makes.
    pub disk: Vec<u8>,
    /// Bytes of the first slot: random, so that nothing of it can be packed.
    pub root: Range<usize>,
}

impl SmallImage {
    /// One with a first slot of `root_mib`.
    ///
    /// # Errors
    /// When the tools that make it fail.
    pub fn new(root_mib: usize) -> Result<Self> {
        let root = BOOT.end..BOOT.end + root_mib * MIB;
        let mut disk = Cursor::new(vec![0; root.end + EMPTY_BYTES + MIB]);
        let sectors = u32::try_from(disk.get_ref().len() / 512 - 1)?;
        ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(&mut disk)?;
        let mut table = GptConfig::new().writable(true).logical_block_size(Lb512).create_from_device(disk, None)?;
        for (name, bytes, kind) in [
            ("esp", BOOT_BYTES, partition_types::EFI),
            ("root-a", root_mib * MIB, partition_types::LINUX_FS),
            ("root-b", EMPTY_BYTES, partition_types::LINUX_FS),
        ] {
            table.add_partition(name, bytes as u64, kind, 0, Some(2048))?;
        }
        let mut disk = table.write()?.into_inner();
        disk[BOOT].copy_from_slice(&boot_partition()?);
        rand::rng().fill(&mut disk[root.clone()]);
        Ok(Self { disk, root })
    }

    /// Writes it to `directory`, packed, with its checksum beside it.
    ///
    /// # Errors
    /// When there is no room.
    pub fn pack(&self, directory: &Path) -> Result<PathBuf> {
        let path = directory.join("sedge-test-x86-64-0.1.0.img.zst");
        let mut packer = zstd::Encoder::new(Vec::new(), 1)?;
        packer.include_checksum(true)?;
        packer.write_all(&self.disk)?;
        let packed = packer.finish()?;
        fs::write(&path, &packed)?;
        let line = format!("{}  sedge-test-x86-64-0.1.0.img.zst\n", sedge_protocol::Digest::of(&packed).hex());
        fs::write(checksum(&path), line)?;
        Ok(path)
    }
}

/// Where the checksum of `image` is.
#[must_use]
pub fn checksum(image: &Path) -> PathBuf {
    let mut name = image.as_os_str().to_owned();
    name.push(".sha256");
    name.into()
}

fn boot_partition() -> Result<Vec<u8>> {
    let mut volume = Cursor::new(vec![0; BOOT_BYTES]);
    fatfs::format_volume(&mut volume, FormatVolumeOptions::new().fat_type(FatType::Fat32).bytes_per_cluster(512))?;
    volume.set_position(0);
    {
        let files = FileSystem::new(&mut volume, FsOptions::new())?;
        let root = files.root_dir();
        root.create_dir("EFI")?.create_dir("BOOT")?.create_file("BOOTX64.EFI")?.write_all(&[7; 3000])?;
    }
    Ok(volume.into_inner())
}

/// What another reader finds on a flashed disk.
#[derive(Debug)]
pub struct Found {
    /// Names of the partitions.
    pub partitions: Vec<String>,
    /// The last sector, as both copies of the table agree.
    pub last_sector: u64,
}

/// Reads both copies of the partition table of `disk`.
///
/// # Errors
/// When one of them is not good.
pub fn table(disk: &Path) -> Result<Found> {
    let table = GptConfig::new().only_valid_headers(true).logical_block_size(Lb512).open(disk)?;
    let (first, last) = (table.primary_header()?, table.backup_header()?);
    anyhow::ensure!(first.backup_lba == last.current_lba && first.last_usable == last.last_usable, "{first:?} {last:?}");
    Ok(Found { partitions: table.partitions().values().map(|part| part.name.clone()).collect(), last_sector: first.backup_lba })
}

/// A file of the boot partition of `disk`.
///
/// # Errors
/// When it is not there.
pub fn boot_file(disk: &Path, name: &str) -> Result<Vec<u8>> {
    let mut file = File::open(disk)?;
    file.seek(SeekFrom::Start(BOOT.start as u64))?;
    let mut volume = vec![0; BOOT_BYTES];
    file.read_exact(&mut volume)?;
    let files = FileSystem::new(Cursor::new(volume), FsOptions::new())?;
    anyhow::ensure!(!files.read_status_flags()?.dirty(), "the file system was not closed");
    let mut bytes = Vec::new();
    files.root_dir().open_file(name).with_context(|| name.to_owned())?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
