//! The connection to the fleet: opened again with jitter whenever it is lost; carries the control stream.
//!
//! ```text
//! credentials ─▶ connect ─▶ Hello ─▶ Welcome ─▶ Desired ─▶ assigner
//!      ▲            │                              Report ◀─ functions, meter, vitals
//!      └─ pause ◀───┘ the connection itself is lent to fetch, usage_sync and renewal
//! ```

mod control;
mod frames;

pub(crate) use frames::{Exchange, Frames};

use crate::bus::BusStats;
use crate::enrol::{self, Credentials, Vault};
use crate::fault::Errors;
use crate::functions::Functions;
use crate::limits::{FLEET_ANSWER_MAX, JOIN_AGAIN, RECONNECT_MAX, RECONNECT_MIN};
use crate::meter::Meter;
use crate::secrets::Secrets;
use crate::supervisor::Supervisor;
use anyhow::Context as _;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, IdleTimeout, TransportConfig, VarInt};
use sedge_protocol::image::OsReport;
use sedge_protocol::local::FleetLink;
use sedge_protocol::message::{CLOSE_UNKNOWN, Desired};
use sedge_provisioning::{Membership, tls};
use sedge_store::Store;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What the session reads and writes.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) fleet: Membership,
    pub(crate) vault: Vault,
    pub(crate) functions: Functions,
    pub(crate) meter: Meter,
    pub(crate) errors: Errors,
    pub(crate) stats: Arc<BusStats>,
    pub(crate) store: Store,
    pub(crate) secrets: Secrets,
    pub(crate) desired: watch::Sender<Desired>,
    pub(crate) credentials: watch::Sender<Option<Credentials>>,
    pub(crate) link: LinkWriter,
    /// How the operating system stands, where the node keeps it.
    pub(crate) os: watch::Receiver<Option<OsReport>>,
    pub(crate) supervisor: Supervisor,
}

/// The connection as the other tasks see it.
pub(crate) type LinkWriter = watch::Sender<Link>;

/// How the node stands with its fleet, and the connection when there is one.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) state: FleetLink,
    pub(crate) connection: Option<Connection>,
}

impl Link {
    pub(crate) fn without(state: FleetLink) -> Self {
        Self { state, connection: None }
    }
}

/// Waits until there is a connection. Cancel safe; `None` when the daemon ends.
pub(crate) async fn connection(link: &mut watch::Receiver<Link>) -> Option<Connection> {
    let link = link.wait_for(|link| link.connection.is_some()).await.ok()?;
    link.connection.clone()
}

/// Runs until the daemon stops.
pub(crate) async fn run(session: Session) -> anyhow::Result<()> {
    let stop = session.supervisor.stop().clone();
    let Some(credentials) = enrol::obtain(&session.fleet, &session.vault, &stop).await? else { return Ok(()) };
    session.credentials.send_replace(Some(credentials));
    session.link.send_replace(Link::without(FleetLink::Offline));
    let (mut failures, mut joined_again) = (0, None);
    loop {
        let lost = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            lost = once(&session) => lost,
        };
        session.link.send_replace(Link::without(FleetLink::Offline));
        log::info!(reason:% = format!("{:#}", lost.error); "no connection to the fleet");
        failures = if lost.greeted { 0 } else { failures + 1 };
        if lost.unknown && join_again(&session, &mut joined_again).await {
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause(failures)) => {}
        }
    }
}

/// Enrols once more with a fleet that does not know the node: it was removed there, or the fleet lost its database. The key stays, the
/// claim is that of the configuration. True when there are new credentials.
async fn join_again(session: &Session, tried: &mut Option<Instant>) -> bool {
    // Who presents a wrong claim often is slowed down, and others behind the same address with it.
    if tried.is_some_and(|tried| tried.elapsed() < JOIN_AGAIN) {
        return false;
    }
    *tried = Some(Instant::now());
    let Some(credentials) = session.credentials.borrow().clone() else { return false };
    log::error!("the fleet does not know this node: a new claim (`sedge claim create`) in [fleet] lets it join again");
    let Some(credentials) = enrol::again(&session.fleet, &session.vault, &credentials.identity.key).await else { return false };
    session.credentials.send_replace(Some(credentials));
    true
}

/// How a connection ended, or did not begin.
struct Lost {
    error: anyhow::Error,
    /// It had come as far as the greeting.
    greeted: bool,
    /// The fleet does not know the node.
    unknown: bool,
}

impl From<anyhow::Error> for Lost {
    fn from(error: anyhow::Error) -> Self {
        Self { error, greeted: false, unknown: false }
    }
}

/// One connection from its begin to its end.
async fn once(session: &Session) -> Lost {
    let Some(credentials) = session.credentials.borrow().clone() else { return anyhow::anyhow!("not enrolled").into() };
    let (endpoint, connection) = match connect(&credentials).await {
        Ok(connected) => connected,
        Err(error) => return error.into(),
    };
    let ended = control::run(session, &connection).await;
    let unknown = match connection.close_reason() {
        Some(ConnectionError::ApplicationClosed(close)) => close.error_code == VarInt::from_u32(CLOSE_UNKNOWN),
        _ => false,
    };
    connection.close(VarInt::from_u32(0), b"bye");
    drop(tokio::time::timeout(Duration::from_secs(1), endpoint.wait_idle()).await);
    let greeted = ended.is_ok();
    Lost { error: ended.unwrap_or_else(|error| error), greeted, unknown }
}

async fn connect(credentials: &Credentials) -> anyhow::Result<(Endpoint, Connection)> {
    let address = tokio::net::lookup_host(&credentials.sync)
        .await
        .with_context(|| format!("look up {}", credentials.sync))?
        .next()
        .with_context(|| format!("{} has no address", credentials.sync))?;
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let endpoint = Endpoint::client(local).context("open a UDP socket")?;
    let config = client_config(credentials)?;
    let name = credentials.sync.rsplit_once(':').map_or(credentials.sync.as_str(), |(host, _)| host).trim_matches(['[', ']']);
    let connecting = endpoint.connect_with(config, address, name).context("connect")?;
    let connection =
        tokio::time::timeout(FLEET_ANSWER_MAX, connecting).await.context("no answer")?.with_context(|| format!("connect to {address}"))?;
    Ok((endpoint, connection))
}

fn client_config(credentials: &Credentials) -> anyhow::Result<ClientConfig> {
    let tls = tls::client_config(&credentials.ca_pem, &credentials.identity).context("use the certificate")?;
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).context("use the certificate for QUIC")?));
    let mut transport = TransportConfig::default();
    transport
        .keep_alive_interval(Some(Duration::from_secs(10)))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(30_000))))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Doubles from the least to the longest pause; between half and all of it by chance.
fn pause(failures: u32) -> Duration {
    let whole = RECONNECT_MIN.saturating_mul(1 << failures.min(16)).min(RECONNECT_MAX);
    whole / 2 + whole.mul_f64(rand::random_range(0.0..0.5))
}
