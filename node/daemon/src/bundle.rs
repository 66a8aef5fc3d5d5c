//! A claim from a stick ([`sedge_provisioning::bundle`]): what it grants runs before the fleet was ever reached.
//!
//! ```text
//!  stick ─▶ read, verify ─▶ membership ─────────────────────────▶ enrolment, when there is a way
//!                      └──▶ artifacts ─▶ files; assignments, epoch 0 ─▶ store ─▶ assigner
//! ```
//! Which fleet it names is kept in the data directory, so that the stick can go; the claim goes from there once it was used. Whatever the fleet
//! says later has an epoch that is not smaller.

use crate::{assigner, vault};
use anyhow::Context as _;
use sedge_protocol::message::Desired;
use sedge_protocol::{Digest, Labels, NodeId};
use sedge_provisioning::Membership;
use sedge_provisioning::bundle::{self, Bundle, BundleError, Grant};
use sedge_store::{Files, Store, durable};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Pieces in which artifacts are copied.
const CHUNK_BYTES: usize = 64 * 1024;
/// Longest part before the artifacts.
const HEAD_BYTES_MAX: u64 = 1024 * 1024;
/// In the data directory: the fleet that a bundle has named.
const FLEET: &str = "fleet.json";
/// In the data directory: digest of the first part of the bundle whose functions are here.
const TAKEN: &str = "bundle.taken";

/// Where a bundle lies, and where is kept what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) stick: PathBuf,
    data_dir: PathBuf,
}

/// The fleet that a bundle has named.
#[derive(Debug, Serialize, Deserialize)]
struct Named {
    url: String,
    ca_pin: Digest,
    /// Until it was used.
    claim: Option<String>,
}

impl Named {
    fn read(data_dir: &Path) -> anyhow::Result<Option<Self>> {
        match std::fs::read(data_dir.join(FLEET)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).context("the fleet of the bundle is damaged"),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("read the fleet of the bundle"),
        }
    }

    fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        durable::replace_private(&data_dir.join(FLEET), &serde_json::to_vec(self)?).context("keep the fleet of the bundle")
    }
}

impl Place {
    pub(crate) fn new(stick: PathBuf, data_dir: &Path) -> Self {
        Self { stick, data_dir: data_dir.to_owned() }
    }

    /// The fleet of the bundle: of the stick, else of the one that was there before. A stick that cannot be used is no fault of the
    /// configuration: functions go on.
    pub(crate) fn membership(&self, pin: Option<Digest>, (name, labels): (Option<NodeId>, Labels)) -> Option<Membership> {
        let found = match verified(&self.stick, pin) {
            Ok(found) => found.map(|Bundle { ca_pin, grant }| Named { url: grant.fleet, ca_pin, claim: Some(grant.claim) }),
            Err(error) => {
                log::error!(path:% = self.stick.display(), reason:% = error; "the bundle cannot be used");
                None
            }
        };
        let Named { url, ca_pin, claim } = found.or_else(|| self.named().filter(|named| pin.is_none_or(|pin| pin == named.ca_pin)))?;
        Some(Membership { url, ca_pin, claim, name, labels })
    }

    /// Pin of the fleet that a bundle has named.
    pub(crate) fn pin(&self) -> Option<Digest> {
        self.named().map(|named| named.ca_pin)
    }

    /// Whether the functions of the bundle with this head are here.
    pub(crate) fn was_taken(&self, head: Digest) -> bool {
        std::fs::read_to_string(self.data_dir.join(TAKEN)).is_ok_and(|taken| taken.trim() == head.to_string())
    }

    fn named(&self) -> Option<Named> {
        Named::read(&self.data_dir).unwrap_or_else(|error| {
            log::error!(reason:% = format!("{error:#}"); "the fleet of a bundle is not known any more");
            None
        })
    }

    /// Takes what the stick grants, unless a fleet has spoken already; answers whether there is a bundle that is not needed any more. The same
    /// again changes nothing. Blocking.
    pub(crate) fn take(&self, fleet: &Membership, store: &Store, files: &Files) -> anyhow::Result<bool> {
        let Some(file) = open(&self.stick)? else { return Ok(false) };
        // Once it is enrolled the fleet decides, and a claim that was used does not come back to the disk.
        if vault::is_granted(&self.data_dir, Some(fleet.ca_pin)) || assigner::restore_desired(store)?.epoch > 0 {
            return Ok(true);
        }
        let mut from = BufReader::new(file);
        let (Bundle { ca_pin, grant }, head) = read_head(&mut from, Some(fleet.ca_pin))?;
        copy(&grant, &mut from, files)?;
        let functions = grant.assignments.len();
        Named { url: grant.fleet, ca_pin, claim: Some(grant.claim) }.write(&self.data_dir)?;
        assigner::keep_desired(store, &Desired { epoch: 0, assignments: grant.assignments, image: None })?;
        durable::replace_private(&self.data_dir.join(TAKEN), Digest::of(&head).to_string().as_bytes()).context("keep what was taken")?;
        log::info!(functions; "the bundle is taken: its functions run until the fleet says otherwise");
        Ok(true)
    }
}

/// Takes the claim of a bundle from the disk, once it was used.
pub(crate) fn claim_used(data_dir: &Path) -> anyhow::Result<()> {
    match Named::read(data_dir)? {
        Some(named @ Named { claim: Some(_), .. }) => Named { claim: None, ..named }.write(data_dir),
        _without => Ok(()),
    }
}

/// Reads and verifies what is before the artifacts; answers its bytes too.
pub(crate) fn read_head(from: &mut impl Read, pin: Option<Digest>) -> Result<(Bundle, Vec<u8>), BundleError> {
    let mut from = Recorded { from, bytes: Vec::new() };
    let bundle = bundle::read(&mut from, pin)?;
    Ok((bundle, from.bytes))
}

/// The bundle in a file; none when there is no file.
fn verified(path: &Path, pin: Option<Digest>) -> Result<Option<Bundle>, BundleError> {
    match open(path).map_err(BundleError::Read)? {
        Some(file) => bundle::read(&mut BufReader::new(file).take(HEAD_BYTES_MAX), pin).map(Some),
        None => Ok(None),
    }
}

fn open(path: &Path) -> std::io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Copies each artifact that is not here. Its digest is verified before it gets its name.
fn copy(grant: &Grant, from: &mut impl Read, files: &Files) -> anyhow::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    for (digest, size) in grant.artifacts() {
        let here = files.contains(digest.as_bytes());
        // Its machine code takes about twice as much again.
        files.ensure_room(if here { 0 } else { 3 * size })?;
        let mut partial = (!here).then(|| files.partial(*digest.as_bytes())).transpose()?;
        if let Some(partial) = &mut partial {
            partial.restart()?;
        }
        let mut left = size;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            from.read_exact(&mut chunk[..wanted]).with_context(|| format!("the bundle ends within the artifact {digest}"))?;
            if let Some(partial) = &mut partial {
                partial.append(&chunk[..wanted])?;
            }
            left -= wanted as u64;
        }
        if let Some(partial) = partial {
            partial.finish().with_context(|| format!("the artifact {digest} of the bundle"))?;
        }
    }
    Ok(())
}

/// Remembers what is read.
struct Recorded<'a, R> {
    from: &'a mut R,
    bytes: Vec<u8>,
}

impl<R: Read> Read for Recorded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.from.read(buffer)?;
        self.bytes.extend_from_slice(&buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use sedge_protocol::message::Assignment;
    use sedge_protocol::{Manifest, RevisionId};
    use sedge_provisioning::Authority;
    use sedge_store::StoreConfig;
    use std::fs;

    pub(crate) const WASM: &[u8] = b"not run here";

    pub(crate) fn grant() -> Grant {
        let manifest = Manifest::from_toml("f", "name = 'f'").unwrap().0;
        let artifact = Digest::of(WASM);
        let one = Assignment { revision: RevisionId::of(&artifact, &manifest), artifact, size: WASM.len() as u64, manifest };
        Grant { claim: "token".into(), fleet: "https://f:1".into(), labels: Labels::default(), assignments: vec![one] }
    }

    #[test]
    fn a_stick_is_taken_once_can_go_and_a_damaged_one_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::create(1_800_000_000_000).unwrap();
        let head = bundle::head(&authority, &grant()).unwrap();
        let place = Place::new(directory.path().join("stick"), directory.path());
        let nobody = || (None, Labels::default());
        assert!(place.membership(None, nobody()).is_none(), "no stick");
        let (store, _) = Store::open(&directory.path().join("store"), StoreConfig::default()).unwrap();
        let files = Files::open(&directory.path().join("artifacts"), None).unwrap();
        let assigned = || assigner::restore_desired(&store).unwrap();
        let fleet = Membership { url: "https://f:1".into(), ca_pin: authority.pin(), claim: None, name: None, labels: Labels::default() };
        for damaged in [[&head[..], b"not run her"].concat(), [&head[..], b"NOT run here"].concat(), head[..50].to_vec(), Vec::new()] {
            fs::write(&place.stick, damaged).unwrap();
            assert!(place.take(&fleet, &store, &files).is_err());
            assert!(assigned().assignments.is_empty() && place.named().is_none() && !files.contains(Digest::of(WASM).as_bytes()));
        }
        fs::write(&place.stick, [&head[..], WASM].concat()).unwrap();
        let membership = place.membership(None, nobody()).unwrap();
        assert_eq!(
            (membership.url.as_str(), membership.ca_pin, membership.claim.as_deref()),
            ("https://f:1", authority.pin(), Some("token"))
        );
        assert!(place.membership(Some(Digest::of(b"other")), nobody()).is_none(), "another fleet than the configuration's");
        for _ in 0..2 {
            assert!(place.take(&membership, &store, &files).unwrap());
            assert_eq!(assigned().assignments, grant().assignments);
            assert!(place.was_taken(Digest::of(&head)) && !place.was_taken(Digest::of(b"another")));
        }
        fs::remove_file(&place.stick).unwrap();
        assert_eq!(place.membership(None, nobody()), Some(membership.clone()), "the stick has gone");
        assert!(place.membership(Some(Digest::of(b"other")), nobody()).is_none());
        assert!(!place.take(&membership, &store, &files).unwrap(), "nothing is there that could go");
        for _ in 0..2 {
            claim_used(directory.path()).unwrap();
            let without = Membership { claim: None, ..membership.clone() };
            assert_eq!(place.membership(None, nobody()), Some(without), "the claim was used");
        }
        // The fleet has spoken: an older stick says nothing more.
        assigner::keep_desired(&store, &Desired { epoch: 3, assignments: Vec::new(), image: None }).unwrap();
        fs::write(&place.stick, [&head[..], WASM].concat()).unwrap();
        assert!(place.take(&membership, &store, &files).unwrap());
        assert_eq!(assigned().epoch, 3);
        store.close().unwrap();
    }
}
