//! Events as they lie on disk and travel (CBOR), and as people send them to a node (JSON): no panic, and what is read reads back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sedge_protocol::Event;
use sedge_protocol::frame::{decode_body, encode};
use sedge_protocol::local::{Input, TraceRequest};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(event) = decode_body::<Event>(bytes) {
        again(&event);
    }
    if let Ok(event) = serde_json::from_slice::<Event>(bytes) {
        again(&event);
        let text = serde_json::to_vec(&event).expect("our own types have text keys");
        assert_eq!(serde_json::from_slice::<Event>(&text).expect("our own text"), event);
    }
    if let Ok(TraceRequest { input: Input::Event(event), .. }) = serde_json::from_slice(bytes) {
        again(&event);
    }
});

fn again(event: &Event) {
    assert!(!event.topic.as_str().is_empty(), "a topic was parsed");
    // An event may be larger than a frame; then it does not travel.
    let Ok(frame) = encode(event) else { return };
    assert_eq!(decode_body::<Event>(&frame[4..]).expect("our own frame"), *event);
}
