//! The fleet's certificate authority: one key, two kinds of certificates, node and server.

use crate::identity::{KeyPem, PemError, validity};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber, SigningKey as _,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sedge_protocol::{Digest, NodeId};
use std::time::Duration;

/// How long an authority lives.
const AUTHORITY_DAYS: u64 = 20 * 365;
/// How long a server's certificate lives; the fleet issues one at each start.
const SERVER_DAYS: u64 = 2 * 365;
/// How far a node's certificate begins before now at most: a clock may be that much behind. One that lives shortly begins a tenth before.
const BACKDATE_MS_MAX: u64 = 3_600_000;
const DAY_MS: u64 = 24 * 3_600_000;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The request is not one, or is not signed by its own key.
    #[error("the certificate request is not valid: {0}")]
    Request(String),
    /// The request's key is of a kind that is not used here.
    #[error("the certificate request has a key that is not ECDSA P-256")]
    KeyKind,
    /// A server name is neither DNS name nor address.
    #[error("`{name}` is not a server name")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        #[source]
        cause: rcgen::Error,
    },
    /// The signature could not be made.
    #[error("sign a certificate")]
    Sign(#[source] rcgen::Error),
    /// No randomness for a serial number.
    #[error("no randomness for a serial number")]
    Randomness,
}

/// Why an authority cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Its key pair.
    #[error("the authority's key")]
    Key(#[source] rcgen::Error),
    /// Its certificate.
    #[error("the authority's certificate")]
    Certificate(#[source] rcgen::Error),
    /// Its certificate as text.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// No randomness for a serial number.
    #[error("no randomness for a serial number")]
    Randomness,
}

/// A certificate and until when it is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, PEM.
    pub certificate: String,
    /// When it ends, milliseconds since 1970.
    pub not_after_ms: u64,
}

/// A server's certificate chain and its key.
#[derive(Debug, Clone)]
pub struct ServerIdentity {
    /// Leaf, then the authority itself, PEM: who knows only the authority's digest finds it in there.
    pub chain_pem: String,
    /// Its key.
    pub key: KeyPem,
}

/// The authority of one fleet.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    ca_pem: String,
    not_before_ms: u64,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("pin", &self.pin()).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority with a new key.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn create(now_ms: u64) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Key)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("Sedge fleet authority");
        params.serial_number = Some(serial().ok_or(AuthorityError::Randomness)?);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        set_validity(&mut params, now_ms.saturating_sub(DAY_MS), now_ms + AUTHORITY_DAYS * DAY_MS);
        let certificate = params.self_signed(&key).map_err(AuthorityError::Certificate)?;
        Self::from_pem(&certificate.pem(), &KeyPem::new(key.serialize_pem()))
    }

    /// The authority of this certificate and this key.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn from_pem(ca_pem: &str, key: &KeyPem) -> Result<Self, AuthorityError> {
        let certificate = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|_| PemError::Certificate)?;
        let (not_before_ms, _) = validity(&certificate)?;
        let key = KeyPair::from_pem(key.secret()).map_err(AuthorityError::Key)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(AuthorityError::Certificate)?;
        Ok(Self { issuer, certificate, ca_pem: ca_pem.to_owned(), not_before_ms })
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Its key, to be kept where only the fleet can read it.
    #[must_use]
    pub fn key_pem(&self) -> KeyPem {
        KeyPem::new(self.issuer.key().serialize_pem())
    }

    /// Its certificate.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Signs with the authority's key. What is signed has to say what it is.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.issuer.key().sign(message)
    }

    /// What a node pins: the digest of the certificate's DER.
    #[must_use]
    pub fn pin(&self) -> Digest {
        Digest::of(&self.certificate)
    }

    /// A certificate for `node`. Of the request it takes the key and nothing else.
    ///
    /// # Errors
    /// When the request is not signed by its own key, or that key is not ECDSA P-256.
    pub fn issue_node(&self, csr_pem: &str, node: &NodeId, now_ms: u64, life: Duration) -> Result<Issued, IssueError> {
        let request = request(csr_pem)?;
        let mut params = leaf(node.as_str(), ExtendedKeyUsagePurpose::ClientAuth)?;
        let life_ms = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        // Certificates count whole seconds.
        let not_after_ms = now_ms.saturating_add(life_ms) / 1000 * 1000;
        set_validity(&mut params, now_ms.saturating_sub((life_ms / 10).min(BACKDATE_MS_MAX)), not_after_ms);
        let certificate = params.signed_by(&request.public_key, &self.issuer).map_err(IssueError::Sign)?;
        Ok(Issued { certificate: certificate.pem(), not_after_ms })
    }

    /// A certificate and key for a server under these DNS names and addresses.
    ///
    /// # Errors
    /// When a name is neither.
    pub fn issue_server(&self, names: &[String], now_ms: u64) -> Result<ServerIdentity, IssueError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IssueError::Sign)?;
        let mut params = leaf("Sedge fleet", ExtendedKeyUsagePurpose::ServerAuth)?;
        for name in names {
            let one = CertificateParams::new(vec![name.clone()]).map_err(|cause| IssueError::Name { name: name.clone(), cause })?;
            params.subject_alt_names.extend(one.subject_alt_names);
        }
        // From the authority's own begin on: see `clock`.
        set_validity(&mut params, self.not_before_ms, now_ms + SERVER_DAYS * DAY_MS);
        let certificate = params.signed_by(&key, &self.issuer).map_err(IssueError::Sign)?;
        let chain_pem = format!("{}{}", certificate.pem(), self.ca_pem);
        Ok(ServerIdentity { chain_pem, key: KeyPem::new(key.serialize_pem()) })
    }
}

/// The digest of a request's public key: one key, one digest. The request's signature is verified.
///
/// # Errors
/// When the request is not signed by its own key, or that key is not ECDSA P-256.
pub fn request_key(csr_pem: &str) -> Result<Digest, IssueError> {
    Ok(Digest::of(request(csr_pem)?.public_key.der_bytes()))
}

fn request(csr_pem: &str) -> Result<CertificateSigningRequestParams, IssueError> {
    let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(|cause| IssueError::Request(cause.to_string()))?;
    if request.public_key.algorithm() == &PKCS_ECDSA_P256_SHA256 { Ok(request) } else { Err(IssueError::KeyKind) }
}

fn leaf(name: &str, usage: ExtendedKeyUsagePurpose) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.serial_number = Some(serial().ok_or(IssueError::Randomness)?);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn set_validity(params: &mut CertificateParams, not_before_ms: u64, not_after_ms: u64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(not_before_ms / 1000);
    params.not_after = epoch + Duration::from_secs(not_after_ms / 1000);
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// 127 random bits: positive, never repeated.
fn serial() -> Option<SerialNumber> {
    let mut bytes = [0; 16];
    rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes).ok()?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Some(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Identity, csr, key_of, new_key, node_of};

    const NOW_MS: u64 = 1_800_000_000_123;
    const MONTH: Duration = Duration::from_millis(30 * DAY_MS);

    #[test]
    fn a_node_certificate_names_the_node_and_ends_when_it_says() {
        let authority = Authority::create(NOW_MS).unwrap();
        let node: NodeId = "gate-1".parse().unwrap();
        let key = new_key().unwrap();
        let issued = authority.issue_node(&csr(&key).unwrap(), &node, NOW_MS, MONTH).unwrap();
        let identity = Identity::from_pem(&issued.certificate, key).unwrap();
        assert_eq!(identity.node, node);
        assert_eq!(identity.not_after_ms, issued.not_after_ms);
        assert_eq!(identity.not_after_ms, (NOW_MS + 30 * DAY_MS) / 1000 * 1000);
        assert!(identity.renew_at_ms() > NOW_MS + 19 * DAY_MS && identity.renew_at_ms() < NOW_MS + 21 * DAY_MS);
    }

    #[test]
    fn an_authority_reads_back_what_it_wrote() {
        let authority = Authority::create(NOW_MS).unwrap();
        let again = Authority::from_pem(authority.ca_pem(), &authority.key_pem()).unwrap();
        assert_eq!(authority.pin(), again.pin());
        assert!(again.issue_server(&["localhost".into(), "127.0.0.1".into()], NOW_MS).is_ok());
        assert!(matches!(again.issue_server(&["ü".into()], NOW_MS), Err(IssueError::Name { .. })));
    }

    #[test]
    fn the_request_decides_nothing_but_the_key() {
        let authority = Authority::create(NOW_MS).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["fleet.example".to_owned()]).unwrap();
        params.distinguished_name = common_name("admin");
        let hostile = params.serialize_request(&key).unwrap().pem().unwrap();
        let issued = authority.issue_node(&hostile, &"gate-1".parse().unwrap(), NOW_MS, MONTH).unwrap();
        let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
        assert_eq!(node_of(&der).unwrap().as_str(), "gate-1");
        assert_eq!(key_of(&der).unwrap(), request_key(&hostile).unwrap());
        assert!(!der.windows(13).any(|window| window == b"fleet.example"));
    }

    #[test]
    fn a_request_that_was_tampered_with_is_refused() {
        let authority = Authority::create(NOW_MS).unwrap();
        let pem = csr(&new_key().unwrap()).unwrap();
        let request = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut der = request.to_vec();
        let last = der.len() - 1;
        der[last] ^= 1;
        assert!(CertificateSigningRequestParams::from_der(&der.into()).is_err());
        assert!(matches!(authority.issue_node("not a request", &"n".parse().unwrap(), NOW_MS, MONTH), Err(IssueError::Request(_))));
    }
}
