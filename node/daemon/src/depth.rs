//! How many calls and events of functions led to something, one after the other, and where such a chain ends.

use http::HeaderMap;
use sedge_protocol::Event;
use sedge_protocol::invocation::{DEPTH_EXTENSION, DEPTH_HEADER};
use sedge_runtime::limits::CALL_DEPTH_MAX;

/// Of a request. Nobody but functions says so, and of theirs the node: who lies shortens a chain of his own.
pub(crate) fn of_request(headers: &HeaderMap) -> u32 {
    read(headers.get(DEPTH_HEADER).and_then(|value| value.to_str().ok()))
}

/// Of an event.
pub(crate) fn of_event(event: &Event) -> u32 {
    read(event.extensions.get(DEPTH_EXTENSION).map(String::as_str))
}

/// What an event carries that comes of something so deep.
pub(crate) fn extension_after(depth: u32) -> (String, String) {
    (DEPTH_EXTENSION.to_owned(), depth.saturating_add(1).to_string())
}

/// Whether the chain ends before what is so deep.
pub(crate) fn is_too_deep(depth: u32) -> bool {
    usize::try_from(depth).unwrap_or(usize::MAX) > CALL_DEPTH_MAX
}

fn read(text: Option<&str>) -> u32 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_depth_of_an_event_is_read_and_nonsense_is_none() {
        let event = |text: Option<&str>| Event {
            id: "1".to_owned(),
            source: "/x".to_owned(),
            kind: "k".to_owned(),
            time_ms: None,
            topic: "a".parse().unwrap(),
            content_type: None,
            extensions: text.map(|text| (DEPTH_EXTENSION.to_owned(), text.to_owned())).into_iter().collect(),
            data: Vec::new(),
        };
        let of = |text| of_event(&event(text));
        assert_eq!([of(None), of(Some("3")), of(Some("")), of(Some("-1")), of(Some("4294967296"))], [0, 3, 0, 0, 0]);
    }
}
