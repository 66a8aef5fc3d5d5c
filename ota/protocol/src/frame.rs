//! Frames on a QUIC stream: four bytes of length, big-endian, then that many bytes of self-describing CBOR.
//!
//! ```text
//! bytes ─▶ Decoder::push ─▶ Decoder::poll_message ─▶ message        message ─▶ encode ─▶ bytes
//! ```
//! Invariant: the decoder never holds more than one frame of [`FRAME_BYTES_MAX`] and what was pushed after it.

use crate::limits::{CBOR_DEPTH_MAX, FRAME_BYTES_MAX};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes are not a frame, or a message does not fit into one.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`FRAME_BYTES_MAX`].
    #[error("a frame of {0} bytes; {FRAME_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// Not the message that was expected.
    #[error("not a message of this protocol: {0}")]
    Malformed(String),
}

/// The frame of `message`.
///
/// # Errors
/// When it is too long.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; 4];
    ciborium::into_writer(message, &mut frame).map_err(|cause| FrameError::Malformed(cause.to_string()))?;
    let length = frame.len() - 4;
    match u32::try_from(length) {
        Ok(prefix) if length <= FRAME_BYTES_MAX => {
            frame[..4].copy_from_slice(&prefix.to_be_bytes());
            Ok(frame)
        }
        Ok(_) | Err(_) => Err(FrameError::TooLong(length)),
    }
}

/// The message in the body of one frame. Bytes after it are an error.
///
/// # Errors
/// When the body is not this message.
pub fn decode_body<M: DeserializeOwned>(body: &[u8]) -> Result<M, FrameError> {
    let mut rest = body;
    let message = ciborium::de::from_reader_with_recursion_limit(&mut rest, CBOR_DEPTH_MAX)
        .map_err(|cause| FrameError::Malformed(cause.to_string()))?;
    if rest.is_empty() { Ok(message) } else { Err(FrameError::Malformed(format!("{} bytes after the message", rest.len()))) }
}

/// Turns pieces of a stream into messages.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Takes the next bytes of the stream, cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more bytes come. Call until `None` after each push.
    ///
    /// # Errors
    /// When the stream is not of this protocol; it cannot be used further.
    pub fn poll_message<M: DeserializeOwned>(&mut self) -> Result<Option<M>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(length));
        }
        let Some(body) = self.buffer.get(4..4 + length) else { return Ok(None) };
        let message = decode_body(body)?;
        self.buffer.drain(..4 + length);
        Ok(Some(message))
    }

    /// Takes out what waits: the begin of raw bytes that follow the last frame of a stream.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Bytes that wait for the rest of their frame.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_survive_any_cut(words in proptest::collection::vec(".{0,40}", 0..6), cut in 1_usize..50) {
            let stream: Vec<u8> = words.iter().flat_map(|word| encode(word).unwrap()).collect();
            let mut decoder = Decoder::default();
            let mut read = Vec::new();
            for piece in stream.chunks(cut) {
                decoder.push(piece);
                while let Some(word) = decoder.poll_message::<String>().unwrap() {
                    read.push(word);
                }
            }
            prop_assert_eq!(read, words);
            prop_assert_eq!(decoder.pending(), 0);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.poll_message::<crate::message::FromNode>() {}
        }
    }

    #[test]
    fn a_frame_one_byte_too_long_is_refused() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes());
        assert!(matches!(decoder.poll_message::<String>(), Err(FrameError::TooLong(_))));
        assert!(matches!(encode(&"x".repeat(FRAME_BYTES_MAX)), Err(FrameError::TooLong(_))));
    }
}
