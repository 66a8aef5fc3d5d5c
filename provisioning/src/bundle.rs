//! A claim with all that a box needs to begin without a network: one file for a stick, made by the fleet.
//!
//! ```text
//!  "sedge-claim/1\n"  frame Seal { ca, signature }  frame Grant { claim, fleet, labels, functions }  artifact  artifact …
//!                                       └── over the bytes of the grant, by the fleet's authority
//! ```
//! A box that knows the fleet's pin takes no other; a box that knows none trusts who has put the stick in, as with `claim.toml`. The file holds a
//! claim token: it is as secret as that.
//!
//! Invariants: nothing of a grant is parsed before its signature is verified, nothing of an artifact is used before its digest is; every length is
//! bounded before it is read.

use crate::issuer::Authority;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sedge_protocol::frame::{self, FrameError};
use sedge_protocol::limits::{ASSIGNED_MAX, FRAME_BYTES_MAX};
use sedge_protocol::message::Assignment;
use sedge_protocol::{Digest, Labels};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::{self, Read};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The first bytes of the file.
const MAGIC: &[u8; 14] = b"sedge-claim/1\n";
/// What the signature is of, before the grant: it can be taken for that of nothing else.
const CONTEXT: &[u8] = b"sedge-claim/1 grant\0";

/// What a fleet grants to a box that it cannot reach.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The claim token, for when there is a way to the fleet.
    pub claim: String,
    /// Where that is, `https://host:port`.
    pub fleet: String,
    /// Labels that nodes get which use the claim.
    pub labels: Labels,
    /// What the box runs until the fleet says otherwise.
    pub assignments: Vec<Assignment>,
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grant").field("fleet", &self.fleet).field("labels", &self.labels).finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Seal {
    /// The authority's certificate, DER in base64.
    ca: String,
    /// ECDSA over the grant, base64.
    signature: String,
}

/// A grant whose signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Pin of the authority that signed it.
    pub ca_pin: Digest,
    /// What it grants.
    pub grant: Grant,
}

/// Why bytes are not a bundle, or there is none.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file cannot be read, or ends early.
    #[error("the bundle cannot be read, or was cut off")]
    Read(#[source] io::Error),
    /// Something else.
    #[error("this is not a bundle of `sedge claim bundle`")]
    Magic,
    /// A frame of it.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The certificate of the authority.
    #[error("the bundle names no readable authority")]
    Authority,
    /// Another fleet's than was expected.
    #[error("the bundle is of another fleet: its pin is {found}")]
    Pin {
        /// What it is.
        found: Digest,
    },
    /// Changed after it was made.
    #[error("the bundle is not signed by its fleet: it was changed, or damaged on its way")]
    Signature,
    /// A function that is none.
    #[error("the bundle grants a function that cannot be: {0}")]
    Assignment(String),
    /// No signature could be made.
    #[error("sign the bundle")]
    Sign(#[source] rcgen::Error),
}

impl Grant {
    /// Each artifact once, with its size, in the order in which they follow.
    #[must_use]
    pub fn artifacts(&self) -> Vec<(Digest, u64)> {
        let mut seen = BTreeSet::new();
        let all = self.assignments.iter().map(|assignment| (assignment.artifact, assignment.size));
        all.filter(|(digest, _)| seen.insert(*digest)).collect()
    }

    fn check(&self) -> Result<(), BundleError> {
        if self.assignments.len() > ASSIGNED_MAX {
            return Err(BundleError::Assignment(format!("{} of them; {ASSIGNED_MAX} are allowed", self.assignments.len())));
        }
        self.assignments.iter().try_for_each(|assignment| assignment.check().map_err(BundleError::Assignment))
    }
}

/// The bytes before the artifacts.
///
/// # Errors
/// When the grant is too large for a frame, or nothing can be signed.
pub fn head(authority: &Authority, grant: &Grant) -> Result<Vec<u8>, BundleError> {
    let grant = frame::encode(grant)?;
    let signature = authority.sign(&signed(&grant[4..])).map_err(BundleError::Sign)?;
    let seal = Seal { ca: STANDARD.encode(authority.certificate()), signature: STANDARD.encode(signature) };
    Ok([MAGIC.as_slice(), &frame::encode(&seal)?, &grant].concat())
}

/// Reads and verifies all before the artifacts. With `pin`, a bundle of another fleet is refused.
///
/// # Errors
/// See [`BundleError`].
pub fn read(from: &mut impl Read, pin: Option<Digest>) -> Result<Bundle, BundleError> {
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic).map_err(BundleError::Read)?;
    if magic != *MAGIC {
        return Err(BundleError::Magic);
    }
    let seal: Seal = decode(&body(from)?)?;
    let authority = STANDARD.decode(&seal.ca).map_err(|_| BundleError::Authority)?;
    let found = Digest::of(&authority);
    if pin.is_some_and(|pin| pin != found) {
        return Err(BundleError::Pin { found });
    }
    let (_, parsed) = X509Certificate::from_der(&authority).map_err(|_| BundleError::Authority)?;
    let key =
        ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_ASN1, &parsed.public_key().subject_public_key.data);
    let signature = STANDARD.decode(&seal.signature).map_err(|_| BundleError::Signature)?;
    let grant = body(from)?;
    key.verify(&signed(&grant), &signature).map_err(|_| BundleError::Signature)?;
    let grant: Grant = decode(&grant)?;
    grant.check()?;
    Ok(Bundle { ca_pin: found, grant })
}

fn signed(grant: &[u8]) -> Vec<u8> {
    [CONTEXT, grant].concat()
}

fn body(from: &mut impl Read) -> Result<Vec<u8>, BundleError> {
    let mut prefix = [0; 4];
    from.read_exact(&mut prefix).map_err(BundleError::Read)?;
    let length = u32::from_be_bytes(prefix) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(length).into());
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).map_err(BundleError::Read)?;
    Ok(body)
}

fn decode<M: DeserializeOwned>(body: &[u8]) -> Result<M, BundleError> {
    Ok(frame::decode_body(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::{Manifest, RevisionId};

    fn grant() -> Grant {
        let manifest = Manifest::from_toml("f", "name = 'f'").unwrap().0;
        let artifact = Digest::of(b"wasm");
        let one = Assignment { revision: RevisionId::of(&artifact, &manifest), artifact, size: 4, manifest };
        let mut labels = Labels::default();
        labels.insert("site", "barn").unwrap();
        Grant { claim: "token".into(), fleet: "https://f:1".into(), labels, assignments: vec![one.clone(), one] }
    }

    fn authority() -> Authority {
        Authority::create(1_800_000_000_000).unwrap()
    }

    #[test]
    fn what_a_fleet_grants_is_read_as_it_was_written_and_artifacts_follow() {
        let (authority, grant) = (authority(), grant());
        let file = [head(&authority, &grant).unwrap(), b"wasm".to_vec()].concat();
        let mut from = file.as_slice();
        let bundle = read(&mut from, Some(authority.pin())).unwrap();
        assert_eq!((bundle.ca_pin, &bundle.grant), (authority.pin(), &grant));
        assert_eq!((from, grant.artifacts()), (b"wasm".as_slice(), vec![(Digest::of(b"wasm"), 4)]));
        assert_eq!(read(&mut file.as_slice(), None).unwrap(), bundle);
        assert!(!format!("{bundle:?}").contains("token"));
    }

    #[test]
    fn a_bundle_of_another_fleet_or_without_its_signature_is_refused() {
        let (ours, theirs) = (authority(), authority());
        let file = head(&theirs, &grant()).unwrap();
        assert!(matches!(read(&mut file.as_slice(), Some(ours.pin())), Err(BundleError::Pin { found }) if found == theirs.pin()));
        // Our certificate before their signature.
        let seal = Seal { ca: STANDARD.encode(ours.certificate()), signature: STANDARD.encode(theirs.sign(b"x").unwrap()) };
        let forged = [MAGIC.as_slice(), &frame::encode(&seal).unwrap(), &frame::encode(&grant()).unwrap()].concat();
        assert!(matches!(read(&mut forged.as_slice(), Some(ours.pin())), Err(BundleError::Signature)));
        let mut wrong = grant();
        wrong.assignments[0].size = u64::MAX;
        assert!(matches!(read(&mut head(&ours, &wrong).unwrap().as_slice(), None), Err(BundleError::Assignment(_))));
    }

    #[test]
    fn no_bit_may_flip_and_no_byte_be_missing() {
        let authority = authority();
        let file = head(&authority, &grant()).unwrap();
        for cut in 0..file.len() {
            assert!(read(&mut &file[..cut], None).is_err(), "{cut}");
        }
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 4;
            assert!(read(&mut changed.as_slice(), Some(authority.pin())).is_err(), "byte {at}");
        }
        assert!(matches!(read(&mut [b"sedge-claim/1\n".as_slice(), &[0xff; 4]].concat().as_slice(), None), Err(BundleError::Frame(_))));
    }
}
