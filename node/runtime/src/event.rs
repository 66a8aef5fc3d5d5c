//! How an event reaches a guest: as an HTTP request (CloudEvents, binary mode), or as environment and standard input.

use crate::trace::{TRACEPARENT, TRACESTATE, Trace};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::Full;
use sedge_protocol::Event;
use std::fmt::Write as _;

const SPEC_VERSION: &str = "1.0";

/// The attributes of an event with their CloudEvents names, `datacontenttype` excepted. The span of the invocation stands for the one
/// that the event came from.
fn attributes(event: &Event, trace: Option<&Trace>) -> Vec<(String, String)> {
    let mut list = vec![
        ("specversion".to_owned(), SPEC_VERSION.to_owned()),
        ("id".to_owned(), event.id.clone()),
        ("source".to_owned(), event.source.clone()),
        ("type".to_owned(), event.kind.clone()),
        ("topic".to_owned(), event.topic.as_str().to_owned()),
    ];
    if let Some(time) = event.time_ms.and_then(rfc3339) {
        list.push(("time".to_owned(), time));
    }
    let replaced = |name: &str| trace.is_some() && (name == TRACEPARENT.as_str() || name == TRACESTATE.as_str());
    let extensions = event.extensions.iter().filter(|(name, _)| !replaced(name));
    list.extend(extensions.map(|(name, value)| (name.clone(), value.clone())));
    list.extend(trace.into_iter().flat_map(Trace::extensions));
    list
}

/// The HTTP binding in binary mode: `POST /`, attributes as `ce-*`, data as body.
pub(crate) fn request(event: &Event, trace: Option<&Trace>) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(Bytes::from(event.data.clone())));
    *request.method_mut() = http::Method::POST;
    let headers = request.headers_mut();
    for (name, value) in attributes(event, trace) {
        let name = HeaderName::try_from(format!("ce-{name}"));
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(escape(&value))) {
            headers.insert(name, value);
        }
    }
    if let Some(value) = event.content_type.as_ref().and_then(|text| HeaderValue::try_from(text).ok()) {
        headers.insert(http::header::CONTENT_TYPE, value);
    }
    headers.insert(http::header::CONTENT_LENGTH, event.data.len().into());
    request
}

/// Attributes as environment variables: `CE_ID`, `CE_TYPE`, …; the trace also under the names that tools look for.
pub(crate) fn environment(event: &Event, trace: Option<&Trace>) -> Vec<(String, String)> {
    let content_type = event.content_type.clone().map(|value| ("datacontenttype".to_owned(), value));
    attributes(event, trace)
        .into_iter()
        .chain(content_type)
        .filter(|(_, value)| !value.contains('\0'))
        .map(|(name, value)| (format!("CE_{}", name.to_ascii_uppercase()), value))
        .chain(trace.into_iter().flat_map(trace_environment))
        .collect()
}

/// A trace as environment variables: `TRACEPARENT`, `TRACESTATE`.
pub(crate) fn trace_environment(trace: &Trace) -> impl Iterator<Item = (String, String)> {
    trace.extensions().map(|(name, value)| (name.to_ascii_uppercase(), value))
}

/// Percent-encodes what the HTTP binding does not allow in a header: space, `"`, `%` and everything beyond ASCII.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'!' | b'#'..=b'$' | b'&'..=b'~' => escaped.push(char::from(byte)),
            other => write!(escaped, "%{other:02X}").expect("a string takes everything"),
        }
    }
    escaped
}

fn rfc3339(time_ms: u64) -> Option<String> {
    let time = jiff::Timestamp::from_millisecond(i64::try_from(time_ms).ok()?).ok()?;
    Some(time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn event() -> Event {
        Event {
            id: "1".to_owned(),
            source: "/mqtt/sensor 7".to_owned(),
            kind: "sedge.mqtt.message".to_owned(),
            time_ms: Some(1_700_000_000_000),
            topic: "plant/käse/temp".parse().unwrap(),
            content_type: Some("application/json".to_owned()),
            extensions: BTreeMap::from([("qos".to_owned(), "1".to_owned())]),
            data: b"{}".to_vec(),
        }
    }

    #[test]
    fn an_event_is_a_request_in_binary_mode() {
        let request = request(&event(), None);
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri(), "/");
        assert_eq!(header("ce-specversion"), "1.0");
        assert_eq!(header("ce-source"), "/mqtt/sensor%207");
        assert_eq!(header("ce-topic"), "plant/k%C3%A4se/temp");
        assert_eq!(header("ce-time"), "2023-11-14T22:13:20Z");
        assert_eq!(header("ce-qos"), "1");
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("content-length"), "2");
    }

    #[test]
    fn an_event_is_an_environment() {
        let environment: BTreeMap<String, String> = environment(&event(), None).into_iter().collect();
        assert_eq!(environment["CE_TOPIC"], "plant/käse/temp");
        assert_eq!(environment["CE_DATACONTENTTYPE"], "application/json");
        assert_eq!(environment["CE_QOS"], "1");
    }

    #[test]
    fn the_span_of_the_invocation_stands_for_that_of_the_event() {
        let mut event = event();
        event.extensions.insert("traceparent".to_owned(), Trace::root(1, 2, true).to_string());
        event.extensions.insert("tracestate".to_owned(), "old=1".to_owned());
        let own = Trace::root(1, 2, true).follow(3);
        let request = request(&event, Some(&own));
        assert_eq!(request.headers()["ce-traceparent"].to_str().unwrap(), own.to_string());
        assert!(!request.headers().contains_key("ce-tracestate"));
        let environment: BTreeMap<String, String> = environment(&event, Some(&own)).into_iter().collect();
        assert_eq!((&environment["CE_TRACEPARENT"], &environment["TRACEPARENT"]), (&own.to_string(), &own.to_string()));
        assert!(!environment.contains_key("TRACESTATE") && !environment.contains_key("CE_TRACESTATE"));
    }
}
