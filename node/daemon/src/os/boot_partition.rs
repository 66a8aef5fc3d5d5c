//! The boot partition: mounted only while something of it is read or written, so that a power cut rarely finds it open.

use anyhow::Context as _;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use sedge_node_core::boot_entry::{BootEntry, ImageVersion};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Where the kernel images are.
const ENTRIES: &str = "EFI/Linux";

/// The partition and where it is mounted.
#[derive(Debug)]
pub(super) struct BootPartition {
    device: PathBuf,
    mount_point: PathBuf,
}

/// Unmounts when it goes.
#[derive(Debug)]
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(error) = unmount(self.0, UnmountFlags::empty()) {
            log::error!(reason:% = error; "the boot partition stays mounted");
        }
    }
}

impl BootPartition {
    pub(super) fn new(device: &Path, mount_point: &Path) -> Self {
        Self { device: device.to_owned(), mount_point: mount_point.to_owned() }
    }

    /// Looks at what is on it.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Path) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mounted = self.mount(MountFlags::RDONLY)?;
        look(mounted.0)
    }

    /// Changes what is on it; it is on the disk when this comes back.
    pub(super) fn write<T>(&self, change: impl FnOnce(&Path) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mounted = self.mount(MountFlags::empty())?;
        let changed = change(mounted.0)?;
        let root = File::open(mounted.0).context("open the boot partition")?;
        rustix::fs::syncfs(&root).context("sync the boot partition")?;
        Ok(changed)
    }

    fn mount(&self, flags: MountFlags) -> anyhow::Result<Mounted<'_>> {
        let flags = flags | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
        mount(&self.device, &self.mount_point, "vfat", flags, c"umask=0077")
            .with_context(|| format!("mount {} at {}", self.device.display(), self.mount_point.display()))?;
        Ok(Mounted(&self.mount_point))
    }
}

/// Our kernel images on it, the newest first.
fn entries(boot: &Path) -> anyhow::Result<Vec<BootEntry>> {
    let names = fs::read_dir(boot.join(ENTRIES)).with_context(|| format!("read {ENTRIES}"))?;
    let mut entries: Vec<BootEntry> = names.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    entries.sort_by(|one, other| other.version.cmp(&one.version));
    Ok(entries)
}

/// Marks the version that runs as good. False when it was so already.
pub(super) fn bless(boot: &Path, version: &ImageVersion) -> anyhow::Result<bool> {
    let all = entries(boot)?;
    let ours: Vec<&BootEntry> = all.iter().filter(|entry| entry.version == *version).collect();
    anyhow::ensure!(!ours.is_empty(), "the boot partition has no kernel image of {version}, which runs");
    let counted: Vec<&BootEntry> = ours.iter().copied().filter(|entry| entry.tries.is_some()).collect();
    for entry in &counted {
        let name = |entry: &BootEntry| boot.join(ENTRIES).join(entry.to_string());
        fs::rename(name(entry), name(&entry.blessed())).with_context(|| format!("rename {entry}"))?;
    }
    Ok(!counted.is_empty())
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
