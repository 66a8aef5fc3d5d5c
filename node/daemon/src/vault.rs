//! The file that keeps key and certificate.
//!
//! The key is on disk before the claim is presented, so that a power cut in between presents the same key again and gets the same node.
//!
//! ```text
//!  identity.json          of the fleet that is named now
//!  identity.aside-N.json  of another fleet, or damaged: it comes back when its fleet is named again, and is never written over
//! ```

use crate::bundle;
use anyhow::Context as _;
use sedge_protocol::Digest;
use sedge_provisioning::enrolment::Life;
use sedge_provisioning::{Identity, KeyPem, new_key};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Its name in the data directory.
const IDENTITY: &str = "identity.json";
/// Begin of the names of those that wait beside.
const ASIDE: &str = "identity.aside-";

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

/// Whether a fleet, or the one with this pin, has granted something to the node with this data directory.
pub(crate) fn is_granted(data_dir: &Path, ca_pin: Option<Digest>) -> bool {
    let kept = std::fs::read(data_dir.join(IDENTITY)).ok().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
    kept.is_some_and(|kept| kept.granted.is_some() && ca_pin.is_none_or(|pin| pin == kept.ca_pin))
}

/// Whether a file of the data directory holds a key, of whatever fleet.
pub(crate) fn is_identity(name: &str) -> bool {
    name == IDENTITY || name.starts_with(ASIDE)
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

    /// The key for this fleet and what it was granted. A key that cannot be used, or belongs to another fleet, is put aside for the one that
    /// this fleet knows, or for a new one; it is not deleted.
    pub(crate) fn open(&self, ca_pin: Digest) -> anyhow::Result<(KeyPem, Option<Credentials>)> {
        let kept = match self.read(ca_pin)? {
            Some(kept) => Some(kept),
            None => self.bring_back(ca_pin)?,
        };
        if let Some(kept) = kept {
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
        let Some(bytes) = bytes(&self.path)? else { return Ok(None) };
        if let Some(kept) = of_fleet(&bytes, ca_pin) {
            return Ok(Some(kept));
        }
        let mut free = (1_u32..).map(|number| self.path.with_file_name(format!("{ASIDE}{number}.json"))).filter(|path| !path.exists());
        let aside = free.next().context("no name is free beside the identity")?;
        std::fs::rename(&self.path, &aside).with_context(|| format!("put {} aside", self.path.display()))?;
        log::warn!(path:% = aside.display(); "the identity is damaged or of another fleet: put aside");
        Ok(None)
    }

    /// Takes back what was put aside when another fleet was named: the one with a certificate before one without.
    fn bring_back(&self, ca_pin: Digest) -> anyhow::Result<Option<Kept>> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let mut found: Option<(PathBuf, Kept)> = None;
        for entry in std::fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))? {
            let entry = entry.with_context(|| format!("read {}", directory.display()))?;
            if !entry.file_name().to_string_lossy().starts_with(ASIDE) {
                continue;
            }
            let kept = bytes(&entry.path())?.and_then(|bytes| of_fleet(&bytes, ca_pin));
            found = match (found, kept) {
                (Some(found), Some(kept)) if found.1.granted.is_some() || kept.granted.is_none() => Some(found),
                (_, Some(kept)) => Some((entry.path(), kept)),
                (found, None) => found,
            };
        }
        let Some((path, kept)) = found else { return Ok(None) };
        std::fs::rename(&path, &self.path).with_context(|| format!("take {} back", path.display()))?;
        log::info!(path:% = path.display(); "the identity that this fleet knows is taken back");
        Ok(Some(kept))
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

/// The content of a file, if there is one.
fn bytes(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// An identity that is whole and of this fleet.
fn of_fleet(bytes: &[u8], ca_pin: Digest) -> Option<Kept> {
    serde_json::from_slice::<Kept>(bytes).ok().filter(|kept| kept.ca_pin == ca_pin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_key_of_a_fleet_comes_back_when_that_fleet_is_named_again() {
        let data = tempfile::tempdir().unwrap();
        let vault = Vault::new(data.path());
        let (ours, slip) = (Digest::of(b"ours"), Digest::of(b"a slip of the pen"));
        let key = |pin| vault.open(pin).unwrap().0.secret().to_owned();
        let first = key(ours);
        let other = key(slip);
        assert_ne!(first, other);
        for _ in 0..2 {
            assert_eq!((key(ours), key(slip)), (first.clone(), other.clone()));
        }
        // What is damaged is kept, and nothing is written over it.
        fs::write(data.path().join(IDENTITY), "{").unwrap();
        assert_eq!(key(ours), first);
        let damaged = fs::read_dir(data.path()).unwrap().filter(|entry| fs::read(entry.as_ref().unwrap().path()).unwrap() == b"{");
        assert_eq!(damaged.count(), 1);
        assert!(is_identity(IDENTITY) && is_identity("identity.aside-7.json") && !is_identity("fleet.json"));
    }

    #[test]
    fn of_two_of_one_fleet_the_granted_one_comes_back() {
        let data = tempfile::tempdir().unwrap();
        let vault = Vault::new(data.path());
        let kept = |key: &str, granted: bool| Kept {
            ca_pin: Digest::of(b"ours"),
            key: key.to_owned(),
            granted: granted.then(|| Granted { certificate: String::new(), ca: String::new(), sync: String::new(), claim: None }),
        };
        for (number, kept) in [(1, kept("a", false)), (2, kept("b", true)), (3, kept("c", false))] {
            fs::write(data.path().join(format!("{ASIDE}{number}.json")), serde_json::to_vec(&kept).unwrap()).unwrap();
        }
        assert_eq!(vault.open(Digest::of(b"ours")).unwrap().0.secret(), "b");
    }
}
