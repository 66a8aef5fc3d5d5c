//! The hub alone, with a clock of its own: what depends on time, and the bounds.

use super::*;
use crate::{
    limits::{SESSION_EXPIRY_MAX, SESSIONS_MAX, SUBSCRIPTIONS_MAX},
    message::{QoS, Refusal},
    wire::{Connect, Options, Publish, RetainHandling, Will},
};

const SECOND: Duration = Duration::from_secs(1);

/// A hub whose connections are always ready and whose node accepts everything at once.
#[derive(Default)]
struct World {
    hub: Hub,
    now: Duration,
    connections: u64,
    ingress: Vec<Arc<Message>>,
    sent: BTreeMap<ConnectionId, Vec<ToClient>>,
    closed: BTreeSet<ConnectionId>,
    /// Receipts the node owes; `None` answers at once.
    held: Option<Vec<Ticket>>,
}

impl World {
    fn settle(&mut self) {
        while let Some(effect) = self.hub.poll_effect(self.now) {
            match effect {
                Effect::Ingress { ticket, inbound } => {
                    self.ingress.push(inbound.message);
                    match (ticket, &mut self.held) {
                        (Some(ticket), Some(held)) => held.push(ticket),
                        (Some(ticket), None) => self.hub.handle_receipt(ticket, Ok(()), self.now),
                        (None, _) => {}
                    }
                }
                Effect::Send { connection, packets, last } => {
                    assert!(!self.closed.contains(&connection), "a closed connection gets nothing more");
                    self.sent.entry(connection).or_default().extend(packets);
                    if last {
                        self.closed.insert(connection);
                    } else {
                        self.hub.handle_ready(connection);
                    }
                }
            }
        }
    }

    fn connect(&mut self, connect: Connect) -> ConnectionId {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        self.hub.handle_connect(connection, connect, self.now);
        self.settle();
        connection
    }

    fn packet(&mut self, connection: ConnectionId, packet: FromClient) {
        self.hub.handle_packet(connection, packet, self.now);
        self.settle();
    }

    fn subscribe(&mut self, connection: ConnectionId, filters: &[&str]) -> Vec<Result<QoS, Reason>> {
        let options = Options {
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Always,
            id: None,
        };
        let filters = filters.iter().map(|filter| ((*filter).to_owned(), options)).collect();
        self.packet(connection, FromClient::Subscribe { packet_id: 1, filters });
        match self.taken(connection).pop() {
            Some(ToClient::SubAck { answers, .. }) => answers,
            other => panic!("SUBACK expected, not {other:?}"),
        }
    }

    fn publish(&mut self, connection: ConnectionId, packet_id: u16, topic: &str) {
        let message = Message { qos: QoS::AtLeastOnce, ..Message::new(topic, "x") };
        self.packet(connection, FromClient::Publish(Box::new(Publish { packet_id, dup: false, alias: None, message })));
    }

    fn close(&mut self, connection: ConnectionId) {
        self.hub.handle_closed(connection, self.now);
        self.settle();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.hub.handle_tick(self.now);
        self.settle();
    }

    fn taken(&mut self, connection: ConnectionId) -> Vec<ToClient> {
        self.sent.remove(&connection).unwrap_or_default()
    }

    fn welcome(&mut self, connection: ConnectionId) -> crate::wire::Welcome {
        match self.taken(connection).into_iter().next() {
            Some(ToClient::Welcome(welcome)) => welcome,
            other => panic!("CONNACK expected, not {other:?}"),
        }
    }
}

fn client(id: &str, expiry: Duration) -> Connect {
    Connect {
        version: Version::V5,
        client_id: id.into(),
        clean_start: false,
        keep_alive: Duration::ZERO,
        session_expiry: expiry,
        receive_max: u16::MAX,
        packet_bytes_max: u32::MAX,
        will: None,
        user: None,
        password: None,
    }
}

fn mortal(id: &str, expiry: Duration, delay: Duration) -> Connect {
    let message = Arc::new(Message { qos: QoS::AtLeastOnce, ..Message::new("will", id.to_owned()) });
    Connect { will: Some(Will { message, delay }), ..client(id, expiry) }
}

#[test]
fn session_is_kept_for_its_time_and_no_longer() {
    let mut world = World::default();
    let first = world.connect(client("c", 10 * SECOND));
    assert!(!world.welcome(first).session_present);
    world.close(first);
    world.pass(9 * SECOND);
    let second = world.connect(client("c", 10 * SECOND));
    assert!(world.welcome(second).session_present);
    world.close(second);
    world.pass(10 * SECOND);
    assert_eq!(world.hub.stats().sessions, 0);
    let third = world.connect(client("c", 10 * SECOND));
    assert!(!world.welcome(third).session_present);
}

#[test]
fn longer_expiry_than_the_limit_is_cut_and_told() {
    let mut world = World::default();
    let connection = world.connect(client("c", SESSION_EXPIRY_MAX + SECOND));
    assert_eq!(world.welcome(connection).session_expiry, Some(SESSION_EXPIRY_MAX));
    let connection = world.connect(client("d", SESSION_EXPIRY_MAX));
    assert_eq!(world.welcome(connection).session_expiry, None);
}

#[test]
fn delayed_will_is_said_in_time_unless_the_client_comes_back() {
    let mut world = World::default();
    let first = world.connect(mortal("c", 60 * SECOND, 5 * SECOND));
    world.close(first);
    world.pass(4 * SECOND);
    let second = world.connect(mortal("c", 60 * SECOND, 5 * SECOND));
    world.pass(60 * SECOND);
    assert!(world.ingress.is_empty());
    world.close(second);
    world.pass(4 * SECOND);
    assert!(world.ingress.is_empty());
    world.pass(SECOND);
    assert_eq!(world.ingress.len(), 1);
    world.pass(600 * SECOND);
    assert_eq!(world.ingress.len(), 1, "once");
}

#[test]
fn will_is_said_at_the_end_of_the_session_at_the_latest() {
    let mut world = World::default();
    let short = world.connect(mortal("short", 2 * SECOND, 60 * SECOND));
    world.close(short);
    world.pass(2 * SECOND);
    assert_eq!(world.ingress.len(), 1);
    let old = world.connect(mortal("c", 60 * SECOND, 60 * SECOND));
    world.close(old);
    world.connect(Connect { clean_start: true, ..client("c", SECOND) });
    assert_eq!(world.ingress.len(), 2, "a clean start ends the session");
}

#[test]
fn takeover_says_the_will_at_once_only_without_a_delay() {
    for (delay, said) in [(Duration::ZERO, 1), (SECOND, 0)] {
        let mut world = World::default();
        let old = world.connect(mortal("c", 60 * SECOND, delay));
        world.connect(client("c", 60 * SECOND));
        assert!(matches!(world.taken(old).last(), Some(ToClient::Disconnect(Reason::TakenOver))));
        world.pass(60 * SECOND);
        assert_eq!(world.ingress.len(), said);
    }
}

#[test]
fn stop_leaves_wills_unsaid_and_says_why() {
    let mut world = World::default();
    let connection = world.connect(mortal("c", Duration::ZERO, Duration::ZERO));
    world.hub.stop(world.now);
    world.settle();
    assert!(matches!(world.taken(connection).last(), Some(ToClient::Disconnect(Reason::ShuttingDown))));
    assert!(world.ingress.is_empty() && world.closed.contains(&connection));
}

#[test]
fn message_of_a_session_that_ended_still_reaches_its_subscribers() {
    let mut world = World { held: Some(Vec::new()), ..World::default() };
    let listener = world.connect(client("listener", SECOND));
    world.subscribe(listener, &["t"]);
    let speaker = world.connect(client("speaker", Duration::ZERO));
    world.publish(speaker, 1, "t");
    world.publish(speaker, 2, "t");
    let held = world.held.replace(Vec::new()).unwrap();
    // The second is settled before the first, then the session ends.
    world.hub.handle_receipt(held[1], Ok(()), world.now);
    world.close(speaker);
    world.hub.handle_receipt(held[0], Ok(()), world.now);
    world.settle();
    assert_eq!(world.taken(listener).len(), 2);
    assert_eq!(world.hub.receipts_pending(), 0);
}

#[test]
fn another_user_cannot_take_a_session() {
    let mut world = World::default();
    let ann = Connect { user: Some("ann".into()), ..client("c", 60 * SECOND) };
    let first = world.connect(ann.clone());
    let thief = world.connect(Connect { user: Some("bob".into()), ..client("c", 60 * SECOND) });
    assert!(matches!(world.taken(thief)[..], [ToClient::Unwelcome(Reason::NotAuthorized)]));
    assert!(!world.closed.contains(&first));
    world.close(first);
    let again = world.connect(ann);
    assert!(world.welcome(again).session_present);
}

#[test]
fn one_filter_too_many_is_refused() {
    let mut world = World::default();
    let connection = world.connect(client("c", SECOND));
    for number in 0..SUBSCRIPTIONS_MAX {
        assert_eq!(world.subscribe(connection, &[&number.to_string()]), [Ok(QoS::AtLeastOnce)]);
    }
    assert_eq!(world.subscribe(connection, &["more", "0"]), [Err(Reason::Quota), Ok(QoS::AtLeastOnce)]);
}

#[test]
fn one_session_too_many_forgets_the_one_that_is_away_longest() {
    let mut world = World::default();
    for number in 0..SESSIONS_MAX {
        let connection = world.connect(client(&number.to_string(), SESSION_EXPIRY_MAX));
        world.pass(SECOND);
        if number != 0 {
            world.close(connection);
        }
    }
    world.connect(client("more", SECOND));
    assert_eq!(world.hub.stats().sessions, SESSIONS_MAX);
    let forgotten = world.connect(client("1", SECOND));
    assert!(!world.welcome(forgotten).session_present);
    let kept = world.connect(client("3", SECOND));
    assert!(world.welcome(kept).session_present);
}

#[test]
fn client_that_asks_without_reading_is_closed() {
    let mut world = World::default();
    let connection = world.connect(client("c", SECOND));
    // A batch is out and never written: no `handle_ready`.
    world.hub.handle_packet(connection, FromClient::Ping, world.now);
    assert!(matches!(world.hub.poll_effect(world.now), Some(Effect::Send { .. })));
    for _ in 0..ANSWERS_MAX {
        world.hub.handle_packet(connection, FromClient::Ping, world.now);
        assert!(world.hub.poll_effect(world.now).is_none());
    }
    world.hub.handle_packet(connection, FromClient::Ping, world.now);
    assert!(matches!(world.hub.poll_effect(world.now), Some(Effect::Send { last: true, .. })));
}

#[test]
fn client_cannot_pile_up_messages_by_reconnecting() {
    let mut world = World { held: Some(Vec::new()), ..World::default() };
    let mut rounds = 0;
    loop {
        let connection = world.connect(Connect { version: Version::V3, ..client("c", 60 * SECOND) });
        for packet_id in 1..=32 {
            world.publish(connection, packet_id, "t");
        }
        if world.closed.contains(&connection) {
            break;
        }
        world.close(connection);
        rounds += 1;
        assert!(rounds < 100, "bounded");
    }
    assert!(world.held.is_some_and(|held| held.len() == 4 * 32));
}

#[test]
fn disconnect_may_shorten_a_session_but_not_revive_one() {
    let mut world = World::default();
    let long = world.connect(client("long", 60 * SECOND));
    world.packet(long, FromClient::Disconnect { with_will: false, session_expiry: Some(Duration::ZERO) });
    assert_eq!(world.hub.stats().sessions, 0);
    let none = world.connect(client("none", Duration::ZERO));
    world.packet(none, FromClient::Disconnect { with_will: false, session_expiry: Some(SECOND) });
    assert!(matches!(world.taken(none).last(), Some(ToClient::Disconnect(Reason::Protocol))));
}

#[test]
fn refused_will_reaches_nobody() {
    let mut world = World { held: Some(Vec::new()), ..World::default() };
    let listener = world.connect(client("listener", SECOND));
    world.subscribe(listener, &["will"]);
    let connection = world.connect(mortal("c", Duration::ZERO, Duration::ZERO));
    world.close(connection);
    let ticket = world.held.as_mut().unwrap().pop().unwrap();
    world.hub.handle_receipt(ticket, Err(Refusal::QuotaExceeded), world.now);
    world.settle();
    assert!(world.taken(listener).is_empty());
    assert_eq!(world.hub.stats().refused, 1);
}
