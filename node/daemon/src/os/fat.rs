//! What a power cut can leave on the boot partition, and how it is put right before anything is written there.
//!
//! Renaming on FAT writes the new name and takes away the old one, in sectors that reach the disk in any order. After a cut between them one file
//! may be there under both names: removing one would free what the other is made of, and a checker that knows nothing of kernel images
//! empties whichever comes second. So twins are parted here first, by taking away the name that was to go, without touching what it
//! is made of; the rest (clusters that belong to nobody, chains that end too early) is the work of `fsck.fat`.
//!
//! ```text
//! reserved │ table of clusters (twice) │ clusters: directories are files of entries of 32 bytes, a long name lies before its short one
//! ```

use anyhow::{Context as _, bail, ensure};
use sedge_node_core::boot_entry::{BootEntry, Tries};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

/// Directories in which files are renamed.
const DIRECTORIES: [&[&str]; 2] = [&[], &["EFI", "Linux"]];
const ENTRY_BYTES: usize = 32;
/// Longest directory that is read, clusters.
const CHAIN_MAX: usize = 4096;
/// First byte of an entry that was taken away, and of the first one that never was.
const REMOVED: u8 = 0xe5;
const END: u8 = 0;
/// Attributes of an entry: part of a long name, directory.
const LONG_NAME: u8 = 0x0f;
const DIRECTORY: u8 = 0x10;

/// A FAT32 volume, not mounted.
#[derive(Debug)]
struct Volume<'a> {
    device: &'a File,
    /// Where the first table begins, bytes.
    table_at: u64,
    /// Where cluster 2 begins, bytes.
    data_at: u64,
    cluster_bytes: usize,
    root: u32,
}

/// A file or directory.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    directory: bool,
    /// Its first cluster; 0 when it is empty.
    first: u32,
    /// Where its entries lie on the device: those of its long name, then its own.
    at: Vec<u64>,
}

/// Puts right what a power cut has left on `device`, which is not mounted; answers whether there was anything. It does not ask whether a cut is
/// marked there: the mark is a write like any other and may be what was lost, and the boot loader writes without one.
pub(super) fn repair(device: &Path) -> anyhow::Result<bool> {
    let file = File::options().read(true).write(true).open(device).with_context(|| format!("open {}", device.display()))?;
    let volume = Volume::open(&file)?;
    let parted = volume.part_twins()?;
    file.sync_all().context("sync the boot partition")?;
    drop(file);
    // Repairs what is safe to repair, and says what it did.
    let checked = Command::new("fsck.fat").args(["-a", "-w"]).arg(device).output().context("run fsck.fat")?;
    let said = String::from_utf8_lossy(&checked.stdout).trim().replace('\n', "; ");
    match checked.status.code() {
        Some(0) => Ok(parted),
        // Errors were corrected.
        Some(1) => {
            log::warn!(said = said.as_str(); "the boot partition was put right: power was cut while it was written");
            Ok(true)
        }
        _ => bail!("fsck.fat failed ({}): {said}", checked.status),
    }
}

impl<'a> Volume<'a> {
    fn open(device: &'a File) -> anyhow::Result<Self> {
        let mut boot = [0; 512];
        device.read_exact_at(&mut boot, 0).context("read the boot partition")?;
        let [sector, reserved] = [11..13, 14..16].map(|range| number(&boot, range));
        let [table, root] = [36..40, 44..48].map(|range| number(&boot, range));
        let (clusters, tables) = (number(&boot, 13..14), number(&boot, 16..17));
        let is_fat32 = boot.ends_with(&[0x55, 0xaa]) && number(&boot, 22..24) == 0 && table > 0 && root >= 2;
        let sane = (512..=4096).contains(&sector) && clusters.is_power_of_two() && (1..=2).contains(&tables);
        ensure!(is_fat32 && sane, "the boot partition is not FAT32");
        let bytes = |sectors: u32| u64::from(sectors) * u64::from(sector);
        Ok(Self {
            device,
            table_at: bytes(reserved),
            data_at: bytes(reserved) + u64::from(tables) * bytes(table),
            cluster_bytes: usize::try_from(clusters * sector)?,
            root,
        })
    }

    /// Takes away the names that were to go of files that have two; answers whether there were any.
    fn part_twins(&self) -> anyhow::Result<bool> {
        let mut parted = false;
        for path in DIRECTORIES {
            let Some(directory) = self.find(path)? else { continue };
            let entries = self.entries(directory)?;
            for twin in entries.iter().filter(|entry| is_outlived(entry, &entries)) {
                log::warn!(name = twin.name.as_str(); "a file of the boot partition has two names after a power cut: this one goes");
                // Its own entry goes first: a long name that is left alone is nobody's.
                for at in twin.at.iter().rev() {
                    self.device.write_all_at(&[REMOVED], *at).context("write the boot partition")?;
                }
                parted = true;
            }
        }
        Ok(parted)
    }

    /// The first cluster of a directory.
    fn find(&self, path: &[&str]) -> anyhow::Result<Option<u32>> {
        let mut at = self.root;
        for name in path {
            let entries = self.entries(at)?;
            let Some(next) = entries.iter().find(|entry| entry.directory && entry.name.eq_ignore_ascii_case(name)) else { return Ok(None) };
            at = next.first;
        }
        Ok(Some(at))
    }

    fn entries(&self, first: u32) -> anyhow::Result<Vec<Entry>> {
        let (mut entries, mut long) = (Vec::new(), Vec::new());
        for cluster in self.chain(first)? {
            let at = self.data_at + u64::from(cluster - 2) * self.cluster_bytes as u64;
            let mut bytes = vec![0; self.cluster_bytes];
            self.device.read_exact_at(&mut bytes, at).context("read a directory of the boot partition")?;
            for (raw, at) in bytes.chunks_exact(ENTRY_BYTES).zip((at..).step_by(ENTRY_BYTES)) {
                match raw[0] {
                    END => return Ok(entries),
                    REMOVED => long.clear(),
                    _ if raw[11] & LONG_NAME == LONG_NAME => long.push((raw.to_vec(), at)),
                    _ => entries.push(Entry::read(raw, at, std::mem::take(&mut long))),
                }
            }
        }
        Ok(entries)
    }

    fn chain(&self, first: u32) -> anyhow::Result<Vec<u32>> {
        let (mut chain, mut next) = (Vec::new(), first);
        while (2..0x0fff_fff7).contains(&next) {
            ensure!(chain.len() < CHAIN_MAX, "a directory of the boot partition has no end");
            chain.push(next);
            let mut link = [0; 4];
            self.device.read_exact_at(&mut link, self.table_at + 4 * u64::from(next)).context("read the table of the boot partition")?;
            next = u32::from_le_bytes(link) & 0x0fff_ffff;
        }
        Ok(chain)
    }
}

impl Entry {
    fn read(raw: &[u8], at: u64, mut long: Vec<(Vec<u8>, u64)>) -> Self {
        let sum = raw[..11].iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        // What was left of another name is not this one's.
        long.retain(|(part, _)| part[13] == sum);
        // The last part comes first.
        let units = long.iter().rev().flat_map(|(part, _)| [&part[1..11], &part[14..26], &part[28..32]].concat());
        let units: Vec<u8> = units.collect();
        let units = units.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).take_while(|unit| *unit != 0);
        let long_name = char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        let name = if long.is_empty() { short_name(raw) } else { long_name };
        let first = number(raw, 20..22) << 16 | number(raw, 26..28);
        Self { name, directory: raw[11] & DIRECTORY != 0, first, at: long.iter().map(|(_, at)| *at).chain([at]).collect() }
    }
}

fn short_name(raw: &[u8]) -> String {
    let text = |range: Range<usize>| String::from_utf8_lossy(&raw[range]).trim_end().to_owned();
    let (stem, extension) = (text(0..8), text(8..11));
    if extension.is_empty() { stem } else { format!("{stem}.{extension}") }
}

/// Whether another name of the same file says that this one was to go.
fn is_outlived(entry: &Entry, all: &[Entry]) -> bool {
    let twin = |other: &&Entry| other.first == entry.first && other.at != entry.at;
    let later = |other: &Entry| (age(&other.name), &other.name) > (age(&entry.name), &entry.name);
    entry.first != 0 && !entry.directory && all.iter().filter(twin).any(later)
}

/// How far a file has come in its life, by its name: a rename goes upwards.
fn age(name: &str) -> u32 {
    const KEPT: u32 = 1_000;
    match name.parse() {
        Ok(BootEntry { tries: None, .. }) => KEPT,
        // Given up by the first program, whatever it was before.
        Ok(BootEntry { tries: Some(Tries { left: 0, done: 0 }), .. }) => KEPT + 1,
        Ok(BootEntry { tries: Some(Tries { done, .. }), .. }) => 3 + done.min(KEPT - 4),
        Err(_) if name.ends_with(".part") || name.ends_with(".new") => 0,
        Err(_) if name.ends_with(".staged") => 1,
        Err(_) => 2,
    }
}

/// A number of up to four bytes.
fn number(bytes: &[u8], range: Range<usize>) -> u32 {
    bytes[range].iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    /// A volume with these files below `EFI/Linux`, each with its own name as content, as a power cut leaves it: `twin` is made of what `of` is.
    fn volume(names: &[&str], (twin, of): (&str, &str)) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(64 << 20).unwrap();
        let options = fatfs::FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat32).bytes_per_cluster(512);
        fatfs::format_volume(file.as_file(), options).unwrap();
        {
            let system = fatfs::FileSystem::new(file.as_file(), fatfs::FsOptions::new()).unwrap();
            let directory = system.root_dir().create_dir("EFI").unwrap().create_dir("Linux").unwrap();
            for name in names {
                directory.create_file(name).unwrap().write_all(name.as_bytes()).unwrap();
            }
        }
        let volume = Volume::open(file.as_file()).unwrap();
        let entries = volume.entries(volume.find(&["EFI", "Linux"]).unwrap().unwrap()).unwrap();
        let named = |name: &str| entries.iter().find(|entry| entry.name == name).unwrap();
        let (at, first) = (*named(twin).at.last().unwrap(), named(of).first.to_le_bytes());
        file.as_file().write_all_at(&first[2..], at + 20).unwrap();
        file.as_file().write_all_at(&first[..2], at + 26).unwrap();
        file
    }

    fn names(file: &Path) -> Vec<(String, String)> {
        let system = fatfs::FileSystem::new(File::open(file).unwrap(), fatfs::FsOptions::new()).unwrap();
        let files = system.root_dir().open_dir("EFI/Linux").unwrap().iter().map(Result::unwrap).filter(fatfs::DirEntry::is_file);
        let read = |entry: fatfs::DirEntry<'_, File>| {
            let mut content = String::new();
            entry.to_file().read_to_string(&mut content).unwrap();
            (entry.file_name(), content)
        };
        let mut names: Vec<_> = files.map(read).collect();
        names.sort();
        names
    }

    #[test]
    fn of_two_names_of_one_file_the_later_stays_and_what_it_is_made_of() {
        for (before, after) in [
            ("1.4.0.part", "1.4.0.staged"),
            ("1.4.0.staged", "sedge_1.4.0+3.efi"),
            ("sedge_1.4.0+3.efi", "sedge_1.4.0+2-1.efi"),
            ("sedge_1.4.0+1-2.efi", "sedge_1.4.0+0-3.efi"),
            ("sedge_1.4.0+0-3.efi", "sedge_1.4.0.efi"),
            ("sedge_1.4.0.efi", "sedge_1.4.0+0.efi"),
        ] {
            for of in [before, after] {
                let twin = if of == before { after } else { before };
                let file = volume(&["sedge_1.3.0.efi", before, after], (twin, of));
                let volume = Volume::open(file.as_file()).unwrap();
                assert!(volume.part_twins().unwrap() && !volume.part_twins().unwrap(), "{before}, {after}");
                let left = names(file.path());
                let kept = left.iter().find(|(name, _)| name == after).unwrap_or_else(|| panic!("{left:?}"));
                assert!(left.len() == 2 && kept.1.starts_with(&of[..after.len().min(of.len())]), "{left:?}");
                assert!(left.contains(&("sedge_1.3.0.efi".to_owned(), "sedge_1.3.0.efi".to_owned())), "{left:?}");
            }
        }
    }

    #[test]
    fn what_is_no_volume_or_a_damaged_one_is_an_error_and_no_loop() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        assert!(Volume::open(&file).unwrap_err().to_string().contains("not FAT32"));
        let file = volume(&["sedge_1.efi", "sedge_2.efi"], ("sedge_1.efi", "sedge_2.efi"));
        let volume = Volume::open(file.as_file()).unwrap();
        let root = volume.root;
        file.as_file().write_all_at(&root.to_le_bytes(), volume.table_at + 4 * u64::from(root)).unwrap();
        assert!(volume.part_twins().unwrap_err().to_string().contains("no end"));
    }
}
