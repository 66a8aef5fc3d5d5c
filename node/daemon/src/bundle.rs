//! A claim from a stick ([`sedge_provisioning::bundle`]): what it grants runs before the fleet was ever reached.
//!
//! ```text
//!  stick ─▶ read, verify ─▶ membership ─────────────────────────▶ enrolment, when there is a way
//!                      └──▶ artifacts ─▶ files; assignments, epoch 0 ─▶ store ─▶ assigner
//! ```
//! Its first part is kept in the data directory, so that the stick can go. Whatever the fleet says later has an epoch that is not smaller.

use crate::assigner;
use anyhow::Context as _;
use sedge_protocol::message::Desired;
use sedge_protocol::{Digest, Labels, NodeId};
use sedge_provisioning::Membership;
use sedge_provisioning::bundle::{self, Bundle, BundleError, Grant};
use sedge_store::{Files, Store, durable};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Pieces in which artifacts are copied.
const CHUNK_BYTES: usize = 64 * 1024;
/// Longest part before the artifacts.
const HEAD_BYTES_MAX: u64 = 1024 * 1024;

/// Where a bundle lies, and where its first part is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) stick: PathBuf,
    pub(crate) kept: PathBuf,
}

impl Place {
    pub(crate) fn new(stick: PathBuf, data_dir: &Path) -> Self {
        Self { stick, kept: data_dir.join("bundle.head") }
    }

    /// The fleet of the bundle: of the stick, else of the one that was there before. A stick that cannot be used is no fault of the
    /// configuration: functions go on.
    pub(crate) fn membership(&self, pin: Option<Digest>, (name, labels): (Option<NodeId>, Labels)) -> Option<Membership> {
        let Bundle { ca_pin, grant } = [&self.stick, &self.kept].into_iter().find_map(|path| match verified(path, pin) {
            Ok(found) => found,
            Err(error) => {
                log::error!(path:% = path.display(), reason:% = error; "the bundle cannot be used");
                None
            }
        })?;
        Some(Membership { url: grant.fleet, ca_pin, claim: Some(grant.claim), name, labels })
    }

    /// Takes what the stick grants, unless a fleet has spoken already. The same again changes nothing. Blocking.
    pub(crate) fn take(&self, fleet: &Membership, store: &Store, files: &Files) -> anyhow::Result<()> {
        if assigner::restore_desired(store)?.epoch > 0 {
            return Ok(());
        }
        let Some(file) = open(&self.stick)? else { return Ok(()) };
        let mut from = Recorded { from: BufReader::new(file), bytes: Some(Vec::new()) };
        let Bundle { grant, .. } = bundle::read(&mut from, Some(fleet.ca_pin))?;
        let head = from.bytes.take().context("just recorded")?;
        copy(&grant, &mut from, files)?;
        durable::replace_private(&self.kept, &head).context("keep the bundle's claim")?;
        let functions = grant.assignments.len();
        assigner::keep_desired(store, &Desired { epoch: 0, assignments: grant.assignments, image: None })?;
        log::info!(functions; "the bundle is taken: its functions run until the fleet says otherwise");
        Ok(())
    }
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
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
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

/// Remembers what is read, as long as it is wanted.
struct Recorded<R> {
    from: R,
    bytes: Option<Vec<u8>>,
}

impl<R: Read> Read for Recorded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.from.read(buffer)?;
        if let Some(bytes) = &mut self.bytes {
            bytes.extend_from_slice(&buffer[..length]);
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::message::Assignment;
    use sedge_protocol::{Manifest, RevisionId};
    use sedge_provisioning::Authority;
    use sedge_store::StoreConfig;
    use std::fs;

    const WASM: &[u8] = b"not run here";

    fn grant() -> Grant {
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
            assert!(assigned().assignments.is_empty() && !place.kept.exists() && !files.contains(Digest::of(WASM).as_bytes()));
        }
        fs::write(&place.stick, [&head[..], WASM].concat()).unwrap();
        let membership = place.membership(None, nobody()).unwrap();
        assert_eq!(
            (membership.url.as_str(), membership.ca_pin, membership.claim.as_deref()),
            ("https://f:1", authority.pin(), Some("token"))
        );
        assert!(place.membership(Some(Digest::of(b"other")), nobody()).is_none(), "another fleet than the configuration's");
        for _ in 0..2 {
            place.take(&membership, &store, &files).unwrap();
            assert_eq!(assigned().assignments, grant().assignments);
        }
        fs::remove_file(&place.stick).unwrap();
        assert_eq!(place.membership(None, nobody()), Some(membership.clone()), "the stick has gone");
        place.take(&membership, &store, &files).unwrap();
        // The fleet has spoken: an older stick says nothing more.
        assigner::keep_desired(&store, &Desired { epoch: 3, assignments: Vec::new(), image: None }).unwrap();
        fs::write(&place.stick, [&head[..], WASM].concat()).unwrap();
        place.take(&membership, &store, &files).unwrap();
        assert_eq!(assigned().epoch, 3);
        store.close().unwrap();
    }
}
