//! Starts a fleet in this process and ends it: the daemon, the demo and the tests do it the same way.

use crate::artifacts::Artifacts;
use crate::config::{Certificates, Config};
use crate::hub::Hub;
use crate::keys::{Keys, KeysError};
use crate::limits::{HEAD_TIMEOUT, SHUTDOWN_GRACE, UPLOADS_MAX, WATCHERS_MAX};
use crate::rate::{Returns, Tries};
use crate::store::{Store, StoreError};
use crate::supervisor::Supervisor;
use crate::{durable, http, sync, view};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::TokioTimer;
use log::{error, info};
use quinn::Endpoint;
use sedge_protocol::Digest;
use sedge_protocol::api::Status;
use sedge_provisioning::Authority;
use sedge_provisioning::clock::now_ms;
use sedge_provisioning::issuer::{IssueError, ServerIdentity};
use sedge_provisioning::tls::{TlsError, https_config, server_config};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// Why a fleet does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its directory.
    #[error("the data directory {path}")]
    Data {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Another fleet runs on its directory.
    #[error("the data directory {0} is in use by another process")]
    InUse(PathBuf),
    /// Its keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Its database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its server's certificate.
    #[error("the server's certificate")]
    Certificate(#[from] IssueError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// QUIC over TLS.
    #[error("set up QUIC")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// Sockets, all that cannot be had.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Listen(Vec<ListenFault>),
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({protocol}): {cause}")]
pub struct ListenFault {
    /// Where.
    pub address: SocketAddr,
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    cause: io::Error,
}

/// Where a running fleet is reached. Also written to `addresses.json` in the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// API and enrolment, `https://host:port`.
    pub https: String,
    /// Where nodes connect, `host:port`.
    pub sync: String,
    /// The page for people.
    pub console: String,
    /// Pin of the fleet's authority.
    pub ca_pin: Digest,
    /// The file that holds the admin token.
    pub admin_token_file: PathBuf,
}

/// What every part of the fleet uses.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) hub: Hub,
    pub(crate) artifacts: Artifacts,
    pub(crate) authority: Authority,
    pub(crate) admin: Digest,
    pub(crate) admin_file: PathBuf,
    pub(crate) public_https: String,
    pub(crate) public_sync: String,
    pub(crate) certificates: Certificates,
    pub(crate) tries: Mutex<Tries>,
    pub(crate) returns: Mutex<Returns>,
    pub(crate) uploads: Semaphore,
    pub(crate) watchers: Arc<Semaphore>,
    pub(crate) status: watch::Receiver<Arc<Status>>,
    pub(crate) stopping: CancellationToken,
}

/// A fleet to be started.
#[derive(Debug, Clone, Copy)]
pub struct Fleet;

/// A fleet that runs.
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    created: bool,
    supervisor: Supervisor,
    https: Handle<SocketAddr>,
    store: Store,
    /// Held as long as the fleet runs; the operating system gives it back after a crash.
    _lock: File,
}

impl Fleet {
    /// Starts a fleet. When this returns it answers on both of its addresses.
    ///
    /// # Errors
    /// When something it needs is missing, broken or in use.
    ///
    /// # Panics
    /// Never: addresses always serialise.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        let data = &config.data_dir;
        let data_fault = |cause| StartError::Data { path: data.clone(), cause };
        // What is in there lets in: nobody else looks.
        DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(data_fault)?;
        let lock = lock(data)?;
        let keys = Keys::open(data, now_ms())?;
        let artifacts = Artifacts::open(&data.join("artifacts")).map_err(data_fault)?;
        let server = keys.authority.issue_server(&config.server_names(), now_ms())?;
        let quic = sync::server_config(server_config(keys.authority.ca_pem(), &server)?)?;
        let (https, sync) = match (listen(config.https_listen), endpoint(config.sync_listen, quic)) {
            (Ok(https), Ok(sync)) => (https, sync),
            (https, sync) => return Err(StartError::Listen([https.err(), sync.err()].into_iter().flatten().collect())),
        };
        let addresses = addresses(&config, &https, &sync, &keys).map_err(data_fault)?;
        let store = match &config.database {
            Some(url) => Store::connect(url.secret()).await?,
            None => Store::open(&data.join("fleet.db")).await?,
        };
        if !keys.created && store.is_empty().await? {
            log::warn!(
                "the authority is older than the database, which knows no node and no claim: nodes that enrolled before are unknown here"
            );
        }
        let supervisor = Supervisor::default();
        let (hub, hub_task) = Hub::new(store.clone(), supervisor.token().clone());
        supervisor.spawn("hub", hub_task);
        let (status_sender, status) = watch::channel(Arc::default());
        let shared = Arc::new(Shared {
            store: store.clone(),
            hub,
            artifacts,
            authority: keys.authority,
            admin: keys.admin,
            admin_file: keys.admin_file,
            public_https: addresses.https.clone(),
            public_sync: addresses.sync.clone(),
            certificates: config.certificates,
            tries: Mutex::default(),
            returns: Mutex::default(),
            uploads: Semaphore::new(UPLOADS_MAX),
            watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
            status,
            stopping: supervisor.token().clone(),
        });
        supervisor.spawn("status", view::publish_status(Arc::clone(&shared), status_sender, supervisor.token().clone()));
        supervisor.spawn("sync", sync::run(sync, Arc::clone(&shared), supervisor.clone()));
        let handle = serve_https(https, &server, shared, &supervisor)?;
        let json = serde_json::to_vec_pretty(&addresses).expect("addresses are texts");
        durable::replace(&data.join("addresses.json"), &json, 0o644).map_err(data_fault)?;
        info!(https = addresses.https.as_str(), sync = addresses.sync.as_str(); "fleet started");
        Ok(Running { addresses, created: keys.created, supervisor, https: handle, store, _lock: lock })
    }
}

impl Running {
    /// Where it is reached.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Whether this was the first start, which made authority and token.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.created
    }

    /// Returns when a part of the fleet has failed and it must be ended. Cancel safe.
    pub async fn failed(&self) {
        self.supervisor.token().cancelled().await;
    }

    /// Stops accepting, ends connections, writes down what nodes said last. Answers whether all parts ended well.
    pub async fn shutdown(self) -> bool {
        self.https.graceful_shutdown(Some(SHUTDOWN_GRACE));
        let well = self.supervisor.stop().await;
        self.store.close().await;
        info!(well; "fleet stopped");
        well
    }
}

/// Two fleets on one directory would give nodes two truths.
fn lock(data: &Path) -> Result<File, StartError> {
    let fault = |cause| StartError::Data { path: data.to_owned(), cause };
    let file = File::create(data.join("lock")).map_err(fault)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse(data.to_owned())),
        Err(TryLockError::Error(cause)) => Err(fault(cause)),
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, ListenFault> {
    let listener = TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    listener.map_err(|cause| ListenFault { address, protocol: "TCP", cause })
}

fn endpoint(address: SocketAddr, quic: quinn::ServerConfig) -> Result<Endpoint, ListenFault> {
    Endpoint::server(quic, address).map_err(|cause| ListenFault { address, protocol: "UDP", cause })
}

/// What others are told, with the ports that were really taken.
fn addresses(config: &Config, https: &TcpListener, sync: &Endpoint, keys: &Keys) -> io::Result<Addresses> {
    let (https, sync) = (https.local_addr()?, sync.local_addr()?);
    let near = |address: SocketAddr| format!("{}:{}", config.public_host(address.ip()), address.port());
    let public_https = config.public_https.as_ref().map_or_else(|| format!("https://{}", near(https)), |address| address.url());
    Ok(Addresses {
        console: format!("{public_https}/"),
        https: public_https,
        sync: config.public_sync.as_ref().map_or_else(|| near(sync), |address| address.as_str().to_owned()),
        ca_pin: keys.authority.pin(),
        admin_token_file: keys.admin_file.clone(),
    })
}

fn serve_https(
    listener: TcpListener,
    server: &ServerIdentity,
    shared: Arc<Shared>,
    supervisor: &Supervisor,
) -> Result<Handle<SocketAddr>, StartError> {
    let address = listener.local_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
    let fault = |cause| StartError::Listen(vec![ListenFault { address, protocol: "TCP", cause }]);
    let tls = RustlsConfig::from_config(Arc::new(https_config(server)?));
    let handle = Handle::new();
    let mut server = axum_server::from_tcp_rustls(listener, tls).map_err(fault)?.handle(handle.clone()).first_request_timeout(HEAD_TIMEOUT);
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    server.http_builder().http2().timer(TokioTimer::new()).keep_alive_interval(HEAD_TIMEOUT).keep_alive_timeout(HEAD_TIMEOUT);
    let service = http::router(shared).into_make_service_with_connect_info::<SocketAddr>();
    let token = supervisor.token().clone();
    supervisor.spawn("https", async move {
        if let Err(cause) = server.serve(service).await {
            error!(cause:err; "https ended");
        }
        token.cancel();
    });
    Ok(handle)
}
