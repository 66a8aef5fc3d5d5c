//! Frames on a QUIC stream.

use crate::limits::FIRST_FRAME_TIMEOUT;
use crate::store::{RolloutFault, StoreError};
use quinn::{RecvStream, SendStream};
use sedge_protocol::frame::{Decoder, FrameError, encode};
use sedge_protocol::message::{FromFleet, FromNode};
use tokio::time::timeout;

/// Why a stream ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamFault {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Order(&'static str),
    #[error("nothing was asked on an open stream")]
    Silent,
    #[error("the node ended the stream")]
    Ended,
    #[error("read")]
    Read(#[from] quinn::ReadError),
    #[error("write")]
    Write(#[from] quinn::WriteError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Rollout(#[from] RolloutFault),
    #[error("read an artifact")]
    Artifact(#[source] std::io::Error),
}

/// What a node sends on one stream.
pub(super) struct Frames {
    stream: RecvStream,
    decoder: Decoder,
    buffer: Vec<u8>,
}

impl Frames {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, decoder: Decoder::default(), buffer: vec![0; 4096] }
    }

    /// The first frame, which says what the stream is for.
    pub(super) async fn first(&mut self) -> Result<FromNode, StreamFault> {
        match timeout(FIRST_FRAME_TIMEOUT, self.next()).await {
            Ok(frame) => frame?.ok_or(StreamFault::Ended),
            Err(_) => Err(StreamFault::Silent),
        }
    }

    /// The next frame; none when the node has ended the stream. Cancel safe: what was read waits in the decoder.
    pub(super) async fn next(&mut self) -> Result<Option<FromNode>, StreamFault> {
        loop {
            if let Some(message) = self.decoder.poll_message()? {
                return Ok(Some(message));
            }
            let Some(length) = self.stream.read(&mut self.buffer).await? else {
                return if self.decoder.pending() == 0 { Ok(None) } else { Err(StreamFault::Ended) };
            };
            self.decoder.push(&self.buffer[..length]);
        }
    }
}

/// Sends one frame.
pub(super) async fn send(stream: &mut SendStream, message: &FromFleet) -> Result<(), StreamFault> {
    Ok(stream.write_all(&encode(message)?).await?)
}
