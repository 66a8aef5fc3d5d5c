//! The way to other machines: connections over TCP and TLS, kept in a pool of its own for each function.

use crate::limits::{CONNECT_TIMEOUT, HEADER_BYTES_MAX, OUTGOING_FIELDS_MAX, OUTGOING_IDLE, OUTGOING_IDLE_MAX, OUTGOING_IN_FLIGHT_MAX};
use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sedge_protocol::FunctionName;
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tower_service::Service;
use wasmtime_wasi_http::WasiBody;

/// Why there is no way to other machines.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The file of additional authorities is not one.
    #[error("not a file of certificates in PEM form")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// A certificate that no authority can have.
    #[error("certificate {number} of the file cannot be an authority")]
    Certificate {
        /// Its place in the file, from 1.
        number: usize,
        /// What is wrong with it.
        #[source]
        cause: rustls::Error,
    },
    /// The file has none.
    #[error("the file holds no certificate")]
    Empty,
}

/// Connections of all functions to other machines. Cheap to clone.
#[derive(Clone)]
pub struct Egress {
    tls: ClientConfig,
    // A leaf lock, held for a look-up.
    clients: Arc<Mutex<BTreeMap<FunctionName, Client>>>,
}

/// The connections of one function. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) http: legacy::Client<Dial, WasiBody>,
    /// One permit for each request until its answer is read.
    pub(crate) in_flight: Arc<Semaphore>,
}

impl Egress {
    /// Trusts the public authorities, and those of `extra` in PEM form.
    ///
    /// # Errors
    /// When `extra` holds no certificates, or one that cannot be an authority.
    ///
    /// # Panics
    /// Never: the provider has suites for TLS 1.2 and 1.3.
    pub fn new(extra: Option<&[u8]>) -> Result<Self, EgressError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(pem) = extra {
            let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(EgressError::Pem)?;
            if certificates.is_empty() {
                return Err(EgressError::Empty);
            }
            for (at, certificate) in certificates.into_iter().enumerate() {
                roots.add(certificate).map_err(|cause| EgressError::Certificate { number: at + 1, cause })?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls, clients: Arc::default() })
    }

    /// One connection to the host and port of `to`, over TLS for `https`, with the trust of the functions' own requests.
    ///
    /// # Errors
    /// When it does not stand in time, or the other end is not who it should be.
    pub async fn connect(&self, to: Uri) -> Result<Stream, BoxError> {
        Dial::new(self.tls.clone()).call(to).await
    }

    pub(crate) fn client(&self, function: &FunctionName) -> Client {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.entry(function.clone()).or_insert_with(|| Client::new(self.tls.clone())).clone()
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").finish_non_exhaustive()
    }
}

impl Client {
    fn new(tls: ClientConfig) -> Self {
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(OUTGOING_IDLE)
            .pool_max_idle_per_host(OUTGOING_IDLE_MAX)
            .http1_max_buf_size(HEADER_BYTES_MAX)
            .http1_max_headers(OUTGOING_FIELDS_MAX)
            .build(Dial::new(tls));
        Self { http, in_flight: Arc::new(Semaphore::new(OUTGOING_IN_FLIGHT_MAX)) }
    }
}

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
type BoxError = Box<dyn StdError + Send + Sync>;

/// Makes connections; one that does not stand in time, its TLS included, is given up.
#[derive(Clone)]
pub(crate) struct Dial(HttpsConnector<HttpConnector>);

impl Dial {
    fn new(tls: ClientConfig) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Self(HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp))
    }
}

impl Service<Uri> for Dial {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let connecting = self.0.call(target);
        Box::pin(async move {
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
            connected.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additional_authorities_are_checked_when_they_are_read() {
        assert!(Egress::new(None).is_ok());
        assert!(matches!(Egress::new(Some(b"")), Err(EgressError::Empty)));
        assert!(matches!(Egress::new(Some(b"no certificate")), Err(EgressError::Empty)));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(Egress::new(Some(broken)), Err(EgressError::Certificate { number: 1, .. })));
        assert!(matches!(Egress::new(Some(b"-----BEGIN CERTIFICATE-----\n!")), Err(EgressError::Pem(_))));
    }
}
