//! Clients come, take over, go, and are forgotten.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    ConnectionId, Effect, Hub, Link, Origin, SessionId,
    inbox::Inbox,
    outbox::Outbox,
    session::{Presence, Session},
};
use crate::{
    limits::{CLIENT_ID_BYTES_MAX, SESSION_EXPIRY_MAX, SESSIONS_MAX},
    message::{Inbound, QoS},
    topic::check_topic,
    wire::{Connect, Reason, ToClient, Version, Welcome, Will},
};

impl Hub {
    /// A client whose credentials are good asks to be let in.
    pub(crate) fn handle_connect(&mut self, connection: ConnectionId, mut connect: Connect, now: Duration) {
        if let Err(reason) = self.check_connect(&connect) {
            let packets = vec![ToClient::Unwelcome(reason)];
            self.effects.push_back(Effect::Send { connection, packets, last: true });
            return;
        }
        let assigned_id = connect.client_id.is_empty().then(|| self.assign_client_id());
        let client_id = assigned_id.clone().unwrap_or_else(|| connect.client_id.as_str().into());
        let resumed = self.prepare_session(&client_id, connect.clean_start, now);
        let expiry = connect.session_expiry.min(SESSION_EXPIRY_MAX);
        let presence = Presence::Here { connection, will: connect.will.take() };
        let id = match resumed {
            Some(id) => {
                let session = self.sessions.get_mut(&id).expect("prepare_session returns a session that exists");
                session.presence = presence;
                session.expiry = expiry;
                id
            }
            None => {
                let session = Session {
                    client_id,
                    user: connect.user.take(),
                    presence,
                    expiry,
                    filters: BTreeMap::new(),
                    inbox: Inbox::default(),
                    outbox: Outbox::new(self.meter.clone()),
                };
                self.open_session(session, now)
            }
        };
        let link = Link {
            session: id,
            version: connect.version,
            window: Link::window(connect.receive_max),
            packet_bytes_max: connect.packet_bytes_max,
            busy: false,
            answers: std::collections::VecDeque::new(),
        };
        self.links.insert(connection, link);
        let session_expiry = (connect.version == Version::V5 && expiry != connect.session_expiry).then_some(expiry);
        self.answer(connection, ToClient::Welcome(Welcome { session_present: resumed.is_some(), assigned_id, session_expiry }));
    }

    fn check_connect(&self, connect: &Connect) -> Result<(), Reason> {
        let unnamed = connect.client_id.is_empty() && connect.version == Version::V3 && !connect.clean_start;
        if unnamed || connect.client_id.len() > CLIENT_ID_BYTES_MAX {
            return Err(Reason::ClientId);
        }
        if let Some(Will { message, .. }) = &connect.will
            && (check_topic(&message.topic).is_err() || message.topic.starts_with('$'))
        {
            return Err(Reason::Topic);
        }
        let known = self.by_client.get(connect.client_id.as_str()).and_then(|id| self.sessions.get(id));
        if known.is_some_and(|session| session.user != connect.user) {
            return Err(Reason::NotAuthorized);
        }
        Ok(())
    }

    fn assign_client_id(&mut self) -> Arc<str> {
        loop {
            let id: Arc<str> = format!("sedge-{}", self.next()).into();
            if !self.by_client.contains_key(&id) {
                return id;
            }
        }
    }

    /// Closes the connection a session still has; the session to go on with, if it is there and wanted.
    fn prepare_session(&mut self, client_id: &Arc<str>, clean_start: bool, now: Duration) -> Option<SessionId> {
        let id = *self.by_client.get(client_id)?;
        if let Some(old) = self.sessions.get(&id).and_then(Session::connection) {
            self.close(old, Some(Reason::TakenOver), now);
        }
        if clean_start {
            self.end_session(id, now);
        }
        self.sessions.contains_key(&id).then_some(id)
    }

    fn open_session(&mut self, session: Session, now: Duration) -> SessionId {
        if self.sessions.len() >= SESSIONS_MAX {
            let away = |(id, session): (&SessionId, &Session)| Some((session.away_since()?, *id));
            if let Some((_, id)) = self.sessions.iter().filter_map(away).min() {
                self.stats.forgotten += 1;
                // One client may cause thousands: each doubling is told.
                if self.stats.forgotten.is_power_of_two() {
                    let client = self.sessions[&id].client_id.as_ref();
                    log::warn!(client, forgotten = self.stats.forgotten; "sessions are forgotten, too many are kept");
                }
                self.end_session(id, now);
            }
        }
        let id = SessionId(self.next());
        self.by_client.insert(Arc::clone(&session.client_id), id);
        self.sessions.insert(id, session);
        id
    }

    /// DISCONNECT: the client goes on purpose.
    pub(super) fn handle_goodbye(&mut self, connection: ConnectionId, with_will: bool, expiry: Option<Duration>, now: Duration) {
        let Some(session) = self.links.get(&connection).and_then(|link| self.sessions.get_mut(&link.session)) else {
            return;
        };
        let revives = session.expiry.is_zero() && expiry.is_some_and(|expiry| !expiry.is_zero());
        if revives {
            return self.close(connection, Some(Reason::Protocol), now);
        }
        session.expiry = expiry.map_or(session.expiry, |expiry| expiry.min(SESSION_EXPIRY_MAX));
        if let Presence::Here { will, .. } = &mut session.presence
            && !with_will
        {
            *will = None;
        }
        self.close(connection, None, now);
    }

    /// The session has lost its connection.
    pub(super) fn depart(&mut self, id: SessionId, now: Duration) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Presence::Here { will, .. } = &mut session.presence else {
            return;
        };
        let will = will.take().map(|will| (now + will.delay.min(session.expiry), will));
        session.presence = Presence::Away { since: now, will };
        session.inbox.handle_closed();
        self.stats.dropped += session.outbox.handle_closed();
        self.say_will_if_due(id, now);
        if self.sessions.get(&id).is_some_and(|session| session.expired(now)) {
            self.end_session(id, now);
        }
    }

    pub(super) fn say_will_if_due(&mut self, id: SessionId, now: Duration) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if let Presence::Away { will, .. } = &mut session.presence
            && will.as_ref().is_some_and(|(due, _)| now >= *due)
            && let Some((_, will)) = will.take()
        {
            let client_id = Arc::clone(&session.client_id);
            self.say_will(client_id, will, now);
        }
    }

    /// A will takes the way of every message: through the ingress, then to its subscribers.
    fn say_will(&mut self, client_id: Arc<str>, will: Will, now: Duration) {
        let message = will.message;
        let ticket = if message.qos == QoS::AtMostOnce {
            self.deliver(&message, None, now);
            None
        } else {
            let ticket = self.issue(Origin::Nobody(Arc::clone(&message)));
            Some(ticket)
        };
        self.stats.received += 1;
        self.effects.push_back(Effect::Ingress { ticket, inbound: Inbound { client_id, message } });
    }

    /// Forgets a session; its will is said now at the latest, what it published goes on.
    pub(super) fn end_session(&mut self, id: SessionId, now: Duration) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        self.by_client.remove(&session.client_id);
        for text in session.filters.keys() {
            self.unsubscribe(id, text);
        }
        for (ticket, message, outcome) in session.inbox.into_rest() {
            match outcome {
                Some(Ok(())) => self.deliver(&message, None, now),
                Some(Err(_)) => {}
                None => {
                    self.tickets.insert(ticket, Origin::Nobody(message));
                }
            }
        }
        if let Presence::Away { will: Some((_, will)), .. } = session.presence {
            self.say_will(session.client_id, will, now);
        }
    }
}
