//! Messages on their way to one client: a bounded queue, a window in flight, and what to repeat after a reconnection.  Pure.
//!
//! ```text
//!  push ──▶ queue ── poll ──▶ sent ── PUBACK ──▶ forgotten
//!                              └───── PUBREC ──▶ released ── PUBCOMP ──▶ forgotten
//! ```

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    limits::{QUEUE_BYTES_MAX, QUEUE_BYTES_TOTAL_MAX, QUEUE_MESSAGES_MAX, RETAINED_BYTES_MAX, RETAINED_TOPICS_MAX},
    message::{Message, QoS},
    wire::{Deliver, ToClient},
};

/// Bytes queued by all sessions together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Arc<AtomicUsize>);

impl Meter {
    fn total(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A message for one client.
#[derive(Debug, Clone)]
pub(crate) struct Queued {
    pub(crate) message: Arc<Message>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: Vec<u32>,
    /// When the broker received it: its expiry counts from here.
    pub(crate) since: Duration,
}

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Room {
    /// What is published now.
    Normal,
    /// Retained messages of a new subscription come all at once and share their memory with the store.
    Retained,
}

/// Everything one session has yet to receive.
#[derive(Debug)]
pub(crate) struct Outbox {
    loose: VecDeque<(u64, Queued)>,
    assured: VecDeque<(u64, Queued)>,
    inflight: VecDeque<Inflight>,
    /// Identifiers in flight that a new connection has not seen yet.
    repeat: VecDeque<u16>,
    bytes: usize,
    pushed: u64,
    packet_id: u16,
    meter: Meter,
}

#[derive(Debug)]
struct Inflight {
    packet_id: u16,
    state: State,
}

#[derive(Debug)]
enum State {
    Sent(Queued),
    Released,
}

impl Outbox {
    pub(crate) fn new(meter: Meter) -> Self {
        Self {
            loose: VecDeque::new(),
            assured: VecDeque::new(),
            inflight: VecDeque::new(),
            repeat: VecDeque::new(),
            bytes: 0,
            pushed: 0,
            packet_id: 0,
            meter,
        }
    }

    /// Queues a message; the number of messages that had to be dropped for it, itself included.
    ///
    /// The oldest of QoS 0 go first; a message of QoS ≥ 1 that still finds no room is not taken.
    pub(crate) fn push(&mut self, queued: Queued, room: Room) -> u64 {
        let bytes = queued.message.len();
        let mut dropped = 0;
        while !self.fits(bytes, room) {
            dropped += 1;
            let Some((_, oldest)) = self.loose.pop_front() else {
                return dropped;
            };
            self.free(&oldest);
        }
        self.bytes += bytes;
        self.meter.0.fetch_add(bytes, Ordering::Relaxed);
        self.pushed += 1;
        let queue = if queued.qos == QoS::AtMostOnce { &mut self.loose } else { &mut self.assured };
        queue.push_back((self.pushed, queued));
        dropped
    }

    fn fits(&self, bytes: usize, room: Room) -> bool {
        let (messages_max, bytes_max) = match room {
            Room::Normal => (QUEUE_MESSAGES_MAX, QUEUE_BYTES_MAX),
            Room::Retained => (QUEUE_MESSAGES_MAX + RETAINED_TOPICS_MAX, QUEUE_BYTES_MAX + RETAINED_BYTES_MAX),
        };
        self.loose.len() + self.assured.len() < messages_max
            && self.bytes + bytes <= bytes_max
            && self.meter.total() + bytes <= QUEUE_BYTES_TOTAL_MAX
    }

    fn free(&mut self, queued: &Queued) {
        let bytes = queued.message.len();
        self.bytes -= bytes;
        self.meter.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The next packet for the client, with at most `window` messages in flight.
    pub(crate) fn poll_packet(&mut self, now: Duration, window: u16) -> Option<ToClient> {
        while let Some(packet_id) = self.repeat.pop_front() {
            if let Some(packet) = self.repeated(packet_id, now) {
                return Some(packet);
            }
        }
        loop {
            let queued = self.next_queued(window)?;
            if queued.expired(now) {
                self.free(&queued);
                continue;
            }
            if queued.qos == QoS::AtMostOnce {
                self.free(&queued);
                return Some(ToClient::Publish(queued.deliver(0, false, now)));
            }
            let packet_id = self.unused_packet_id();
            let deliver = queued.deliver(packet_id, false, now);
            self.inflight.push_back(Inflight { packet_id, state: State::Sent(queued) });
            return Some(ToClient::Publish(deliver));
        }
    }

    /// In the order they were pushed; a full window holds back only QoS ≥ 1.
    fn next_queued(&mut self, window: u16) -> Option<Queued> {
        let open = self.inflight.len() < usize::from(window);
        let loose = self.loose.front().map(|(order, _)| *order);
        let assured = self.assured.front().filter(|_| open).map(|(order, _)| *order);
        let queue = match (loose, assured) {
            (None, None) => return None,
            (Some(loose), Some(assured)) if loose < assured => &mut self.loose,
            (Some(_), None) => &mut self.loose,
            (None | Some(_), Some(_)) => &mut self.assured,
        };
        queue.pop_front().map(|(_, queued)| queued)
    }

    fn repeated(&self, packet_id: u16, now: Duration) -> Option<ToClient> {
        let inflight = self.inflight.iter().find(|inflight| inflight.packet_id == packet_id)?;
        Some(match &inflight.state {
            State::Sent(queued) => ToClient::Publish(queued.deliver(packet_id, true, now)),
            State::Released => ToClient::PubRel { packet_id },
        })
    }

    fn unused_packet_id(&mut self) -> u16 {
        loop {
            self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
            if !self.inflight.iter().any(|inflight| inflight.packet_id == self.packet_id) {
                return self.packet_id;
            }
        }
    }

    /// PUBACK, PUBCOMP, a PUBREC that says no, or a packet too large for the client: the message is done.
    pub(crate) fn handle_done(&mut self, packet_id: u16) {
        let Some(at) = self.inflight.iter().position(|inflight| inflight.packet_id == packet_id) else {
            return;
        };
        if let Some(Inflight { state: State::Sent(queued), .. }) = self.inflight.remove(at) {
            self.free(&queued);
        }
    }

    /// PUBREC: the client has the message, only the end of the handshake is left.
    pub(crate) fn handle_received(&mut self, packet_id: u16) {
        let Some(inflight) = self.inflight.iter_mut().find(|inflight| inflight.packet_id == packet_id) else {
            return;
        };
        if let State::Sent(queued) = std::mem::replace(&mut inflight.state, State::Released) {
            self.free(&queued);
        }
    }

    /// The connection is gone: what it had not acknowledged is repeated on the next one, QoS 0 is not worth keeping.
    pub(crate) fn handle_closed(&mut self) -> u64 {
        let loose = std::mem::take(&mut self.loose);
        loose.iter().for_each(|(_, queued)| self.free(queued));
        self.repeat = self.inflight.iter().map(|inflight| inflight.packet_id).collect();
        loose.len() as u64
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.meter.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Queued {
    fn expired(&self, now: Duration) -> bool {
        self.message.properties.expiry.is_some_and(|expiry| now >= self.since + expiry)
    }

    fn deliver(&self, packet_id: u16, dup: bool, now: Duration) -> Deliver {
        let waited = now.saturating_sub(self.since);
        Deliver {
            packet_id,
            dup,
            qos: self.qos,
            retain: self.retain,
            expiry: self.message.properties.expiry.map(|expiry| expiry.saturating_sub(waited)),
            subscription_ids: self.subscription_ids.clone(),
            message: Arc::clone(&self.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn queued(qos: QoS, bytes: usize) -> Queued {
        let message = Arc::new(Message { qos, ..Message::new("t", vec![0; bytes - 1]) });
        Queued { message, qos, retain: false, subscription_ids: Vec::new(), since: NOW }
    }

    fn drain(outbox: &mut Outbox, window: u16) -> Vec<Deliver> {
        std::iter::from_fn(|| outbox.poll_packet(NOW, window))
            .filter_map(|packet| if let ToClient::Publish(deliver) = packet { Some(deliver) } else { None })
            .collect()
    }

    #[test]
    fn one_message_too_many_drops_the_oldest_of_qos_0() {
        let mut outbox = Outbox::new(Meter::default());
        for _ in 0..QUEUE_MESSAGES_MAX {
            assert_eq!(outbox.push(queued(QoS::AtMostOnce, 2), Room::Normal), 0);
        }
        assert_eq!(outbox.push(queued(QoS::AtMostOnce, 2), Room::Normal), 1);
        assert_eq!(outbox.push(queued(QoS::AtLeastOnce, 2), Room::Normal), 1);
        let sent = drain(&mut outbox, 32);
        assert_eq!(sent.len(), QUEUE_MESSAGES_MAX);
        assert_eq!(sent.iter().filter(|deliver| deliver.qos == QoS::AtLeastOnce).count(), 1);
    }

    #[test]
    fn full_of_qos_1_takes_nothing_more() {
        let mut outbox = Outbox::new(Meter::default());
        assert_eq!(outbox.push(queued(QoS::AtLeastOnce, QUEUE_BYTES_MAX), Room::Normal), 0);
        assert_eq!(outbox.push(queued(QoS::AtLeastOnce, 1), Room::Normal), 1);
        assert_eq!(outbox.push(queued(QoS::AtMostOnce, 1), Room::Normal), 1);
        assert_eq!(outbox.push(queued(QoS::AtLeastOnce, 1), Room::Retained), 0);
    }

    #[test]
    fn all_queues_together_are_bounded_and_a_session_gives_its_share_back() {
        let meter = Meter::default();
        let full = QUEUE_BYTES_TOTAL_MAX / QUEUE_BYTES_MAX;
        let mut others: Vec<Outbox> = (0..full).map(|_| Outbox::new(meter.clone())).collect();
        let message = queued(QoS::AtLeastOnce, QUEUE_BYTES_MAX);
        assert!(others.iter_mut().all(|outbox| outbox.push(message.clone(), Room::Normal) == 0));
        let mut last = Outbox::new(meter.clone());
        assert_eq!(last.push(queued(QoS::AtLeastOnce, 1), Room::Normal), 1);
        others.pop();
        assert_eq!(last.push(queued(QoS::AtLeastOnce, 1), Room::Normal), 0);
        drop((others, last));
        assert_eq!(meter.total(), 0);
    }

    #[test]
    fn full_window_holds_back_only_qos_1() {
        let mut outbox = Outbox::new(Meter::default());
        for qos in [QoS::AtLeastOnce, QoS::AtLeastOnce, QoS::AtMostOnce] {
            outbox.push(queued(qos, 2), Room::Normal);
        }
        let sent = drain(&mut outbox, 1);
        assert_eq!(sent.iter().map(|deliver| deliver.qos).collect::<Vec<_>>(), [QoS::AtLeastOnce, QoS::AtMostOnce]);
        outbox.handle_done(sent[0].packet_id);
        assert_eq!(drain(&mut outbox, 1).len(), 1);
    }

    #[test]
    fn new_connection_gets_what_was_not_acknowledged_first_and_marked() {
        let mut outbox = Outbox::new(Meter::default());
        (0..3).for_each(|_| assert_eq!(outbox.push(queued(QoS::ExactlyOnce, 2), Room::Normal), 0));
        let sent = drain(&mut outbox, 2);
        outbox.handle_received(sent[0].packet_id);
        outbox.handle_closed();
        let packets: Vec<ToClient> = std::iter::from_fn(|| outbox.poll_packet(NOW, 3)).collect();
        let [ToClient::PubRel { packet_id }, ToClient::Publish(second), ToClient::Publish(third)] = packets.as_slice() else {
            panic!("{packets:?}");
        };
        assert_eq!(*packet_id, sent[0].packet_id);
        assert!(second.dup && second.packet_id == sent[1].packet_id);
        assert!(!third.dup);
    }

    #[test]
    fn expired_message_is_not_sent_and_the_rest_of_its_time_is_told() {
        let mut outbox = Outbox::new(Meter::default());
        let mut message = Message::new("t", "x");
        message.properties.expiry = Some(Duration::from_secs(10));
        let queued = Queued { message: Arc::new(message), ..queued(QoS::AtMostOnce, 2) };
        outbox.push(queued.clone(), Room::Normal);
        outbox.push(Queued { since: NOW + Duration::from_secs(7), ..queued }, Room::Normal);
        let Some(ToClient::Publish(deliver)) = outbox.poll_packet(NOW + Duration::from_secs(12), 1) else { panic!("nothing sent") };
        assert_eq!(deliver.expiry, Some(Duration::from_secs(5)));
        assert!(outbox.poll_packet(NOW, 1).is_none());
    }
}
