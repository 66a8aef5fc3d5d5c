//! The hub: every decision of the broker, without a socket, a clock or a lock.
//!
//! ```text
//!  connect, packet, ready, closed ──▶ ┌─────┐ ──▶ Effect::Send ─────▶ connection
//!  receipt ─────────────────────────▶ │ Hub │ ──▶ Effect::Ingress ──▶ node ──┐
//!  publish (from the node), tick ───▶ └─────┘                                │
//!     ▲                                                                      │
//!     └──────────────────────────── receipt ◀────────────────────────────────┘
//! ```
//! After each `handle_*` or command, call [`Hub::poll_effect`] until it is empty.  `now` is the time since the broker started.
//!
//! Invariants: a message of QoS ≥ 1 reaches subscribers, the retained store and its acknowledgement only after its receipt; a
//! connection has at most one batch it has not written yet; a closed connection gets nothing more.

mod admission;
mod inbox;
mod outbox;
mod publish;
mod retained;
mod route;
mod session;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;

use self::{
    outbox::Meter,
    retained::Retained,
    route::Subscribers,
    session::{Presence, Session},
};
use crate::{
    limits::{ANSWERS_MAX, BATCH_BYTES_MAX, BATCH_PACKETS_MAX, INFLIGHT_MAX},
    message::{Inbound, Message},
    stats::Stats,
    trie::Trie,
    wire::{FromClient, Reason, ToClient, Version, encode},
};

/// One TCP connection, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// One message on its way through the ingress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SessionId(u64);

/// What the shell has to do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Hand a message to the node.  With a ticket, its receipt must come back through [`Hub::handle_receipt`].
    Ingress { ticket: Option<Ticket>, inbound: Inbound },
    /// Write a batch; the last one closes the connection, any other is answered with [`Hub::handle_ready`].
    Send { connection: ConnectionId, packets: Vec<ToClient>, last: bool },
}

/// State of all clients.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    links: BTreeMap<ConnectionId, Link>,
    sessions: BTreeMap<SessionId, Session>,
    by_client: BTreeMap<Arc<str>, SessionId>,
    subscriptions: Trie<Subscribers>,
    retained: Retained,
    tickets: BTreeMap<Ticket, Origin>,
    effects: VecDeque<Effect>,
    /// Connections that may have something to send.
    dirty: BTreeSet<ConnectionId>,
    meter: Meter,
    counted: u64,
    stats: Stats,
}

/// A connection that was let in.
#[derive(Debug)]
struct Link {
    session: SessionId,
    version: Version,
    window: u16,
    packet_bytes_max: u32,
    /// A batch was sent and not written yet.
    busy: bool,
    /// What has to go out besides messages, in order.
    answers: VecDeque<ToClient>,
}

/// Whom a receipt concerns.
#[derive(Debug)]
enum Origin {
    Session(SessionId),
    /// A will, or a message whose session has ended: nobody waits for the acknowledgement.
    Nobody(Arc<Message>),
}

impl Hub {
    /// A packet of a connection that was let in; of any other it is ignored, its connection is being closed.  A client that
    /// asks without reading the answers is closed.
    pub(crate) fn handle_packet(&mut self, connection: ConnectionId, packet: FromClient, now: Duration) {
        let Some(link) = self.links.get(&connection) else {
            return;
        };
        let id = link.session;
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        self.dirty.insert(connection);
        match packet {
            FromClient::Publish(publish) => self.handle_publish(connection, *publish, now),
            FromClient::PubAck { packet_id } | FromClient::PubComp { packet_id } | FromClient::PubRec { packet_id, failed: true } => {
                session.outbox.handle_done(packet_id);
            }
            FromClient::PubRec { packet_id, failed: false } => {
                session.outbox.handle_received(packet_id);
                self.answer(connection, ToClient::PubRel { packet_id });
            }
            FromClient::PubRel { packet_id } => {
                let reason = if session.inbox.handle_release(packet_id) { Reason::Success } else { Reason::PacketId };
                self.answer(connection, ToClient::PubComp { packet_id, reason });
            }
            FromClient::Subscribe { packet_id, filters } => self.handle_subscribe(connection, packet_id, &filters, now),
            FromClient::Unsubscribe { packet_id, filters } => self.handle_unsubscribe(connection, packet_id, &filters),
            FromClient::Disconnect { with_will, session_expiry } => self.handle_goodbye(connection, with_will, session_expiry, now),
            FromClient::Ping => self.answer(connection, ToClient::Pong),
            // The connection takes the first CONNECT itself and the framing refuses a second.
            FromClient::Connect(_) => self.close(connection, Some(Reason::Protocol), now),
        }
        if self.links.get(&connection).is_some_and(|link| link.answers.len() > ANSWERS_MAX) {
            self.close(connection, Some(Reason::Quota), now);
        }
    }

    /// The connection has written its batch.
    pub(crate) fn handle_ready(&mut self, connection: ConnectionId) {
        if let Some(link) = self.links.get_mut(&connection) {
            link.busy = false;
            self.dirty.insert(connection);
        }
    }

    /// The connection is gone.
    pub(crate) fn handle_closed(&mut self, connection: ConnectionId, now: Duration) {
        if let Some(link) = self.links.remove(&connection) {
            self.depart(link.session, now);
        }
    }

    /// Wills and sessions whose time has come; call about once a second.
    pub(crate) fn handle_tick(&mut self, now: Duration) {
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            self.say_will_if_due(id, now);
            if self.sessions.get(&id).is_some_and(|session| session.expired(now)) {
                self.end_session(id, now);
            }
        }
    }

    /// Closes every connection because the broker stops.  Wills stay unsaid: nobody has vanished.
    pub(crate) fn stop(&mut self, now: Duration) {
        for session in self.sessions.values_mut() {
            if let Presence::Here { will, .. } = &mut session.presence {
                *will = None;
            }
        }
        let connections: Vec<ConnectionId> = self.links.keys().copied().collect();
        for connection in connections {
            self.close(connection, Some(Reason::ShuttingDown), now);
        }
    }

    /// What is to be done next.
    pub(crate) fn poll_effect(&mut self, now: Duration) -> Option<Effect> {
        if let Some(effect) = self.effects.pop_front() {
            return Some(effect);
        }
        while let Some(connection) = self.dirty.pop_first() {
            if let Some(packets) = self.batch(connection, now) {
                return Some(Effect::Send { connection, packets, last: false });
            }
        }
        None
    }

    /// Receipts that have not come yet.
    pub(crate) fn receipts_pending(&self) -> usize {
        self.tickets.len()
    }

    /// Counters, and how full everything is.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            clients: self.links.len(),
            sessions: self.sessions.len(),
            subscriptions: self.sessions.values().map(|session| session.filters.len()).sum(),
            retained: self.retained.len(),
            ..self.stats
        }
    }

    /// Counts a message of QoS 0 that the node did not take.
    pub(crate) fn count_refused(&mut self) {
        self.stats.refused += 1;
    }

    fn batch(&mut self, connection: ConnectionId, now: Duration) -> Option<Vec<ToClient>> {
        let link = self.links.get_mut(&connection).filter(|link| !link.busy)?;
        let session = self.sessions.get_mut(&link.session)?;
        let answers = link.answers.len().min(BATCH_PACKETS_MAX);
        let mut packets: Vec<ToClient> = link.answers.drain(..answers).collect();
        let mut bytes = 0;
        while packets.len() < BATCH_PACKETS_MAX && bytes < BATCH_BYTES_MAX {
            let Some(packet) = session.outbox.poll_packet(now, link.window) else {
                break;
            };
            if let ToClient::Publish(deliver) = &packet {
                if !link.accepts(&packet) {
                    session.outbox.handle_done(deliver.packet_id);
                    self.stats.dropped += 1;
                    continue;
                }
                bytes += deliver.message.len();
                self.stats.sent += 1;
            }
            packets.push(packet);
        }
        link.busy = !packets.is_empty();
        link.busy.then_some(packets)
    }

    /// Queues an answer.
    fn answer(&mut self, connection: ConnectionId, packet: ToClient) {
        if let Some(link) = self.links.get_mut(&connection) {
            link.answers.push_back(packet);
            self.dirty.insert(connection);
        }
    }

    /// Ends a connection: what it is owed, the reason (MQTT 5 only), then the end of the stream.
    fn close(&mut self, connection: ConnectionId, reason: Option<Reason>, now: Duration) {
        let Some(link) = self.links.remove(&connection) else {
            return;
        };
        let packets = link.answers.into_iter().chain(reason.map(ToClient::Disconnect)).collect();
        self.effects.push_back(Effect::Send { connection, packets, last: true });
        self.depart(link.session, now);
    }

    fn next(&mut self) -> u64 {
        self.counted += 1;
        self.counted
    }
}

impl Link {
    /// Whether the client takes a packet of this size.
    fn accepts(&self, packet: &ToClient) -> bool {
        if self.packet_bytes_max == u32::MAX {
            return true;
        }
        let mut bytes = BytesMut::new();
        encode(self.version, packet, &mut bytes);
        u32::try_from(bytes.len()).is_ok_and(|bytes| bytes <= self.packet_bytes_max)
    }

    /// Messages that may be in flight to a client that asked for `receive_max`.
    fn window(receive_max: u16) -> u16 {
        receive_max.min(INFLIGHT_MAX)
    }
}

#[cfg(test)]
mod tests;
