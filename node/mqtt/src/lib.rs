//! The MQTT broker inside the node: 3.1.1 and 5.0 over TCP, acknowledging only what the node has taken.
//!
//! ```text
//!            TCP                    packets                        messages
//!  client ◀───────▶ connection ◀──────────────▶ hub ── publish ──▶ Ingress (the node's bus)
//!  client ◀───────▶ connection ◀──────────────▶  │ ◀─ receipt ────────┘
//!                                                │ ◀─ Broker::publish ── functions, timers, sources
//!                                    sessions, subscriptions, retained messages, wills
//! ```
//!
//! - [`Broker::bind`] takes the address, [`BrokerTask::run`] serves; the handle publishes and counts.
//! - [`Ingress`] receives what clients publish and answers with a [`Receipt`], at once or after a group commit.
//!
//! Invariants
//! - A publish of QoS ≥ 1 is acknowledged only after its receipt, in the order of receipt, however many are pending.  Only then
//!   does it reach subscribers and the retained store: a message that was refused has reached nobody.
//! - QoS 2 is handed over once per handshake, also when the client reconnects to its session in between.
//! - Every queue, store, wait and length is bounded in [`limits`]; a client that passes a bound loses messages that are counted,
//!   or its connection, and never harms another.
//! - All decisions are taken by one pure hub; connections move bytes.
//!
//! Absent on purpose: persistence (sessions, retained messages and wills end with the process; what the node has taken does
//! not), bridges, WebSocket, TLS, enhanced authentication, access lists by topic.  See `docs/decisions/0002`.

mod broker;
mod connection;
mod hub;
pub mod limits;
mod message;
mod stats;
mod supervisor;
pub mod topic;
mod trie;
mod user;
mod wire;

pub use self::{
    broker::{BindError, Broker, BrokerConfig, PublishError},
    message::{Inbound, Ingress, Message, Properties, QoS, Receipt, Refusal},
    stats::Stats,
    supervisor::BrokerTask,
    topic::TopicError,
};
