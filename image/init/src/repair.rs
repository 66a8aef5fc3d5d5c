//! Takes a version out of the boot loader's choice whose slot is damaged, when another one is there.
//!
//! The names of kernel images are those of `sedge_node_core::boot_entry`: `sedge_VERSION.efi`, `sedge_VERSION+LEFT-DONE.efi`; with no try left
//! the boot loader passes it by.

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs::{self, File};
use std::io;
use std::path::Path;

const MOUNT_POINT: &str = "/esp";
const ENTRIES: &str = "EFI/Linux";
/// Where the keeper of the operating system finds why.
const FAULT: &str = "slot-fault.txt";

/// Renames the kernel image of `version` on the boot partition `device` and leaves `reason` there. False when there is no other to take.
pub(crate) fn give_up(device: &str, version: &str, reason: &str) -> io::Result<bool> {
    crate::modules::load("repair");
    fs::create_dir_all(MOUNT_POINT)?;
    mount(device, MOUNT_POINT, "vfat", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)?;
    let given_up = rename(Path::new(MOUNT_POINT), version, reason);
    unmount(MOUNT_POINT, UnmountFlags::empty())?;
    given_up
}

fn rename(boot: &Path, version: &str, reason: &str) -> io::Result<bool> {
    let directory = boot.join(ENTRIES);
    let names: Vec<String> = fs::read_dir(&directory)?.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let Some(ours) = names.iter().find(|name| version_of(name) == Some(version)) else { return Ok(false) };
    let other = |name: &&String| version_of(name).is_some_and(|other| other != version) && !name.contains("+0");
    if !names.iter().any(|name| other(&name)) {
        return Ok(false);
    }
    fs::write(boot.join(FAULT), format!("{version} {reason}\n"))?;
    fs::rename(directory.join(ours), directory.join(format!("sedge_{version}+0.efi")))?;
    rustix::fs::syncfs(File::open(boot)?)?;
    Ok(true)
}

fn version_of(name: &str) -> Option<&str> {
    let stem = name.strip_prefix("sedge_")?.strip_suffix(".efi")?;
    Some(stem.split_once('+').map_or(stem, |(version, _)| version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_version_is_given_up_when_another_is_there() {
        let boot = std::env::temp_dir().join(format!("sedge-repair-{}", std::process::id()));
        let directory = boot.join(ENTRIES);
        fs::create_dir_all(&directory).unwrap();
        let names = || {
            let mut names: Vec<String> =
                fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        fs::write(directory.join("sedge_2.efi"), "two").unwrap();
        fs::write(directory.join("sedge_3+0-3.efi"), "three").unwrap();
        assert!(!rename(&boot, "2", "damaged").unwrap(), "the other one is worse");
        fs::write(directory.join("sedge_1.efi"), "one").unwrap();
        assert!(!rename(&boot, "9", "damaged").unwrap());
        assert!(rename(&boot, "2", "damaged").unwrap());
        assert_eq!(names(), ["sedge_1.efi", "sedge_2+0.efi", "sedge_3+0-3.efi"]);
        assert_eq!(fs::read_to_string(boot.join(FAULT)).unwrap(), "2 damaged\n");
        fs::remove_dir_all(boot).unwrap();
    }
}
