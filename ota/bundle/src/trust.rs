//! Who may say what nodes run: Ed25519 keys, and the signatures they make.

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use sedge_protocol::Digest;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Said before what is signed, so that a signature of another kind of document is none of a bundle.
const CONTEXT: &[u8] = b"sedge operating system bundle, format 1\n";
/// Suffix of public keys in the directory of trust: 64 hexadecimal digits.
const PUBLIC_SUFFIX: &str = "pub";
/// Most keys that are looked at.
const KEYS_MAX: usize = 16;

/// The name of a key: the digest of its public half.
pub type KeyId = Digest;

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// By which key.
    pub key: KeyId,
    /// 64 bytes.
    pub signature: Vec<u8>,
}

/// A key that signs.
pub struct SigningKey(Ed25519KeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.id()).finish()
    }
}

/// Bytes that are no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 key in PKCS #8")]
pub struct KeyFault;

impl SigningKey {
    /// A new key in the form in which it is kept, PKCS #8.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn generate() -> Result<Vec<u8>, KeyFault> {
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map(|document| document.as_ref().to_owned()).map_err(|_| KeyFault)
    }

    /// Reads a key as [`Self::generate`] made it.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, KeyFault> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).map(Self).map_err(|_| KeyFault)
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        Digest::of(self.0.public_key().as_ref())
    }

    /// Its public half as a file of the directory of trust: name and text.
    #[must_use]
    pub fn public_file(&self) -> (String, String) {
        (format!("{}.{PUBLIC_SUFFIX}", &self.id().hex()[..16]), format!("{}\n", hex::encode(self.0.public_key().as_ref())))
    }

    /// Signs.
    #[must_use]
    pub fn sign(&self, document: &[u8]) -> Signature {
        Signature { key: self.id(), signature: self.0.sign(&[CONTEXT, document].concat()).as_ref().to_owned() }
    }
}

/// The keys a node trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    keys: Vec<[u8; 32]>,
}

/// Why there is no directory of trust.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It cannot be read.
    #[error("read the keys that are trusted, {path}")]
    Read {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A file holds something else.
    #[error("{0} is no public key: it holds 64 hexadecimal digits")]
    Key(PathBuf),
}

/// Why a bundle is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// By nobody who is known here.
    #[error("no key that this box trusts has signed it; it is signed by {}", if .0.is_empty() { "nobody".to_owned() } else { .0.join(", ") })]
    Unknown(Vec<String>),
    /// By one who is known, but of something else.
    #[error("the signature does not hold: the manifest was changed or damaged")]
    Broken,
}

impl Trust {
    /// Reads every `*.pub` of a directory.
    ///
    /// # Errors
    /// When it cannot be read or a file is no key.
    pub fn read(directory: &Path) -> Result<Self, TrustError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            |cause| TrustError::Read { path, cause }
        };
        let mut keys = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed(directory))?.take(KEYS_MAX) {
            let path = entry.map_err(failed(directory))?.path();
            if path.extension().is_some_and(|extension| extension == PUBLIC_SUFFIX) {
                let text = fs::read_to_string(&path).map_err(failed(&path))?;
                let mut key = [0; 32];
                hex::decode_to_slice(text.trim(), &mut key).map_err(|_| TrustError::Key(path))?;
                keys.push(key);
            }
        }
        Ok(Self { keys })
    }

    /// Trusts the keys given.
    #[must_use]
    pub fn of(keys: &[&SigningKey]) -> Self {
        Self { keys: keys.iter().filter_map(|key| key.0.public_key().as_ref().try_into().ok()).collect() }
    }

    /// Whether one of the keys has signed `document`.
    pub(crate) fn check(&self, document: &[u8], signatures: &[Signature]) -> Result<(), VerifyError> {
        let signed = [CONTEXT, document].concat();
        let ours = |signature: &Signature| self.keys.iter().find(|key| Digest::of(*key) == signature.key);
        let mut verdict = Err(VerifyError::Unknown(signatures.iter().map(|signature| signature.key.hex()[..16].to_owned()).collect()));
        for (signature, key) in signatures.iter().filter_map(|signature| Some((signature, ours(signature)?))) {
            match UnparsedPublicKey::new(&ED25519, key).verify(&signed, &signature.signature) {
                Ok(()) => return Ok(()),
                Err(_) => verdict = Err(VerifyError::Broken),
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_pkcs8(&SigningKey::generate().unwrap()).unwrap()
    }

    #[test]
    fn one_trusted_key_is_enough_and_a_changed_document_is_refused() {
        let (ours, other) = (key(), key());
        let trust = Trust::of(&[&ours]);
        let signatures = [other.sign(b"text"), ours.sign(b"text")];
        assert_eq!(trust.check(b"text", &signatures), Ok(()));
        assert_eq!(trust.check(b"teXt", &signatures), Err(VerifyError::Broken));
        assert!(matches!(trust.check(b"text", &signatures[..1]), Err(VerifyError::Unknown(names)) if names[0] == other.id().hex()[..16]));
        assert!(trust.check(b"text", &[]).unwrap_err().to_string().contains("nobody"));
        let stolen_name = Signature { key: ours.id(), ..other.sign(b"text") };
        assert_eq!(trust.check(b"text", &[stolen_name]), Err(VerifyError::Broken));
    }

    #[test]
    fn keys_are_read_from_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let ours = key();
        let (name, text) = ours.public_file();
        fs::write(directory.path().join(&name), text).unwrap();
        fs::write(directory.path().join("README"), "no key").unwrap();
        assert_eq!(Trust::read(directory.path()).unwrap(), Trust::of(&[&ours]));
        fs::write(directory.path().join("bad.pub"), "12").unwrap();
        assert!(matches!(Trust::read(directory.path()), Err(TrustError::Key(path)) if path.ends_with("bad.pub")));
        assert!(Trust::read(&directory.path().join("none")).is_err());
        assert_eq!(SigningKey::from_pkcs8(b"no key").unwrap_err(), KeyFault);
    }
}
