//! The file that keeps key and certificate.
//!
//! The key is on disk before the claim is presented, so that a power cut in between presents the same key again and gets the same node.

use crate::bundle;
use anyhow::Context as _;
use sedge_protocol::Digest;
use sedge_provisioning::enrolment::Life;
use sedge_provisioning::{Identity, KeyPem, new_key};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Its name in the data directory.
const IDENTITY: &str = "identity.json";

/// Everything a node needs to open a connection.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) identity: Identity,
    pub(crate) ca_pem: String,
    /// `host:port` of the fleet's QUIC endpoint.
    pub(crate) sync: String,
    /// Digest of the claim that the node joined with, where it is known.
    pub(crate) claim: Option<Digest>,
}

impl Credentials {
    /// Begin and end of the certificate.
    pub(crate) fn life(&self) -> Life {
        Life { not_before_ms: self.identity.not_before_ms, not_after_ms: self.identity.not_after_ms }
    }

    /// Whether a claim is another than the one that the node joined with.
    pub(crate) fn is_new(&self, claim: Option<Digest>) -> bool {
        claim.is_some() && claim != self.claim
    }
}

/// Whether a fleet has granted something to the node with this data directory.
pub(crate) fn is_granted(data_dir: &Path) -> bool {
    let kept = std::fs::read(data_dir.join(IDENTITY)).ok().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
    kept.is_some_and(|kept| kept.granted.is_some())
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
    #[serde(default)]
    claim: Option<Digest>,
}

impl Vault {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join(IDENTITY) }
    }

    /// The key for this fleet and what it was granted. A key that cannot be used, or belongs to another fleet, is put aside for a
    /// new one; it is not deleted.
    pub(crate) fn open(&self, ca_pin: Digest) -> anyhow::Result<(KeyPem, Option<Credentials>)> {
        if let Some(kept) = self.read(ca_pin)? {
            let key = KeyPem::new(kept.key);
            let credentials = kept.granted.and_then(|granted| {
                let identity = Identity::from_pem(&granted.certificate, key.clone()).ok()?;
                Some(Credentials { identity, ca_pem: granted.ca, sync: granted.sync, claim: granted.claim })
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

    /// Keeps what was granted. The claim of a bundle has done its work then.
    pub(crate) fn keep(&self, ca_pin: Digest, credentials: &Credentials) -> anyhow::Result<()> {
        let granted = Granted {
            certificate: credentials.identity.cert_pem.clone(),
            ca: credentials.ca_pem.clone(),
            sync: credentials.sync.clone(),
            claim: credentials.claim,
        };
        self.write(&Kept { ca_pin, key: credentials.identity.key.secret().to_owned(), granted: Some(granted) })?;
        if let Some(data_dir) = self.path.parent()
            && let Err(error) = bundle::claim_used(data_dir)
        {
            log::warn!(reason:% = format!("{error:#}"); "the claim of the bundle is still on the disk");
        }
        Ok(())
    }

    fn write(&self, kept: &Kept) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec_pretty(kept).context("encode the identity")?;
        sedge_store::durable::replace_private(&self.path, &bytes).with_context(|| format!("write {}", self.path.display()))
    }
}
