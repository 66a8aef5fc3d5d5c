//! The QUIC side: one connection a node, mutual TLS, every stream opened by the node.
//!
//! ```text
//!  accept ─▶ handshake ─▶ node id from the certificate ─▶ known? ─▶ seat ─▶ streams
//!                                                                            ├─ control   Hello, Welcome, Desired ⇄ Report
//!                                                                            ├─ artifact  Fetch ─▶ Head, bytes
//!                                                                            ├─ usage     Usage ─▶ UsageApplied
//!                                                                            └─ renewal   Renew ─▶ Renewed
//! ```
//! A frame that is not of the protocol closes its connection and nothing else.

mod artifact;
mod control;
mod frames;
mod usage;

use crate::fleet::Shared;
use crate::hub::Seat;
use crate::limits::{CERTIFICATE_DAYS, CONNECTIONS_MAX, IDLE_TIMEOUT, STREAMS_MAX};
use crate::supervisor::Supervisor;
use frames::{Frames, StreamFault, send};
use log::{debug, info, warn};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, VarInt};
use rustls_pki_types::CertificateDer;
use sedge_protocol::NodeId;
use sedge_protocol::message;
use sedge_protocol::message::{FromFleet, FromNode};
use sedge_provisioning::clock::now_ms;
use sedge_provisioning::identity::node_of;
use std::sync::Arc;

/// Codes with which the fleet closes a connection; nodes read the reason beside it.
const CLOSE_STOPPING: VarInt = VarInt::from_u32(0);
const CLOSE_UNKNOWN: VarInt = VarInt::from_u32(message::CLOSE_UNKNOWN);
const CLOSE_PROTOCOL: VarInt = VarInt::from_u32(2);
const CLOSE_REPLACED: VarInt = VarInt::from_u32(3);

/// QUIC's settings for TLS of ours.
pub(crate) fn server_config(tls: rustls::ServerConfig) -> Result<quinn::ServerConfig, quinn::crypto::rustls::NoInitialCipherSuite> {
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .max_concurrent_uni_streams(0_u8.into())
        .max_idle_timeout(IDLE_TIMEOUT.try_into().ok())
        .keep_alive_interval(Some(IDLE_TIMEOUT / 4))
        .datagram_receive_buffer_size(None);
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Accepts nodes until the fleet stops.
pub(crate) async fn run(endpoint: Endpoint, shared: Arc<Shared>, supervisor: Supervisor) {
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = supervisor.token().cancelled() => None,
        };
        let Some(incoming) = incoming else { break };
        if endpoint.open_connections() >= CONNECTIONS_MAX {
            incoming.refuse();
            continue;
        }
        let session = Session::begin(incoming, Arc::clone(&shared), supervisor.clone());
        supervisor.spawn("sync session", session);
    }
    endpoint.close(CLOSE_STOPPING, b"the fleet is stopping");
    endpoint.wait_idle().await;
}

/// One connection of one node.
#[derive(Clone)]
struct Session {
    node: NodeId,
    number: u64,
    connection: Connection,
    shared: Arc<Shared>,
}

impl Session {
    async fn begin(incoming: Incoming, shared: Arc<Shared>, supervisor: Supervisor) {
        let from = incoming.remote_address();
        let connection = match incoming.await {
            Ok(connection) => connection,
            Err(cause) => return debug!(from:%, cause:err; "handshake failed"),
        };
        let Some(node) = node_of_connection(&connection) else {
            return connection.close(CLOSE_UNKNOWN, b"the certificate names no node");
        };
        match shared.store.node(&node).await {
            Ok(Some(_)) => {}
            Ok(None) => {
                warn!(node:%, from:%; "unknown node refused");
                return connection.close(CLOSE_UNKNOWN, b"this fleet does not know the node: it was removed, or the fleet was set up anew");
            }
            Err(cause) => {
                warn!(node:%, cause:err; "node not looked up");
                return connection.close(CLOSE_STOPPING, b"the fleet's database does not answer");
            }
        }
        let Some(seat) = shared.hub.connect(&node).await else { return };
        let session = Self { node, number: seat.connection, connection, shared };
        session.serve(seat, &supervisor).await;
        session.shared.hub.leave(&session.node, session.number).await;
    }

    /// Serves streams until the connection ends.
    async fn serve(&self, seat: Seat, supervisor: &Supervisor) {
        loop {
            tokio::select! {
                stream = self.connection.accept_bi() => match stream {
                    Ok((answer, ask)) => {
                        let (session, desired) = (self.clone(), seat.desired.clone());
                        supervisor.spawn("sync stream", async move { session.stream(ask, answer, desired).await });
                    }
                    Err(cause) => return debug!(node:% = self.node, cause:err; "connection ended"),
                },
                () = seat.replaced.cancelled() => {
                    info!(node:% = self.node; "replaced by a newer connection of the node");
                    return self.connection.close(CLOSE_REPLACED, b"another connection of this node took its place");
                }
                () = supervisor.token().cancelled() => return self.connection.close(CLOSE_STOPPING, b"the fleet is stopping"),
            }
        }
    }

    async fn stream(self, ask: RecvStream, mut answer: SendStream, desired: control::DesiredWatch) {
        let mut frames = Frames::new(ask);
        let served = match frames.first().await {
            Ok(FromNode::Hello(hello)) => control::serve(&self, hello, (&mut frames, &mut answer), desired).await,
            Ok(FromNode::Fetch { digest, offset }) => artifact::serve(&self, digest, offset, &mut answer).await,
            Ok(FromNode::FetchRanges { digest, ranges }) => artifact::serve_ranges(&self, digest, &ranges, &mut answer).await,
            Ok(FromNode::Usage(batch)) => usage::serve(&self, batch, &mut frames, &mut answer).await,
            Ok(FromNode::Renew { csr }) => self.renew(&csr, &mut answer).await,
            Ok(FromNode::Report(_)) => Err(StreamFault::Order("a report before a hello")),
            Err(fault) => Err(fault),
        };
        match served {
            Ok(()) => drop(answer.finish()),
            Err(fault @ (StreamFault::Frame(_) | StreamFault::Order(_) | StreamFault::Silent)) => {
                warn!(node:% = self.node, fault:err; "connection closed: not of the protocol");
                self.connection.close(CLOSE_PROTOCOL, fault.to_string().as_bytes());
            }
            Err(fault @ (StreamFault::Read(_) | StreamFault::Write(_) | StreamFault::Ended)) => {
                debug!(node:% = self.node, fault:err; "stream ended")
            }
            Err(fault @ (StreamFault::Store(_) | StreamFault::Rollout(_) | StreamFault::Artifact(_))) => {
                warn!(node:% = self.node, fault:err; "stream not served");
                drop(answer.reset(CLOSE_STOPPING));
            }
        }
    }

    /// The next certificate for the node that this connection's certificate names.
    async fn renew(&self, csr: &str, answer: &mut SendStream) -> Result<(), StreamFault> {
        let issued = match self.shared.authority.issue_node(csr, &self.node, now_ms(), CERTIFICATE_DAYS) {
            Ok(issued) => issued,
            Err(cause) => return send(answer, &FromFleet::Refused { reason: cause.to_string() }).await,
        };
        self.shared.store.renewed(&self.node, issued.not_after_ms).await?;
        info!(node:% = self.node; "certificate renewed");
        send(answer, &FromFleet::Renewed { certificate: issued.certificate }).await
    }
}

fn node_of_connection(connection: &Connection) -> Option<NodeId> {
    let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    node_of(identity.first()?).ok()
}
