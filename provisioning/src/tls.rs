//! TLS 1.3 with the fleet's own authority, for QUIC and HTTPS. The provider is always passed: no process-wide default.

use crate::clock::Floor;
use crate::identity::{Identity, KeyPem, PemError, validity};
use crate::issuer::ServerIdentity;
use crate::pinned::PinnedAuthority;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sedge_protocol::Digest;
use sedge_protocol::message::ALPN;
use std::sync::Arc;

/// Why TLS cannot be set up from these texts.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// What rustls says.
    #[error("set up TLS")]
    Rustls(#[from] rustls::Error),
    /// The verifier of client certificates.
    #[error("set up the verification of node certificates")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// The one provider of cryptography.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A node's side of a QUIC connection. Its clock may be wrong: see [`crate::clock`].
///
/// # Errors
/// When a text cannot be read.
pub fn client_config(ca_pem: &str, identity: &Identity) -> Result<ClientConfig, TlsError> {
    let authority = certificate(ca_pem)?;
    let floor = Floor::new(validity(&authority)?.0);
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(floor))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots(authority)?)
        .with_client_auth_cert(chain(&identity.cert_pem)?, private_key(&identity.key)?)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// The fleet's side of a QUIC connection: only certificates of the authority get in.
///
/// # Errors
/// When a text cannot be read.
pub fn server_config(ca_pem: &str, server: &ServerIdentity) -> Result<ServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(certificate(ca_pem)?)?), provider())
        .build()
        .map_err(TlsError::Verifier)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(&server.chain_pem)?, private_key(&server.key)?)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// The fleet's HTTPS side: nobody needs a certificate to enrol or to sign in.
///
/// # Errors
/// When a text cannot be read.
pub fn https_config(server: &ServerIdentity) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain(&server.chain_pem)?, private_key(&server.key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// A client that trusts exactly the authority with this digest, which it has never seen. Used to enrol and by `sedge`.
///
/// # Errors
/// Never with the provider of this crate.
pub fn pinned_config(pin: Digest) -> Result<ClientConfig, TlsError> {
    Ok(pinned_by(Arc::new(PinnedAuthority::new(pin, provider())))?)
}

pub(crate) fn pinned_by(authority: Arc<PinnedAuthority>) -> Result<ClientConfig, rustls::Error> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(authority)
        .with_no_client_auth())
}

fn certificate(pem: &str) -> Result<CertificateDer<'static>, PemError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| PemError::Certificate)
}

fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, PemError> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|_| PemError::Certificate)
}

fn private_key(key: &KeyPem) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_slice(key.secret().as_bytes()).map_err(|_| PemError::Key)
}

fn roots(authority: CertificateDer<'static>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority)?;
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, csr, new_key};
    use rustls::{ClientConnection, ServerConnection};

    const NOW_MS: u64 = 1_800_000_000_000;

    /// Runs a handshake in memory.
    fn handshake(client: ClientConfig, server: ServerConfig, name: &'static str) -> Result<(), rustls::Error> {
        let mut client = ClientConnection::new(Arc::new(client), name.try_into().unwrap())?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        while client.is_handshaking() || server.is_handshaking() || client.wants_write() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    fn server_of(authority: &Authority) -> ServerIdentity {
        authority.issue_server(&["localhost".into(), "127.0.0.1".into()], crate::clock::now_ms()).unwrap()
    }

    fn identity_of(authority: &Authority, now_ms: u64) -> Identity {
        let key = new_key().unwrap();
        let issued = authority
            .issue_node(&csr(&key).unwrap(), &"n-1".parse().unwrap(), now_ms, std::time::Duration::from_secs(30 * 24 * 3600))
            .unwrap();
        Identity::from_pem(&issued.certificate, key).unwrap()
    }

    #[test]
    fn node_and_fleet_of_one_authority_meet_and_strangers_do_not() {
        let now_ms = crate::clock::now_ms();
        let (ours, theirs) = (Authority::create(now_ms).unwrap(), Authority::create(now_ms).unwrap());
        let server = || server_config(ours.ca_pem(), &server_of(&ours)).unwrap();
        let node = identity_of(&ours, now_ms);
        let client = || client_config(ours.ca_pem(), &node).unwrap();
        assert_eq!(handshake(client(), server(), "127.0.0.1"), Ok(()));
        assert!(handshake(client(), server(), "elsewhere.example").is_err());
        let stranger = client_config(ours.ca_pem(), &identity_of(&theirs, now_ms)).unwrap();
        assert!(handshake(stranger, server(), "127.0.0.1").is_err());
        let expired = client_config(ours.ca_pem(), &identity_of(&ours, now_ms - 31 * 24 * 3_600_000)).unwrap();
        assert!(handshake(expired, server(), "127.0.0.1").is_err());
        let wrong_fleet = server_config(ours.ca_pem(), &server_of(&theirs)).unwrap();
        assert!(handshake(client(), wrong_fleet, "127.0.0.1").is_err());
    }

    #[test]
    fn a_node_whose_clock_is_behind_its_authority_still_meets_its_fleet() {
        // Everything lies in the future of the box's own clock, as it does for a box that wakes up in 1970.
        let ahead_ms = NOW_MS + 30 * 365 * 24 * 3_600_000;
        let authority = Authority::create(ahead_ms).unwrap();
        let server = authority.issue_server(&["127.0.0.1".into()], ahead_ms).unwrap();
        assert_eq!(handshake(pinned_config(authority.pin()).unwrap(), https_config(&server).unwrap(), "127.0.0.1"), Ok(()));
    }

    #[test]
    fn a_node_whose_clock_is_years_ahead_still_meets_its_fleet() {
        // The server's certificate has ended by the clock of this box, which runs years ahead of the authority.
        let year_ms = 365 * 24 * 3_600_000;
        let then_ms = crate::clock::BUILT_MS - 8 * year_ms;
        let authority = Authority::create(then_ms).unwrap();
        let meet = |issued_ms| {
            let server = authority.issue_server(&["127.0.0.1".into()], issued_ms).unwrap();
            handshake(pinned_config(authority.pin()).unwrap(), https_config(&server).unwrap(), "127.0.0.1")
        };
        assert_eq!(meet(crate::clock::BUILT_MS - year_ms), Ok(()), "good when this program was built");
        assert!(meet(then_ms).is_err(), "over before the build");
    }

    #[test]
    fn a_pin_trusts_one_authority_only() {
        let now_ms = crate::clock::now_ms();
        let (ours, theirs) = (Authority::create(now_ms).unwrap(), Authority::create(now_ms).unwrap());
        let pinned = || pinned_config(ours.pin()).unwrap();
        let https = |server: &ServerIdentity| https_config(server).unwrap();
        assert_eq!(handshake(pinned(), https(&server_of(&ours)), "localhost"), Ok(()));
        assert!(handshake(pinned(), https(&server_of(&ours)), "other.example").is_err());
        assert!(handshake(pinned(), https(&server_of(&theirs)), "localhost").is_err());
        // A stranger's leaf beside our authority's certificate: the digest is there, the signature is not.
        let mut forged = server_of(&theirs);
        forged.chain_pem.push_str(ours.ca_pem());
        assert!(handshake(pinned(), https(&forged), "localhost").is_err());
    }
}
