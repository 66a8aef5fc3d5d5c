//! Brings the operating system where the fleet wants it: fetches, hands over, says when the box may restart and whether a new version works.
//!
//! ```text
//! desired state ─▶ image? ─▶ head ─▶ keeper: which chunks? ─▶ ranges over QUIC ─▶ unpack ─▶ keeper ─▶ staged ─▶ time to restart ─▶ Activate
//! on trial: functions that ran before run, the fleet was reached ─▶ Healthy
//! ```
//! What is decided is decided in `sedge_node_core::update` by the keeper; here is who carries bytes and says what the daemon sees.

use super::client::{Keeper, Staging};
use super::words::Request;
use crate::assigner;
use crate::bundle_fetch::{BundleFetch, FetchFault};
use crate::clock;
use crate::functions::Functions;
use crate::gate::Gate;
use crate::session::Link;
use crate::vault::Credentials;
use anyhow::{Context as _, ensure};
use sedge_bundle::{Head, Unproven};
use sedge_protocol::FunctionName;
use sedge_protocol::image::{ImageAssignment, ImageVersion, OsPhase, OsReport, Restart};
use sedge_protocol::local::FleetLink;
use sedge_protocol::message::Desired;
use sedge_store::Store;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long the node's own listener may take for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How often things are looked at while something is under way.
const LOOK: Duration = Duration::from_secs(1);
/// And while nothing is.
const REST: Duration = Duration::from_secs(30);
/// First pause after something that did not work; doubles up to [`AGAIN_MAX`].
const AGAIN: Duration = Duration::from_secs(15);
const AGAIN_MAX: Duration = Duration::from_secs(3600);
/// How often the fleet is told how much has come.
const TELL: Duration = Duration::from_secs(2);

/// What the updater reads and writes.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) socket: PathBuf,
    /// Most bytes of a bundle in a second; as many as come when absent.
    pub(crate) rate: Option<u64>,
    /// Whether the node belongs to a fleet, or should.
    pub(crate) fleet: bool,
    pub(crate) facts: Facts,
    pub(crate) functions: Functions,
    pub(crate) gate: Gate,
    pub(crate) store: Store,
    pub(crate) link: watch::Receiver<Link>,
    pub(crate) credentials: watch::Receiver<Option<Credentials>>,
    pub(crate) desired: watch::Receiver<Desired>,
    /// What the fleet is told.
    pub(crate) report: watch::Sender<Option<OsReport>>,
}

/// What is known at the start.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Functions that ran before the start.
    pub(crate) before: BTreeSet<FunctionName>,
    /// Where functions are asked over HTTP.
    pub(crate) http: Option<SocketAddr>,
    /// Whether the copy of a bundle from a stick is not needed any more.
    pub(crate) bundle_taken: bool,
}

/// The task.
#[derive(Debug)]
pub(crate) struct Updater {
    parts: Parts,
    keeper: Keeper,
    /// The rollout that was refused for good, and why.
    refused: Option<(u64, ImageVersion, String)>,
    claim_told: bool,
    /// Whether the keeper knows that this version came up.
    up_told: bool,
    /// Whether the fleet was reached since the start.
    reached: bool,
}

impl Updater {
    pub(crate) fn new(parts: Parts) -> Self {
        let keeper = Keeper { socket: parts.socket.clone() };
        Self { parts, keeper, refused: None, claim_told: false, up_told: false, reached: false }
    }

    /// Runs until the daemon stops.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let (mut desired, mut link) = (self.parts.desired.clone(), self.parts.link.clone());
        let mut failures = 0;
        loop {
            let wanted = desired.borrow_and_update().image.clone();
            let pause = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                // What is not wanted any more is not fetched to its end.
                other = desired.wait_for(|desired| desired.image != wanted) => { other?; continue; }
                pause = self.step() => match pause {
                    Ok(pause) => { failures = 0; pause }
                    Err(error) => { failures += 1; self.trouble(&error, failures) }
                },
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = desired.changed() => changed?,
                changed = link.changed() => changed?,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Says what did not work, here and at the fleet; answers when to try again.
    fn trouble(&self, error: &anyhow::Error, failures: u32) -> Duration {
        let trouble = format!("{error:#}");
        log::warn!(reason = trouble.as_str(); "an update of the operating system did not go on; trying again");
        self.parts.report.send_if_modified(|told| {
            let Some(told) = told else { return false };
            let trouble = Some(crate::fault::clip(&trouble));
            let changed = told.trouble != trouble;
            told.trouble = trouble;
            changed
        });
        AGAIN.saturating_mul(1 << (failures - 1).min(16)).min(AGAIN_MAX)
    }

    /// One look; answers when to look again. Cancel safe: what was written stays in the slot and is found there.
    async fn step(&mut self) -> anyhow::Result<Duration> {
        if self.parts.facts.bundle_taken {
            self.keeper.ask(Request::BundleTaken).await?;
            self.parts.facts.bundle_taken = false;
        }
        self.reached |= self.parts.link.borrow().state == FleetLink::Online;
        if self.parts.fleet && self.reached && !self.claim_told {
            let claim = self.parts.credentials.borrow().as_ref().and_then(|credentials| credentials.claim);
            self.keeper.ask(Request::ClaimUsed { claim }).await?;
            self.claim_told = true;
        }
        let report = self.keeper.status().await?;
        let image = self.parts.desired.borrow().image.clone();
        if let OsPhase::Trial { .. } = report.phase {
            return self.show(report, image.as_ref()).await;
        }
        if !self.up_told && self.missing(true).await.is_none() {
            self.keeper.ask(Request::Healthy).await?;
            self.up_told = true;
        }
        let Some(image) = image.filter(|image| image.version != report.version) else {
            if let OsPhase::Staged { .. } | OsPhase::Fetching { .. } = report.phase {
                self.keeper.ask(Request::Abandon).await?;
                return Ok(Duration::ZERO);
            }
            self.tell(report);
            return Ok(if self.up_told { REST } else { LOOK });
        };
        if let Some((rollout, version, reason)) = &self.refused
            && *rollout == image.rollout
        {
            let phase = match report.phase {
                phase @ OsPhase::RolledBack { .. } => phase,
                _ => OsPhase::Refused { version: version.clone(), reason: reason.clone() },
            };
            self.tell(OsReport { phase, ..report });
            return Ok(REST);
        }
        match &report.phase {
            OsPhase::Staged { version, .. } if *version == image.version => self.activate(report, &image).await,
            _ => self.fetch(report, &image).await,
        }
    }

    /// On trial: says what is missing, or that nothing is.
    async fn show(&mut self, report: OsReport, image: Option<&ImageAssignment>) -> anyhow::Result<Duration> {
        let offline = image.is_some_and(|image| image.offline && image.version == report.version);
        match self.missing(offline).await {
            None => {
                self.keeper.ask(Request::Healthy).await?;
                self.up_told = true;
                let report = self.keeper.status().await?;
                self.tell(report);
            }
            Some(what) => {
                if report.phase != (OsPhase::Trial { waits: what.clone() }) {
                    self.keeper.ask(Request::Waits { what: what.clone() }).await?;
                }
                self.tell(OsReport { phase: OsPhase::Trial { waits: what }, ..report });
            }
        }
        Ok(LOOK)
    }

    /// What a version on trial has not shown; none when it works.
    async fn missing(&self, offline: bool) -> Option<String> {
        let table = self.parts.functions.table();
        // What was taken off meanwhile need not run.
        let wanted = |name: &&FunctionName| table.states.contains_key(*name);
        if let Some(name) = self.parts.facts.before.iter().filter(wanted).find(|name| !table.active.contains_key(*name)) {
            return Some(format!("function `{name}`, which ran before, does not run"));
        }
        if let Some(http) = self.parts.facts.http
            && let Err(error) = answers(http, ANSWER).await
        {
            return Some(format!("functions do not answer over HTTP: {error:#}"));
        }
        (self.parts.fleet && !self.reached && !offline).then(|| "the fleet was not reached".to_owned())
    }

    async fn activate(&mut self, report: OsReport, image: &ImageAssignment) -> anyhow::Result<Duration> {
        let running = u64::from(self.parts.gate.gauge().running);
        if image.restart.allows(clock::wall().0, running) {
            // What is wanted of the new version must be known to it.
            let (store, desired) = (self.parts.store.clone(), self.parts.desired.borrow().clone());
            tokio::task::spawn_blocking(move || assigner::keep_desired(&store, &desired)).await??;
            self.keeper.ask(Request::Activate { version: image.version.clone(), rollout: image.rollout }).await?;
            let waits = "restarting".to_owned();
            self.tell(OsReport { phase: OsPhase::Staged { version: image.version.clone(), waits }, ..report });
            return Ok(REST);
        }
        let waits = match image.restart {
            Restart::Window { .. } => format!("restarts at {} UTC", image.restart),
            _ => format!("restarts when nothing runs; {running} invocations do"),
        };
        self.tell(OsReport { phase: OsPhase::Staged { version: image.version.clone(), waits }, ..report });
        Ok(LOOK)
    }

    async fn fetch(&mut self, report: OsReport, image: &ImageAssignment) -> anyhow::Result<Duration> {
        let Some(connection) = self.parts.link.borrow().connection.clone() else {
            self.tell(report);
            return Ok(REST);
        };
        let mut bundle = BundleFetch::new(connection, image, self.parts.rate);
        let head = bundle.head().await?;
        // The keeper judges it; who is told one version and given another would fetch for ever.
        if let Ok(Unproven(manifest)) = Head::parse(&head).and_then(|head| head.unproven())
            && manifest.version != image.version
        {
            self.refuse(image, format!("the fleet's bundle for it is one of {}", manifest.version));
            return Ok(Duration::ZERO);
        }
        let phase = |bytes, total| OsPhase::Fetching { version: image.version.clone(), bytes, total };
        self.tell(OsReport { phase: phase(0, 0), ..report.clone() });
        match self.keeper.stage(head.clone(), image.rollout).await? {
            Staging::Done => return Ok(Duration::ZERO),
            Staging::Refused(reason) => self.refuse(image, reason),
            Staging::Missing(chunks, sending) => {
                let told = self.parts.report.clone();
                let mut last = None::<Instant>;
                let progress = |bytes, total| {
                    // Each is a whole report to the fleet.
                    if bytes == total || last.is_none_or(|last| last.elapsed() >= TELL) {
                        last = Some(Instant::now());
                        told.send_replace(Some(OsReport { phase: phase(bytes, total), ..report.clone() }));
                    }
                };
                let sending = match bundle.send(&head, &chunks, sending, progress).await {
                    Ok(sending) => sending,
                    Err(FetchFault::Bundle(reason)) => {
                        self.refuse(image, reason);
                        return Ok(Duration::ZERO);
                    }
                    Err(FetchFault::Passing(error)) => return Err(error),
                };
                if let Err(reason) = sending.finish().await? {
                    self.refuse(image, reason);
                }
            }
        }
        Ok(Duration::ZERO)
    }

    fn refuse(&mut self, image: &ImageAssignment, reason: String) {
        log::error!(version:% = image.version, reason = reason.as_str(); "a new version of the operating system is not taken");
        self.refused = Some((image.rollout, image.version.clone(), reason));
    }

    fn tell(&self, report: OsReport) {
        self.parts.report.send_if_modified(|told| {
            let changed = told.as_ref() != Some(&report);
            *told = Some(report);
            changed
        });
    }
}

/// Asks the node's own listener something that no function is called for: what dispatches to them answers.
async fn answers(at: SocketAddr, patience: Duration) -> anyhow::Result<()> {
    let host = match at.ip() {
        ip if !ip.is_unspecified() => ip,
        ip if ip.is_ipv4() => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv6Addr::LOCALHOST.into(),
    };
    let at = SocketAddr::new(host, at.port());
    let asked = async {
        let mut stream = TcpStream::connect(at).await?;
        stream.write_all(b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        let mut begin = [0; b"HTTP/1.1 ".len()];
        stream.read_exact(&mut begin).await?;
        std::io::Result::Ok(begin)
    };
    let begin = tokio::time::timeout(patience, asked).await.with_context(|| format!("nothing comes from {at}"))?;
    ensure!(begin.with_context(|| at.to_string())? == *b"HTTP/1.1 ", "{at} speaks no HTTP");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_listener_that_is_shut_silent_or_another_is_no_answer() {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let (asked, _served) = tokio::join!(answers(at, ANSWER), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").await.unwrap();
        });
        asked.unwrap();
        let (asked, _served) = tokio::join!(answers(at, ANSWER), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"SSH-2.0-something").await.unwrap();
        });
        assert!(asked.unwrap_err().to_string().contains("speaks no HTTP"));
        assert!(answers(at, Duration::from_millis(50)).await.unwrap_err().to_string().contains("nothing comes from 127.0.0.1"));
        drop(listener);
        answers(at, ANSWER).await.unwrap_err();
    }
}
