//! Messages, and the seam through which the node receives what clients publish.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::oneshot;

/// How hard the two ends try: at most once, at least once, exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum QoS {
    /// At most once.
    #[default]
    AtMostOnce = 0,
    /// At least once.
    AtLeastOnce = 1,
    /// Exactly once, as far as the protocol reaches.
    ExactlyOnce = 2,
}

/// What a message says about itself beside its payload (MQTT 5; empty for MQTT 3.1.1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Properties {
    /// Media type of the payload.
    pub content_type: Option<String>,
    /// Topic on which the publisher expects an answer.
    pub response_topic: Option<String>,
    /// Opaque bytes that belong into the answer.
    pub correlation_data: Option<Bytes>,
    /// Name and value pairs in the order they came, names may repeat.
    pub user: Vec<(String, String)>,
    /// The publisher promises that the payload is UTF-8.
    pub utf8_payload: bool,
    /// How long the message is worth delivering, from its receipt.
    pub expiry: Option<Duration>,
}

/// One message on a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic, without wildcards.
    pub topic: String,
    /// Payload, any bytes.
    pub payload: Bytes,
    /// Quality of service it was published with.
    pub qos: QoS,
    /// Whether the publisher asked to retain it.
    pub retain: bool,
    /// Everything else.
    pub properties: Properties,
}

impl Message {
    /// A message of QoS 0 without properties.
    pub fn new(topic: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self { topic: topic.into(), payload: payload.into(), qos: QoS::AtMostOnce, retain: false, properties: Properties::default() }
    }

    /// Bytes it occupies in a queue: topic, payload, properties.
    pub(crate) fn len(&self) -> usize {
        let properties = &self.properties;
        let text = [&properties.content_type, &properties.response_topic];
        self.topic.len()
            + self.payload.len()
            + text.into_iter().flatten().map(String::len).sum::<usize>()
            + properties.correlation_data.as_ref().map_or(0, Bytes::len)
            + properties.user.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }
}

/// A message as a client published it.
#[derive(Debug, Clone)]
pub struct Inbound {
    /// Who published it.
    pub client_id: Arc<str>,
    /// What was published; shared with the queues of the subscribers.
    pub message: Arc<Message>,
}

/// Why the node does not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A queue or the disk is full; the client may try again later.
    #[error("quota exceeded")]
    QuotaExceeded,
    /// The client may not publish on this topic.
    #[error("not authorised")]
    NotAuthorized,
    /// Something failed inside the node; the client may try again.
    #[error("unavailable")]
    Unavailable,
}

/// What became of a message that was handed to the [`Ingress`].
#[derive(Debug)]
pub enum Receipt {
    /// Taken: the client may forget it now.
    Accepted,
    /// Not decided yet (a group commit is on its way).  The client is acknowledged when the answer comes; a sender that is
    /// dropped counts as [`Refusal::Unavailable`].
    Pending(oneshot::Receiver<Result<(), Refusal>>),
    /// Not taken: the client keeps it.
    Refused(Refusal),
}

/// What the node does with messages that clients publish.
pub trait Ingress: Send + Sync + 'static {
    /// Called once per message in the order of receipt.  Must not block: every client waits meanwhile.
    ///
    /// A message of QoS ≥ 1 is acknowledged, and reaches its subscribers, only when the receipt says so; many of one client
    /// may be pending at once.  The receipt of a message of QoS 0 is only counted.
    fn publish(&self, inbound: Inbound) -> Receipt;
}
