//! W3C trace context: which trace an invocation belongs to, and how that is written for guests and for others.
//!
//! ```text
//! traceparent of the caller ─ parse ─▶ Trace ─ follow(own span) ─▶ Trace of the invocation ─▶ guest, log, outgoing calls, events
//! nothing, or not valid ───── root(own trace, own span) ──────────▶
//! ```
//! Pure: random numbers are arguments. What is not valid is treated as if it were not there, as the recommendation asks.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt;
use std::sync::Arc;

/// The header and the `CloudEvents` extension with the position in the trace.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header and the `CloudEvents` extension with what vendors add.
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Length of `00-{32}-{16}-{2}`.
const PARENT_BYTES: usize = 55;
/// Longest `tracestate` that is passed on: what the recommendation asks for at least.
const STATE_BYTES_MAX: usize = 512;
/// Most entries of a `tracestate`.
const STATE_MEMBERS_MAX: usize = 32;
/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

/// A span and the trace it belongs to. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    trace: u128,
    span: u64,
    parent: Option<u64>,
    sampled: bool,
    state: Option<Arc<str>>,
}

impl Trace {
    /// The first span of a trace. Zero means nothing in both numbers and is taken for one.
    #[must_use]
    pub fn root(trace: u128, span: u64, sampled: bool) -> Self {
        Self { trace: trace.max(1), span: span.max(1), parent: None, sampled, state: None }
    }

    /// What a caller says, if it is valid. A `tracestate` that is not valid is left out.
    #[must_use]
    pub fn parse(parent: &str, state: Option<&str>) -> Option<Self> {
        let bytes = parent.as_bytes();
        let dashes = |at: [usize; 3]| at.into_iter().all(|at| bytes.get(at) == Some(&b'-'));
        if bytes.len() < PARENT_BYTES || !dashes([2, 35, 52]) {
            return None;
        }
        let version = hex(parent.get(..2)?)?;
        // Later versions may add fields behind; what is known of them is read as of this one.
        let whole = bytes.len() == PARENT_BYTES || (version > 0 && bytes.get(PARENT_BYTES) == Some(&b'-'));
        let (trace, span) = (hex(parent.get(3..35)?)?, u64::try_from(hex(parent.get(36..52)?)?).ok()?);
        let flags = u8::try_from(hex(parent.get(53..55)?)?).ok()?;
        if version == 0xff || !whole || trace == 0 || span == 0 {
            return None;
        }
        let state = state.map(str::trim).filter(|state| is_state(state)).map(Arc::from);
        Some(Self { trace, span, parent: None, sampled: flags & SAMPLED != 0, state })
    }

    /// What the headers of a request say, if it is valid.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let (parent, None) = (parents.next()?.to_str().ok()?, parents.next()) else { return None };
        let mut states = headers.get_all(TRACESTATE).iter();
        let state = match (states.next(), states.next()) {
            (None, _) => None,
            (Some(state), None) => state.to_str().ok().map(str::to_owned),
            (Some(_), Some(_)) => {
                let all: Result<Vec<&str>, _> = headers.get_all(TRACESTATE).iter().map(HeaderValue::to_str).collect();
                all.ok().map(|all| all.join(","))
            }
        };
        Self::parse(parent, state.as_deref())
    }

    /// A span of the same trace below this one.
    #[must_use]
    pub fn follow(&self, span: u64) -> Self {
        Self { span: span.max(1), parent: Some(self.span), ..self.clone() }
    }

    /// The trace.
    #[must_use]
    pub fn trace_id(&self) -> u128 {
        self.trace
    }

    /// The span.
    #[must_use]
    pub fn span_id(&self) -> u64 {
        self.span
    }

    /// The span above, if there is one.
    #[must_use]
    pub fn parent_id(&self) -> Option<u64> {
        self.parent
    }

    /// Whether it is to be recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// What vendors have added, as `tracestate`.
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Makes these the trace headers of a request; what was there goes.
    ///
    /// # Panics
    /// Never: it is made of hexadecimal digits and dashes.
    pub fn write_to(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, HeaderValue::try_from(self.to_string()).expect("hex digits and dashes"));
        match self.state().and_then(|state| HeaderValue::from_str(state).ok()) {
            Some(state) => headers.insert(TRACESTATE, state),
            None => headers.remove(TRACESTATE),
        };
    }

    /// Its names and values as extensions of a `CloudEvent`.
    pub fn extensions(&self) -> impl Iterator<Item = (String, String)> {
        let state = self.state().map(|state| (TRACESTATE.as_str().to_owned(), state.to_owned()));
        [(TRACEPARENT.as_str().to_owned(), self.to_string())].into_iter().chain(state)
    }
}

/// The value of `traceparent`.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// A number in lower-case digits; upper case is not valid here.
fn hex(digits: &str) -> Option<u128> {
    let valid = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if valid { u128::from_str_radix(digits, 16).ok() } else { None }
}

/// Whether this is a list of `key=value` as the recommendation has it.
fn is_state(state: &str) -> bool {
    let members = state.split(',').map(|member| member.trim_matches([' ', '\t']));
    let filled = members.clone().filter(|member| !member.is_empty()).count();
    (1..=STATE_MEMBERS_MAX).contains(&filled) && state.len() <= STATE_BYTES_MAX && members.into_iter().all(is_member)
}

fn is_member(member: &str) -> bool {
    if member.is_empty() {
        return true;
    }
    let Some((key, value)) = member.split_once('=') else { return false };
    let key_byte = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let begins = key.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let value_byte = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b',' && byte != b'=';
    begins && key.len() <= 256 && key.bytes().all(key_byte) && !value.is_empty() && value.len() <= 256 && value.bytes().all(value_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_written_reads_back_and_a_child_names_its_parent() {
        let caller = Trace::parse(PARENT, Some("vendor=a1, other@x=b")).unwrap();
        assert_eq!((caller.to_string().as_str(), caller.is_sampled()), (PARENT, true));
        let own = caller.follow(7);
        assert_eq!((own.parent_id(), own.span_id(), own.state()), (Some(0x00f0_67aa_0ba9_02b7), 7, Some("vendor=a1, other@x=b")));
        assert_eq!(own.to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01");
        let mut headers = HeaderMap::new();
        own.write_to(&mut headers);
        let read = Trace::from_headers(&headers).unwrap();
        assert_eq!((read.trace_id(), read.span_id(), read.state()), (own.trace_id(), 7, own.state()));
        Trace::root(1, 2, false).write_to(&mut headers);
        assert!(!headers.contains_key(TRACESTATE), "the state of another trace does not stay");
    }

    #[test]
    fn what_is_not_valid_is_not_there() {
        for wrong in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-0f067aa0ba902b7-01",
        ] {
            assert_eq!(Trace::parse(wrong, None), None, "{wrong}");
        }
        assert!(Trace::parse(&format!("cc-{}-what-comes", &PARENT[3..]), None).is_some(), "a later version is read as far as it is known");
        for wrong in ["", "no-equals", "a=b=c", "Upper=x", &"k=v,".repeat(33), &format!("k={}", "v".repeat(300))] {
            let trace = Trace::parse(PARENT, Some(wrong)).unwrap();
            assert_eq!(trace.state(), None, "{wrong}");
        }
        let mut twice = HeaderMap::new();
        twice.append(TRACEPARENT, HeaderValue::from_static(PARENT));
        twice.append(TRACEPARENT, HeaderValue::from_static(PARENT));
        assert_eq!(Trace::from_headers(&twice), None, "two parents are none");
    }
}
