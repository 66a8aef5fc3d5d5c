//! `sedged os`: the part of the daemon that may change the operating system, in a process of its own with as few words as will do.
//!
//! ```text
//!  boot partition ── claim.toml ─▶ /run/sedge/claim.toml (for the daemon), a unit of systemd-networkd, the key that may sign in
//!        │        └─ sedged.toml ─▶ /run/sedge/settings.toml (for the daemon), ports that the firewall opens
//!        ▲  names of kernel images
//!        └──── os (root) ◀── Unix socket: ClaimUsed, BundleTaken, Status, Stage, Abandon, Activate, Waits, Healthy ── daemon (account `sedge`)
//!  slots ◀─────┘ writes the one that does not run
//! ```
//! The daemon runs other people's code and talks to the network; it has no right to disks and none to reboot. What it can ask for here is
//! harmless by itself: each request is checked against what is on the disk, and each can be repeated.

mod boot_partition;
mod claim;
mod client;
mod factory_reset;
mod fat;
mod files;
mod mount;
mod operator_file;
mod record;
mod settings;
mod slot;
mod stick;
mod update;
mod updater;
mod words;

pub(crate) use client::Sending;
pub(crate) use stick::{Arguments as StickArguments, run as run_stick};
pub(crate) use updater::{Facts as UpdaterFacts, Parts as UpdaterParts, Updater};

use crate::{config, log_setup};
use anyhow::Context as _;
use boot_partition::BootPartition;
use sd_notify::NotifyState;
use sedge_node_core::update::Event;
use sedge_provisioning::SshKey;
use std::fs;
use std::io::{self, BufReader};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use update::{Place, StageError, Updates};
use words::{Answer, Request};

/// How long a peer may take for one request.
const PEER_PATIENCE: Duration = Duration::from_secs(10);
/// How long the next chunk of a new version may take: the line may be slow.
const CHUNK_PATIENCE: Duration = Duration::from_secs(600);
/// How often the daemon of a version on trial is looked at.
const LOOK: Duration = Duration::from_secs(5);
const LOOK_MIN: Duration = Duration::from_secs(1);
/// Requests that are served at the same time.
const PEERS_MAX: usize = 8;

/// Where things are; a test has them elsewhere.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// The boot partition, or the directory where it is mounted already.
    #[arg(long, default_value = "/dev/sedge/esp")]
    boot_partition: PathBuf,
    /// Where it is mounted while it is needed.
    #[arg(long, default_value = "/efi")]
    mount_point: PathBuf,
    /// What is read from it for the daemon; what else is, lies beside.
    #[arg(long, default_value = "/run/sedge/claim.toml")]
    claim: PathBuf,
    /// Where the data partition is mounted.
    #[arg(long, default_value = "/data")]
    data: PathBuf,
    /// The unit of systemd-networkd.
    #[arg(long, default_value = "/run/systemd/network/10-claim.network")]
    network: PathBuf,
    /// Where the slots are, as `root-a` and `root-b`.
    #[arg(long, default_value = "/dev/sedge")]
    devices: PathBuf,
    /// The slot that runs, as the first program wrote it down.
    #[arg(long, default_value = "/run/sedge-init/slot")]
    slot: PathBuf,
    /// What the system says of itself.
    #[arg(long, default_value = "/etc/os-release")]
    os_release: PathBuf,
    /// Public keys of those who may sign new versions.
    #[arg(long, default_value = "/usr/lib/sedge/trust")]
    trust: PathBuf,
    /// How long a new version has to show that it works, seconds.
    #[arg(long, default_value_t = 600)]
    trial_s: u64,
    /// The unit of the daemon.
    #[arg(long, default_value = "sedged.service")]
    unit: String,
    /// What restarts the box, in words.
    #[arg(long, num_args = 1.., default_values = ["systemctl", "reboot"])]
    restart: Vec<String>,
}

/// The process.
#[derive(Debug)]
struct Os {
    arguments: Arguments,
    boot: BootPartition,
    updates: Updates,
}

/// Runs until it is ended. The socket is standard input, as systemd passes it.
pub(crate) fn run(arguments: Arguments, config: PathBuf) -> ExitCode {
    log_setup::init();
    match serve(arguments, &config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!(error:% = format!("{error:#}"); "the keeper of the operating system failed");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: Arguments, config: &Path) -> anyhow::Result<()> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned().context("the socket on standard input")?);
    let boot = BootPartition::new(&arguments.boot_partition, &arguments.mount_point);
    // Without it a file may be lost at the next change; the box goes on.
    if let Err(error) = boot.repair() {
        log::error!(reason:% = format!("{error:#}"); "the boot partition could not be checked after a power cut");
    }
    let updates = Updates::open(place(&arguments)?, &boot, Duration::from_secs(arguments.trial_s))?;
    let os = Arc::new(Os { arguments, boot, updates });
    // A box without a readable boot partition goes on with what it has: its functions matter more.
    let login = claim::take(&os.boot, &os.arguments.claim, &os.arguments.network).unwrap_or_else(|error| {
        log::error!(reason:% = format!("{error:#}"); "the claim of the boot partition cannot be used");
        None
    });
    if let Err(error) = os.take_settings(config, login.as_ref()) {
        log::error!(reason:% = format!("{error:#}"); "the settings of the boot partition cannot be used");
    }
    if let Err(error) = factory_reset::carry_out(&os.boot, &os.arguments.data) {
        log::error!(reason:% = format!("{error:#}"); "the factory reset that is asked for was not done");
    }
    drop(sd_notify::notify(&[NotifyState::Ready]));
    let watched = Arc::clone(&os);
    thread::Builder::new().name("trial".to_owned()).spawn(move || watched.watch_trial()).context("start a thread")?;
    for peer in listener.incoming() {
        let peer = peer.context("accept a request")?;
        // Each holds one reference: who asks more than that at once waits for nothing.
        if Arc::strong_count(&os) > PEERS_MAX {
            log::warn!("too many requests at the same time");
            continue;
        }
        let os = Arc::clone(&os);
        let serve = move || {
            if let Err(error) = os.answer(peer) {
                log::warn!(reason:% = format!("{error:#}"); "a request was not answered");
            }
        };
        thread::Builder::new().name("request".to_owned()).spawn(serve).context("start a thread")?;
    }
    Ok(())
}

/// What this box is, from what the image and the first program say.
fn place(arguments: &Arguments) -> anyhow::Result<Place> {
    let text = fs::read_to_string(&arguments.os_release).with_context(|| format!("read {}", arguments.os_release.display()))?;
    let value = |key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(|value| value.trim_matches('"').to_owned());
        value.with_context(|| format!("{} names no {key}", arguments.os_release.display()))
    };
    let slot = fs::read_to_string(&arguments.slot).with_context(|| format!("read {}", arguments.slot.display()))?;
    let (partition, bytes) = slot.trim().split_once(' ').context("the slot that runs is not named")?;
    anyhow::ensure!(["root-a", "root-b"].contains(&partition), "`{partition}` is no slot");
    Ok(Place {
        board: value("IMAGE_ID")?.trim_start_matches("sedge-").to_owned(),
        running: value("IMAGE_VERSION")?.parse()?,
        slot: partition.trim_start_matches("root-").to_owned(),
        root_bytes: bytes.parse().context("the length of the root file system")?,
        devices: arguments.devices.clone(),
        trust: arguments.trust.clone(),
        unit: arguments.unit.clone(),
        restart: arguments.restart.clone(),
        trial_began: arguments.claim.with_file_name("trial-began"),
    })
}

impl Os {
    fn answer(&self, mut peer: UnixStream) -> anyhow::Result<()> {
        peer.set_read_timeout(Some(PEER_PATIENCE))?;
        peer.set_write_timeout(Some(PEER_PATIENCE))?;
        let request = words::read(&mut peer)?;
        let answer = self.carry_out(&request, &peer).unwrap_or_else(|error| {
            log::error!(request:? = request, reason:% = format!("{error:#}"); "the operating system was not changed");
            Answer::Failed { reason: format!("{error:#}") }
        });
        words::write(&mut peer, &answer)
    }

    fn carry_out(&self, request: &Request, peer: &UnixStream) -> anyhow::Result<Answer> {
        match request {
            Request::ClaimUsed { claim } => self.boot.write(|boot| claim::erase(boot, *claim))?,
            Request::BundleTaken => stick::forget(&self.arguments.data)?,
            Request::Status => return Ok(Answer::Status { report: self.updates.report() }),
            Request::Waits { what } => self.updates.on(&self.boot, Event::Waits(crate::fault::clip(what)))?,
            Request::Healthy => self.updates.healthy(&self.boot)?,
            Request::Abandon => self.updates.on(&self.boot, Event::Abandoned)?,
            Request::Activate { version, rollout } => self.updates.activate(&self.boot, version, *rollout)?,
            Request::Stage { head, rollout } => return self.stage(peer, (*head, *rollout)),
        }
        Ok(Answer::Done)
    }

    /// A new version comes over the connection.
    fn stage(&self, peer: &UnixStream, (head, rollout): (u64, u64)) -> anyhow::Result<Answer> {
        peer.set_read_timeout(Some(CHUNK_PATIENCE))?;
        let head = update::read_head(&mut &*peer, head)?;
        let exchange = |missing: &[u32]| {
            words::write(&mut &*peer, &Answer::Missing { chunks: missing.to_vec() })?;
            Ok(BufReader::new(peer))
        };
        Ok(match self.updates.stage(&self.boot, (&head, rollout), exchange) {
            Ok(()) => Answer::Done,
            Err(StageError::Refused(reason)) => {
                log::warn!(reason = reason.as_str(); "a new version is refused");
                Answer::Refused { reason }
            }
            Err(StageError::Failed(error)) => return Err(error),
        })
    }

    /// Looks after a version on trial until it is decided.
    fn watch_trial(&self) {
        while let Some(left) = self.updates.due() {
            // Also a box that is about to restart is not looked at without a pause.
            thread::sleep(left.clamp(LOOK_MIN, LOOK));
            let looked = self.updates.look_at_daemon(&self.boot).and_then(|()| self.updates.on(&self.boot, Event::Tick));
            if let Err(error) = looked {
                log::error!(reason:% = format!("{error:#}"); "a version on trial could not be looked after");
            }
        }
    }

    /// Brings the operator's settings to where the daemon finds them, and opens what they and the key of `login` need.
    fn take_settings(&self, config: &Path, login: Option<&SshKey>) -> anyhow::Result<()> {
        let beside = |name| self.arguments.claim.with_file_name(name);
        let (settings, login_key) = (beside("settings.toml"), beside("login").join("authorized_keys"));
        let taken = settings::take(&self.boot, config, &settings);
        settings::admit(&login_key, login)?;
        let over = settings.exists().then_some(settings.as_path());
        let ports = config::load(config, over).map(|config| config.ports_to_open()).unwrap_or_default();
        settings::open(&beside("ports.nft"), &ports, login.is_some())?;
        taken
    }
}
