//! A file system that is mounted only while something of it is read or written.

use anyhow::Context as _;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::File;
use std::path::Path;

/// Unmounts when it goes.
#[derive(Debug)]
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(error) = unmount(self.0, UnmountFlags::empty()) {
            log::error!(mount_point:% = self.0.display(), reason:% = error; "a file system stays mounted");
        }
    }
}

/// Mounts the FAT file system of `device` at `mount_point` for the time of `work`. A directory, where the system itself has mounted it, is used as
/// it is.
pub(super) fn mounted<T>(
    (device, mount_point): (&Path, &Path),
    flags: MountFlags,
    work: impl FnOnce(&Path) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    if device.is_dir() {
        return work(device);
    }
    let flags = flags | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    mount(device, mount_point, "vfat", flags, c"umask=0077")
        .with_context(|| format!("mount {} at {}", device.display(), mount_point.display()))?;
    let mounted = Mounted(mount_point);
    work(mounted.0)
}

/// Work that is on the disk when it comes back.
pub(super) fn synced<T>(change: impl FnOnce(&Path) -> anyhow::Result<T>) -> impl FnOnce(&Path) -> anyhow::Result<T> {
    |path| {
        let changed = change(path)?;
        let root = File::open(path).with_context(|| format!("open {}", path.display()))?;
        rustix::fs::syncfs(&root).with_context(|| format!("sync {}", path.display()))?;
        Ok(changed)
    }
}
