//! Asynchronous invocations as their callers see them: id, state, answer, callback.
//!
//! ```text
//! POST <route>, Prefer: respond-async ─▶ 202, Location: /.sedge/invocations/<id>, Accepted
//! GET    /.sedge/invocations/<id>           Invocation
//! GET    /.sedge/invocations/<id>/result    the function's own answer
//! DELETE /.sedge/invocations/<id>           Invocation, cancelled
//! ```

use crate::FunctionName;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Where the HTTP listener of a node answers for asynchronous calls. No function gets requests below `/.sedge/`.
pub const INVOCATIONS_PATH: &str = "/.sedge/invocations";
/// Headers whose names begin with this are the node's: a function reads there what the node wrote, and nothing of whoever called it.
pub const HEADER_PREFIX: &str = "sedge-";
/// How many calls and events of functions led to a request, one after the other.
pub const DEPTH_HEADER: &str = "sedge-depth";
/// The attribute of an event that says the same.
pub const DEPTH_EXTENSION: &str = "sedgedepth";
/// Names the id of the call to the function, the same for every attempt.
pub const INVOCATION_HEADER: &str = "sedge-invocation";
/// Names the address that hears of the end of a call.
pub const CALLBACK_HEADER: &str = "sedge-callback";

/// Names an asynchronous call: its number on the node, and a part that nobody can guess, so that only who was told the id finds it.
///
/// Written as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InvocationId {
    /// Growing with every call.
    pub number: u64,
    /// Random.
    pub secret: u64,
}

/// A text that is no id of a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id of an asynchronous invocation has 32 hexadecimal digits")]
pub struct InvocationIdError;

impl FromStr for InvocationId {
    type Err = InvocationIdError;

    fn from_str(text: &str) -> Result<Self, InvocationIdError> {
        let digits = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let half = |part: &str| u64::from_str_radix(part, 16).map_err(|_| InvocationIdError);
        if digits { Ok(Self { number: half(&text[..16])?, secret: half(&text[16..])? }) } else { Err(InvocationIdError) }
    }
}

impl fmt::Display for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.number, self.secret)
    }
}

impl TryFrom<String> for InvocationId {
    type Error = InvocationIdError;

    fn try_from(text: String) -> Result<Self, InvocationIdError> {
        text.parse()
    }
}

impl From<InvocationId> for String {
    fn from(id: InvocationId) -> Self {
        id.to_string()
    }
}

/// Where a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvocationState {
    /// In line, for the first time or for another attempt.
    Queued,
    /// A run is under way.
    Running,
    /// The function answered.
    Succeeded,
    /// Over without success, and nothing is left to replay: the function answered 4xx, or the dead letter was removed.
    Failed,
    /// Every attempt failed; it lies among the dead letters.
    Dead,
    /// Taken back before it began.
    Cancelled,
}

impl InvocationState {
    /// Whether nothing more happens by itself.
    #[must_use]
    pub const fn is_over(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Answer to an asynchronous call: it is kept and will run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Its id.
    pub id: InvocationId,
    /// Its state; an idempotency key may have met a call that is over.
    pub state: InvocationState,
}

/// What is known of a call. Times are milliseconds since 1970 as the node's clock was then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation {
    /// Its id.
    pub id: InvocationId,
    /// Function.
    pub function: FunctionName,
    /// Where it is.
    pub state: InvocationState,
    /// Attempts that have begun.
    pub attempts: u32,
    /// When it was accepted.
    pub accepted_ms: u64,
    /// When the last attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_ms: Option<u64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the function answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<AnswerHead>,
    /// Who is told of the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<Callback>,
}

/// The function's answer without its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerHead {
    /// HTTP status.
    pub status: u16,
    /// Size of the body.
    pub bytes: u64,
    /// Why the answer is not kept, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<String>,
}

/// What became of the callback of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callback {
    /// Where to.
    pub url: String,
    /// How far it is.
    pub state: CallbackState,
    /// Attempts made.
    pub attempts: u32,
    /// Why the last one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How far a callback is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallbackState {
    /// The call is not over, or the receiver has not taken it yet.
    Waiting,
    /// The receiver answered 2xx.
    Delivered,
    /// Every attempt failed.
    GivenUp,
}

/// An asynchronous call as it waits and as a dead letter keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Its id.
    pub id: InvocationId,
    /// HTTP method.
    pub method: String,
    /// Host of the request, port included if it was said.
    pub authority: String,
    /// Path and query.
    pub target: String,
    /// Headers, in order, their values as bytes.
    pub headers: Vec<(String, HeaderBytes)>,
    /// Body.
    #[serde(with = "crate::event::bytes")]
    pub body: Vec<u8>,
}

/// The value of a header: bytes, not necessarily text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HeaderBytes(#[serde(with = "crate::event::bytes")] pub Vec<u8>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::{DeadLetter, Letter};

    #[test]
    fn an_id_is_thirty_two_digits_and_nothing_else() {
        let id = InvocationId { number: 258, secret: u64::MAX };
        assert_eq!(id.to_string(), "0000000000000102ffffffffffffffff");
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "1", "0000000000000102FFFFFFFFFFFFFFFF", "0000000000000102ffffffffffffffff0", "000000000000010+ffffffffffffffff"]
        {
            assert_eq!(wrong.parse::<InvocationId>(), Err(InvocationIdError), "{wrong}");
        }
        assert!("ääääääääääääääää".parse::<InvocationId>().is_err(), "32 bytes, no digits");
    }

    #[test]
    fn letters_of_both_kinds_survive_the_disk() {
        let call = Call {
            id: InvocationId { number: 1, secret: 2 },
            method: "POST".to_owned(),
            authority: "localhost".to_owned(),
            target: "/resize?w=3".to_owned(),
            headers: vec![("x".to_owned(), HeaderBytes(vec![255]))],
            body: vec![0, 159],
        };
        let event: crate::Event =
            serde_json::from_str(r#"{"id":"e","source":"/s","type":"t","topic":"plant/1","data":"hot"}"#).expect("an event");
        for letter in [Letter::Call(call), Letter::Event(event)] {
            let whole =
                DeadLetter { id: 7, function: "f".parse().expect("a name"), attempts: 5, reason: "trap".into(), time_ms: 9, letter };
            let mut bytes = Vec::new();
            ciborium::into_writer(&whole, &mut bytes).expect("memory");
            assert_eq!(ciborium::from_reader::<DeadLetter, _>(bytes.as_slice()).expect("what was written"), whole);
            let json = serde_json::to_string(&whole).expect("JSON");
            assert_eq!(serde_json::from_str::<DeadLetter>(&json).expect("JSON"), whole);
        }
    }
}
