//! The update of the operating system: who owns the machine of `sedge_node_core::update` and carries out what it says.

use super::boot_partition::{self, BootPartition};
use super::record::Record;
use super::slot::{self, Source, Writing};
use crate::clock;
use anyhow::Context as _;
use sedge_bundle::{Head, Manifest, Trust};
use sedge_node_core::Mono;
use sedge_node_core::boot_entry::ImageVersion;
use sedge_node_core::update::{Disk, Effect, Event, Offer, Update};
use sedge_protocol::image::{OsPhase, OsReport, SlotChange};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// How often the daemon may begin anew before a version on trial is given up.
const BEGINS_MAX: u32 = 5;
/// How long the daemon of a version on trial may keep failing: what it needs may come late.
const FAILING_MIN: Duration = Duration::from_secs(60);
/// How long a restart may take before it is asked for again.
const RESTART_MAX: Duration = Duration::from_secs(180);

/// What this box is and where its parts are.
#[derive(Debug)]
pub(super) struct Place {
    /// What images it takes.
    pub(super) board: String,
    /// The version that runs.
    pub(super) running: ImageVersion,
    /// The slot that runs, `a` or `b`.
    pub(super) slot: String,
    /// Where `root-a` and `root-b` are.
    pub(super) devices: PathBuf,
    /// Keys that are trusted.
    pub(super) trust: PathBuf,
    /// How much of the slot that runs is of interest, bytes.
    pub(super) root_bytes: u64,
    /// The unit of the daemon.
    pub(super) unit: String,
    /// What restarts the box.
    pub(super) restart: Vec<String>,
    /// Where the keeper notes when it first started since the machine did; forgotten with the machine.
    pub(super) trial_began: PathBuf,
}

impl Place {
    /// The slot that runs.
    fn device(&self) -> PathBuf {
        self.devices.join(format!("root-{}", self.slot))
    }

    /// The other one.
    fn other_device(&self) -> PathBuf {
        self.devices.join(if self.slot == "a" { "root-b" } else { "root-a" })
    }
}

/// The machine and what it works on.
#[derive(Debug)]
pub(super) struct Updates {
    place: Place,
    /// The last changes of the slot that runs, the newest first; none is added while it runs.
    changes: Vec<SlotChange>,
    /// When the keeper first started since the machine did.
    began: Mono,
    state: Mutex<Update>,
    /// When the box was told to restart.
    restarted: Mutex<Option<Mono>>,
    /// Held by who writes the other slot.
    writing: Mutex<()>,
}

/// Why a version is not staged.
#[derive(Debug, thiserror::Error)]
pub(super) enum StageError {
    /// It will never be.
    #[error("{0}")]
    Refused(String),
    /// Another try may do it.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl Updates {
    /// Reads from the boot partition where an update stands, and notes what runs.
    pub(super) fn open(place: Place, boot: &BootPartition, trial: Duration) -> anyhow::Result<Self> {
        let (disk, mut record) = boot.read(|boot| look(boot, &place.running))?;
        if record.note(&place.running, &place.slot, clock::wall().0)
            && let Err(error) = boot.write(|boot| record.write(boot))
        {
            // Nothing but what people are told depends on it.
            log::error!(reason:% = format!("{error:#}"); "what runs could not be noted on the boot partition");
        }
        let began = began(&place.trial_began);
        let state = Update::at_start(&disk, began, trial);
        log::info!(version:% = place.running, slot = place.slot.as_str(), update:% = state; "the operating system that runs");
        Ok(Self { place, changes: record.changes, began, state: Mutex::new(state), restarted: Mutex::new(None), writing: Mutex::new(()) })
    }

    /// How things stand.
    pub(super) fn report(&self) -> OsReport {
        let state = self.state();
        let trouble = matches!(*state, Update::Idle).then(|| {
            format!("the boot partition has no kernel image of {}, which runs: another version starts next, or none", self.place.running)
        });
        let phase = match &*state {
            Update::Idle => OsPhase::Idle,
            Update::Fetching { target } => OsPhase::Fetching { version: target.clone(), bytes: 0, total: 0 },
            Update::Staged { target } => OsPhase::Staged { version: target.clone(), waits: "waits for the time to restart".to_owned() },
            Update::Trial { waits, .. } => OsPhase::Trial { waits: waits.clone() },
            Update::Confirmed => OsPhase::Confirmed,
            Update::RolledBack { target, reason } => OsPhase::RolledBack { version: target.clone(), reason: reason.clone() },
        };
        drop(state);
        let Place { board, running, slot, .. } = &self.place;
        let changes = self.changes.clone();
        OsReport { board: board.clone(), slot: slot.clone(), version: running.clone(), phase, trouble, changes }
    }

    /// Brings a new version into the other slot. `exchange` is told which chunks are missing and answers where they come from.
    pub(super) fn stage<R: Read>(
        &self,
        boot: &BootPartition,
        (head, rollout): (&[u8], u64),
        exchange: impl FnOnce(&[u32]) -> anyhow::Result<R>,
    ) -> Result<(), StageError> {
        let _writing = match self.writing.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(anyhow::anyhow!("a version is being written already").into()),
        };
        let manifest = self.admit(boot, head, rollout)?;
        let target = manifest.version.clone();
        if matches!(&*self.state(), Update::Staged { target: staged } if *staged == target) {
            return Ok(());
        }
        // Before anything is forgotten: what does not fit costs nothing.
        let writing = Writing::open(&self.place.other_device(), &manifest)?;
        self.on(boot, Event::Begin { target })?;
        let missing = self.gather(boot, &writing)?;
        let mut from = exchange(&missing)?;
        writing.receive(&missing, &mut from)?;
        writing.compare()?;
        boot.write(|boot| {
            boot_partition::stage(boot, &manifest.version, (&mut writing.kernel()?, manifest.kernel.size), &manifest.kernel.digest)
        })?;
        self.on(boot, Event::Written)?;
        log::info!(version:% = manifest.version; "a new version is staged");
        Ok(())
    }

    /// Carries out what follows from an event.
    pub(super) fn on(&self, boot: &BootPartition, event: Event) -> anyhow::Result<()> {
        let mut state = self.state();
        let (next, effect) = state.clone().on(event, &self.place.running, clock::mono());
        // Only what was carried out has happened.
        if let Some(effect) = effect {
            self.carry_out(boot, effect)?;
        }
        if state.to_string() != next.to_string() {
            log::info!(from:% = *state, to:% = next; "update of the operating system");
        }
        *state = next;
        Ok(())
    }

    /// The version that runs works: it is kept, and what counts its starts begins anew.
    pub(super) fn healthy(&self, boot: &BootPartition) -> anyhow::Result<()> {
        self.on(boot, Event::Healthy)?;
        slot::came_up(&self.place.device())
    }

    /// The staged version is tried now.
    pub(super) fn activate(&self, boot: &BootPartition, version: &ImageVersion, rollout: u64) -> anyhow::Result<()> {
        anyhow::ensure!(matches!(&*self.state(), Update::Staged { target } if target == version), "version {version} is not staged");
        boot.write(|boot| {
            let mut record = Record::read(boot);
            record.try_now(version, rollout);
            record.last_words = record.last_words.filter(|(of, _)| of != version);
            record.write(boot)
        })?;
        self.on(boot, Event::Activate)
    }

    /// How long until the machine wants to look at the clock; none when nothing is on trial.
    pub(super) fn due(&self) -> Option<Duration> {
        self.state().due().map(|until| clock::mono().until(until))
    }

    /// Looks whether the daemon of a version on trial keeps failing.
    pub(super) fn look_at_daemon(&self, boot: &BootPartition) -> anyhow::Result<()> {
        let failing = (clock::mono() >= self.began.after(FAILING_MIN)).then(|| self.failure_of_daemon()).flatten();
        match failing {
            Some(reason) => self.on(boot, Event::Failed { reason }),
            None => Ok(()),
        }
    }

    fn failure_of_daemon(&self) -> Option<String> {
        let properties = "--property=NRestarts,ActiveState,Result,ExecMainStatus";
        let output = Command::new("systemctl").args(["show", properties, &self.place.unit]).output().ok()?;
        failure(&String::from_utf8_lossy(&output.stdout))
    }

    fn admit(&self, boot: &BootPartition, head: &[u8], rollout: u64) -> Result<Manifest, StageError> {
        let refused = |fault: &dyn ToString| StageError::Refused(fault.to_string());
        let trust = Trust::read(&self.place.trust).context("the keys that this box trusts")?;
        let manifest = Head::parse(head).and_then(|head| head.verify(&trust)).map_err(|fault| refused(&fault))?;
        let offer = Offer { board: manifest.board.clone(), version: manifest.version.clone(), minimum: manifest.minimum.clone() };
        let (disk, record) = boot.read(|boot| look(boot, &self.place.running))?;
        // A record that was lost must not keep a version away for ever.
        let again = !record.tried.contains(&(offer.version.clone(), rollout));
        disk.admit(&offer, &self.place.board, again).map_err(|refusal| refused(&refusal))?;
        Ok(manifest)
    }

    /// What the box has: the slot that runs and its kernel image.
    fn gather(&self, boot: &BootPartition, writing: &Writing<'_>) -> anyhow::Result<Vec<u32>> {
        let running = self.place.device();
        boot.read(|boot| {
            let root = File::open(&running).with_context(|| format!("open {}", running.display()));
            let kernel = boot_partition::kernel(boot, &self.place.running);
            let sources = [(root, self.place.root_bytes), (kernel, u64::MAX)].into_iter().filter_map(|(file, bytes)| {
                // What cannot be read is fetched.
                let file =
                    file.map_err(|error| log::warn!(reason:% = format!("{error:#}"); "a source of an update cannot be read")).ok()?;
                Some(Source { file, bytes })
            });
            writing.gather(&sources.collect::<Vec<_>>())
        })
    }

    fn carry_out(&self, boot: &BootPartition, effect: Effect) -> anyhow::Result<()> {
        match effect {
            Effect::Forget { keep } => boot.write(|boot| boot_partition::forget(boot, &keep)),
            Effect::Bless => {
                if boot.write(|boot| boot_partition::bless(boot, &self.place.running))? {
                    log::info!(version:% = self.place.running; "this version is good: it is kept");
                }
                Ok(())
            }
            Effect::Try { target } => {
                boot.write(|boot| boot_partition::show(boot, &target))?;
                log::warn!(version:% = target; "restarting into a new version");
                self.restart()
            }
            Effect::GiveUp { .. } if self.is_restarting() => Ok(()),
            Effect::GiveUp { reason } => {
                log::error!(version:% = self.place.running, reason = reason.as_str(); "this version does not work: restarting");
                let noted = boot.write(|boot| {
                    let mut record = Record::read(boot);
                    record.last_words = Some((self.place.running.clone(), reason));
                    record.write(boot)
                });
                // A boot partition that cannot be written must not keep a bad version alive.
                self.restart().and(noted)
            }
        }
    }

    fn restart(&self) -> anyhow::Result<()> {
        let Some((program, arguments)) = self.place.restart.split_first() else { return Ok(()) };
        rustix::fs::sync();
        let status = Command::new(program).args(arguments).status().with_context(|| format!("run {program}"))?;
        anyhow::ensure!(status.success(), "{program} failed ({status})");
        *self.restarted.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::mono());
        Ok(())
    }

    /// Whether the box was told to restart a moment ago.
    fn is_restarting(&self) -> bool {
        let restarted = *self.restarted.lock().unwrap_or_else(PoisonError::into_inner);
        restarted.is_some_and(|restarted| clock::mono() < restarted.after(RESTART_MAX))
    }

    fn state(&self) -> MutexGuard<'_, Update> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the keeper first started since the machine did, by the keeper's own clock: a keeper that begins anew does not lengthen a trial.
fn began(note: &Path) -> Mono {
    let uptime_ms = clock::moment().uptime_ms;
    let first_ms = fs::read_to_string(note).ok().and_then(|text| text.trim().parse().ok()).filter(|first| *first <= uptime_ms);
    if first_ms.is_none()
        && let Err(error) = fs::write(note, uptime_ms.to_string())
    {
        log::warn!(reason:% = error; "the begin of a trial could not be noted");
    }
    Mono(clock::mono().0.saturating_sub(uptime_ms.saturating_sub(first_ms.unwrap_or(uptime_ms))))
}

/// What the boot partition says, and the record on it.
fn look(boot: &Path, running: &ImageVersion) -> anyhow::Result<(Disk, Record)> {
    let record = Record::read(boot);
    let (entries, staged, last_words) = (boot_partition::entries(boot)?, boot_partition::staged(boot)?, record.last_words.clone());
    let tried = record.tried.first().map(|(version, _)| version.clone());
    Ok((Disk { running: running.clone(), entries, staged, tried, last_words }, record))
}

/// Why a daemon of which systemd says this does not come up, if it does not.
fn failure(properties: &str) -> Option<String> {
    let value = |key: &str| properties.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let begins: u32 = value("NRestarts")?.parse().ok()?;
    let (state, result, status) = (value("ActiveState")?, value("Result")?, value("ExecMainStatus")?);
    let failed = state == "failed" || begins >= BEGINS_MAX;
    failed.then(|| format!("the daemon does not stay up: begun anew {begins} times, last result {result}, exit status {status}"))
}

/// Reads a bundle's head as it follows a request.
pub(super) fn read_head(from: &mut impl Read, bytes: u64) -> anyhow::Result<Vec<u8>> {
    let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= sedge_bundle::HEAD_BYTES_MAX).context("the head is too long")?;
    let mut head = vec![0; bytes];
    from.read_exact(&mut head).context("read the head of a bundle")?;
    Ok(head)
}

#[cfg(test)]
mod tests;
