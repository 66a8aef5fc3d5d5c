//! Renews the certificate at two thirds of its life, over the connection it has.

use crate::clock;
use crate::enrol::{Credentials, Vault, wait};
use crate::session::{self, Exchange, Link};
use crate::supervisor::Supervisor;
use anyhow::Context as _;
use quinn::Connection;
use sedge_protocol::Digest;
use sedge_protocol::message::{FromFleet, FromNode};
use sedge_provisioning::enrolment::{Action, Enrolment, Event};
use sedge_provisioning::{Identity, csr};
use tokio::sync::watch;

/// What renewal works with.
#[derive(Debug)]
pub(crate) struct Renewal {
    pub(crate) ca_pin: Digest,
    pub(crate) vault: Vault,
    pub(crate) credentials: watch::Sender<Option<Credentials>>,
    pub(crate) link: watch::Receiver<Link>,
    pub(crate) supervisor: Supervisor,
}

/// Runs until the daemon stops.
pub(crate) async fn run(mut renewal: Renewal) -> anyhow::Result<()> {
    let stop = renewal.supervisor.stop().clone();
    let mut enrolled = renewal.credentials.subscribe();
    let life = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        known = enrolled.wait_for(Option::is_some) => known?.as_ref().map(Credentials::life).context("just seen")?,
    };
    let (mut machine, mut event) = (Enrolment::enrolled(life), Event::Tick);
    loop {
        let (next, action) = machine.on(event, clock::wall().0);
        machine = next;
        event = match action {
            Some(Action::Renew) => {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    event = renew(&mut renewal) => event,
                }
            }
            Some(Action::Enrol) | None => {
                if !wait(machine.due_ms(), &stop).await {
                    return Ok(());
                }
                Event::Tick
            }
        };
    }
}

async fn renew(renewal: &mut Renewal) -> Event {
    let result = match session::connection(&mut renewal.link).await {
        Some(connection) => exchange(renewal, &connection).await,
        None => Err(anyhow::anyhow!("no connection")),
    };
    match result {
        Ok(credentials) => {
            let life = credentials.life();
            log::info!(until_ms = life.not_after_ms; "the certificate is renewed");
            renewal.credentials.send_replace(Some(credentials));
            Event::Issued(life)
        }
        Err(error) => {
            log::warn!(reason:% = format!("{error:#}"); "the certificate is not renewed yet");
            Event::Failed { retry_after_ms: None, jitter_milli: rand::random_range(0..=1000) }
        }
    }
}

async fn exchange(renewal: &Renewal, connection: &Connection) -> anyhow::Result<Credentials> {
    let known = renewal.credentials.borrow().clone().context("not enrolled")?;
    let request = FromNode::Renew { csr: csr(&known.identity.key)? };
    let mut exchange = Exchange::open(connection, &request).await?;
    let FromFleet::Renewed { certificate } = exchange.answer().await? else { anyhow::bail!("the fleet answered no certificate") };
    let identity = Identity::from_pem(&certificate, known.identity.key.clone()).context("read the new certificate")?;
    anyhow::ensure!(identity.node == known.identity.node, "the new certificate names {}", identity.node);
    let credentials = Credentials { identity, ..known };
    let (vault, pin, kept) = (renewal.vault.clone(), renewal.ca_pin, credentials.clone());
    tokio::task::spawn_blocking(move || vault.keep(pin, &kept)).await??;
    Ok(credentials)
}
