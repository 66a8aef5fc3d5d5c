//! The connection to the fleet: opened again with jitter whenever it is lost; carries the control stream.
//!
//! ```text
//! credentials ─▶ connect ─▶ Hello ─▶ Welcome ─▶ Desired ─▶ assigner
//!      ▲            │                              Report ◀─ functions, meter, vitals
//!      └─ pause ◀───┘ the connection itself is lent to fetch, usage_sync and renewal
//! ```

mod control;
mod frames;

pub(crate) use frames::Exchange;

use crate::bus::BusStats;
use crate::config::Fleet;
use crate::enrol::{self, Credentials, Vault};
use crate::fault::Errors;
use crate::functions::Functions;
use crate::limits::{FLEET_ANSWER_MAX, RECONNECT_MAX, RECONNECT_MIN};
use crate::meter::Meter;
use crate::supervisor::Supervisor;
use anyhow::Context as _;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, IdleTimeout, TransportConfig, VarInt};
use sedge_protocol::local::FleetLink;
use sedge_protocol::message::Desired;
use sedge_provisioning::tls;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What the session reads and writes.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) fleet: Fleet,
    pub(crate) vault: Vault,
    pub(crate) functions: Functions,
    pub(crate) meter: Meter,
    pub(crate) errors: Errors,
    pub(crate) stats: Arc<BusStats>,
    pub(crate) desired: watch::Sender<Desired>,
    pub(crate) credentials: watch::Sender<Option<Credentials>>,
    pub(crate) link: LinkWriter,
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
    let mut failures = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            result = once(&session) => match result {
                Ok(()) => failures = 0,
                Err(error) => log::info!(reason:% = format!("{error:#}"); "no connection to the fleet"),
            }
        }
        session.link.send_replace(Link::without(FleetLink::Offline));
        let pause = pause(failures);
        failures += 1;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One connection from its begin to its end. `Ok` when it had come as far as the greeting.
async fn once(session: &Session) -> anyhow::Result<()> {
    let credentials = session.credentials.borrow().clone().context("not enrolled")?;
    let (endpoint, connection) = connect(&credentials).await?;
    let ended = control::run(session, &connection).await;
    connection.close(VarInt::from_u32(0), b"bye");
    drop(tokio::time::timeout(Duration::from_secs(1), endpoint.wait_idle()).await);
    match ended {
        Ok(error) => {
            log::info!(reason:% = format!("{error:#}"); "the connection to the fleet ended");
            Ok(())
        }
        Err(error) => Err(error),
    }
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
