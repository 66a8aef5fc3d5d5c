//! Packets as the broker thinks of them, the same for MQTT 3.1.1 and 5.0, and their bytes.
//!
//! ```text
//!  bytes ──▶ Frames ──frame──▶ decode ──▶ FromClient      ToClient ──▶ encode ──▶ bytes
//! ```
//! Framing and packet formats are those of `mqtt-protocol-core`; its connection machine is not used, see decision 0002.

mod decode;
mod encode;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

pub(crate) use self::{decode::Frames, encode::encode};
use crate::message::{Message, QoS};

/// Protocol version a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V3,
    V5,
}

/// Reason codes of MQTT 5 that the broker uses.  For 3.1.1 they become return codes or a closed connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub(crate) enum Reason {
    #[error("success")]
    Success = 0x00,
    #[error("no subscription existed")]
    NoSubscription = 0x11,
    #[error("unspecified error")]
    Unspecified = 0x80,
    #[error("malformed packet")]
    Malformed = 0x81,
    #[error("protocol error")]
    Protocol = 0x82,
    #[error("unsupported protocol version")]
    Version = 0x84,
    #[error("client identifier not valid")]
    ClientId = 0x85,
    #[error("bad user name or password")]
    Credentials = 0x86,
    #[error("not authorised")]
    NotAuthorized = 0x87,
    #[error("server shutting down")]
    ShuttingDown = 0x8b,
    #[error("bad authentication method")]
    AuthenticationMethod = 0x8c,
    #[error("keep-alive timeout")]
    KeepAlive = 0x8d,
    #[error("session taken over")]
    TakenOver = 0x8e,
    #[error("topic filter invalid")]
    Filter = 0x8f,
    #[error("topic name invalid")]
    Topic = 0x90,
    #[error("packet identifier not found")]
    PacketId = 0x92,
    #[error("receive maximum exceeded")]
    ReceiveMax = 0x93,
    #[error("topic alias invalid")]
    TopicAlias = 0x94,
    #[error("packet too large")]
    TooLarge = 0x95,
    #[error("quota exceeded")]
    Quota = 0x97,
}

/// CONNECT.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) clean_start: bool,
    pub(crate) keep_alive: Duration,
    pub(crate) session_expiry: Duration,
    pub(crate) receive_max: u16,
    pub(crate) packet_bytes_max: u32,
    pub(crate) will: Option<Will>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
}

/// What a client wants said when it vanishes.
#[derive(Debug, Clone)]
pub(crate) struct Will {
    pub(crate) message: Arc<Message>,
    pub(crate) delay: Duration,
}

/// PUBLISH of a client.
#[derive(Debug)]
pub(crate) struct Publish {
    /// Zero for QoS 0.
    pub(crate) packet_id: u16,
    pub(crate) dup: bool,
    pub(crate) alias: Option<u16>,
    pub(crate) message: Message,
}

/// When retained messages are sent after SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetainHandling {
    Always,
    IfNew,
    Never,
}

/// Options of one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retain_handling: RetainHandling,
    /// Subscription identifier, sent back with each message.
    pub(crate) id: Option<u32>,
}

/// What clients send.
#[derive(Debug)]
pub(crate) enum FromClient {
    Connect(Box<Connect>),
    Publish(Box<Publish>),
    PubAck { packet_id: u16 },
    PubRec { packet_id: u16, failed: bool },
    PubRel { packet_id: u16 },
    PubComp { packet_id: u16 },
    Subscribe { packet_id: u16, filters: Vec<(String, Options)> },
    Unsubscribe { packet_id: u16, filters: Vec<String> },
    Ping,
    Disconnect { with_will: bool, session_expiry: Option<Duration> },
}

/// PUBLISH to a client.
#[derive(Debug, Clone)]
pub(crate) struct Deliver {
    /// Zero for QoS 0.
    pub(crate) packet_id: u16,
    pub(crate) dup: bool,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) expiry: Option<Duration>,
    pub(crate) subscription_ids: Vec<u32>,
    pub(crate) message: Arc<Message>,
}

/// CONNACK that lets the client in.
#[derive(Debug, Clone)]
pub(crate) struct Welcome {
    pub(crate) session_present: bool,
    /// Set when the broker chose the identifier.
    pub(crate) assigned_id: Option<Arc<str>>,
    /// Set when it is not what the client asked for.
    pub(crate) session_expiry: Option<Duration>,
}

/// What the broker sends.
#[derive(Debug, Clone)]
pub(crate) enum ToClient {
    Welcome(Welcome),
    /// CONNACK that does not let the client in.
    Unwelcome(Reason),
    Publish(Deliver),
    PubAck {
        packet_id: u16,
        reason: Reason,
    },
    PubRec {
        packet_id: u16,
        reason: Reason,
    },
    PubRel {
        packet_id: u16,
    },
    PubComp {
        packet_id: u16,
        reason: Reason,
    },
    SubAck {
        packet_id: u16,
        answers: Vec<Result<QoS, Reason>>,
    },
    UnsubAck {
        packet_id: u16,
        answers: Vec<Reason>,
    },
    Pong,
    Disconnect(Reason),
}

/// Bytes copied out of a packet, so that a small message does not keep a large buffer alive.
fn owned(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[cfg(test)]
mod tests;
