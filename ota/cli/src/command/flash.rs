//! `sedge flash`
//!
//! ```text
//!  refusals of disk, image, settings ─▶ fleet answers ─▶ image read whole ─▶ question ─▶ written, read back ─▶ claim ─▶ its files ─▶ table
//! ```
//! A claim is made when nothing but its own file is missing, so that what goes wrong before wastes none.

mod bars;
mod joining;
mod settings;

use crate::arguments::Context;
use crate::failure::{FAILED, Failure};
use crate::signal;
use crate::style::Tone;
use crate::text;
use bars::Bars;
use clap::Args;
use joining::{Joining, Made};
use sedge_flash::{Checksum, FlashError, Image, Opened, Place, Size, Written, look};
use sedge_protocol::Digest;
use sedge_provisioning::claim_file::CLAIM_FILE;
use sedge_provisioning::node_file::NODE_FILE;
use serde::Serialize;
use settings::Settings;
use std::borrow::Cow;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Write the image of a node to a disk, with all that it needs to join the fleet
///
/// The image is read whole before the disk is touched; what is written is read back. Disks that are mounted, hold this machine's system or
/// are used otherwise are refused. With a file in place of a disk it becomes the disk of a virtual machine. Ctrl-C leaves a disk without a
/// partition table, and no file.
#[derive(Debug, Args)]
pub(crate) struct Flash {
    /// The image: sedge-….img.zst, or the same unpacked; a file with .sha256 behind its name is compared
    image: PathBuf,
    /// The disk, such as /dev/sdb, or a file
    #[arg(long, value_name = "DISK|FILE")]
    to: PathBuf,
    #[command(flatten)]
    joining: Joining,
    /// Settings of the node (sedged.toml), laid over those of the image; checked before anything is written
    #[arg(long, value_name = "FILE", help_heading = "Joining")]
    config: Option<PathBuf>,
    /// Size of a file, such as 4GiB; what the image leaves of it becomes the data partition
    #[arg(long, help_heading = "Writing")]
    size: Option<Size>,
    /// Do not ask
    #[arg(long, short, help_heading = "Writing")]
    yes: bool,
}

/// What was done, for machines.
#[derive(Debug, Serialize)]
struct Flashed<'a> {
    to: Cow<'a, str>,
    disk: Option<&'a str>,
    model: Option<&'a str>,
    bytes: u64,
    image: Source<'a>,
    duration_ms: u64,
    #[serde(flatten)]
    made: Option<&'a Made>,
}

#[derive(Debug, Serialize)]
struct Source<'a> {
    path: Cow<'a, str>,
    digest: Digest,
    /// The file with the checksum that fits.
    checksum: Option<Cow<'a, str>>,
    bytes: u64,
}

/// The image, without what it takes to write it.
#[derive(Debug)]
struct Facts {
    digest: Digest,
    checksum: Checksum,
    bytes: u64,
}

/// How it went.
#[derive(Debug, Clone, Copy)]
struct Done<'a> {
    bytes: u64,
    duration_ms: u64,
    made: Option<&'a Made>,
}

impl Flash {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let place = look(&self.to).map_err(flash)?;
        let opened = Opened::new(&self.image).map_err(flash)?;
        if same_file(&self.image, place.path()) {
            let what = format!("{} is the image itself: it would be gone, and a disk with a claim be in its place", place.path().display());
            return Err(Failure::usage(what, "name another file, or a disk").into());
        }
        let bytes = place.size(opened.disk_bytes(), self.size).map_err(flash)?;
        if asks(&place) && !self.yes && !context.output.can_ask() {
            let what = format!("nobody is there to confirm that all goes that is on {}", place.path().display());
            return Err(Failure::usage(what, "add --yes").into());
        }
        let settings = self.config.as_deref().map(|path| Settings::read(path, &context.output)).transpose()?;
        let claims = self.joining.prepare(context)?;
        let mut bars = Bars::new(&context.output);
        let image = opened.check(&mut |progress| bars.show(progress)).map_err(flash)?;
        bars.clear();
        let facts = Facts { digest: image.digest(), checksum: image.checksum().clone(), bytes: image.disk_bytes() };
        if !self.agreed(&place, &facts, context)? {
            context.output.said("kept", Tone::Plain, &place.path().display().to_string());
            return Ok(ExitCode::from(FAILED));
        }
        // From here on an end is an orderly one.
        let stop = bars.stop();
        signal::watch(move || stop.store(true, Ordering::Relaxed))?;
        let begin = Instant::now();
        let written = write(&place, image, bytes, &mut bars)?;
        let made = claims.map(|claims| claims.make(&self.joining)).transpose()?;
        if let Err(error) = complete(written, (settings.as_ref(), made.as_ref()), context) {
            if let Some(claim) = made.as_ref().and_then(Made::claim) {
                context.output.note(&format!("the claim {claim} was made for it and is not used: `sedge claim revoke {claim}` ends it"));
            }
            return Err(error);
        }
        let duration_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.report(context, (&place, &facts), Done { bytes, duration_ms, made: made.as_ref() })?;
        Ok(ExitCode::SUCCESS)
    }

    /// Whether somebody wants it.
    fn agreed(&self, place: &Place, image: &Facts, context: &Context) -> anyhow::Result<bool> {
        if let Checksum::Absent(path) = &image.checksum {
            context.output.note(&format!("there is no {}: the image was compared with nothing but itself", path.display()));
        }
        if self.yes || !asks(place) {
            return Ok(true);
        }
        let name = self.image.file_name().unwrap_or_default().to_string_lossy();
        let question = match place {
            Place::Disk { .. } => format!("Write {name} to {}? All that is on it goes.", describe(place)),
            Place::File { .. } => format!("Write {name} over {}?", describe(place)),
        };
        Ok(context.output.confirm(&text::clean(&question))?)
    }

    fn report(&self, context: &Context, (place, image): (&Place, &Facts), done: Done<'_>) -> anyhow::Result<()> {
        let rate = Size(u64::try_from(u128::from(image.bytes) * 1000 / u128::from(done.duration_ms.max(1))).unwrap_or(u64::MAX));
        let said = format!("{}: {} written and read back in {}", describe(place), Size(image.bytes), text::span(done.duration_ms));
        context.output.said("flashed", Tone::Good, &text::clean(&format!("{said}, {rate}/s")));
        for note in self.next(place, done) {
            context.output.note(&text::clean(&note));
        }
        if !context.output.is_json() {
            return Ok(());
        }
        let (disk, model) = match place {
            Place::Disk { disk, .. } => (Some(disk.name.as_str()), Some(disk.model.as_str())),
            Place::File { .. } => (None, None),
        };
        let checksum = match &image.checksum {
            Checksum::Fits(path) => Some(path.to_string_lossy()),
            Checksum::Absent(_) => None,
        };
        let source = Source { path: self.image.to_string_lossy(), digest: image.digest, checksum, bytes: image.bytes };
        let Done { bytes, duration_ms, made } = done;
        let flashed = Flashed { to: place.path().to_string_lossy(), disk, model, bytes, image: source, duration_ms, made };
        Ok(context.output.show(&flashed, |_| String::new())?)
    }

    /// What people have to know now.
    fn next(&self, place: &Place, done: Done<'_>) -> Vec<String> {
        let mut notes = Vec::new();
        if matches!(place, Place::File { .. }) && self.size.is_none() {
            notes.push("it has no room for a data partition: what boots from it keeps nothing; --size 4GiB makes room".to_owned());
        }
        if let Some(made) = done.made {
            notes.extend(made.notes());
        }
        let start = match place {
            Place::Disk { .. } => "put it into the box and switch that on",
            Place::File { .. } => "boot a virtual machine with UEFI firmware from it",
        };
        notes.push(match done.made {
            Some(_) => format!("next: {start}; `sedge node ls` shows it a moment later"),
            None => format!("next: copy a {CLAIM_FILE} to its boot partition (`sedge claim create --toml` prints one), then {start}"),
        });
        notes
    }
}

fn write(place: &Place, image: Image, bytes: u64, bars: &mut Bars<'_>) -> Result<Written, Failure> {
    let target = place.open(&image, bytes).map_err(flash)?;
    let written = target.write(image, &mut |progress| bars.show(progress)).map_err(flash)?;
    bars.clear();
    Ok(written)
}

fn complete(mut written: Written, (settings, made): (Option<&Settings>, Option<&Made>), context: &Context) -> anyhow::Result<()> {
    if let Some(settings) = settings {
        written.put(NODE_FILE, settings.text().as_bytes()).map_err(flash)?;
    }
    if let Some(made) = made {
        written.put(CLAIM_FILE, made.text().as_bytes()).map_err(flash)?;
    }
    let finished = written.finish().map_err(flash)?;
    if let Some(cause) = finished.unread {
        context.output.note(&format!("this machine sees the new partitions once the disk was taken out and put in again: {cause}"));
    }
    Ok(())
}

fn same_file(one: &Path, other: &Path) -> bool {
    let number = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    number(one).is_some_and(|found| number(other) == Some(found))
}

/// Whether something would be lost.
fn asks(place: &Place) -> bool {
    match place {
        Place::Disk { .. } => true,
        Place::File { exists, .. } => *exists,
    }
}

/// `/dev/sdb (SanDisk Ultra, 29.7 GiB)`
fn describe(place: &Place) -> String {
    match place {
        Place::Disk { path, disk } => {
            let model = if disk.model.is_empty() { "unknown model" } else { &disk.model };
            format!("{} ({model}, {})", path.display(), Size(disk.bytes))
        }
        Place::File { path, .. } => path.display().to_string(),
    }
}

fn flash(error: impl Into<FlashError>) -> Failure {
    Failure::Flash(error.into())
}
