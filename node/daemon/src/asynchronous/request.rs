//! A request becomes a call: read to its end, bounded, its special headers understood.

use super::{Submission, callback};
use crate::depth;
use crate::functions::Active;
use crate::invoke::Failed;
use crate::limits::{CALL_BODY_TIMEOUT, CALL_HEAD_BYTES_MAX};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Request, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use sedge_protocol::api::Problem;
use sedge_protocol::invocation::{CALLBACK_HEADER, Call, HeaderBytes, INVOCATION_HEADER, InvocationId};
use sedge_protocol::limits::{CALL_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// A request that is no call, with its status.
#[derive(Debug)]
pub(crate) struct Unfit {
    pub(crate) status: StatusCode,
    pub(crate) problem: Problem,
}

impl Unfit {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, problem: Problem { error: error.into(), hint: None } }
    }
}

/// Whether the caller prefers an answer at once (RFC 7240).
pub(super) fn prefers_async(headers: &HeaderMap) -> bool {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(','));
    preferences.any(|preference| {
        let token = preference.split([';', '=']).next().unwrap_or_default();
        token.trim().eq_ignore_ascii_case("respond-async")
    })
}

/// Reads a request to `active` whole, as a call. `target` is path and query.
pub(crate) async fn read(active: &Active, target: String, request: Request<Incoming>) -> Result<Submission, Unfit> {
    let (head, body) = request.into_parts();
    let depth = depth::of_request(&head.headers);
    if depth::is_too_deep(depth) {
        return Err(Unfit::new(StatusCode::LOOP_DETECTED, Failed::Deep.to_string()));
    }
    let key = key(&head.headers)?;
    let callback = callback_of(active, &head.headers)?;
    let headers = headers(&head, &target)?;
    let too_large = || {
        let mut unfit =
            Unfit::new(StatusCode::PAYLOAD_TOO_LARGE, format!("an asynchronous call has a body of at most {CALL_BYTES_MAX} bytes"));
        unfit.problem.hint = Some("call the function synchronously, or send a reference to the data".to_owned());
        unfit
    };
    if body.size_hint().lower() > CALL_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let collected = tokio::time::timeout(CALL_BODY_TIMEOUT, Limited::new(body, CALL_BYTES_MAX).collect()).await;
    let body = match collected {
        Ok(Ok(body)) => body.to_bytes().to_vec(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(error)) => return Err(Unfit::new(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}"))),
        Err(_) => return Err(Unfit::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    };
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = head.uri.authority().map(|authority| authority.as_str()).or(host);
    let call = Call {
        // The number is given when it is kept.
        id: InvocationId { number: 0, secret: rand::random() },
        method: head.method.to_string(),
        authority: authority.filter(|text| text.parse::<http::uri::Authority>().is_ok()).unwrap_or("localhost").to_owned(),
        target,
        headers,
        body,
    };
    Ok(Submission { function: active.name().clone(), key, callback, depth, call })
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Unfit> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len()));
    let wrong = format!("an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters");
    text.map(|text| Some(text.to_owned())).ok_or_else(|| Unfit::new(StatusCode::BAD_REQUEST, wrong))
}

fn callback_of(active: &Active, headers: &HeaderMap) -> Result<Option<String>, Unfit> {
    let Some(value) = headers.get(CALLBACK_HEADER) else { return Ok(None) };
    let url = value.to_str().map_err(|_| Unfit::new(StatusCode::BAD_REQUEST, "the address of the callback is not ASCII"))?;
    match callback::check(url, &active.assignment.manifest.access) {
        Ok(()) => Ok(Some(url.to_owned())),
        Err((error, hint)) => {
            let status = if hint.is_some() { StatusCode::FORBIDDEN } else { StatusCode::BAD_REQUEST };
            Err(Unfit { status, problem: Problem { error, hint } })
        }
    }
}

/// What the function gets: everything but what belongs to the connection or was meant for the node.
fn headers(head: &Parts, target: &str) -> Result<Vec<(String, HeaderBytes)>, Unfit> {
    let not_its = [CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH, EXPECT];
    let own = head.headers.iter().filter(|(name, _)| !not_its.contains(name) && *name != INVOCATION_HEADER && *name != CALLBACK_HEADER);
    let headers: Vec<_> = own.map(|(name, value)| (name.to_string(), HeaderBytes(value.as_bytes().to_vec()))).collect();
    let bytes = target.len() + headers.iter().map(|(name, value)| name.len() + value.0.len()).sum::<usize>();
    if bytes <= CALL_HEAD_BYTES_MAX {
        return Ok(headers);
    }
    let error = format!("path and headers of an asynchronous call have at most {CALL_HEAD_BYTES_MAX} bytes");
    Err(Unfit::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_preference_is_found_among_others_and_only_as_a_whole_word() {
        let check = |value: &'static str, expected: bool| {
            let headers = HeaderMap::from_iter([(PREFER, HeaderValue::from_static(value))]);
            assert_eq!(prefers_async(&headers), expected, "{value}");
        };
        check("respond-async", true);
        check("handling=lenient, Respond-Async; wait=10", true);
        check("respond-asynchronously", false);
        check("wait=respond-async", false);
        assert!(!prefers_async(&HeaderMap::new()));
    }

    #[test]
    fn a_key_has_at_most_two_hundred_and_fifty_five_bytes() {
        for (length, fits) in [(0, false), (1, true), (IDEMPOTENCY_KEY_BYTES_MAX, true), (IDEMPOTENCY_KEY_BYTES_MAX + 1, false)] {
            let value = HeaderValue::try_from("k".repeat(length)).unwrap();
            assert_eq!(key(&HeaderMap::from_iter([(IDEMPOTENCY_KEY, value)])).is_ok(), fits, "{length}");
        }
    }
}
