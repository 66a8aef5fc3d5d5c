//! Bodies of the node's local API: HTTP over the Unix socket of `sedged`, JSON.
//!
//! ```text
//! GET  /v1/status                         LocalStatus     GET  /v1/logs?function=&lines=&follow=true   LogEntry, one JSON a line
//!      also `level=`: that level and worse; a line is a LogRecord
//! GET  /v1/functions                      [FunctionReport]
//! POST /v1/functions/{name}/invoke        `?method=&path=` a request ─▶ the function's answer; `?topic=` an event ─▶ InvokeResult
//! POST /v1/functions/{name}/trace         TraceRequest ─▶ Trace: one invocation and everything it did
//! GET  /v1/functions/{name}/state         Kept: how much the node keeps for a function
//! DELETE /v1/functions/{name}/state       removes that, and answers it; the function must be gone
//! GET  /v1/invocations/stream?function=&logs=true   Told, one JSON a line: what happens from now on
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

mod device;

use crate::invocation::{Call, InvocationId};
use crate::message::{FunctionReport, Vitals};
use crate::{Digest, Event, FunctionName, Manifest, NodeId, RevisionId, Topic};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

pub use device::DeviceReport;

/// How the node is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LocalStatus {
    /// Version of `sedged`.
    pub version: String,
    /// Its id, once it has one.
    pub node: Option<NodeId>,
    /// How it stands with its fleet.
    pub fleet: FleetLink,
    /// What the fleet has to say against the node: revoked, quarantined, waiting for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet_note: Option<String>,
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
    /// Devices of the configuration.
    #[serde(default)]
    pub devices: Vec<DeviceReport>,
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
    /// Lines of this function that were dropped before this one, because it wrote too many a second.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this form")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How much a line of the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is odd.
    Warn,
    /// Something happened. What a function writes on standard output and standard error counts as this.
    Info,
    /// For the function's author.
    Debug,
    /// For the function's author, in detail.
    Trace,
}

impl LogEntry {
    /// How much it matters.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level.parse().unwrap_or(Level::Info)
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "error" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            other => Err(format!("`{other}` is no level: error, warn, info, debug or trace")),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

/// One line of `GET /v1/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LogRecord {
    /// Somebody wrote it.
    Entry(LogEntry),
    /// The reader was too slow.
    Missing(Missing),
}

/// What a slow reader of a stream has not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// So many lines were left out here.
    pub missing: u64,
}

/// One line of `GET /v1/invocations/stream`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Told {
    /// An invocation ended.
    Invocation(Ended),
    /// A function published a message.
    Publication(Published),
    /// A function wrote a line (with `logs=true`).
    Log(LogEntry),
    /// The reader was too slow.
    Missing(Missing),
}

/// The end of one invocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When, milliseconds since 1970.
    pub time_ms: u64,
    /// Function.
    pub function: FunctionName,
    /// Revision.
    pub revision: RevisionId,
    /// Invocation.
    pub invocation: String,
    /// What started it.
    pub cause: Cause,
    /// Whether it did what it should.
    pub ok: bool,
    /// Status of its answer to a request, if it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Time it took, microseconds.
    pub wall_us: u64,
    /// Processor time, microseconds.
    pub cpu_us: u64,
    /// Most memory at one time, bytes: linear, and what lay in the scratch directory.
    pub memory_bytes: u64,
    /// Whether it was the first since the revision was prepared.
    #[serde(default)]
    pub cold: bool,
}

/// What starts an invocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A request.
    Request {
        /// Its method.
        method: String,
        /// Its path and query.
        path: String,
    },
    /// An event.
    Event {
        /// Its id.
        id: String,
        /// Where it was published.
        topic: Topic,
    },
}

/// A message that a function published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// When, milliseconds since 1970.
    pub time_ms: u64,
    /// Who.
    pub function: FunctionName,
    /// In which invocation.
    pub invocation: String,
    /// Where.
    pub topic: Topic,
    /// Media type of the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// What.
    pub data: Payload,
}

/// Bytes in JSON: text where they are text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// UTF-8.
    Text(String),
    /// Anything.
    Base64(String),
}

impl Payload {
    /// The bytes.
    ///
    /// # Errors
    /// What is wrong with the base64.
    pub fn decode(&self) -> Result<Cow<'_, [u8]>, String> {
        match self {
            Self::Text(text) => Ok(Cow::Borrowed(text.as_bytes())),
            Self::Base64(text) => BASE64_STANDARD.decode(text).map(Cow::Owned).map_err(|cause| format!("not base64: {cause}")),
        }
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        std::str::from_utf8(bytes).map_or_else(|_| Self::Base64(BASE64_STANDARD.encode(bytes)), |text| Self::Text(text.to_owned()))
    }
}

/// The state of a function: store, key, value.
pub type State = BTreeMap<String, BTreeMap<String, Payload>>;

/// One invocation to make and to tell about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceRequest {
    /// What starts it.
    pub input: Input,
    /// What its state is made before; only on a node without a fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
}

/// What a function gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// An event.
    Event(Event),
    /// A request.
    Request {
        /// Its method.
        method: String,
        /// Its path and query.
        path: String,
        /// Its headers.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// Its body.
        body: Payload,
    },
}

/// One invocation and everything it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// How it ended; absent when it was not admitted.
    pub ended: Option<Ended>,
    /// Why it failed.
    pub failure: Option<String>,
    /// The reply to an event.
    pub reply: Option<Replied>,
    /// The answer to a request.
    pub response: Option<Responded>,
    /// What it published, in order.
    pub publications: Vec<Published>,
    /// What it changed in its stores; absent when they hold too much to compare.
    pub changes: Option<Vec<Change>>,
    /// What it wrote, in order.
    pub log: Vec<LogEntry>,
    /// Publications and lines that are missing, because there were too many.
    #[serde(default)]
    pub missing: u64,
}

/// A reply to an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replied {
    /// Media type of the data, if the function names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The data.
    pub data: Payload,
}

/// An answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Responded {
    /// Status.
    pub status: u16,
    /// Headers, in order.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Payload,
}

/// A key of a store that differs after an invocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The store.
    pub store: String,
    /// The key.
    pub key: String,
    /// Its value before; none when it was absent.
    pub before: Option<Payload>,
    /// Its value after; none when it was removed.
    pub after: Option<Payload>,
}

/// How much a node keeps for one function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// Keys in its key-value stores.
    pub keys: u64,
    /// Their values, bytes.
    pub bytes: u64,
    /// Its objects, as its quota counts them.
    pub blob_bytes: u64,
    /// Events of QoS ≥ 1 that wait for it.
    pub events: u64,
    /// Asynchronous calls that wait, or whose end and answer are kept.
    pub calls: u64,
    /// Events and calls that failed every attempt.
    pub dead_letters: u64,
    /// Files with the memory of instances that trapped.
    pub core_dumps: u64,
}

impl Kept {
    /// Whether it is nothing at all.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_json_as_text_or_as_base64() {
        for (bytes, json) in [(&b"22.5"[..], r#"{"text":"22.5"}"#), (&[0xff, 0][..], r#"{"base64":"/wA="}"#), (b"", r#"{"text":""}"#)] {
            let payload = Payload::from(bytes);
            assert_eq!(serde_json::to_string(&payload).unwrap(), json);
            assert_eq!(payload.decode().unwrap(), bytes);
        }
        assert!(Payload::Base64("?".to_owned()).decode().is_err());
    }

    #[test]
    fn a_line_of_the_log_and_what_is_missing_are_told_apart() {
        let missing = serde_json::to_string(&LogRecord::Missing(Missing { missing: 7 })).unwrap();
        assert_eq!(missing, r#"{"missing":7}"#);
        assert!(matches!(serde_json::from_str(&missing).unwrap(), LogRecord::Missing(Missing { missing: 7 })));
        let told = Told::Missing(Missing { missing: 7 });
        assert_eq!(serde_json::to_string(&told).unwrap(), r#"{"kind":"missing","missing":7}"#);
    }
}
