//! `sedged os`: the part of the daemon that may change the operating system, in a process of its own with as few words as will do.
//!
//! ```text
//!  boot partition ── claim.toml ─▶ /run/sedge/claim.toml (for the daemon), a unit of systemd-networkd
//!        ▲  names of kernel images
//!        └──── os (root) ◀── Unix socket: ClaimUsed, Healthy ── daemon (account `sedge`)
//! ```
//! The daemon runs other people's code and talks to the network; it has no right to disks and none to reboot. What it can ask for here is
//! harmless by itself: each request is checked against what is on the disk, and each can be repeated.

mod boot_partition;
mod claim;
mod client;
mod factory_reset;
mod words;

pub(crate) use client::Keeper;

use crate::log_setup;
use anyhow::Context as _;
use boot_partition::BootPartition;
use sd_notify::NotifyState;
use sedge_node_core::boot_entry::ImageVersion;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use words::{Answer, Request};

/// How long a peer may take for one request.
const PEER_PATIENCE: Duration = Duration::from_secs(10);

/// Where things are; a test has them elsewhere.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// The boot partition.
    #[arg(long, default_value = "/dev/sedge/esp")]
    boot_partition: PathBuf,
    /// Where it is mounted while it is needed.
    #[arg(long, default_value = "/efi")]
    mount_point: PathBuf,
    /// What is read from it for the daemon.
    #[arg(long, default_value = "/run/sedge/claim.toml")]
    claim: PathBuf,
    /// Where the data partition is mounted.
    #[arg(long, default_value = "/data")]
    data: PathBuf,
    /// The unit of systemd-networkd.
    #[arg(long, default_value = "/run/systemd/network/10-claim.network")]
    network: PathBuf,
}

/// The process.
#[derive(Debug)]
struct Os {
    arguments: Arguments,
    boot: BootPartition,
    /// Of the root file system that runs.
    version: ImageVersion,
}

/// Runs until it is ended. The socket is standard input, as systemd passes it.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    log_setup::init();
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!(error:% = format!("{error:#}"); "the keeper of the operating system failed");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned().context("the socket on standard input")?);
    let boot = BootPartition::new(&arguments.boot_partition, &arguments.mount_point);
    let os = Os { boot, version: running_version()?, arguments };
    // A box without a readable boot partition goes on with what it has: its functions matter more.
    if let Err(error) = os.take_claim() {
        log::error!(reason:% = format!("{error:#}"); "the claim of the boot partition cannot be used");
    }
    if let Err(error) = factory_reset::carry_out(&os.boot, &os.arguments.data) {
        log::error!(reason:% = format!("{error:#}"); "the factory reset that is asked for was not done");
    }
    drop(sd_notify::notify(&[NotifyState::Ready]));
    for peer in listener.incoming() {
        let answered = peer.map_err(anyhow::Error::from).and_then(|peer| os.answer(peer));
        if let Err(error) = answered {
            log::warn!(reason:% = format!("{error:#}"); "a request was not answered");
        }
    }
    Ok(())
}

impl Os {
    fn answer(&self, mut peer: UnixStream) -> anyhow::Result<()> {
        peer.set_read_timeout(Some(PEER_PATIENCE))?;
        peer.set_write_timeout(Some(PEER_PATIENCE))?;
        let request = words::read(&mut peer)?;
        let answer = self.carry_out(&request).unwrap_or_else(|error| {
            log::error!(request:? = request, reason:% = format!("{error:#}"); "the operating system was not changed");
            Answer::Failed { reason: format!("{error:#}") }
        });
        words::write(&mut peer, &answer)
    }

    fn carry_out(&self, request: &Request) -> anyhow::Result<Answer> {
        match request {
            Request::ClaimUsed => self.boot.write(claim::erase)?,
            Request::Healthy => {
                if self.boot.write(|boot| boot_partition::bless(boot, &self.version))? {
                    log::info!(version:% = self.version; "this version is good: it is kept");
                }
            }
        }
        Ok(Answer::Done)
    }

    /// Brings the claim from the boot partition to where the daemon and the network find it.
    fn take_claim(&self) -> anyhow::Result<()> {
        let Some(text) = self.boot.read(claim::read)? else { return Ok(()) };
        match claim::publish(&text, &self.arguments.claim, &self.arguments.network)? {
            // Whoever looks at the card on another machine shall see why.
            Err(faults) => {
                self.boot.write(|boot| claim::explain(boot, &faults.to_string()))?;
                Err(faults.into())
            }
            Ok(()) => Ok(()),
        }
    }
}

/// The version of the root file system, from `os-release`.
fn running_version() -> anyhow::Result<ImageVersion> {
    let text = std::fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let version = text.lines().find_map(|line| line.strip_prefix("IMAGE_VERSION=")).context("/etc/os-release names no IMAGE_VERSION")?;
    Ok(version.trim_matches('"').parse()?)
}
