//! Takes a response body out of its guest, so far ahead of the client as the bounds allow.
//!
//! ```text
//! guest ─▶ Source::pump ─▶ ≤ BODY_CHUNKS_WAITING frames ─▶ Sink ─▶ client
//! ```
//! The end of a body is said, not guessed: a relay that closes without it is a body that was cut.

use crate::limits::BODY_CHUNKS_WAITING;
use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;
use wasmtime_wasi_http::{Error as HttpError, WasiBody};

enum Piece {
    Frame(Result<Frame<Bytes>, HttpError>),
    End,
}

/// Where the guest's side puts frames.
#[derive(Clone)]
pub(super) struct Source(mpsc::Sender<Piece>);

/// Where the client's side takes them.
pub(super) struct Sink(mpsc::Receiver<Piece>);

pub(super) fn pair() -> (Source, Sink) {
    let (sender, receiver) = mpsc::channel(BODY_CHUNKS_WAITING);
    (Source(sender), Sink(receiver))
}

impl Source {
    /// Hands over the whole body.
    ///
    /// # Errors
    /// When the body is broken, or the client does not want the rest of it.
    pub(super) async fn pump(&mut self, mut body: WasiBody) -> Result<(), HttpError> {
        let gone = |_| HttpError::ConnectionTerminated;
        while let Some(frame) = body.frame().await {
            // A guest that writes nothing has said nothing.
            if frame.as_ref().is_ok_and(|frame| frame.data_ref().is_some_and(Bytes::is_empty)) {
                continue;
            }
            let broken = frame.is_err();
            self.0.send(Piece::Frame(frame)).await.map_err(gone)?;
            if broken {
                return Err(HttpError::HttpResponseIncomplete);
            }
        }
        // A client that got what was promised does not wait for the end.
        drop(self.0.send(Piece::End).await);
        Ok(())
    }
}

impl Body for Sink {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        Poll::Ready(match ready!(self.0.poll_recv(cx)) {
            Some(Piece::Frame(frame)) => Some(frame),
            Some(Piece::End) => {
                self.0.close();
                None
            }
            None => Some(Err(HttpError::HttpResponseIncomplete)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{Full, StreamBody};

    fn body(text: &'static str) -> WasiBody {
        Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
    }

    #[tokio::test]
    async fn a_body_comes_out_as_it_went_in() {
        let (mut source, sink) = pair();
        assert!(source.pump(body("whole")).await.is_ok());
        assert_eq!(sink.collect().await.unwrap().to_bytes(), "whole");
    }

    #[tokio::test]
    async fn a_relay_that_closes_is_a_cut_body() {
        let (source, mut sink) = pair();
        drop(source);
        assert!(matches!(sink.frame().await, Some(Err(HttpError::HttpResponseIncomplete))));
    }

    #[tokio::test]
    async fn a_guest_waits_when_so_much_is_under_way() {
        let (mut source, sink) = pair();
        let frames = (0..=BODY_CHUNKS_WAITING).map(|_| Ok(Frame::data(Bytes::from_static(b"x"))));
        let many = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        let pump = tokio::spawn(async move { source.pump(many).await });
        while sink.0.len() < BODY_CHUNKS_WAITING {
            tokio::task::yield_now().await;
        }
        assert!(!pump.is_finished(), "one frame more waits for the client");
        drop(sink);
        assert!(matches!(pump.await.unwrap(), Err(HttpError::ConnectionTerminated)));
    }
}
