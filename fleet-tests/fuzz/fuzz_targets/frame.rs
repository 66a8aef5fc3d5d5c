//! Frames of the QUIC streams, cut anywhere: no panic, bounded memory, and what decodes survives another round.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sedge_protocol::frame::{Decoder, decode_body, encode};
use sedge_protocol::limits::FRAME_BYTES_MAX;
use sedge_protocol::message::{FromFleet, FromNode};

fuzz_target!(|input: (&[u8], u8)| {
    let (bytes, cut) = input;
    let mut decoder = Decoder::default();
    for piece in bytes.chunks(usize::from(cut).max(1)) {
        decoder.push(piece);
        loop {
            match decoder.poll_message::<FromNode>() {
                Ok(Some(message)) => again(&message),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(decoder.pending() <= FRAME_BYTES_MAX + 4 + piece.len());
    }
    if let Ok(message) = decode_body::<FromFleet>(bytes) {
        assert_eq!(decode_body::<FromFleet>(&encode(&message).expect("it came from a frame")[4..]).expect("our own frame"), message);
    }
});

fn again(message: &FromNode) {
    let Ok(frame) = encode(message) else { return };
    assert_eq!(decode_body::<FromNode>(&frame[4..]).expect("our own frame"), *message);
}
