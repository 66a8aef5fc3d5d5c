//! The exchanges that bring a certificate without having a good one: the claim, and the way back for a key that the fleet knows.
//!
//! The decisions are those of `sedge_provisioning::Enrolment`; here is who carries them out.

use crate::vault::{Credentials, Vault};
use sedge_protocol::Digest;
use sedge_protocol::enrol::{EnrolRequest, Enrolled, ReturnRequest};
use sedge_provisioning::client::{self, EnrolError};
use sedge_provisioning::enrolment::Event;
use sedge_provisioning::{Identity, KeyPem, Membership, csr};

/// What an exchange came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) event: Event,
    /// What was granted and is on disk.
    pub(crate) credentials: Option<Credentials>,
}

impl Outcome {
    pub(crate) fn of(event: Event) -> Self {
        Self { event, credentials: None }
    }

    pub(crate) fn issued(credentials: Credentials) -> Self {
        Self { event: Event::Issued(credentials.life()), credentials: Some(credentials) }
    }
}

#[derive(Debug, thiserror::Error)]
enum ExchangeError {
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    #[error("{0:#}")]
    Local(anyhow::Error),
}

/// The random part of a pause, thousandths.
pub(crate) fn jitter_milli() -> u32 {
    rand::random_range(0..=1000)
}

/// The digest of the claim that the configuration holds.
pub(crate) fn claim_digest(fleet: &Membership) -> Option<Digest> {
    fleet.claim.as_ref().map(|claim| Digest::of(claim.trim().as_bytes()))
}

/// Presents the claim of the configuration.
pub(crate) async fn present(fleet: Membership, vault: Vault, key: KeyPem) -> Outcome {
    let Some(claim) = fleet.claim.clone() else {
        log::error!("a new claim (`sedge claim create`) in [fleet] lets this node join again");
        return Outcome::of(Event::Refused { reason: "there is no claim in [fleet]".to_owned() });
    };
    let digest = claim_digest(&fleet);
    let task = tokio::task::spawn_blocking(move || {
        let request = EnrolRequest { claim, csr: request(&key)?, name: fleet.name.clone(), labels: fleet.labels.clone() };
        keep(&fleet, &vault, (key, digest), client::enrol(&fleet.url, fleet.ca_pin, &request)?)
    });
    match task.await.map_err(|error| ExchangeError::Local(error.into())).flatten() {
        Ok(credentials) => {
            log::info!(node:% = credentials.identity.node; "enrolled");
            Outcome::issued(credentials)
        }
        Err(error) => Outcome::of(explain(&error)),
    }
}

/// Asks for a certificate with the key that the fleet knows.
pub(crate) async fn come_back(fleet: Membership, vault: Vault, known: Option<Credentials>) -> Outcome {
    let Some(known) = known else { return Outcome::of(Event::Refused { reason: "not enrolled".to_owned() }) };
    log::warn!(node:% = known.identity.node; "the certificate has expired: asking for another with the same key");
    let new_claim = known.is_new(claim_digest(&fleet));
    let task = tokio::task::spawn_blocking(move || {
        let key = known.identity.key.clone();
        let request = ReturnRequest { node: known.identity.node.clone(), csr: request(&key)? };
        keep(&fleet, &vault, (key, known.claim), client::come_back(&fleet.url, fleet.ca_pin, &request)?)
    });
    match task.await.map_err(|error| ExchangeError::Local(error.into())).flatten() {
        Ok(credentials) => {
            log::info!(node:% = credentials.identity.node, until_ms = credentials.identity.not_after_ms; "the fleet has taken the node back");
            Outcome::issued(credentials)
        }
        Err(ExchangeError::Enrol(EnrolError::Revoked { reason })) => {
            Outcome::of(Event::Revoked { reason, new_claim, jitter_milli: jitter_milli() })
        }
        Err(error) => Outcome::of(explain(&error)),
    }
}

fn request(key: &KeyPem) -> Result<String, ExchangeError> {
    csr(key).map_err(|error| ExchangeError::Local(error.into()))
}

/// Writes down what was granted, before anybody uses it.
fn keep(
    fleet: &Membership,
    vault: &Vault,
    (key, claim): (KeyPem, Option<Digest>),
    (enrolled, ca_pem): (Enrolled, String),
) -> Result<Credentials, ExchangeError> {
    let identity = Identity::from_pem(&enrolled.certificate, key).map_err(|error| ExchangeError::Local(error.into()))?;
    let credentials = Credentials { identity, ca_pem, sync: enrolled.sync, claim };
    vault.keep(fleet.ca_pin, &credentials).map_err(ExchangeError::Local)?;
    Ok(credentials)
}

fn explain(error: &ExchangeError) -> Event {
    let jitter_milli = jitter_milli();
    match error {
        ExchangeError::Enrol(EnrolError::Refused { reason, retry_after_s: None } | EnrolError::Revoked { reason }) => {
            log::error!(reason; "the fleet refused for good: make a new claim with `sedge claim create` and put it into [fleet]");
            Event::Refused { reason: reason.clone() }
        }
        ExchangeError::Enrol(EnrolError::Refused { reason, retry_after_s: Some(seconds) }) => {
            log::warn!(reason, retry_after_s = seconds; "the fleet refused for now");
            Event::Failed { retry_after_ms: Some(seconds.saturating_mul(1000)), jitter_milli }
        }
        ExchangeError::Enrol(EnrolError::NotTheFleet { .. }) => {
            log::error!(reason:% = error; "wrong server or wrong `ca_pin`");
            Event::Failed { retry_after_ms: None, jitter_milli }
        }
        ExchangeError::Enrol(EnrolError::Unreachable { .. } | EnrolError::Answer { .. }) | ExchangeError::Local(_) => {
            log::warn!(reason:% = error; "no certificate yet, trying again");
            Event::Failed { retry_after_ms: None, jitter_milli }
        }
    }
}
