//! Whether the node belongs to its fleet: one task carries out what the machine of `sedge_provisioning::Enrolment` decides.
//!
//! ```text
//!  vault, [fleet] ─▶ Enrolment ─▶ Enrol, Return: HTTPS     ─▶ Issued, Failed, Refused ─┐
//!                        ▲        Renew: the connection                                │
//!                        └──────────────────────────────────────────────────────────────┘
//!  session ─ Greeted, Expired, Unknown, Revoked ─▶ ┘   └─▶ credentials, door: may the session connect, and what is in the way
//! ```
//! Certificates live by the fleet's time, pauses by a clock that never jumps: the clock of the box may show anything.

use crate::clock;
use crate::enrol::{self, Outcome};
use crate::session::{self, Exchange, Link};
use crate::supervisor::Supervisor;
use crate::vault::{Credentials, Vault};
use anyhow::Context as _;
use quinn::Connection;
use sedge_protocol::message::{FromFleet, FromNode};
use sedge_provisioning::clock::FleetTime;
use sedge_provisioning::enrolment::{Action, Enrolment, Event, Moment};
use sedge_provisioning::{Identity, KeyPem, Membership, csr};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Longest sleep before the clock is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Words of the session that wait.
const INBOX: usize = 16;

/// What the session may do, and what stands between the node and its fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Door {
    pub(crate) open: bool,
    pub(crate) note: Option<String>,
}

/// The task's side.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) fleet: Membership,
    pub(crate) vault: Vault,
    pub(crate) credentials: watch::Sender<Option<Credentials>>,
    pub(crate) door: watch::Sender<Door>,
    pub(crate) link: watch::Receiver<Link>,
    pub(crate) inbox: mpsc::Receiver<Event>,
    pub(crate) supervisor: Supervisor,
}

/// What the session tells, and where it is told.
pub(crate) fn inbox() -> (mpsc::Sender<Event>, mpsc::Receiver<Event>) {
    mpsc::channel(INBOX)
}

type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Runs until the daemon stops.
pub(crate) async fn run(mut member: Member) -> anyhow::Result<()> {
    let stop = member.supervisor.stop().clone();
    let Some((key, kept)) = open(&member.fleet, &member.vault, &stop).await? else { return Ok(()) };
    let (mut machine, mut event) = match &kept {
        Some(kept) => (Enrolment::enrolled(kept.life()), Event::Tick),
        None if member.fleet.claim.is_some() => (Enrolment::unclaimed(), Event::ClaimFound),
        None => {
            log::error!("this node is not enrolled and has no claim: put `claim` into [fleet]; functions of its own go on");
            (Enrolment::unclaimed(), Event::Tick)
        }
    };
    member.credentials.send_if_modified(|credentials| {
        *credentials = kept;
        credentials.is_some()
    });
    let (mut work, mut time): (Option<Work>, _) = (None, FleetTime::default());
    loop {
        let now = moment(&time);
        let (next, action) = machine.on(event, now);
        machine = next;
        member.door.send_if_modified(|door| {
            let now = Door { open: machine.may_connect(), note: machine.note() };
            let changed = *door != now;
            *door = now;
            changed
        });
        if let Some(action) = action {
            work = Some(member.carry_out(action, key.clone()));
        }
        let outcome = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(word) = member.inbox.recv() => Outcome::of(word),
            outcome = done(&mut work) => outcome,
            () = pause(machine.pause_ms(now)) => Outcome::of(Event::Tick),
        };
        event = member.take(outcome, &mut time);
    }
}

impl Member {
    /// Begins what is to be done. What was begun before is given up: its answer would come too late.
    fn carry_out(&self, action: Action, key: KeyPem) -> Work {
        let (fleet, vault) = (self.fleet.clone(), self.vault.clone());
        let known = self.credentials.borrow().clone();
        match action {
            Action::Enrol => Box::pin(enrol::present(fleet, vault, key)),
            Action::Return => Box::pin(enrol::come_back(fleet, vault, known)),
            Action::Renew => Box::pin(renew(fleet, vault, known, self.link.clone())),
        }
    }

    /// Keeps in memory what came, and says what happened.
    fn take(&self, outcome: Outcome, time: &mut FleetTime) -> Event {
        if let Some(credentials) = outcome.credentials {
            // A certificate that was just made begins a little before the fleet's now: the next one is never due at once.
            time.told(credentials.identity.not_before_ms, clock::mono().0);
            self.credentials.send_replace(Some(credentials));
        }
        if let Event::Greeted { fleet_ms } = outcome.event {
            time.told(fleet_ms, clock::mono().0);
        }
        outcome.event
    }
}

fn moment(time: &FleetTime) -> Moment {
    let mono_ms = clock::mono().0;
    Moment { mono_ms, fleet_ms: time.at(mono_ms) }
}

/// Opens the vault, again and again while the disk refuses: functions go on meanwhile.
async fn open(fleet: &Membership, vault: &Vault, stop: &CancellationToken) -> anyhow::Result<Option<(KeyPem, Option<Credentials>)>> {
    loop {
        let (opened, pin) = (vault.clone(), fleet.ca_pin);
        match tokio::task::spawn_blocking(move || opened.open(pin)).await? {
            Ok(opened) => return Ok(Some(opened)),
            Err(error) => log::error!(reason:% = format!("{error:#}"); "the identity cannot be used; trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// What the work came to; never while there is none. Cancel safe: the work stays where it is.
async fn done(work: &mut Option<Work>) -> Outcome {
    match work {
        Some(running) => {
            let outcome = running.await;
            *work = None;
            outcome
        }
        None => std::future::pending().await,
    }
}

async fn pause(pause_ms: Option<u64>) {
    match pause_ms {
        Some(ms) => tokio::time::sleep(Duration::from_millis(ms).min(LOOK_AGAIN)).await,
        None => std::future::pending().await,
    }
}

/// Asks for the next certificate over the connection, as soon as there is one.
async fn renew(fleet: Membership, vault: Vault, known: Option<Credentials>, mut link: watch::Receiver<Link>) -> Outcome {
    let result = match session::connection(&mut link).await {
        Some(connection) => exchange(&fleet, &vault, known, &connection).await,
        None => Err(anyhow::anyhow!("no connection")),
    };
    match result {
        Ok(credentials) => {
            log::info!(until_ms = credentials.identity.not_after_ms; "the certificate is renewed");
            Outcome::issued(credentials)
        }
        Err(error) => {
            log::warn!(reason:% = format!("{error:#}"); "the certificate is not renewed yet");
            Outcome::of(Event::Failed { retry_after_ms: None, jitter_milli: enrol::jitter_milli() })
        }
    }
}

async fn exchange(fleet: &Membership, vault: &Vault, known: Option<Credentials>, connection: &Connection) -> anyhow::Result<Credentials> {
    let known = known.context("not enrolled")?;
    let request = FromNode::Renew { csr: csr(&known.identity.key)? };
    let mut exchange = Exchange::open(connection, &request).await?;
    let FromFleet::Renewed { certificate } = exchange.answer().await? else { anyhow::bail!("the fleet answered no certificate") };
    let identity = Identity::from_pem(&certificate, known.identity.key.clone()).context("read the new certificate")?;
    let credentials = Credentials { identity, ..known };
    let (vault, pin, kept) = (vault.clone(), fleet.ca_pin, credentials.clone());
    tokio::task::spawn_blocking(move || vault.keep(pin, &kept)).await??;
    Ok(credentials)
}
