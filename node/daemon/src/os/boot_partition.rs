//! The boot partition: mounted only while something of it is read or written, so that a power cut rarely finds it open.

use super::mount::{mounted, synced};
use anyhow::Context as _;
use rustix::fs::{Advice, fadvise};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use sedge_node_core::boot_entry::{BootEntry, ImageVersion, Tries};
use sedge_node_core::update::TRIES;
use sedge_protocol::Digest;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the kernel images are.
const ENTRIES: &str = "EFI/Linux";
/// Suffix of a kernel image that is whole and that the boot loader does not look at.
const STAGED: &str = ".staged";
/// Suffix of one that is being written.
const PART: &str = ".part";

/// The partition and where it is mounted.
#[derive(Debug)]
pub(super) struct BootPartition {
    device: PathBuf,
    mount_point: PathBuf,
    /// One at a time.
    turn: Mutex<()>,
}

impl BootPartition {
    pub(super) fn new(device: &Path, mount_point: &Path) -> Self {
        Self { device: device.to_owned(), mount_point: mount_point.to_owned(), turn: Mutex::new(()) }
    }

    /// Puts right what a power cut has left on it.
    pub(super) fn repair(&self) -> anyhow::Result<()> {
        let cut = !self.device.is_dir() && {
            let _turn = self.turn();
            super::fat::repair(&self.device)?
        };
        if cut { self.mounted(MountFlags::empty(), synced(remove_empty)) } else { Ok(()) }
    }

    /// Looks at what is on it.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Path) -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.repaired(MountFlags::RDONLY, look)
    }

    /// Changes what is on it; it is on the disk when this comes back.
    pub(super) fn write<T>(&self, change: impl FnOnce(&Path) -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.repaired(MountFlags::empty(), synced(change))
    }

    /// [`BootPartition::mounted`]; after damage that shows only now the next try finds it repaired.
    fn repaired<T>(&self, flags: MountFlags, work: impl FnOnce(&Path) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let done = self.mounted(flags, work);
        if let Err(error) = &done
            && is_damage(error)
            && let Err(error) = self.repair()
        {
            log::error!(reason:% = format!("{error:#}"); "the boot partition is damaged and could not be put right");
        }
        done
    }

    fn mounted<T>(&self, flags: MountFlags, work: impl FnOnce(&Path) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let _turn = self.turn();
        mounted((&self.device, &self.mount_point), flags, work)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the kernel found no sense in what is on the disk.
fn is_damage(error: &anyhow::Error) -> bool {
    let causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    causes.map(Errno::from_raw_os_error).any(|errno| [Errno::IO, Errno::ROFS, Errno::UCLEAN].contains(&errno))
}

/// Our kernel images on it, the newest first.
pub(super) fn entries(boot: &Path) -> anyhow::Result<Vec<BootEntry>> {
    let names = fs::read_dir(boot.join(ENTRIES)).with_context(|| format!("read {ENTRIES}"))?;
    let mut entries: Vec<BootEntry> = names.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    entries.sort_by(|one, other| other.version.cmp(&one.version));
    Ok(entries)
}

/// Versions that are staged.
pub(super) fn staged(boot: &Path) -> anyhow::Result<Vec<ImageVersion>> {
    let names = fs::read_dir(boot.join(ENTRIES)).with_context(|| format!("read {ENTRIES}"))?;
    Ok(names.flatten().filter_map(|entry| entry.file_name().to_str()?.strip_suffix(STAGED)?.parse().ok()).collect())
}

/// Removes kernel images that a power cut has emptied: the boot loader passes them by, and their names say what is not so.
fn remove_empty(boot: &Path) -> anyhow::Result<()> {
    for file in fs::read_dir(boot.join(ENTRIES)).with_context(|| format!("read {ENTRIES}"))?.flatten() {
        if file.metadata().is_ok_and(|file| file.is_file() && file.len() == 0) {
            log::warn!(name = file.file_name().to_string_lossy().as_ref(); "a file that a power cut has emptied is removed");
            fs::remove_file(file.path()).with_context(|| format!("remove {}", file.path().display()))?;
        }
    }
    Ok(())
}

/// The kernel image of a version.
pub(super) fn kernel(boot: &Path, version: &ImageVersion) -> anyhow::Result<File> {
    let all = entries(boot)?;
    let entry = all.iter().find(|entry| entry.version == *version).with_context(|| format!("no kernel image of {version}"))?;
    File::open(boot.join(ENTRIES).join(entry.to_string())).with_context(|| format!("open {entry}"))
}

/// Removes every kernel image but that of `keep`, and what is half written. The newest that failed stays as a record.
pub(super) fn forget(boot: &Path, keep: &ImageVersion) -> anyhow::Result<()> {
    let directory = boot.join(ENTRIES);
    let all = entries(boot)?;
    let record = all.iter().find(|entry| entry.is_bad() && entry.version > *keep);
    for entry in all.iter().filter(|entry| entry.version != *keep && Some(*entry) != record) {
        fs::remove_file(directory.join(entry.to_string())).with_context(|| format!("remove {entry}"))?;
    }
    // What was said of an older version is history.
    super::files::remove(&boot.join(super::record::FAULT))?;
    for file in fs::read_dir(&directory).with_context(|| format!("read {ENTRIES}"))?.flatten() {
        let name = file.file_name();
        if name.to_str().is_some_and(|name| name.ends_with(STAGED) || name.ends_with(PART)) {
            fs::remove_file(file.path()).with_context(|| format!("remove {}", file.path().display()))?;
        }
    }
    Ok(())
}

/// Writes a kernel image of so many bytes where the boot loader does not look; it is there as a whole or not at all.
pub(super) fn stage(boot: &Path, version: &ImageVersion, (from, bytes): (&mut impl Read, u64), digest: &Digest) -> anyhow::Result<()> {
    let name = |suffix| boot.join(ENTRIES).join(format!("{version}{suffix}"));
    let part = name(PART);
    let result = write_whole(&part, (from, bytes), digest)
        .and_then(|()| fs::rename(&part, name(STAGED)).context("put the kernel image into its place"));
    if result.is_err() {
        // Its room is needed by the next try; the error that matters is the one before.
        drop(fs::remove_file(&part));
    }
    result
}

fn write_whole(part: &Path, (from, bytes): (&mut impl Read, u64), digest: &Digest) -> anyhow::Result<()> {
    let mut file = File::create(part).with_context(|| format!("create {}", part.display()))?;
    let written = io::copy(&mut from.take(bytes), &mut file).context("write the kernel image")?;
    file.sync_all().context("sync the kernel image")?;
    // Read from the disk, not from memory.
    fadvise(&file, 0, None, Advice::DontNeed).context("forget the kernel image's pages")?;
    let right = written == bytes && sedge_bundle::digest(File::open(part)?).context("read the kernel image back")? == *digest;
    anyhow::ensure!(right, "the kernel image is not what the manifest says");
    Ok(())
}

/// Shows a staged version to the boot loader, with all its tries. One that is shown already is left alone.
pub(super) fn show(boot: &Path, version: &ImageVersion) -> anyhow::Result<()> {
    let directory = boot.join(ENTRIES);
    let staged = directory.join(format!("{version}{STAGED}"));
    let entry = BootEntry { version: version.clone(), tries: Some(Tries { left: TRIES, done: 0 }) };
    let all = entries(boot)?;
    if all.contains(&entry) {
        return Ok(());
    }
    for old in all.iter().filter(|old| old.version == *version) {
        fs::remove_file(directory.join(old.to_string())).with_context(|| format!("remove {old}"))?;
    }
    fs::rename(staged, directory.join(entry.to_string())).with_context(|| format!("show version {version} to the boot loader"))
}

/// Marks the version that runs as good. False when it was so already.
pub(super) fn bless(boot: &Path, version: &ImageVersion) -> anyhow::Result<bool> {
    let all = entries(boot)?;
    let ours: Vec<&BootEntry> = all.iter().filter(|entry| entry.version == *version).collect();
    anyhow::ensure!(!ours.is_empty(), "the boot partition has no kernel image of {version}, which runs");
    if ours.iter().any(|entry| entry.tries.is_none()) {
        return Ok(false);
    }
    for entry in ours {
        let name = |entry: &BootEntry| boot.join(ENTRIES).join(entry.to_string());
        fs::rename(name(entry), name(&entry.blessed())).with_context(|| format!("rename {entry}"))?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_version_is_blessed_once_and_no_other() {
        let boot = tempfile::tempdir().unwrap();
        let directory = boot.path().join(ENTRIES);
        fs::create_dir_all(&directory).unwrap();
        for name in ["sedge_1.0.0.efi", "sedge_1.1.0+2-1.efi", "sedge_1.2.0+0-3.efi", "other.efi"] {
            fs::write(directory.join(name), name).unwrap();
        }
        let version = "1.1.0".parse().unwrap();
        assert!(bless(boot.path(), &version).unwrap());
        assert!(!bless(boot.path(), &version).unwrap());
        let names: Vec<String> = entries(boot.path()).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["sedge_1.2.0+0-3.efi", "sedge_1.1.0.efi", "sedge_1.0.0.efi"]);
        assert!(bless(boot.path(), &"9".parse().unwrap()).unwrap_err().to_string().contains("no kernel image of 9"));
    }
}
