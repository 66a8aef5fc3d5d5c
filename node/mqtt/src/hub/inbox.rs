//! Publishes of one client on their way into the node: who is still owed an acknowledgement, and in which order.  Pure.
//!
//! ```text
//!            ┌────────── QoS 1: acknowledged ─────────▶ forgotten
//!  Pending ──┤
//!            └── QoS 2: acknowledged ──▶ received ── PUBREL ──▶ forgotten
//! ```
//! Receipts may come in any order; acknowledgements leave in the order of receipt.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use crate::{
    hub::Ticket,
    message::{Message, QoS},
    wire::Reason,
};

/// Publishes of one session that are not settled yet.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pending: VecDeque<Pending>,
    /// QoS 2: acknowledged by PUBREC and not yet released by PUBREL.
    received: BTreeSet<u16>,
}

#[derive(Debug)]
struct Pending {
    ticket: Ticket,
    message: Arc<Message>,
    ack: Ack,
    outcome: Option<Result<(), Reason>>,
}

/// Whether the connection that is open now waits for the acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ack {
    Owed(u16),
    /// Its connection is gone; owed again when the client sends the message again.
    Lost(u16),
}

/// What a publish of QoS ≥ 1 is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Not seen before.
    New,
    /// Seen, its receipt is pending: the acknowledgement follows.
    Pending,
    /// QoS 2, seen and acknowledged: the acknowledgement is to be repeated.
    Received,
}

/// A publish whose turn has come.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) message: Arc<Message>,
    pub(crate) ack: Ack,
    pub(crate) outcome: Result<(), Reason>,
}

impl Inbox {
    /// Tells a new message from one that is sent again.
    pub(crate) fn handle_offer(&mut self, packet_id: u16, dup: bool, qos: QoS) -> Offer {
        if qos == QoS::ExactlyOnce && self.received.contains(&packet_id) {
            return Offer::Received;
        }
        // The identifier of QoS 1 names the same message only with the flag; that of QoS 2 does until it is released.
        let again = self.pending.iter_mut().find(|pending| {
            let (Ack::Owed(id) | Ack::Lost(id)) = pending.ack;
            id == packet_id && pending.message.qos == qos && (dup || qos == QoS::ExactlyOnce)
        });
        match again {
            Some(pending) => {
                pending.ack = Ack::Owed(packet_id);
                Offer::Pending
            }
            None => Offer::New,
        }
    }

    /// Queues a new message until its receipt comes.
    pub(crate) fn push(&mut self, ticket: Ticket, packet_id: u16, message: Arc<Message>) {
        self.pending.push_back(Pending { ticket, message, ack: Ack::Owed(packet_id), outcome: None });
    }

    /// Notes the receipt of `ticket`.
    pub(crate) fn handle_receipt(&mut self, ticket: Ticket, outcome: Result<(), Reason>) {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.ticket == ticket) {
            pending.outcome = Some(outcome);
        }
    }

    /// The next message whose receipt is there and all before it are settled.
    pub(crate) fn poll_settled(&mut self) -> Option<Settled> {
        let outcome = self.pending.front()?.outcome?;
        let Pending { message, ack, .. } = self.pending.pop_front()?;
        let (Ack::Owed(id) | Ack::Lost(id)) = ack;
        if message.qos == QoS::ExactlyOnce && outcome.is_ok() {
            self.received.insert(id);
        }
        Some(Settled { message, ack, outcome })
    }

    /// PUBREL: whether the identifier was known.
    pub(crate) fn handle_release(&mut self, packet_id: u16) -> bool {
        self.received.remove(&packet_id)
    }

    /// The connection is gone, and with it the acknowledgements it waited for.
    pub(crate) fn handle_closed(&mut self) {
        for pending in &mut self.pending {
            let (Ack::Owed(id) | Ack::Lost(id)) = pending.ack;
            pending.ack = Ack::Lost(id);
        }
    }

    /// Empties the inbox of a session that ends: what is still pending, and what was settled out of order.
    pub(crate) fn into_rest(self) -> impl Iterator<Item = (Ticket, Arc<Message>, Option<Result<(), Reason>>)> {
        self.pending.into_iter().map(|pending| (pending.ticket, pending.message, pending.outcome))
    }

    /// Messages the open connection waits for, as the receive maximum counts them.
    pub(crate) fn owed(&self) -> usize {
        self.pending.iter().filter(|pending| matches!(pending.ack, Ack::Owed(_))).count() + self.received.len()
    }

    /// Messages whose receipt is pending.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Messages of QoS 2 waiting for PUBREL.
    pub(crate) fn unreleased(&self) -> usize {
        self.received.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(qos: QoS) -> Arc<Message> {
        Arc::new(Message { qos, ..Message::new("t", "") })
    }

    fn inbox(qos: QoS, ids: &[u16]) -> Inbox {
        let mut inbox = Inbox::default();
        for id in ids {
            assert_eq!(inbox.handle_offer(*id, false, qos), Offer::New);
            inbox.push(Ticket(u64::from(*id)), *id, message(qos));
        }
        inbox
    }

    proptest! {
        #[test]
        fn acknowledgements_keep_the_order_of_receipt(order in Just((1..=20u16).collect::<Vec<_>>()).prop_shuffle()) {
            let mut inbox = inbox(QoS::AtLeastOnce, &(1..=20).collect::<Vec<_>>());
            let mut settled = Vec::new();
            for id in order {
                inbox.handle_receipt(Ticket(u64::from(id)), Ok(()));
                while let Some(Settled { ack: Ack::Owed(id), .. }) = inbox.poll_settled() {
                    settled.push(id);
                }
            }
            prop_assert_eq!(settled, (1..=20).collect::<Vec<_>>());
        }
    }

    #[test]
    fn qos_2_is_new_once_until_it_is_released() {
        let mut inbox = inbox(QoS::ExactlyOnce, &[7]);
        assert_eq!(inbox.handle_offer(7, true, QoS::ExactlyOnce), Offer::Pending);
        inbox.handle_receipt(Ticket(7), Ok(()));
        assert!(inbox.poll_settled().is_some());
        assert_eq!(inbox.handle_offer(7, true, QoS::ExactlyOnce), Offer::Received);
        assert!(inbox.handle_release(7));
        assert!(!inbox.handle_release(7));
        assert_eq!(inbox.handle_offer(7, false, QoS::ExactlyOnce), Offer::New);
    }

    #[test]
    fn refused_qos_2_may_be_sent_again_under_its_identifier() {
        let mut inbox = inbox(QoS::ExactlyOnce, &[7]);
        inbox.handle_receipt(Ticket(7), Err(Reason::Quota));
        assert!(inbox.poll_settled().is_some_and(|settled| settled.outcome == Err(Reason::Quota)));
        assert_eq!(inbox.handle_offer(7, false, QoS::ExactlyOnce), Offer::New);
    }

    #[test]
    fn acknowledgement_of_a_closed_connection_is_owed_only_after_the_message_came_again() {
        let mut inbox = inbox(QoS::AtLeastOnce, &[1, 2]);
        inbox.handle_closed();
        assert_eq!(inbox.owed(), 0);
        // Without the flag it is another message that happens to bear the number.
        assert_eq!(inbox.handle_offer(1, false, QoS::AtLeastOnce), Offer::New);
        assert_eq!(inbox.handle_offer(2, true, QoS::AtLeastOnce), Offer::Pending);
        inbox.handle_receipt(Ticket(1), Ok(()));
        inbox.handle_receipt(Ticket(2), Ok(()));
        assert!(inbox.poll_settled().is_some_and(|settled| settled.ack == Ack::Lost(1)));
        assert!(inbox.poll_settled().is_some_and(|settled| settled.ack == Ack::Owed(2)));
    }
}
