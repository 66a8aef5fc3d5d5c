//! The connection to the fleet: opened again with jitter whenever it is lost; carries the control stream.
//!
//! ```text
//! door open ─▶ connect ─▶ Hello ─▶ Welcome ─▶ Desired ─▶ assigner
//!      ▲            │                              Report ◀─ functions, meter, vitals
//!      └─ pause ◀───┘ the connection itself is lent to fetch, usage_sync and member
//! ```

mod control;
mod frames;

pub(crate) use frames::{Exchange, Frames};

use crate::bus::BusStats;
use crate::device::Board;
use crate::enrol;
use crate::fault::Errors;
use crate::functions::Functions;
use crate::limits::{FLEET_ANSWER_MAX, RECONNECT_MAX, RECONNECT_MIN};
use crate::member::Door;
use crate::meter::Meter;
use crate::secrets::Secrets;
use crate::supervisor::Supervisor;
use crate::vault::Credentials;
use anyhow::Context as _;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, IdleTimeout, TransportConfig, TransportErrorCode, VarInt};
use sedge_protocol::Standing;
use sedge_protocol::image::OsReport;
use sedge_protocol::local::FleetLink;
use sedge_protocol::message::{CLOSE_REPLACED, CLOSE_REVOKED, CLOSE_UNKNOWN, Desired};
use sedge_provisioning::enrolment::Event;
use sedge_provisioning::{Membership, tls};
use sedge_store::Store;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// The alert of TLS with which a server refuses a certificate that is not of this day (RFC 8446, 6.2).
const CERTIFICATE_EXPIRED: u8 = 45;

/// What the session reads and writes.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) fleet: Membership,
    pub(crate) functions: Functions,
    pub(crate) meter: Meter,
    pub(crate) errors: Errors,
    pub(crate) stats: Arc<BusStats>,
    pub(crate) devices: Board,
    pub(crate) store: Store,
    pub(crate) secrets: Secrets,
    pub(crate) desired: watch::Sender<Desired>,
    pub(crate) credentials: watch::Receiver<Option<Credentials>>,
    pub(crate) door: watch::Receiver<Door>,
    /// What the fleet says about the node's membership.
    pub(crate) events: mpsc::Sender<Event>,
    /// Drawn at this start of the daemon.
    pub(crate) instance: u64,
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
    /// How the fleet said that the node stands.
    pub(crate) standing: Standing,
}

impl Link {
    pub(crate) fn without(state: FleetLink) -> Self {
        Self { state, connection: None, standing: Standing::Active }
    }
}

/// Waits until there is a connection. Cancel safe; `None` when the daemon ends.
pub(crate) async fn connection(link: &mut watch::Receiver<Link>) -> Option<Connection> {
    let link = link.wait_for(|link| link.connection.is_some()).await.ok()?;
    link.connection.clone()
}

/// Runs until the daemon stops. Connects while the door is open; what the fleet says against the node goes to who decides about the door.
pub(crate) async fn run(mut session: Session) -> anyhow::Result<()> {
    let stop = session.supervisor.stop().clone();
    let mut failures = 0;
    loop {
        let open = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            open = session.door.wait_for(|door| door.open) => open.is_ok(),
        };
        if !open {
            return Ok(());
        }
        session.link.send_replace(Link::without(FleetLink::Offline));
        let lost = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            lost = once(&session) => lost,
        };
        session.link.send_replace(Link::without(FleetLink::Offline));
        log::info!(reason:% = format!("{:#}", lost.error); "no connection to the fleet");
        failures = if lost.greeted && !lost.replaced { 0 } else { failures + 1 };
        if let Some(event) = lost.event {
            drop(session.events.send(event).await);
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause(failures)) => {}
        }
    }
}

/// How a connection ended, or did not begin.
struct Lost {
    error: anyhow::Error,
    /// It had come as far as the greeting.
    greeted: bool,
    /// Another connection of this node took its place. When it is not of this box, they would chase each other.
    replaced: bool,
    /// What the fleet said against the node.
    event: Option<Event>,
}

impl Lost {
    fn new(error: anyhow::Error, greeted: bool, session: &Session) -> Self {
        let cause = error.chain().find_map(|cause| cause.downcast_ref::<ConnectionError>()).cloned();
        let code = |cause: &ConnectionError| match cause {
            ConnectionError::ApplicationClosed(close) => Some(close.error_code),
            _ => None,
        };
        let replaced = cause.as_ref().and_then(code) == Some(VarInt::from_u32(CLOSE_REPLACED));
        Self { error, greeted, replaced, event: cause.and_then(|cause| said(&cause, session)) }
    }
}

/// What the way in which the fleet has closed a connection means for the node.
fn said(cause: &ConnectionError, session: &Session) -> Option<Event> {
    match cause {
        ConnectionError::ApplicationClosed(close) if close.error_code == VarInt::from_u32(CLOSE_UNKNOWN) => {
            log::error!("the fleet does not know this node: a new claim (`sedge claim create`) in [fleet] lets it join again");
            Some(Event::Unknown)
        }
        ConnectionError::ApplicationClosed(close) if close.error_code == VarInt::from_u32(CLOSE_REVOKED) => {
            let reason: String = String::from_utf8_lossy(&close.reason).chars().filter(|c| !c.is_control()).collect();
            log::error!(reason; "the fleet does not want this node any more; its functions go on, a new claim in [fleet] lets it join again");
            let claim = enrol::claim_digest(&session.fleet);
            let new_claim = session.credentials.borrow().as_ref().is_some_and(|known| known.is_new(claim));
            Some(Event::Revoked { reason, new_claim, jitter_milli: enrol::jitter_milli() })
        }
        ConnectionError::ConnectionClosed(close) if close.error_code == TransportErrorCode::crypto(CERTIFICATE_EXPIRED) => {
            Some(Event::Expired)
        }
        _ => None,
    }
}

/// One connection from its begin to its end.
async fn once(session: &Session) -> Lost {
    let Some(credentials) = session.credentials.borrow().clone() else { return Lost::new(anyhow::anyhow!("not enrolled"), false, session) };
    let (endpoint, connection) = match connect(&credentials).await {
        Ok(connected) => connected,
        Err(error) => return Lost::new(error, false, session),
    };
    let ended = control::run(session, &connection).await;
    let greeted = ended.is_ok();
    let mut error = ended.unwrap_or_else(|error| error);
    // A stream that fails says less than the end of its connection.
    if let Some(reason) = connection.close_reason() {
        error = anyhow::Error::new(reason).context(format!("{error:#}"));
    }
    connection.close(VarInt::from_u32(0), b"bye");
    drop(tokio::time::timeout(Duration::from_secs(1), endpoint.wait_idle()).await);
    Lost::new(error, greeted, session)
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
