//! Where an image is to go: what is there, and whether it may go there.

use crate::Size;
use crate::image::Image;
use crate::machine::{Disk, Machine, number_of, split};
use crate::refusal::{self, Refusal};
use crate::table::SECTOR_BYTES;
use crate::target::{Kind, Target};
use rustix::fs::{OFlags, statvfs};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Why an image cannot go somewhere.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It cannot be looked at.
    #[error("look at {}", path.display())]
    Look {
        /// The disk or file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Neither a disk nor a file.
    #[error("{} is neither a disk nor a file", path.display())]
    Kind {
        /// It.
        path: PathBuf,
    },
    /// A disk that is left alone.
    #[error("{} is left alone", path.display())]
    Refused {
        /// The disk.
        path: PathBuf,
        /// Why.
        #[source]
        refusal: Refusal,
    },
    /// A file that is used as a disk.
    #[error("{} is the disk behind /dev/{device}", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
        /// The device.
        device: String,
    },
    /// The size of a disk is what it is.
    #[error("{} is a disk, and has the size that it has", path.display())]
    Fixed {
        /// The disk.
        path: PathBuf,
    },
    /// The file would be smaller than the image and its data partition.
    #[error("{size} are too few: the image with its data partition needs {needed}")]
    Size {
        /// As asked for.
        size: Size,
        /// At least.
        needed: Size,
    },
    /// No room below the file.
    #[error("there is no room for {}: {free} are free, {needed} are needed", path.display())]
    Room {
        /// The file.
        path: PathBuf,
        /// There.
        free: Size,
        /// At least.
        needed: Size,
    },
    /// The file cannot be made so long.
    #[error("{} cannot be made {size} long", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// As asked for.
        size: Size,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It cannot be opened for writing.
    #[error("open {} for writing", path.display())]
    Open {
        /// The disk, or the directory of the file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Another disk is there now.
    #[error("{} became another disk meanwhile", path.display())]
    Swapped {
        /// Its name.
        path: PathBuf,
    },
}

impl PlaceError {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Refused { refusal, .. } => refusal.advice(),
            Self::Look { .. } | Self::Kind { .. } | Self::Swapped { .. } => {
                "name a disk, as `lsblk` lists them, or a file in a directory that exists".to_owned()
            }
            Self::InUse { device, .. } => format!("take it off, `losetup --detach /dev/{device}`, or name another file"),
            Self::Fixed { .. } => "leave --size away; the data partition takes what the image leaves".to_owned(),
            Self::Size { needed, .. } => format!("ask for more than {needed}, or leave --size away"),
            Self::Length { .. } => "ask for a smaller --size, or name a file on another file system".to_owned(),
            Self::Room { .. } => "make room, or name a file on another disk".to_owned(),
            Self::Open { cause, .. } => match cause.kind() {
                io::ErrorKind::PermissionDenied => "try it as root, or with sudo".to_owned(),
                io::ErrorKind::ResourceBusy => "something uses it: see `lsblk`, close it, and try again".to_owned(),
                _ => "see whether it can be written to".to_owned(),
            },
        }
    }

    /// Whether the command names the wrong thing, rather than the thing being in the wrong state.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Kind { .. } | Self::Fixed { .. } | Self::Size { .. } | Self::Refused { refusal: Refusal::Partition { .. }, .. } => true,
            Self::Look { .. }
            | Self::Refused { .. }
            | Self::Room { .. }
            | Self::InUse { .. }
            | Self::Length { .. }
            | Self::Open { .. }
            | Self::Swapped { .. } => false,
        }
    }
}

/// Where an image may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A disk that nobody uses.
    Disk {
        /// As it was named.
        path: PathBuf,
        /// What it is.
        disk: Disk,
    },
    /// A file.
    File {
        /// Its name, links followed.
        path: PathBuf,
        /// Whether there is one already.
        exists: bool,
    },
}

/// Looks at `path`.
///
/// # Errors
/// When an image must not go there.
pub fn look(path: &Path) -> Result<Place, PlaceError> {
    let unseen = |cause| PlaceError::Look { path: path.to_owned(), cause };
    if let Some(number) =
        number_of(path).or_else(|cause| if cause.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(unseen(cause)) })?
    {
        let machine = Machine::read().map_err(unseen)?;
        let disk = refusal::judge(&machine, number).map_err(|refusal| PlaceError::Refused { path: path.to_owned(), refusal })?;
        return Ok(Place::Disk { path: path.to_owned(), disk });
    }
    match fs::canonicalize(path) {
        Ok(found) if found.is_file() => match loop_of(&found) {
            Some(device) => Err(PlaceError::InUse { path: found, device }),
            None => Ok(Place::File { path: found, exists: true }),
        },
        Ok(_) => Err(PlaceError::Kind { path: path.to_owned() }),
        // A link that leads nowhere cannot be given to a file in the end.
        Err(_) if path.file_name().is_none() || path.starts_with("/dev") || path.is_symlink() => {
            Err(PlaceError::Kind { path: path.to_owned() })
        }
        Err(_) => {
            fs::metadata(directory(path)).map_err(unseen)?;
            Ok(Place::File { path: path.to_owned(), exists: false })
        }
    }
}

/// The loop device that a file is the disk of, if one is. A file that takes its place would not be seen by who uses that.
fn loop_of(file: &Path) -> Option<String> {
    let devices = fs::read_dir("/sys/class/block").ok()?.flatten();
    let behind = |device: &fs::DirEntry| fs::read_to_string(device.path().join("loop/backing_file")).ok();
    let device = devices.into_iter().find(|device| behind(device).is_some_and(|path| Path::new(path.trim_end_matches('\n')) == file))?;
    Some(device.file_name().to_string_lossy().into_owned())
}

impl Place {
    /// As it was named.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Disk { path, .. } | Self::File { path, .. } => path,
        }
    }

    /// The size that the disk or the file has in the end, for an image of `image_bytes`.
    ///
    /// # Errors
    /// When the image does not fit.
    pub fn size(&self, image_bytes: u64, asked: Option<Size>) -> Result<u64, PlaceError> {
        let needed = Size(image_bytes.saturating_add(crate::DATA_BYTES_MIN));
        match (self, asked) {
            (Self::Disk { path, .. }, Some(_)) => Err(PlaceError::Fixed { path: path.clone() }),
            (Self::Disk { path, disk }, None) => {
                refusal::room(disk, image_bytes).map_err(|refusal| PlaceError::Refused { path: path.clone(), refusal })?;
                Ok(disk.bytes)
            }
            (Self::File { .. }, Some(size)) if size < needed => Err(PlaceError::Size { size, needed }),
            (Self::File { .. }, Some(size)) => Ok(size.0),
            (Self::File { .. }, None) => Ok(image_bytes),
        }
    }

    /// Opens it for the image. A disk is claimed from the kernel; a file has no name yet.
    ///
    /// # Errors
    /// When it cannot be had, or has no room.
    pub fn open(&self, image: &Image, bytes: u64) -> Result<Target, PlaceError> {
        match self {
            Self::Disk { path, disk } => open_disk(path, disk),
            Self::File { path, exists } => open_file(path, *exists, image, bytes),
        }
    }
}

fn open_disk(path: &Path, disk: &Disk) -> Result<Target, PlaceError> {
    let unopened = |cause| PlaceError::Open { path: path.to_owned(), cause };
    let exclusive = i32::try_from(OFlags::EXCL.bits()).unwrap_or(0);
    let file = File::options().read(true).write(true).custom_flags(exclusive).open(path).map_err(unopened)?;
    let metadata = file.metadata().map_err(unopened)?;
    // The name may lead elsewhere since it was looked at, and what it is used for may have changed: looked at again, now that it is held.
    let machine = Machine::read().map_err(unopened)?;
    if !metadata.file_type().is_block_device() || split(metadata.rdev()) != disk.number {
        return Err(PlaceError::Swapped { path: path.to_owned() });
    }
    let again = refusal::judge(&machine, disk.number).map_err(|refusal| PlaceError::Refused { path: path.to_owned(), refusal })?;
    if again != *disk {
        return Err(PlaceError::Swapped { path: path.to_owned() });
    }
    Ok(Target { file, bytes: disk.bytes, path: path.to_owned(), kind: Kind::Disk })
}

fn open_file(path: &Path, exists: bool, image: &Image, bytes: u64) -> Result<Target, PlaceError> {
    let directory = directory(path);
    let unopened = |cause| PlaceError::Open { path: directory.to_owned(), cause };
    let file_system = statvfs(directory).map_err(|cause| unopened(cause.into()))?;
    let (free, needed) = (file_system.f_bavail.saturating_mul(file_system.f_frsize), image.filled_bytes());
    if free < needed {
        return Err(PlaceError::Room { path: path.to_owned(), free: Size(free), needed: Size(needed) });
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let part = tempfile::Builder::new().prefix(&format!(".{name}.")).suffix(".part").tempfile_in(directory).map_err(unopened)?;
    let (file, part) = part.into_parts();
    let bytes = bytes - bytes % SECTOR_BYTES;
    file.set_len(bytes).map_err(|cause| PlaceError::Length { path: path.to_owned(), size: Size(bytes), cause })?;
    Ok(Target { file, bytes, path: path.to_owned(), kind: Kind::File { part, replaces: exists } })
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_disk_nor_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        for (path, expected) in [
            (Path::new("/dev/null"), "/dev/null is neither a disk nor a file"),
            (Path::new("/dev/no-such-disk"), "/dev/no-such-disk is neither a disk nor a file"),
            (dir.path(), &format!("{} is neither a disk nor a file", dir.path().display())),
            (Path::new("/no/such/directory/disk.img"), "look at /no/such/directory/disk.img"),
        ] {
            assert_eq!(look(path).unwrap_err().to_string(), expected);
        }
        assert_eq!(look(&dir.path().join("a")).unwrap(), Place::File { path: dir.path().join("a"), exists: false });
        fs::write(dir.path().join("b"), "").unwrap();
        std::os::unix::fs::symlink("b", dir.path().join("c")).unwrap();
        let real = fs::canonicalize(dir.path()).unwrap().join("b");
        assert_eq!(look(&dir.path().join("c")).unwrap(), Place::File { path: real, exists: true });
        std::os::unix::fs::symlink("nowhere", dir.path().join("d")).unwrap();
        assert!(look(&dir.path().join("d")).unwrap_err().is_usage());
    }

    #[test]
    fn a_file_may_be_larger_than_the_image_and_not_smaller() {
        let file = Place::File { path: "a".into(), exists: false };
        let image = 1 << 30;
        assert_eq!(file.size(image, None).unwrap(), image);
        assert_eq!(file.size(image, Some(Size(2 << 30))).unwrap(), 2 << 30);
        let refused = file.size(image, Some(Size(image + crate::DATA_BYTES_MIN - 1))).unwrap_err();
        assert!(refused.is_usage() && refused.to_string().contains("needs 1.1 GiB"), "{refused}");
        let disk = Disk { name: "sdb".to_owned(), model: String::new(), bytes: 2 << 30, number: (8, 16) };
        let disk = Place::Disk { path: "/dev/sdb".into(), disk };
        assert_eq!(disk.size(image, None).unwrap(), 2 << 30);
        assert!(disk.size(image, Some(Size(4 << 30))).unwrap_err().is_usage());
        assert!(!disk.size(2 << 30, None).unwrap_err().is_usage());
    }
}
