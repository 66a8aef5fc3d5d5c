//! What clients publish: to the node, and after its receipt to the subscribers and back as an acknowledgement.

use std::{sync::Arc, time::Duration};

use super::{
    ConnectionId, Effect, Hub, Origin, SessionId, Ticket,
    inbox::{Ack, Offer, Settled},
};
use crate::{
    limits::{RECEIVE_MAX, RELEASES_MAX},
    message::{Inbound, Message, QoS, Refusal},
    topic::{TopicError, check_topic},
    wire::{Publish, Reason, ToClient, Version},
};

impl Hub {
    pub(super) fn handle_publish(&mut self, connection: ConnectionId, publish: Publish, now: Duration) {
        self.stats.received += 1;
        let permitted = permit(&publish.message.topic);
        if permitted == Err(Reason::Malformed) {
            return self.close(connection, Some(Reason::Topic), now);
        }
        match publish.message.qos {
            QoS::AtMostOnce if permitted.is_err() => self.stats.refused += 1,
            QoS::AtMostOnce => self.handle_loose(connection, Arc::new(publish.message), now),
            QoS::AtLeastOnce | QoS::ExactlyOnce => {
                self.handle_assured(connection, publish, permitted, now);
            }
        }
    }

    /// QoS 0: nobody waits for the node.
    fn handle_loose(&mut self, connection: ConnectionId, message: Arc<Message>, now: Duration) {
        let Some(id) = self.links.get(&connection).map(|link| link.session) else {
            return;
        };
        let client_id = Arc::clone(&self.sessions[&id].client_id);
        self.deliver(&message, Some(id), now);
        self.effects.push_back(Effect::Ingress { ticket: None, inbound: Inbound { client_id, message } });
    }

    /// QoS ≥ 1: pending until the receipt comes, unless it is one we have.
    fn handle_assured(&mut self, connection: ConnectionId, publish: Publish, permitted: Result<(), Reason>, now: Duration) {
        let Publish { packet_id, dup, message, .. } = publish;
        let Some(link) = self.links.get(&connection) else {
            return;
        };
        let (id, version) = (link.session, link.version);
        let session = self.sessions.get_mut(&id).expect("a link has a session");
        match session.inbox.handle_offer(packet_id, dup, message.qos) {
            Offer::Pending => return,
            Offer::Received => {
                return self.answer(connection, ToClient::PubRec { packet_id, reason: Reason::Success });
            }
            Offer::New => {}
        }
        let inbox = &session.inbox;
        let greedy = match version {
            Version::V5 => inbox.owed() >= usize::from(RECEIVE_MAX),
            // The connection does not read on when its window is full; here only what a reconnecting client could pile up.
            Version::V3 => inbox.unreleased() >= RELEASES_MAX,
        };
        if greedy || inbox.pending() >= 4 * usize::from(RECEIVE_MAX) {
            return self.close(connection, Some(Reason::ReceiveMax), now);
        }
        let message = Arc::new(message);
        let client_id = Arc::clone(&session.client_id);
        let ticket = self.issue(Origin::Session(id));
        let session = self.sessions.get_mut(&id).expect("looked up above");
        session.inbox.push(ticket, packet_id, Arc::clone(&message));
        match permitted {
            Ok(()) => self.effects.push_back(Effect::Ingress { ticket: Some(ticket), inbound: Inbound { client_id, message } }),
            Err(reason) => self.settle(ticket, Err(reason), now),
        }
    }

    /// What the node did with a message.
    pub(crate) fn handle_receipt(&mut self, ticket: Ticket, outcome: Result<(), Refusal>, now: Duration) {
        let outcome = outcome.map_err(|refusal| match refusal {
            Refusal::QuotaExceeded => Reason::Quota,
            Refusal::NotAuthorized => Reason::NotAuthorized,
            Refusal::Unavailable => Reason::Unspecified,
        });
        self.settle(ticket, outcome, now);
    }

    fn settle(&mut self, ticket: Ticket, outcome: Result<(), Reason>, now: Duration) {
        match self.tickets.remove(&ticket) {
            None => {}
            Some(Origin::Nobody(message)) => match outcome {
                Ok(()) => self.deliver(&message, None, now),
                Err(_) => self.stats.refused += 1,
            },
            Some(Origin::Session(id)) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.inbox.handle_receipt(ticket, outcome);
                }
                while let Some(settled) = self.sessions.get_mut(&id).and_then(|session| session.inbox.poll_settled()) {
                    self.conclude(id, settled, now);
                }
            }
        }
    }

    /// A message whose turn has come: to its subscribers, and the acknowledgement to the client if it is still there.
    fn conclude(&mut self, id: SessionId, settled: Settled, now: Duration) {
        let Settled { message, ack, outcome } = settled;
        match outcome {
            Ok(()) => self.deliver(&message, Some(id), now),
            Err(_) => self.stats.refused += 1,
        }
        let Ack::Owed(packet_id) = ack else { return };
        let Some(connection) = self.sessions.get(&id).and_then(super::Session::connection) else {
            return;
        };
        let version = self.links.get(&connection).map(|link| link.version);
        if outcome.is_err() && version == Some(Version::V3) {
            // MQTT 3.1.1 has no word for "no": without an acknowledgement the client keeps the message and tries again.
            return self.close(connection, None, now);
        }
        let reason = outcome.err().unwrap_or(Reason::Success);
        self.answer(
            connection,
            match message.qos {
                QoS::ExactlyOnce => ToClient::PubRec { packet_id, reason },
                QoS::AtMostOnce | QoS::AtLeastOnce => ToClient::PubAck { packet_id, reason },
            },
        );
    }

    pub(super) fn issue(&mut self, origin: Origin) -> Ticket {
        let ticket = Ticket(self.next());
        self.tickets.insert(ticket, origin);
        ticket
    }
}

/// Whether clients may publish on a topic; `Malformed` is an offence, anything else a refusal.
fn permit(topic: &str) -> Result<(), Reason> {
    match check_topic(topic) {
        Ok(()) if topic.starts_with('$') => Err(Reason::NotAuthorized),
        Ok(()) => Ok(()),
        Err(TopicError::TooLong | TopicError::TooDeep) => Err(Reason::Topic),
        Err(TopicError::Empty | TopicError::Wildcard | TopicError::Nul | TopicError::Share) => Err(Reason::Malformed),
    }
}
