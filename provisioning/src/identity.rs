//! The node's side of identity: its key, its request, its certificate.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sedge_protocol::{Digest, NodeId};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why a text is not the identity it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// No readable certificate.
    #[error("not a certificate")]
    Certificate,
    /// Its subject is not a node id.
    #[error("the certificate does not name a node")]
    Subject,
    /// No readable private key.
    #[error("not a private key")]
    Key,
}

/// No key or no request could be made.
#[derive(Debug, thiserror::Error)]
#[error("make a key or a certificate request")]
pub struct KeyError(#[from] rcgen::Error);

/// A private key, PEM. Its debug output shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPem(String);

impl KeyPem {
    /// Wraps a key that was read from its file.
    #[must_use]
    pub fn new(pem: String) -> Self {
        Self(pem)
    }

    /// The key itself: for its file, which only the daemon can read, and for TLS.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for KeyPem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyPem(..)")
    }
}

/// A new key, ECDSA P-256.
///
/// # Errors
/// When the system has no randomness.
pub fn new_key() -> Result<KeyPem, KeyError> {
    Ok(KeyPem(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_pem()))
}

/// A certificate request for `key`, PEM. It names nobody: the fleet gives the name.
///
/// # Errors
/// When `key` cannot be read.
pub fn csr(key: &KeyPem) -> Result<String, KeyError> {
    let key = KeyPair::from_pem(&key.0)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(&key)?.pem()?)
}

/// Who a node is, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub node: NodeId,
    /// Its key.
    pub key: KeyPem,
    /// Its certificate, PEM.
    pub cert_pem: String,
    /// When the certificate begins, milliseconds since 1970.
    pub not_before_ms: u64,
    /// When the certificate ends, milliseconds since 1970.
    pub not_after_ms: u64,
}

impl Identity {
    /// Reads the certificate and checks that it belongs to `key`.
    ///
    /// # Errors
    /// When they cannot be read or do not belong together.
    pub fn from_pem(cert_pem: &str, key: KeyPem) -> Result<Self, PemError> {
        let certificate = CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(|_| PemError::Certificate)?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| PemError::Certificate)?;
        let pair = KeyPair::from_pem(&key.0).map_err(|_| PemError::Key)?;
        if parsed.public_key().subject_public_key.data.as_ref() != pair.public_key_raw() {
            return Err(PemError::Key);
        }
        let (not_before_ms, not_after_ms) = validity(&certificate)?;
        Ok(Self { node: node_of(&certificate)?, key, cert_pem: cert_pem.to_owned(), not_before_ms, not_after_ms })
    }

    /// When to ask for the next certificate: at two thirds of this one's life.
    #[must_use]
    pub fn renew_at_ms(&self) -> u64 {
        renew_at_ms(self.not_before_ms, self.not_after_ms)
    }
}

/// Two thirds of the way from begin to end.
#[must_use]
pub fn renew_at_ms(not_before_ms: u64, not_after_ms: u64) -> u64 {
    not_before_ms + not_after_ms.saturating_sub(not_before_ms) / 3 * 2
}

/// The node that a certificate names.
///
/// # Errors
/// When it names none. The signature is not looked at: TLS has done that.
pub fn node_of(certificate: &CertificateDer<'_>) -> Result<NodeId, PemError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| PemError::Certificate)?;
    let mut names = parsed.subject().iter_common_name();
    let name = names.next().and_then(|name| name.as_str().ok()).ok_or(PemError::Subject)?;
    if names.next().is_some() {
        return Err(PemError::Subject);
    }
    name.parse().map_err(|_| PemError::Subject)
}

/// The digest of a certificate's public key, the same as that of the request it was made for.
///
/// # Errors
/// When it cannot be read.
pub fn key_of(certificate: &CertificateDer<'_>) -> Result<Digest, PemError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| PemError::Certificate)?;
    Ok(Digest::of(&parsed.public_key().subject_public_key.data))
}

/// Begin and end of a certificate, milliseconds since 1970.
pub(crate) fn validity(certificate: &CertificateDer<'_>) -> Result<(u64, u64), PemError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| PemError::Certificate)?;
    let ms = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0).saturating_mul(1000);
    Ok((ms(parsed.validity().not_before), ms(parsed.validity().not_after)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Authority;

    #[test]
    fn a_certificate_of_another_key_is_refused() {
        let authority = Authority::create(1_800_000_000_000).unwrap();
        let (mine, other) = (new_key().unwrap(), new_key().unwrap());
        let issued = authority
            .issue_node(&csr(&mine).unwrap(), &"n-1".parse().unwrap(), 1_800_000_000_000, std::time::Duration::from_secs(3600))
            .unwrap();
        assert_eq!(Identity::from_pem(&issued.certificate, other), Err(PemError::Key));
        assert_eq!(Identity::from_pem("", mine), Err(PemError::Certificate));
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", new_key().unwrap()), "KeyPem(..)");
    }
}
