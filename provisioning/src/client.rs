//! Talks to a fleet of which only the pin is known: enrols, or lends its connection to `sedge`.

use crate::identity::KeyPem;
use crate::pinned::{PinnedAuthority, TlsConnector};
use crate::{Identity, tls};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::CertificateError;
use rustls_pki_types::CertificateDer;
use sedge_protocol::Digest;
use sedge_protocol::enrol::{EnrolRequest, Enrolled, Refused, ReturnRequest};
use sedge_protocol::limits::ENROL_BYTES_MAX;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector as _, TcpConnector};

/// Longest that one enrolment may take.
const ENROL_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a box did not enrol.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The fleet said no.
    #[error("the fleet refused: {reason}")]
    Refused {
        /// Its reason.
        reason: String,
        /// When it may be tried again, seconds; never with this claim when absent.
        retry_after_s: Option<u64>,
    },
    /// The fleet does not want this node any more.
    #[error("the fleet does not want this node: {reason}")]
    Revoked {
        /// Its reason.
        reason: String,
    },
    /// The server that answered is not of the pinned authority, or not under this name.
    #[error("the server at {fleet} is not the pinned fleet")]
    NotTheFleet {
        /// Address.
        fleet: String,
        /// What TLS says.
        #[source]
        cause: ureq::Error,
    },
    /// No connection, or an answer that makes no sense; worth another try.
    #[error("cannot reach the fleet at {fleet}")]
    Unreachable {
        /// Address.
        fleet: String,
        /// Why.
        #[source]
        cause: ureq::Error,
    },
    /// An answer that is not of this protocol; worth another try, the fleet may be starting.
    #[error("the fleet at {fleet} answered {status}")]
    Answer {
        /// Address.
        fleet: String,
        /// HTTP status.
        status: u16,
    },
}

/// An HTTPS client that trusts exactly the authority with the digest `pin`. Statuses are answers, not errors; it follows no
/// redirect and knows no proxy.
///
/// # Errors
/// When TLS cannot be set up.
pub fn agent(pin: Digest, timeout: Duration) -> Result<ureq::Agent, ureq::Error> {
    agent_of(Arc::new(PinnedAuthority::new(pin, tls::provider())), timeout)
}

/// Presents the claim in `request` to the fleet at `fleet_url` (`https://host:port`). Blocks.
///
/// Returns what the fleet gave and the authority's certificate, PEM, whose digest is `ca_pin`.
///
/// # Errors
/// Told apart by whether another try makes sense: see [`EnrolError`].
pub fn enrol(fleet_url: &str, ca_pin: Digest, request: &EnrolRequest) -> Result<(Enrolled, String), EnrolError> {
    ask(fleet_url, "enrol", ca_pin, request)
}

/// Asks the fleet for a certificate in the place of one that has expired. The request is signed by the key that the fleet knows. Blocks.
///
/// # Errors
/// As [`enrol`].
pub fn come_back(fleet_url: &str, ca_pin: Digest, request: &ReturnRequest) -> Result<(Enrolled, String), EnrolError> {
    ask(fleet_url, "enrol/return", ca_pin, request)
}

fn ask(fleet_url: &str, path: &str, ca_pin: Digest, request: &impl Serialize) -> Result<(Enrolled, String), EnrolError> {
    let fleet = || fleet_url.to_owned();
    let authority = Arc::new(PinnedAuthority::new(ca_pin, tls::provider()));
    let unreachable = |cause| classify(fleet_url, cause);
    let agent = agent_of(Arc::clone(&authority), ENROL_TIMEOUT).map_err(unreachable)?;
    let url = format!("{}/{path}", fleet_url.trim_end_matches('/'));
    let mut answer = agent.post(&url).send_json(request).map_err(unreachable)?;
    let status = answer.status().as_u16();
    let retry_after_s = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    let body = answer.body_mut().with_config().limit(ENROL_BYTES_MAX as u64);
    match status {
        200 => {
            let enrolled: Enrolled = body.read_json().map_err(unreachable)?;
            let authority = authority.seen().ok_or(EnrolError::Answer { fleet: fleet(), status })?;
            Ok((enrolled, pem(authority)))
        }
        // The claim or the request itself; any other status may pass.
        400 | 403 | 429 => {
            let Refused { error: reason, revoked } = body.read_json().map_err(|_| EnrolError::Answer { fleet: fleet(), status })?;
            Err(if revoked { EnrolError::Revoked { reason } } else { EnrolError::Refused { reason, retry_after_s } })
        }
        _ => Err(EnrolError::Answer { fleet: fleet(), status }),
    }
}

/// The identity that an enrolment gave to `key`.
///
/// # Errors
/// When the certificate is not of this key.
pub fn identity(enrolled: &Enrolled, key: KeyPem) -> Result<Identity, crate::identity::PemError> {
    Identity::from_pem(&enrolled.certificate, key)
}

fn agent_of(authority: Arc<PinnedAuthority>, timeout: Duration) -> Result<ureq::Agent, ureq::Error> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .https_only(true)
        .max_redirects(0)
        .proxy(None)
        .build();
    let connector = TlsConnector { config: Arc::new(tls::pinned_by(authority)?) };
    Ok(ureq::Agent::with_parts(config, TcpConnector::default().chain(connector), DefaultResolver::default()))
}

/// A certificate that does not fit is a wrong address or an attack; everything else may heal by itself.
fn classify(fleet: &str, cause: ureq::Error) -> EnrolError {
    let fleet = fleet.to_owned();
    // A certificate that is not of this day is most often a clock that is not.
    let of_another_day = |cause: &CertificateError| {
        use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
        matches!(cause, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
    };
    let certificate = |cause: &rustls::Error| matches!(cause, rustls::Error::InvalidCertificate(cause) if !of_another_day(cause));
    let strange = match &cause {
        ureq::Error::Rustls(cause) => certificate(cause),
        ureq::Error::Io(cause) => cause.get_ref().and_then(|cause| cause.downcast_ref()).is_some_and(certificate),
        _ => false,
    };
    if strange { EnrolError::NotTheFleet { fleet, cause } } else { EnrolError::Unreachable { fleet, cause } }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::pem::PemObject;

    #[test]
    fn a_certificate_as_text_reads_back() {
        let authority = crate::Authority::create(crate::clock::now_ms()).unwrap();
        let der = CertificateDer::from_pem_slice(authority.ca_pem().as_bytes()).unwrap();
        assert_eq!(CertificateDer::from_pem_slice(pem(&der).as_bytes()).unwrap(), der);
    }

    #[test]
    fn nobody_there_is_unreachable() {
        // A listener that is bound and dropped again: nobody listens on its port.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let request = EnrolRequest { claim: "c".into(), csr: String::new(), name: None, labels: sedge_protocol::Labels::default() };
        let answer = enrol(&format!("https://127.0.0.1:{port}"), Digest::of(b""), &request);
        assert!(matches!(answer, Err(EnrolError::Unreachable { .. })), "{answer:?}");
    }
}
