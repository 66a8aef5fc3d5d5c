//! The file that the image lacks, on its boot partition (FAT).

use crate::overlay::Overlay;
use crate::table::{HEAD_BYTES, Table, TableError};
use fatfs::{Date, DateTime, FileSystem, FsOptions, Time, TimeProvider};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The first day that FAT knows: the file has no better one, and the same input gives the same disk.
#[derive(Debug)]
struct FirstDay;

const FIRST_DAY: Date = Date { year: 1980, month: 1, day: 1 };

impl TimeProvider for FirstDay {
    fn get_current_date(&self) -> Date {
        FIRST_DAY
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: FIRST_DAY, time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

/// Why a file of a boot partition cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The disk cannot be read, or has no such file.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// The disk has no boot partition.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Reads the file `name` of the boot partition of `disk`, a disk or a file of one.
///
/// # Errors
/// When there is none, or it has more than 64 KiB.
pub fn read_file(disk: &Path, name: &str) -> Result<Vec<u8>, FileError> {
    let disk = File::open(disk)?;
    let mut head = vec![0; HEAD_BYTES];
    disk.read_exact_at(&mut head, 0)?;
    let table = Table::parse(&head)?;
    Ok(read(Overlay::new(&disk, table.boot), name)?)
}

/// The places and bytes that have to be written so that the file `name` has the content `bytes`.
pub(crate) fn with_file(disk: &File, part: Range<u64>, name: &str, bytes: &[u8]) -> io::Result<Vec<(u64, Vec<u8>)>> {
    let mut overlay = Overlay::new(disk, part);
    let volume = FileSystem::new(&mut overlay, FsOptions::new().time_provider(&FirstDay))?;
    {
        let mut file = volume.root_dir().create_file(name)?;
        file.truncate()?;
        file.write_all(bytes)?;
        file.flush()?;
    }
    volume.unmount()?;
    overlay.rewind()?;
    // What was made is read again before any of it is on the disk.
    let read = read(&mut overlay, name)?;
    if read != bytes {
        return Err(io::Error::other("the file does not read back from its file system"));
    }
    Ok(overlay.changes().collect())
}

fn read(mut volume: impl fatfs::ReadWriteSeek, name: &str) -> io::Result<Vec<u8>> {
    let volume = FileSystem::new(&mut volume, FsOptions::new())?;
    let mut bytes = Vec::new();
    volume.root_dir().open_file(name)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than 64 KiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fatfs::{FormatVolumeOptions, format_volume};

    const PART: Range<u64> = 1 << 20..4 << 20;

    /// A disk that has a volume with a directory at [`PART`] and other bytes around it.
    fn disk() -> File {
        let mut volume = io::Cursor::new(vec![0; 3 << 20]);
        format_volume(&mut volume, FormatVolumeOptions::new().bytes_per_cluster(512)).unwrap();
        volume.set_position(0);
        {
            let volume = FileSystem::new(&mut volume, FsOptions::new()).unwrap();
            volume.root_dir().create_dir("EFI").unwrap();
            volume.root_dir().create_file("EFI/kernel.efi").unwrap().write_all(&[7; 100_000]).unwrap();
        }
        let disk = tempfile::tempfile().unwrap();
        disk.write_all_at(&vec![0xee; 5 << 20], 0).unwrap();
        disk.write_all_at(volume.get_ref(), PART.start).unwrap();
        disk
    }

    fn apply(disk: &File, changes: &[(u64, Vec<u8>)]) {
        changes.iter().for_each(|(at, bytes)| disk.write_all_at(bytes, *at).unwrap());
    }

    #[test]
    fn a_file_is_put_beside_others_and_may_be_replaced() {
        let disk = disk();
        for text in ["[fleet]\n".repeat(900), "short".to_owned(), String::new()] {
            let before = read(Overlay::new(&disk, PART), "claim.toml").ok();
            let changes = with_file(&disk, PART, "claim.toml", text.as_bytes()).unwrap();
            assert_eq!(read(Overlay::new(&disk, PART), "claim.toml").ok(), before, "nothing is written by itself");
            assert!(changes.iter().all(|(at, bytes)| PART.contains(at) && bytes.len() == 4096));
            apply(&disk, &changes);
            assert_eq!(read(Overlay::new(&disk, PART), "claim.toml").unwrap(), text.as_bytes());
            assert!(read(Overlay::new(&disk, PART), "EFI/kernel.efi").is_err(), "longer than what is read");
            assert!(read(Overlay::new(&disk, PART), "CLAIM.TOML").is_ok(), "as firmware and other systems look it up");
        }
    }

    #[test]
    fn what_follows_the_partition_is_not_touched() {
        let disk = disk();
        let mut overlay = Overlay::new(&disk, PART.start..PART.end - 512);
        overlay.seek(io::SeekFrom::End(-1)).unwrap();
        assert_eq!(overlay.write(&[1, 2]).unwrap(), 1, "one byte is left");
        assert_eq!(overlay.write(&[2]).unwrap(), 0);
        assert_eq!(overlay.read(&mut [0; 4]).unwrap(), 0);
        let changes: Vec<_> = overlay.changes().collect();
        assert_eq!((changes.len(), changes[0].0, changes[0].1.len()), (1, PART.end - 4096, 4096 - 512));
        assert_eq!(changes[0].1.last(), Some(&1));
    }

    #[test]
    fn a_volume_without_room_says_so_and_stays() {
        let disk = disk();
        let found = with_file(&disk, PART, "claim.toml", &vec![1; 3 << 20]);
        assert!(found.is_err());
        assert!(read(Overlay::new(&disk, PART), "claim.toml").is_err());
    }

    /// What a volume with one byte changed is called, tried at many bytes: anything but a panic or an endless walk.
    #[test]
    fn a_damaged_volume_is_an_error_or_harmless() {
        let disk = disk();
        let (mut refused, mut taken) = (0, 0);
        let fat = PART.start + 512..PART.start + 560;
        for at in (PART.start..PART.start + 64).chain(fat) {
            let mut before = [0];
            disk.read_exact_at(&mut before, at).unwrap();
            for byte in [0, 1, 2, 0x7f, 0x80, 0xff] {
                disk.write_all_at(&[byte], at).unwrap();
                match with_file(&disk, PART, "claim.toml", b"text") {
                    Ok(changes) => taken += usize::from(changes.iter().all(|(at, _)| PART.contains(at))),
                    Err(_) => refused += 1,
                }
            }
            disk.write_all_at(&before, at).unwrap();
        }
        assert!(refused > 20 && taken > 100 && refused + taken == 112 * 6, "{refused} {taken}");
    }

    #[test]
    fn bytes_that_are_no_volume_are_an_error() {
        let disk = tempfile::tempfile().unwrap();
        for filler in [0_u8, 0xff, 0x55] {
            disk.write_all_at(&vec![filler; 5 << 20], 0).unwrap();
            assert!(with_file(&disk, PART, "claim.toml", b"x").is_err(), "{filler}");
        }
    }
}
