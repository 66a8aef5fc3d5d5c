//! Why a device is away, in words that say what to do.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Why a device is away. It is tried again, whatever the reason.
#[derive(Debug, thiserror::Error)]
pub(super) enum Away {
    /// The file of the device does not exist.
    #[error("{} is not there", .0.display())]
    Missing(PathBuf),
    /// Its group may use it, and the daemon is not in that.
    #[error("{} may be used by the group `{group}`, which the daemon is not in: add `SupplementaryGroups={group}` to its unit", path.display())]
    Group { path: PathBuf, group: String },
    /// Only its owner may use it.
    #[error("{} may be used by its owner alone: give it a group with a rule of udev, and the daemon that group", .0.display())]
    Owner(PathBuf),
    /// The unit of the daemon closes it off.
    #[error("{} is closed to the daemon by its unit: add `DeviceAllow={} rw`", .0.display(), .0.display())]
    Unit(PathBuf),
    /// Somebody else has it.
    #[error("{what} is used by {by}")]
    Taken { what: String, by: String },
    /// No chip has a line of this name.
    #[error("no line is named `{0}`")]
    NoLine(String),
    /// The chip has fewer lines.
    #[error("{} has no line {line}", chip.display())]
    NoNumber { chip: PathBuf, line: u32 },
    /// It is of another kind than the configuration says.
    #[error("{} is no {kind}", path.display())]
    Kind { path: PathBuf, kind: &'static str },
    /// It cannot do what the configuration asks for.
    #[error("{what} cannot do {asked}")]
    Unfit { what: String, asked: String },
    /// It was there until now.
    #[error("it was unplugged")]
    Gone,
    /// Anything else.
    #[error("{what}: {cause}")]
    Failed { what: String, cause: io::Error },
}

impl Away {
    /// Why a file of a device could not be opened.
    pub(super) fn opening(path: &Path, cause: io::Error) -> Self {
        let path = path.to_owned();
        match cause.kind() {
            ErrorKind::NotFound => Self::Missing(path),
            ErrorKind::ResourceBusy => Self::Taken { what: path.display().to_string(), by: "another program".to_owned() },
            // The mode of the file says no with one number, the control group of the unit with another.
            ErrorKind::PermissionDenied if cause.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) => Self::Unit(path),
            ErrorKind::PermissionDenied => Self::forbidden(path),
            _other => Self::Failed { what: path.display().to_string(), cause },
        }
    }

    fn forbidden(path: PathBuf) -> Self {
        match fs::metadata(&path) {
            Ok(about) if about.mode() & 0o060 == 0o060 => Self::Group { group: group_name(about.gid()), path },
            Ok(_) => Self::Owner(path),
            Err(cause) => Self::Failed { what: path.display().to_string(), cause },
        }
    }

    /// Why a device could not be read or written to any more.
    pub(super) fn losing(cause: io::Error) -> Self {
        use rustix::io::Errno;
        let gone = [Errno::IO, Errno::NODEV, Errno::NXIO].map(|errno| Some(errno.raw_os_error()));
        if gone.contains(&cause.raw_os_error()) { Self::Gone } else { Self::Failed { what: "reading".to_owned(), cause } }
    }
}

/// The name of a group; its number where it has none.
fn group_name(id: u32) -> String {
    let text = fs::read_to_string("/etc/group").unwrap_or_default();
    name_of(&text, id).unwrap_or_else(|| id.to_string())
}

fn name_of(groups: &str, id: u32) -> Option<String> {
    let mut lines = groups.lines().map(|line| line.split(':'));
    lines.find_map(|mut parts| parts.next().filter(|_| parts.nth(1).and_then(|number| number.parse().ok()) == Some(id)).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_group_is_named() {
        let text = "root:x:0:\nbroken\ndialout:x:20:alice,bob\n";
        assert_eq!([name_of(text, 20), name_of(text, 21)], [Some("dialout".to_owned()), None]);
    }

    #[test]
    fn what_is_in_the_way_is_said_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tty");
        fs::write(&path, "").unwrap();
        let said = |mode: u32, errno: rustix::io::Errno| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Away::opening(&path, errno.into()).to_string()
        };
        for (mode, errno, part) in [
            (0o660, rustix::io::Errno::ACCESS, "add `SupplementaryGroups="),
            (0o600, rustix::io::Errno::ACCESS, "by its owner alone"),
            (0o660, rustix::io::Errno::PERM, "add `DeviceAllow=/"),
            (0o660, rustix::io::Errno::BUSY, "is used by another program"),
            (0o660, rustix::io::Errno::NOENT, "is not there"),
            (0o660, rustix::io::Errno::IO, "tty: "),
        ] {
            let said = said(mode, errno);
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
