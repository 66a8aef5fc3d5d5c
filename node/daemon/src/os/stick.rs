//! `sedged stick`: brings a bundle from a USB stick to where the daemon finds it.
//!
//! ```text
//! udev: FAT on USB ─▶ sedge-stick@.service ─▶ the one *.sedge-claim, its head verified ─▶ copied to the data partition, verified ─▶ daemon restarted
//!                                                        └── fault ─▶ sedge-claim-fault.txt on the stick
//! ```
//! Invariants: a box that is in a fleet looks at no stick; one that was given to a fleet takes no bundle of another; the stick is mounted
//! read-only unless a fault is written to it; a copy gets its name only after every byte of it was verified, so a stick that is pulled out, or
//! a power cut, leaves what was there before.

use super::files;
use super::mount::{mounted, synced};
use crate::{bundle, log_setup, vault};
use anyhow::{Context as _, ensure};
use rustix::mount::MountFlags;
use sedge_protocol::Digest;
use sedge_provisioning::bundle::Grant;
use sedge_provisioning::claim_file::ClaimFile;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// How the name of a bundle ends.
const ENDING: &str = ".sedge-claim";
/// What a fault is written to, beside the bundle.
const FAULT_FILE: &str = "sedge-claim-fault.txt";
/// The copy, on the data partition.
const COPY: &str = "stick/claim.sedge-claim";
/// The daemon's directory, on the data partition.
const DATA_DIR: &str = "sedge";
/// What a copy leaves free on the data partition, bytes.
const FREE_BYTES_MIN: u64 = 64 << 20;

/// Where things are; a test has them elsewhere.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// The stick's partition, or the directory where it is mounted already.
    device: PathBuf,
    /// Where it is mounted while it is read.
    #[arg(long, default_value = "/run/sedge-stick")]
    mount_point: PathBuf,
    /// Where the data partition is mounted.
    #[arg(long, default_value = "/data")]
    data: PathBuf,
    /// What the keeper has read from the boot partition.
    #[arg(long, default_value = "/run/sedge/claim.toml")]
    claim: PathBuf,
    /// What restarts the daemon, in words.
    #[arg(long, num_args = 1.., default_values = ["systemctl", "--no-block", "try-restart", "sedged.service"])]
    restart: Vec<String>,
}

/// What became of a stick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nobody looks: the box is in a fleet.
    InFleet,
    /// There is no bundle on it.
    None,
    /// The daemon has it already.
    Known,
    /// It is where the daemon finds it.
    Copied,
}

/// Looks at one stick.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    log_setup::init();
    match arguments.attend() {
        Ok(outcome) => log::info!(outcome:? = outcome; "a stick was looked at"),
        Err(error) => {
            log::error!(reason:% = format!("{error:#}"); "the bundle on the stick cannot be used");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Removes the copy: the daemon has what was in it.
pub(super) fn forget(data: &Path) -> anyhow::Result<()> {
    files::remove(&data.join(COPY))
}

impl Arguments {
    /// What is to be done about a stick.
    fn attend(&self) -> anyhow::Result<Outcome> {
        if vault::is_granted(&self.data.join(DATA_DIR), None) {
            return Ok(Outcome::InFleet);
        }
        let outcome = self.look()?;
        if outcome == Outcome::Copied {
            self.restart().context("the bundle is copied, and runs from the next start of the box")?;
        }
        Ok(outcome)
    }

    /// Takes what is on the stick; whoever looks at it on another machine shall see what was wrong.
    fn look(&self) -> anyhow::Result<Outcome> {
        let stick = (self.device.as_path(), self.mount_point.as_path());
        let (outcome, said) =
            mounted(stick, MountFlags::RDONLY, |stick| Ok((self.take(stick), files::read(&stick.join(FAULT_FILE), 64 * 1024)?)))?;
        let say = outcome.as_ref().err().map(|error| format!("{error:#}\n"));
        if said.as_deref() != say.as_deref().map(str::as_bytes) {
            let written = mounted(
                stick,
                MountFlags::empty(),
                synced(|stick| match &say {
                    Some(fault) => files::replace(&stick.join(FAULT_FILE), fault.as_bytes()),
                    None => files::remove(&stick.join(FAULT_FILE)),
                }),
            );
            if let Err(error) = written {
                log::warn!(reason:% = format!("{error:#}"); "nothing could be written to the stick");
            }
        }
        outcome
    }

    fn take(&self, stick: &Path) -> anyhow::Result<Outcome> {
        let Some(path) = find(stick)? else { return Ok(Outcome::None) };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.copy(&path).with_context(|| name)
    }

    fn copy(&self, from: &Path) -> anyhow::Result<Outcome> {
        let place = bundle::Place::new(from.to_owned(), &self.data.join(DATA_DIR));
        let mut source = File::open(from)?;
        let (found, head) = bundle::read_head(&mut source, None)?;
        if let Some(pin) = self.pin(&place) {
            ensure!(found.ca_pin == pin, "it is of another fleet than the one that this box was given to: a factory reset lets go of that");
        }
        if place.was_taken(Digest::of(&head)) {
            return Ok(Outcome::Known);
        }
        let bytes = head.len() as u64 + found.grant.artifacts().iter().map(|(_, size)| size).sum::<u64>();
        let held = source.metadata()?.len();
        ensure!(held >= bytes, "it was cut off: {held} of {bytes} bytes are there");
        let to = self.data.join(COPY);
        let directory = to.parent().context("a file without a directory")?;
        DirBuilder::new().recursive(true).mode(0o750).create(directory).with_context(|| format!("make {}", directory.display()))?;
        let part = to.with_extension("part");
        files::remove(&part)?;
        let free = rustix::fs::statvfs(directory).context("look at the data partition")?;
        let free = free.f_bavail.saturating_mul(free.f_frsize);
        ensure!(free >= bytes + FREE_BYTES_MIN, "the data partition has {free} bytes free, and {} are needed", bytes + FREE_BYTES_MIN);
        let copied = copy(from, &part, bytes).and_then(|()| verify(&part, &found.grant, head.len() as u64));
        if let Err(error) = copied.and_then(|()| Ok(fs::rename(&part, &to)?)) {
            files::remove(&part)?;
            return Err(error);
        }
        File::open(directory)?.sync_all().context("sync the data partition")?;
        Ok(Outcome::Copied)
    }

    /// Pin of the fleet that the box was given to.
    fn pin(&self, place: &bundle::Place) -> Option<Digest> {
        let claim = fs::read_to_string(&self.claim).ok().and_then(|text| ClaimFile::parse(&text).ok());
        claim.map(|claim| claim.fleet.ca_pin).or_else(|| place.pin())
    }

    fn restart(&self) -> anyhow::Result<()> {
        let (program, arguments) = self.restart.split_first().context("no word that restarts the daemon")?;
        let status = Command::new(program).args(arguments).status().with_context(|| format!("start {program}"))?;
        ensure!(status.success(), "{program}: {status}");
        Ok(())
    }
}

/// The one bundle in a directory. Some systems put hidden files beside those that they copy.
fn find(directory: &Path) -> anyhow::Result<Option<PathBuf>> {
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(directory).context("read the stick")? {
        let entry = entry.context("read the stick")?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if !name.starts_with('.') && name.ends_with(ENDING) && entry.metadata()?.is_file() {
            found.push(entry.path());
        }
    }
    ensure!(found.len() < 2, "{} files end in {ENDING}: leave the one that is for this box", found.len());
    Ok(found.pop())
}

/// The first `bytes` of a file, on the disk when this comes back.
fn copy(from: &Path, to: &Path, bytes: u64) -> anyhow::Result<()> {
    let mut written = File::create_new(to).with_context(|| format!("make {}", to.display()))?;
    let copied = io::copy(&mut File::open(from)?.take(bytes), &mut written).context("copy it to the data partition")?;
    ensure!(copied == bytes, "it was cut off: {copied} of {bytes} bytes are there");
    written.sync_all().context("sync the data partition")
}

/// Compares what was copied with what the grant says of it.
fn verify(path: &Path, grant: &Grant, head: u64) -> anyhow::Result<()> {
    let mut copied = io::BufReader::new(File::open(path)?);
    ensure!(io::copy(&mut copied.by_ref().take(head), &mut io::sink())? == head, "it was cut off");
    for (digest, size) in grant.artifacts() {
        ensure!(sedge_bundle::digest(copied.by_ref().take(size))? == digest, "the artifact {digest} was changed, or damaged on its way");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
