//! A small HTTP server that answers as it is told and remembers what it was asked.

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sedge_protocol::Digest;
use sedge_provisioning::Authority;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) token: Option<String>,
    pub(crate) length: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    /// `GET /v1/status`
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// Status and body.
pub(crate) type Reply = (u16, String);

/// Makes the reply from the request and all requests before it.
type Answer = dyn Fn(&Asked, &[Asked]) -> Reply + Send + Sync;

/// A server that lives as long as the test's process.
#[derive(Clone)]
pub(crate) struct Server {
    asked: Arc<Mutex<Vec<Asked>>>,
    answer: Arc<Answer>,
}

impl Server {
    fn new(answer: impl Fn(&Asked, &[Asked]) -> Reply + Send + Sync + 'static) -> Self {
        Self { asked: Arc::default(), answer: Arc::new(answer) }
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// First lines of what it was asked so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().iter().map(Asked::line).collect()
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S) {
        let service = service_fn(|request: Request<Incoming>| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.reply(request).await) }
        });
        // A client that goes away is the client's business.
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
    }

    async fn reply(self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (token, length) = (header("authorization"), header("content-length"));
        let (method, path) = (request.method().to_string(), request.uri().to_string());
        let body = request.into_body().collect().await.unwrap().to_bytes().to_vec();
        let asked = Asked { method, path, token, length, body };
        let mut before = self.asked.lock().unwrap();
        let (status, body) = (self.answer)(&asked, &before);
        before.push(asked);
        Response::builder().status(status).body(Full::from(body)).unwrap()
    }
}

/// Serves on a free TCP port of this machine: `http://127.0.0.1:port`.
pub(crate) fn tcp(answer: impl Fn(&Asked, &[Asked]) -> Reply + Send + Sync + 'static) -> (String, Server) {
    let server = Server::new(answer);
    let (listener, port) = listen();
    let serving = server.clone();
    background(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serving.clone().serve(stream));
        }
    });
    (format!("http://127.0.0.1:{port}"), server)
}

/// An authority, and a server with a certificate of it.
pub(crate) struct Secure {
    pub(crate) url: String,
    pub(crate) ca_pem: String,
    pub(crate) pin: Digest,
    pub(crate) server: Server,
}

/// Serves over TLS as a fleet does: with a certificate of its own authority, which is in the chain.
pub(crate) fn tls(answer: impl Fn(&Asked, &[Asked]) -> Reply + Send + Sync + 'static) -> Secure {
    let now_ms = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let authority = Authority::create(now_ms).unwrap();
    let identity = authority.issue_server(&["127.0.0.1".to_owned()], now_ms).unwrap();
    let chain = CertificateDer::pem_slice_iter(identity.chain_pem.as_bytes()).map(Result::unwrap).collect();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(identity.key.secret().as_bytes()).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = Server::new(answer);
    let (listener, port) = listen();
    let serving = server.clone();
    background(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A handshake that the client refuses is what some tests are about.
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(serving.clone().serve(stream));
            }
        }
    });
    Secure { url: format!("https://127.0.0.1:{port}"), ca_pem: authority.ca_pem().to_owned(), pin: authority.pin(), server }
}

/// Serves on a Unix socket, as a node does.
pub(crate) fn unix(socket: &Path, answer: impl Fn(&Asked, &[Asked]) -> Reply + Send + Sync + 'static) -> Server {
    let server = Server::new(answer);
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    let serving = server.clone();
    background(async move {
        let listener = tokio::net::UnixListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serving.clone().serve(stream));
        }
    });
    server
}

fn listen() -> (std::net::TcpListener, u16) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn background(work: impl Future<Output = ()> + Send + 'static) {
    thread::spawn(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work));
}
