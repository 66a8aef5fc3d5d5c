//! Subscriptions, and from a message to its subscribers.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
    time::Duration,
};

use super::{
    ConnectionId, Hub, SessionId,
    outbox::{Queued, Room},
    session::Session,
};
use crate::{
    limits::SUBSCRIPTIONS_MAX,
    message::{Message, QoS},
    topic::Wanted,
    wire::{Options, Reason, RetainHandling, ToClient},
};

/// Who subscribed with one filter.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    direct: BTreeMap<SessionId, Options>,
    groups: BTreeMap<String, Group>,
}

/// A shared subscription: each message goes to one member, in turn.
#[derive(Debug, Default)]
struct Group {
    members: BTreeMap<SessionId, Options>,
    last: Option<SessionId>,
}

/// Copies of one message for one session, merged into one: the specifications allow it and clients prefer it.
#[derive(Debug)]
struct Copy {
    qos: QoS,
    retain: bool,
    subscription_ids: Vec<u32>,
}

impl Hub {
    /// A message of the node itself: retained if it asks for it, and to its subscribers.
    pub(crate) fn publish(&mut self, message: Message, now: Duration) {
        self.deliver(&Arc::new(message), None, now);
    }

    /// Retains a message if it asks for it and queues it for every subscriber, except for those who want no echo.
    pub(super) fn deliver(&mut self, message: &Arc<Message>, from: Option<SessionId>, now: Duration) {
        if message.retain && !self.retained.handle_message(message, now) {
            self.stats.dropped += 1;
            if self.stats.dropped.is_power_of_two() {
                log::warn!(topic = message.topic.as_str(), dropped = self.stats.dropped; "messages are not retained, the store is full");
            }
        }
        let mut copies: BTreeMap<SessionId, Copy> = BTreeMap::new();
        let sessions = &self.sessions;
        self.subscriptions.visit(&message.topic, &mut |subscribers: &mut Subscribers| {
            let direct = subscribers.direct.iter().map(|(id, options)| (*id, *options));
            let shared = subscribers.groups.values_mut().filter_map(|group| group.pick(sessions));
            for (id, options) in direct.chain(shared) {
                if !(options.no_local && from == Some(id)) {
                    copies.entry(id).or_insert_with(Copy::new).add(options, message);
                }
            }
        });
        for (id, Copy { qos, retain, subscription_ids }) in copies {
            let queued = Queued { message: Arc::clone(message), qos, retain, subscription_ids, since: now };
            self.queue(id, queued, Room::Normal);
        }
    }

    fn queue(&mut self, id: SessionId, queued: Queued, room: Room) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        match session.connection() {
            Some(connection) => {
                self.dirty.insert(connection);
            }
            None if queued.qos == QoS::AtMostOnce => return,
            None => {}
        }
        self.stats.dropped += session.outbox.push(queued, room);
    }

    pub(super) fn handle_subscribe(&mut self, connection: ConnectionId, packet_id: u16, filters: &[(String, Options)], now: Duration) {
        let Some(id) = self.links.get(&connection).map(|link| link.session) else {
            return;
        };
        if filters.len() > SUBSCRIPTIONS_MAX {
            return self.close(connection, Some(Reason::Quota), now);
        }
        // To hear nothing of oneself and to take turns with others contradict each other: MQTT 5, 3.8.3.1.
        if filters.iter().any(|(text, options)| options.no_local && text.starts_with("$share/")) {
            return self.close(connection, Some(Reason::Protocol), now);
        }
        let answers = filters.iter().map(|(text, options)| self.subscribe(id, text, *options, now)).collect();
        self.answer(connection, ToClient::SubAck { packet_id, answers });
    }

    fn subscribe(&mut self, id: SessionId, text: &str, options: Options, now: Duration) -> Result<QoS, Reason> {
        let wanted = Wanted::parse(text).map_err(|_| Reason::Filter)?;
        let session = self.sessions.get_mut(&id).ok_or(Reason::Unspecified)?;
        let new = !session.filters.contains_key(text);
        if new && session.filters.len() >= SUBSCRIPTIONS_MAX {
            return Err(Reason::Quota);
        }
        session.filters.insert(text.into(), options);
        let subscribers = self.subscriptions.entry(wanted.filter);
        match wanted.group {
            Some(group) => subscribers.groups.entry(group.into()).or_default().members.insert(id, options),
            None => subscribers.direct.insert(id, options),
        };
        let retained = match options.retain_handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => new,
            RetainHandling::Never => false,
        };
        if retained && wanted.group.is_none() {
            self.send_retained(id, wanted.filter, options, now);
        }
        Ok(options.qos)
    }

    fn send_retained(&mut self, id: SessionId, filter: &str, options: Options, now: Duration) {
        for (since, message) in self.retained.matching(filter, now) {
            let qos = message.qos.min(options.qos);
            let queued = Queued { message, qos, retain: true, subscription_ids: options.id.into_iter().collect(), since };
            self.queue(id, queued, Room::Retained);
        }
    }

    pub(super) fn handle_unsubscribe(&mut self, connection: ConnectionId, packet_id: u16, filters: &[String]) {
        let Some(id) = self.links.get(&connection).map(|link| link.session) else {
            return;
        };
        let mut answers = Vec::with_capacity(filters.len());
        for text in filters {
            let known = self.sessions.get_mut(&id).is_some_and(|session| session.filters.remove(text).is_some());
            if known {
                self.unsubscribe(id, text);
            }
            answers.push(if known { Reason::Success } else { Reason::NoSubscription });
        }
        self.answer(connection, ToClient::UnsubAck { packet_id, answers });
    }

    /// Takes a session out of the trie.
    pub(super) fn unsubscribe(&mut self, id: SessionId, text: &str) {
        let Ok(wanted) = Wanted::parse(text) else {
            return;
        };
        self.subscriptions.edit(wanted.filter, |subscribers| {
            subscribers.remove(id, wanted.group);
            !(subscribers.direct.is_empty() && subscribers.groups.is_empty())
        });
    }
}

impl Subscribers {
    fn remove(&mut self, id: SessionId, group: Option<&str>) {
        let Some(name) = group else {
            self.direct.remove(&id);
            return;
        };
        if let Some(group) = self.groups.get_mut(name) {
            group.members.remove(&id);
            if group.members.is_empty() {
                self.groups.remove(name);
            }
        }
    }
}

impl Group {
    /// The next member after the last one, those who are connected first.
    fn pick(&mut self, sessions: &BTreeMap<SessionId, Session>) -> Option<(SessionId, Options)> {
        let start = self.last.map_or(Unbounded, Excluded);
        let turn = || self.members.range((start, Unbounded)).chain(&self.members);
        let here = |id: &SessionId| sessions.get(id).is_some_and(|session| session.connection().is_some());
        let (id, options) = turn().find(|(id, _)| here(id)).or_else(|| turn().next())?;
        let picked = (*id, *options);
        self.last = Some(picked.0);
        Some(picked)
    }
}

impl Copy {
    fn new() -> Self {
        Self { qos: QoS::AtMostOnce, retain: false, subscription_ids: Vec::new() }
    }

    fn add(&mut self, options: Options, message: &Message) {
        self.qos = self.qos.max(options.qos.min(message.qos));
        self.retain |= options.retain_as_published && message.retain;
        self.subscription_ids.extend(options.id);
    }
}
