//! Enrolment: from a claim to a certificate, and the file that keeps both key and certificate.
//!
//! The decisions are those of `sedge_provisioning::Enrolment`; here is who carries them out. The key is on disk before the claim is
//! presented, so that a power cut in between presents the same key again and gets the same node.

use crate::clock;
use anyhow::Context as _;
use sedge_protocol::Digest;
use sedge_protocol::enrol::EnrolRequest;
use sedge_provisioning::client::{EnrolError, enrol};
use sedge_provisioning::enrolment::{Action, Enrolment, Event, Life};
use sedge_provisioning::{Identity, KeyPem, Membership, csr, new_key};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Longest sleep before the clock is looked at again: it may have jumped.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Everything a node needs to open a connection.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) identity: Identity,
    pub(crate) ca_pem: String,
    /// `host:port` of the fleet's QUIC endpoint.
    pub(crate) sync: String,
}

impl Credentials {
    /// Begin and end of the certificate.
    pub(crate) fn life(&self) -> Life {
        Life { not_before_ms: self.identity.not_before_ms, not_after_ms: self.identity.not_after_ms }
    }
}

/// The file with key and certificate; only the daemon may read it.
#[derive(Debug, Clone)]
pub(crate) struct Vault {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    ca_pin: Digest,
    key: String,
    granted: Option<Granted>,
}

#[derive(Serialize, Deserialize)]
struct Granted {
    certificate: String,
    ca: String,
    sync: String,
}

impl Vault {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join("identity.json") }
    }

    /// The key for this fleet and what it was granted. A key that cannot be used, or belongs to another fleet, is put aside for a
    /// new one; it is not deleted.
    fn open(&self, ca_pin: Digest) -> anyhow::Result<(KeyPem, Option<Credentials>)> {
        if let Some(kept) = self.read(ca_pin)? {
            let key = KeyPem::new(kept.key);
            let credentials = kept.granted.and_then(|granted| {
                let identity = Identity::from_pem(&granted.certificate, key.clone()).ok()?;
                Some(Credentials { identity, ca_pem: granted.ca, sync: granted.sync })
            });
            return Ok((key, credentials));
        }
        let key = new_key().context("make a key")?;
        self.write(&Kept { ca_pin, key: key.secret().to_owned(), granted: None })?;
        Ok((key, None))
    }

    fn read(&self, ca_pin: Digest) -> anyhow::Result<Option<Kept>> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", self.path.display())),
        };
        if let Some(kept) = serde_json::from_slice::<Kept>(&bytes).ok().filter(|kept| kept.ca_pin == ca_pin) {
            return Ok(Some(kept));
        }
        let aside = self.path.with_extension("aside.json");
        std::fs::rename(&self.path, &aside).with_context(|| format!("put {} aside", self.path.display()))?;
        log::warn!(path:% = aside.display(); "the identity is damaged or of another fleet: put aside, a new one is made");
        Ok(None)
    }

    /// Keeps what was granted.
    pub(crate) fn keep(&self, ca_pin: Digest, credentials: &Credentials) -> anyhow::Result<()> {
        let granted =
            Granted { certificate: credentials.identity.cert_pem.clone(), ca: credentials.ca_pem.clone(), sync: credentials.sync.clone() };
        self.write(&Kept { ca_pin, key: credentials.identity.key.secret().to_owned(), granted: Some(granted) })
    }

    fn write(&self, kept: &Kept) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec_pretty(kept).context("encode the identity")?;
        sedge_store::durable::replace_private(&self.path, &bytes).with_context(|| format!("write {}", self.path.display()))
    }
}

/// Enrols if need be. Answers `None` when the daemon stops first.
pub(crate) async fn obtain(fleet: &Membership, vault: &Vault, stop: &CancellationToken) -> anyhow::Result<Option<Credentials>> {
    let Some((key, credentials)) = open(fleet, vault, stop).await? else { return Ok(None) };
    if credentials.is_some() {
        return Ok(credentials);
    }
    let mut machine = Enrolment::unclaimed();
    let mut event = Event::ClaimFound;
    if fleet.claim.is_none() {
        log::error!("this node is not enrolled and has no claim: put `claim` into [fleet]; functions of its own go on");
        stop.cancelled().await;
        return Ok(None);
    }
    loop {
        let (next, action) = machine.on(event, clock::wall().0);
        machine = next;
        event = match action {
            Some(Action::Enrol) => match present(fleet, vault, &key).await {
                Ok(credentials) => {
                    log::info!(node:% = credentials.identity.node; "enrolled");
                    return Ok(Some(credentials));
                }
                Err(error) => explain(&error),
            },
            Some(Action::Renew) | None => {
                if !wait(machine.due_ms(), stop).await {
                    return Ok(None);
                }
                Event::Tick
            }
        };
    }
}

/// Presents the claim of the configuration once more, for a node that the fleet has forgotten.
pub(crate) async fn again(fleet: &Membership, vault: &Vault, key: &KeyPem) -> Option<Credentials> {
    fleet.claim.as_ref()?;
    match present(fleet, vault, key).await {
        Ok(credentials) => {
            log::info!(node:% = credentials.identity.node; "enrolled again");
            Some(credentials)
        }
        Err(error) => {
            explain(&error);
            None
        }
    }
}

/// Opens the vault, again and again while the disk refuses: functions go on meanwhile.
async fn open(fleet: &Membership, vault: &Vault, stop: &CancellationToken) -> anyhow::Result<Option<(KeyPem, Option<Credentials>)>> {
    loop {
        let (opened, pin) = (vault.clone(), fleet.ca_pin);
        match tokio::task::spawn_blocking(move || opened.open(pin)).await? {
            Ok(opened) => return Ok(Some(opened)),
            Err(error) => log::error!(reason:% = format!("{error:#}"); "the identity cannot be used; trying again"),
        }
        if !wait(Some(u64::MAX), stop).await {
            return Ok(None);
        }
    }
}

/// Waits until `due_ms` or a look at the clock; for ever when there is nothing to wait for. False when the daemon stops.
pub(crate) async fn wait(due_ms: Option<u64>, stop: &CancellationToken) -> bool {
    let pause = due_ms.map(|due| Duration::from_millis(due.saturating_sub(clock::wall().0)).min(LOOK_AGAIN));
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => true,
    }
}

#[derive(Debug, thiserror::Error)]
enum PresentError {
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    #[error("{0:#}")]
    Local(anyhow::Error),
}

async fn present(fleet: &Membership, vault: &Vault, key: &KeyPem) -> Result<Credentials, PresentError> {
    let (fleet, vault, key) = (fleet.clone(), vault.clone(), key.clone());
    let local = |error: anyhow::Error| PresentError::Local(error);
    let task = tokio::task::spawn_blocking(move || {
        let csr = csr(&key).map_err(|error| local(error.into()))?;
        let claim = fleet.claim.clone().unwrap_or_default();
        let request = EnrolRequest { claim, csr, name: fleet.name.clone(), labels: fleet.labels.clone() };
        let (enrolled, ca_pem) = enrol(&fleet.url, fleet.ca_pin, &request)?;
        let identity = Identity::from_pem(&enrolled.certificate, key).map_err(|error| local(error.into()))?;
        let credentials = Credentials { identity, ca_pem, sync: enrolled.sync };
        vault.keep(fleet.ca_pin, &credentials).map_err(local)?;
        Ok(credentials)
    });
    task.await.map_err(|error| PresentError::Local(error.into()))?
}

fn explain(error: &PresentError) -> Event {
    let jitter_milli = rand::random_range(0..=1000);
    match error {
        PresentError::Enrol(EnrolError::Refused { reason, retry_after_s: None }) => {
            log::error!(reason; "the fleet refused the claim for good: make a new one with `sedge claim create` and put it into [fleet]");
            Event::Refused { reason: reason.clone() }
        }
        PresentError::Enrol(EnrolError::Refused { reason, retry_after_s: Some(seconds) }) => {
            log::warn!(reason, retry_after_s = seconds; "the fleet refused the claim for now");
            Event::Failed { retry_after_ms: Some(seconds.saturating_mul(1000)), jitter_milli }
        }
        PresentError::Enrol(EnrolError::NotTheFleet { .. }) => {
            log::error!(reason:% = error; "wrong server or wrong `ca_pin`");
            Event::Failed { retry_after_ms: None, jitter_milli }
        }
        PresentError::Enrol(EnrolError::Unreachable { .. } | EnrolError::Answer { .. }) | PresentError::Local(_) => {
            log::warn!(reason:% = error; "not enrolled yet, trying again");
            Event::Failed { retry_after_ms: None, jitter_milli }
        }
    }
}
