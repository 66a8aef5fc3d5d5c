//! Frames over one bidirectional QUIC stream.

use crate::limits::FLEET_ANSWER_MAX;
use anyhow::Context as _;
use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use sedge_protocol::frame::{Decoder, encode};
use sedge_protocol::limits::ARTIFACT_CHUNK_BYTES;
use sedge_protocol::message::{FromFleet, FromNode};

/// A stream that the node opened.
#[derive(Debug)]
pub(crate) struct Exchange {
    send: SendStream,
    receive: Frames,
}

/// The receiving half.
#[derive(Debug)]
pub(crate) struct Frames {
    stream: RecvStream,
    decoder: Decoder,
}

impl Exchange {
    /// Opens a stream and sends its first frame.
    pub(crate) async fn open(connection: &Connection, first: &FromNode) -> anyhow::Result<Self> {
        let (send, stream) = connection.open_bi().await.context("open a stream")?;
        let mut exchange = Self { send, receive: Frames { stream, decoder: Decoder::default() } };
        exchange.send(first).await?;
        Ok(exchange)
    }

    /// Sends one frame.
    pub(crate) async fn send(&mut self, message: &FromNode) -> anyhow::Result<()> {
        let frame = encode(message)?;
        self.send.write_all(&frame).await.context("send a frame")
    }

    /// The next frame, within the time an answer may take. A refusal is an error.
    pub(crate) async fn answer(&mut self) -> anyhow::Result<FromFleet> {
        let frame = tokio::time::timeout(FLEET_ANSWER_MAX, self.receive.next()).await.context("the fleet does not answer")??;
        match frame {
            FromFleet::Refused { reason } => anyhow::bail!("the fleet refused: {reason}"),
            other => Ok(other),
        }
    }

    /// Both halves, for a stream that goes on.
    pub(crate) fn split(self) -> (SendStream, Frames) {
        (self.send, self.receive)
    }

    /// The receiving half, when nothing more is sent.
    pub(crate) fn finish_sending(mut self) -> Frames {
        drop(self.send.finish());
        self.receive
    }
}

impl Frames {
    /// The next frame. Cancel safe: bytes that came stay in the decoder.
    pub(crate) async fn next(&mut self) -> anyhow::Result<FromFleet> {
        loop {
            if let Some(message) = self.decoder.poll_message()? {
                return Ok(message);
            }
            let chunk = self.stream.read_chunk(ARTIFACT_CHUNK_BYTES, true).await.context("read a frame")?;
            self.decoder.push(&chunk.context("the stream ended")?.bytes);
        }
    }

    /// The raw bytes after the last frame; `None` at the end. Cancel safe.
    pub(crate) async fn raw(&mut self) -> anyhow::Result<Option<Bytes>> {
        let rest = self.decoder.take();
        if !rest.is_empty() {
            return Ok(Some(rest.into()));
        }
        let chunk = self.stream.read_chunk(ARTIFACT_CHUNK_BYTES, true).await.context("read the artifact")?;
        Ok(chunk.map(|chunk| chunk.bytes))
    }
}
