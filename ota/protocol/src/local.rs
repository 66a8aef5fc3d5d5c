//! Bodies of the node's local API: HTTP over the Unix socket of `sedged`, JSON.
//!
//! ```text
//! GET  /v1/status                         LocalStatus     GET  /v1/logs?function=&lines=&follow=true   LogEntry, one JSON a line
//! GET  /v1/functions                      [FunctionReport]
//! POST /v1/functions/{name}/invoke        `?method=&path=` a request ─▶ the function's answer; `?topic=` an event ─▶ InvokeResult
//! PUT  /v1/artifacts/{digest}             raw Wasm          } only on a node without a fleet:
//! PUT  /v1/functions/{name}               LocalRevision     } what `sedge run` uses
//! DELETE /v1/functions/{name}                               }
//! GET  /v1/secrets                        [SecretName]: names only, there is no way to read a value
//! PUT  /v1/secrets/{name}                 the value, raw  DELETE /v1/secrets/{name}
//! GET  /v1/dead-letters?function=         [DeadLetterHead]
//! DELETE /v1/dead-letters?function=       DeadLettersDone  } without a function: all
//! POST /v1/dead-letters/replay?function=  DeadLettersDone  }
//! GET, DELETE /v1/dead-letters/{id}       DeadLetter, DeadLettersDone
//! POST /v1/dead-letters/{id}/replay       DeadLettersDone
//! POST /v1/functions/{name}/invoke?async=true              an asynchronous call ─▶ invocation::Accepted
//! GET, DELETE /v1/invocations/{id}        invocation::Invocation; GET …/result is the function's answer
//! GET  /v1/metrics                        text for Prometheus
//! ```
//! A refusal is [`crate::api::Problem`].

use crate::invocation::{Call, InvocationId};
use crate::message::{FunctionReport, Vitals};
use crate::{Digest, Event, FunctionName, Manifest, NodeId, RevisionId};
use serde::{Deserialize, Serialize};

/// How the node is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LocalStatus {
    /// Version of `sedged`.
    pub version: String,
    /// Its id, once it has one.
    pub node: Option<NodeId>,
    /// How it stands with its fleet.
    pub fleet: FleetLink,
    /// Where HTTP triggers are served.
    pub http: Option<String>,
    /// Where MQTT is served.
    pub mqtt: Option<String>,
    /// Where Prometheus reads, beside this API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// The desired state it has accepted.
    pub desired_epoch: u64,
    /// Functions.
    pub functions: Vec<FunctionReport>,
    /// The box.
    pub vitals: Vitals,
    /// How much runs at once.
    #[serde(default)]
    pub admission: Admission,
    /// Usage records that the fleet has not confirmed.
    pub usage_unsent: u64,
    /// Bytes written to disk by the store since the daemon started.
    pub store_bytes_written: u64,
    /// Asynchronous calls.
    #[serde(default)]
    pub calls: CallCounts,
}

/// How many asynchronous calls a node has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallCounts {
    /// That are not over.
    pub waiting: u64,
    /// That are over and still known.
    pub over: u64,
    /// Answers and calls that were dropped for want of room before their time, since the daemon started.
    pub dropped: u64,
}

/// How much runs at once on a node, and how much of it is left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Invocations at a time, beside the reserved ones, as the node limits them now.
    pub limit: u32,
    /// Invocations that run.
    pub running: u32,
    /// Invocations that wait for their turn.
    pub waiting: u64,
    /// Memory that no instance has and that is kept for none, bytes.
    pub memory_free_bytes: u64,
}

/// How a node stands with its fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FleetLink {
    /// The configuration names none.
    None,
    /// No certificate yet.
    Unclaimed,
    /// Enrolled, not connected now.
    Offline,
    /// Connected.
    Online,
}

/// One line that a function or the node wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When, milliseconds since 1970.
    pub time_ms: u64,
    /// `error`, `warn`, `info`, `debug`, or `stdout` and `stderr` of a function.
    pub level: String,
    /// Function.
    pub function: FunctionName,
    /// Revision.
    pub revision: RevisionId,
    /// Invocation.
    pub invocation: String,
    /// The line.
    pub text: String,
    /// The trace that the invocation belongs to, 32 digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Its span, 16 digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
}

/// A revision given to a node without a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalRevision {
    /// The uploaded artifact.
    pub artifact: Digest,
    /// Its manifest.
    pub manifest: Manifest,
}

/// Result of an invocation with an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvokeResult {
    /// Whether it succeeded.
    pub ok: bool,
    /// The reply as text, or the reason of the failure.
    pub output: String,
    /// Time it took, microseconds.
    pub wall_us: u64,
    /// CPU time, microseconds.
    pub cpu_us: u64,
}

/// An event or an asynchronous call that failed every attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its number on this node.
    pub id: u64,
    /// Function.
    pub function: FunctionName,
    /// Attempts made.
    pub attempts: u32,
    /// Why the last one failed.
    pub reason: String,
    /// When it was given up, milliseconds since 1970.
    pub time_ms: u64,
    /// What was to be handled.
    #[serde(flatten)]
    pub letter: Letter,
}

/// What a dead letter holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Letter {
    /// An event.
    Event(Event),
    /// An asynchronous call.
    Call(Call),
}

impl Letter {
    /// Bytes of its payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        match self {
            Self::Event(event) => &event.data,
            Self::Call(call) => &call.body,
        }
    }

    /// The topic of an event, or method and path of a call.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::Event(event) => event.topic.to_string(),
            Self::Call(call) => format!("{} {}", call.method, call.target),
        }
    }
}

/// A dead letter without its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterHead {
    /// Its number on this node.
    pub id: u64,
    /// Function.
    pub function: FunctionName,
    /// Attempts made.
    pub attempts: u32,
    /// Why the last one failed.
    pub reason: String,
    /// When it was given up, milliseconds since 1970.
    pub time_ms: u64,
    /// The topic of an event, or method and path of an asynchronous call.
    pub subject: String,
    /// The id of an asynchronous call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<InvocationId>,
    /// Size of its payload.
    pub bytes: u64,
}

impl DeadLetter {
    /// Everything but the payload.
    #[must_use]
    pub fn head(&self) -> DeadLetterHead {
        DeadLetterHead {
            id: self.id,
            function: self.function.clone(),
            attempts: self.attempts,
            reason: self.reason.clone(),
            time_ms: self.time_ms,
            subject: self.letter.subject(),
            invocation: match &self.letter {
                Letter::Event(_) => None,
                Letter::Call(call) => Some(call.id),
            },
            bytes: self.letter.payload().len() as u64,
        }
    }
}

/// What became of dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLettersDone {
    /// How many were replayed or removed.
    pub done: u64,
    /// Those that stayed, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
}
