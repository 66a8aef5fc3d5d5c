//! What happens to an image on its way to a disk: a real block device where there is one to be had, and faults at chosen moments.

use crate::support::directory;
use anyhow::{Context as _, Result};
use fleet_tests::SmallDisk;
use fleet_tests::cli::{Done, sedge};
use fleet_tests::process::run;
use fleet_tests::small_image::{SmallImage, boot_file, table};
use sedge_flash::{Finished, FlashError, ImageError, Opened, Place, PlaceError, Progress, Step, WriteError, look};
use std::error::Error as _;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Enough for the small image and its data partition.
const DISK_BYTES: u64 = 200 << 20;

/// A file as a block device; gone when it is dropped.
struct Loop {
    path: PathBuf,
    file: PathBuf,
}

impl Loop {
    /// None where the kernel or its owner gives none; what then is not tested is printed.
    fn of(directory: &Path, bytes: u64, options: &[&str]) -> Result<Option<Self>> {
        let file = directory.join(format!("loop-{bytes}-{}", options.len()));
        File::create(&file)?.set_len(bytes)?;
        let output = run(Command::new("losetup").args(["--find", "--show"]).args(options).arg(&file));
        match output {
            Ok(output) if output.status.success() => {
                let path = PathBuf::from(String::from_utf8(output.stdout)?.trim());
                Ok(Some(Self { path, file }))
            }
            Ok(output) => {
                println!("skipped: no loop device: {}", String::from_utf8_lossy(&output.stderr).trim());
                Ok(None)
            }
            Err(error) => {
                println!("skipped: no loop device: {error:#}");
                Ok(None)
            }
        }
    }

    fn flash(&self, image: &Path, more: &[&str]) -> Result<Done> {
        sedge(None, &[&["flash", image.to_str().unwrap(), "--to", self.path.to_str().unwrap()], more].concat())
    }

    fn begin_and_end(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let disk = File::open(&self.path)?;
        let (mut begin, mut end) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        disk.read_exact_at(&mut begin, 0)?;
        disk.read_exact_at(&mut end, DISK_BYTES - (1 << 20))?;
        Ok((begin, end))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        drop(run(Command::new("losetup").arg("--detach").arg(&self.path)));
    }
}

/// All steps of the library, with a watch of ours.
fn flash(image: &Path, place: &Place, watch: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Finished, FlashError> {
    let opened = Opened::new(image)?;
    let bytes = place.size(opened.disk_bytes(), None)?;
    let image = opened.check(watch)?;
    let target = place.open(&image, bytes)?;
    let mut written = target.write(image, watch)?;
    written.put("claim.toml", b"# a claim\n")?;
    Ok(written.finish()?)
}

#[test]
fn a_disk_is_written_claimed_and_left_with_its_table_at_the_end() -> Result<()> {
    let directory = directory()?;
    let image = SmallImage::new(6)?;
    let packed = image.pack(directory.path())?;
    let Some(disk) = Loop::of(directory.path(), DISK_BYTES, &[])? else { return Ok(()) };
    // What was there before must not shine through, not even where the image has zeros.
    let old = OpenOptions::new().write(true).open(&disk.path)?;
    (0..DISK_BYTES >> 20).try_for_each(|mib| old.write_all_at(&[0xee; 1 << 20], mib << 20))?;
    drop(old);
    let told = disk.flash(&packed, &["--no-claim"])?;
    assert!(told.code == Some(64) && told.stderr.contains("add --yes"), "{}", told.stderr);
    assert_eq!(disk.begin_and_end()?.0, vec![0xee; 1 << 20], "nobody agreed");
    let pin = sedge_protocol::Digest::of(b"ca").to_string();
    let told =
        disk.flash(&packed, &["--yes", "--claim", &"0a".repeat(32), "--fleet", "https://fleet.example:1", "--ca-pin", &pin, "--json"])?;
    let told: serde_json::Value = told.json()?;
    assert_eq!((&told["bytes"], &told["image"]["bytes"]), (&DISK_BYTES.into(), &image.disk.len().into()), "{told}");
    assert_eq!(told["disk"].as_str().map(Path::new), disk.path.file_name().map(Path::new));
    assert_eq!(table(&disk.path)?.last_sector, DISK_BYTES / 512 - 1);
    assert!(String::from_utf8(boot_file(&disk.path, "claim.toml")?)?.contains("fleet.example"));
    let bytes = fs::read(&disk.file)?;
    assert!(bytes[image.root.start..image.root.end + (8 << 20)] == image.disk[image.root.start..image.root.end + (8 << 20)]);
    Ok(())
}

#[test]
fn a_disk_that_is_used_or_unfit_is_refused() -> Result<()> {
    let directory = directory()?;
    let packed = SmallImage::new(2)?.pack(directory.path())?;
    let Some(disk) = Loop::of(directory.path(), DISK_BYTES, &[])? else { return Ok(()) };
    let refused = |disk: &Loop, more: &[&str], code: i32, expected: &str| -> Result<()> {
        let told = disk.flash(&packed, &[&["--yes", "--no-claim"], more].concat())?;
        anyhow::ensure!(told.code == Some(code) && told.stderr.contains(expected), "{expected}: {:?} {}", told.code, told.stderr);
        Ok(())
    };
    refused(&disk, &["--size", "4GiB"], 64, "leave --size away")?;
    // Nor is the file behind it replaced, under the feet of whoever uses the disk.
    let device = Path::new(&disk.path).file_name().context("a device has a name")?.to_owned();
    let behind = fs::read_to_string(Path::new("/sys/class/block").join(&device).join("loop/backing_file"))?;
    let image = packed.to_str().context("a path of letters")?;
    let told = sedge(None, &["flash", image, "--to", behind.trim_end(), "--yes", "--no-claim"])?;
    let said = format!("is the disk behind /dev/{}", device.display());
    anyhow::ensure!(told.code == Some(1) && told.stderr.contains(&said), "{}", told.stderr);
    {
        let exclusive = i32::try_from(rustix::fs::OFlags::EXCL.bits())?;
        let _held = OpenOptions::new().read(true).custom_flags(exclusive).open(&disk.path)?;
        refused(&disk, &[], 1, "something uses it")?;
    }
    if let Some(small) = Loop::of(directory.path(), 100 << 20, &[])? {
        refused(&small, &[], 1, "it has 100 MiB, and the image with its data partition needs 180 MiB")?;
    }
    if let Some(locked) = Loop::of(directory.path(), DISK_BYTES, &["--read-only"])? {
        refused(&locked, &[], 1, "it is read-only")?;
    }
    if let Some(large) = Loop::of(directory.path(), DISK_BYTES, &["--sector-size", "4096"])? {
        refused(&large, &[], 1, "sectors of 4096 bytes")?;
    }
    let mounted = directory.path().join("mounted");
    fs::create_dir(&mounted)?;
    let made = run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&disk.path)).is_ok_and(|output| output.status.success());
    if !made || !run(Command::new("mount").arg(&disk.path).arg(&mounted))?.status.success() {
        println!("skipped: nothing can be mounted here");
        return Ok(());
    }
    let found = refused(&disk, &[], 1, &format!("is mounted at {}", mounted.display()));
    run(Command::new("umount").arg(&mounted))?;
    found?;
    refused(&disk, &["--size", "4GiB"], 64, "leave --size away")
}

#[test]
fn a_disk_has_no_table_from_the_first_byte_to_the_last() -> Result<()> {
    let directory = directory()?;
    let packed = SmallImage::new(6)?.pack(directory.path())?;
    let Some(disk) = Loop::of(directory.path(), DISK_BYTES, &[])? else { return Ok(()) };
    let place = look(&disk.path)?;
    let mut steps = Vec::new();
    let _finished = flash(&packed, &place, &mut |progress| {
        steps.push(progress.step);
        ControlFlow::Continue(())
    })?;
    let mut seen = Vec::new();
    for stop in (0..steps.len()).filter(|at| at % 4 == 0 || steps.get(at + 1) != steps.get(*at)) {
        assert!(table(&disk.path).is_ok(), "it is whole before");
        let mut at = 0;
        let stopped = flash(&packed, &place, &mut |_| {
            at += 1;
            if at > stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let error = stopped.map(drop).expect_err("it was stopped");
        match (steps[stop], error) {
            (Step::Check, FlashError::Image(ImageError::Stopped { .. })) => assert!(table(&disk.path).is_ok(), "nothing was touched"),
            (Step::Write | Step::Verify, FlashError::Write(WriteError::Stopped { .. })) => {
                let (begin, end) = disk.begin_and_end()?;
                assert!(begin.iter().chain(&end).all(|byte| *byte == 0), "stopped at {stop}: there is a table");
                let _finished = flash(&packed, &place, &mut |_| ControlFlow::Continue(()))?;
            }
            (step, error) => panic!("{step:?}: {error}"),
        }
        seen.push(steps[stop]);
    }
    println!("stopped {} times of {} moments", seen.len(), steps.len());
    for step in [Step::Check, Step::Write, Step::Verify] {
        assert!(seen.contains(&step), "{step:?}");
    }
    Ok(())
}

/// Flashes to a file below `place` and does `harm` once, when `step` begins.
fn harmed(image: &Path, place: &Path, step: Step, harm: impl Fn() -> Result<()>) -> Result<FlashError> {
    let mut done = false;
    let result = flash(image, &look(&place.join("disk.img"))?, &mut |progress| {
        if progress.step == step && !done {
            done = true;
            harm().unwrap();
        }
        ControlFlow::Continue(())
    });
    anyhow::ensure!(done, "the step never came");
    result.map(drop).err().context("it went well")
}

fn part(place: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(place)?.flatten().map(|entry| entry.path());
    entries.find(|path| path.extension().is_some_and(|extension| extension == "part")).context("nothing is written")
}

#[test]
fn what_goes_wrong_on_the_way_is_found_and_leaves_nothing() -> Result<()> {
    let directory = directory()?;
    let image = SmallImage::new(6)?;
    let packed = image.pack(directory.path())?;
    let place = directory.path().join("place");
    fs::create_dir(&place)?;
    // A byte turns on the medium between writing and reading back.
    let (offset, byte) = (image.root.end as u64 - 1, [image.disk[image.root.end - 1] ^ 1]);
    let turned =
        harmed(&packed, &place, Step::Verify, || Ok(OpenOptions::new().write(true).open(part(&place)?)?.write_all_at(&byte, offset)?))?;
    assert!(matches!(&turned, FlashError::Write(WriteError::Differs { at, .. }) if *at <= offset), "{turned}");
    assert!(turned.advice().contains("take another one"));
    assert!(fs::read_dir(&place)?.next().is_none());
    // Somebody puts another image in the place of the one that was checked.
    let changed = {
        let opened = Opened::new(&packed)?;
        let target = look(&place.join("disk.img"))?;
        let bytes = target.size(opened.disk_bytes(), None)?;
        let checked = opened.check(&mut |_| ControlFlow::Continue(()))?;
        SmallImage::new(6)?.pack(directory.path())?;
        target.open(&checked, bytes)?.write(checked, &mut |_| ControlFlow::Continue(())).map(drop).expect_err("another image")
    };
    assert!(matches!(changed, WriteError::Image(ImageError::Changed { .. })), "{changed}");
    Ok(())
}

#[test]
fn a_disk_that_fills_up_meanwhile_is_told() -> Result<()> {
    let directory = directory()?;
    let packed = SmallImage::new(30)?.pack(directory.path())?;
    let small = SmallDisk::mount(&directory.path().join("small"), 60)?;
    let full = harmed(&packed, &small.outside(), Step::Write, || small.fill().map(drop))?;
    let cause = full.source().and_then(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    assert_eq!(cause, Some(ErrorKind::StorageFull), "{full}");
    assert!(full.advice().starts_with("make room"), "{}", full.advice());
    let left: Vec<_> = fs::read_dir(small.outside())?.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["ballast"]);
    // And when it is full before, nothing is begun.
    let refused = flash(&packed, &look(&small.outside().join("disk.img"))?, &mut |_| ControlFlow::Continue(())).map(drop);
    assert!(matches!(refused, Err(FlashError::Place(PlaceError::Room { .. }))), "{refused:?}");
    Ok(())
}
