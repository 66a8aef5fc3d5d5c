//! The QUIC side: one connection a node, mutual TLS, every stream opened by the node.
//!
//! ```text
//!  accept ─▶ handshake ─▶ node id and key from the certificate ─▶ wanted? ─▶ seat ─▶ still wanted? ─▶ streams
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

use crate::farewell::{Farewell, refusal};
use crate::fleet::Shared;
use crate::hub::{News, Seat};
use crate::limits::{CONNECTIONS_MAX, IDLE_TIMEOUT, STREAMS_MAX};
use crate::supervisor::Supervisor;
use frames::{Frames, StreamFault, send};
use log::{debug, info, warn};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, VarInt};
use rustls_pki_types::CertificateDer;
use sedge_protocol::message;
use sedge_protocol::message::{FromFleet, FromNode};
use sedge_protocol::{Digest, NodeId};
use sedge_provisioning::clock::now_ms;
use sedge_provisioning::identity::{key_of, node_of};
use sedge_provisioning::issuer::request_key;
use std::sync::Arc;
use tokio::sync::watch;

/// Codes with which the fleet closes a connection; nodes read the reason beside it.
const CLOSE_STOPPING: VarInt = VarInt::from_u32(0);
const CLOSE_UNKNOWN: VarInt = VarInt::from_u32(message::CLOSE_UNKNOWN);
const CLOSE_PROTOCOL: VarInt = VarInt::from_u32(2);

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
    /// Digest of its key.
    key: Digest,
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
        let Some((node, key)) = node_of_connection(&connection) else {
            return connection.close(CLOSE_UNKNOWN, b"the certificate names no node");
        };
        let mut session = Self { node, key, number: 0, connection, shared };
        // Before the seat: who is refused must not take it from who is not.
        if !session.is_wanted().await {
            return;
        }
        let Some(seat) = session.shared.hub.connect(&session.node).await else { return };
        session.number = seat.connection;
        // And with the seat: a revocation in between found nobody to send away.
        if session.is_wanted().await {
            session.serve(seat, &supervisor).await;
        }
        session.shared.hub.leave(&session.node, session.number).await;
    }

    /// Whether the node is let in; closes the connection when it is not. The TLS handshake has verified the certificate; what an operator has
    /// decided is told here, since an alert of TLS has no room for a reason.
    async fn is_wanted(&self) -> bool {
        let from = self.connection.remote_address();
        let refusal = match self.shared.store.entry(&self.node).await {
            Ok(entry) => refusal(entry.as_ref(), self.key),
            Err(cause) => {
                warn!(node:% = self.node, cause:err; "node not looked up");
                self.connection.close(CLOSE_STOPPING, b"the fleet's database does not answer");
                return false;
            }
        };
        if let Some(farewell) = &refusal {
            warn!(node:% = self.node, from:%, reason = farewell.reason.as_str(); "node refused");
            self.close(farewell);
        }
        refusal.is_none()
    }

    fn close(&self, farewell: &Farewell) {
        self.connection.close(VarInt::from_u32(farewell.code), farewell.reason.as_bytes());
    }

    /// Serves streams until the connection ends.
    async fn serve(&self, mut seat: Seat, supervisor: &Supervisor) {
        loop {
            tokio::select! {
                stream = self.connection.accept_bi() => match stream {
                    Ok((answer, ask)) => {
                        let (session, news) = (self.clone(), seat.news.clone());
                        supervisor.spawn("sync stream", async move { session.stream(ask, answer, news).await });
                    }
                    Err(cause) => return debug!(node:% = self.node, cause:err; "connection ended"),
                },
                farewell = ended(&mut seat.end) => {
                    info!(node:% = self.node, reason = farewell.reason.as_str(); "connection closed");
                    return self.close(&farewell);
                }
                () = supervisor.token().cancelled() => return self.connection.close(CLOSE_STOPPING, b"the fleet is stopping"),
            }
        }
    }

    async fn stream(self, ask: RecvStream, mut answer: SendStream, news: News) {
        let mut frames = Frames::new(ask);
        let served = match frames.first().await {
            Ok(FromNode::Hello(hello)) => control::serve(&self, hello, (&mut frames, &mut answer), news).await,
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
        let shared = &self.shared;
        let issued = match request_key(csr) {
            // Another key would be another node: who is let in is looked up by the key.
            Ok(key) if key != self.key => Err("the request is of another key than the node's".to_owned()),
            Ok(_) => shared.authority.issue_node(csr, &self.node, now_ms(), shared.certificates.life).map_err(|cause| cause.to_string()),
            Err(cause) => Err(cause.to_string()),
        };
        let issued = match issued {
            Ok(issued) => issued,
            Err(reason) => return send(answer, &FromFleet::Refused { reason }).await,
        };
        self.shared.store.renewed(&self.node, issued.not_after_ms).await?;
        info!(node:% = self.node; "certificate renewed");
        send(answer, &FromFleet::Renewed { certificate: issued.certificate }).await
    }
}

/// Waits until the place is lost. Cancel safe. It is never lost to a hub that has ended: then the fleet stops.
async fn ended(end: &mut watch::Receiver<Option<Farewell>>) -> Farewell {
    let farewell = end.wait_for(Option::is_some).await.ok().and_then(|farewell| farewell.clone());
    match farewell {
        Some(farewell) => farewell,
        None => std::future::pending().await,
    }
}

fn node_of_connection(connection: &Connection) -> Option<(NodeId, Digest)> {
    let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    let certificate = identity.first()?;
    Some((node_of(certificate).ok()?, key_of(certificate).ok()?))
}
