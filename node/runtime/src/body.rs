//! Bodies on their way in and out, counted and bounded.
//!
//! A response whose guest is done is [`Whole`](Answer::Whole): it costs no task and goes out with its length. One whose
//! guest still writes is [`Streaming`](Answer::Streaming): the guest moves to a task of its own, so that its
//! deadline holds even when the client does not read.

use crate::failure::Failure;
use crate::guest::Guest;
use crate::limits::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};
use crate::usage::Call;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::collections::VecDeque;
use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;
use wasmtime_wasi_http::Error as HttpError;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

/// A request body: what the guest reads is counted, and reading past the bound is an error for guest and caller.
pub(crate) struct RequestBody<B> {
    inner: Pin<Box<B>>,
    call: Arc<Call>,
}

impl<B> RequestBody<B> {
    pub(crate) fn new(inner: B, call: &Arc<Call>) -> Self {
        Self { inner: Box::pin(inner), call: Arc::clone(call) }
    }
}

impl<B> RequestBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// The whole body.
    pub(crate) async fn collect(mut self) -> Result<Bytes, Failure> {
        let mut bytes = BytesMut::new();
        while let Some(frame) = self.frame().await {
            let frame = frame.map_err(|error| match error {
                HttpError::HttpRequestBodySize(_) => Failure::RequestTooLarge { limit_bytes: REQUEST_BYTES_MAX },
                other => Failure::BadRequest { reason: other.to_string() },
            })?;
            if let Ok(data) = frame.into_data() {
                bytes.extend_from_slice(&data);
            }
        }
        Ok(bytes.freeze())
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let frame = match ready!(self.inner.as_mut().poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(HttpError::InternalError(Some(error.into().to_string()))))),
        };
        let total = self.call.count_in(frame.data_ref().map_or(0, Bytes::len));
        if total > REQUEST_BYTES_MAX {
            return Poll::Ready(Some(Err(HttpError::HttpRequestBodySize(Some(REQUEST_BYTES_MAX)))));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response body. When the guest fails half-way the body ends with that failure, never as if it were whole.
///
/// Dropping it before its end stops the guest, and the call counts as cancelled.
pub struct ResponseBody(Answer);

enum Answer {
    Whole { frames: VecDeque<Frame<Bytes>>, left_bytes: u64 },
    Streaming(Streaming),
}

struct Streaming {
    inner: HyperOutgoingBody,
    guest: JoinHandle<Result<(), Failure>>,
    call: Arc<Call>,
    /// What the response promised, if it did.
    length: Option<u64>,
    sent_bytes: u64,
    done: bool,
}

impl ResponseBody {
    /// A body of which everything is here.
    pub(crate) fn bytes(bytes: Bytes) -> Self {
        let left_bytes = bytes.len() as u64;
        let frames = if bytes.is_empty() { VecDeque::new() } else { VecDeque::from([Frame::data(bytes)]) };
        Self(Answer::Whole { frames, left_bytes })
    }

    /// The body of a guest that is done: all of it waits in memory.
    pub(crate) async fn whole(mut inner: HyperOutgoingBody, call: &Call) -> Result<Self, Failure> {
        let mut frames = VecDeque::new();
        let mut left_bytes = 0;
        while let Some(frame) = inner.frame().await {
            let frame = frame.map_err(|_| call.fail(Failure::Incomplete))?;
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            call.count_out(bytes);
            left_bytes += bytes as u64;
            frames.push_back(frame);
        }
        Ok(Self(Answer::Whole { frames, left_bytes }))
    }

    /// The body of a guest that still runs. `length` is what has to be sent; 0 for an answer without body.
    pub(crate) fn streaming(inner: HyperOutgoingBody, guest: Guest, call: Arc<Call>, length: Option<u64>) -> Self {
        call.open_part();
        // The one task of this crate: only for guests that still write after they answered.
        let guest = tokio::spawn(guest);
        Self(Answer::Streaming(Streaming { inner, guest, call, length, sent_bytes: 0, done: false }))
    }

    /// The whole body and the end of its guest.
    pub(crate) async fn collect(mut self, bytes_max: usize) -> Result<Bytes, Failure> {
        let mut bytes = BytesMut::new();
        while let Some(frame) = self.frame().await {
            if let Ok(data) = frame?.into_data() {
                if bytes.len() + data.len() > bytes_max {
                    let failure = Failure::OutputTooLarge { limit_bytes: bytes_max as u64 };
                    return Err(self.fail(failure));
                }
                bytes.extend_from_slice(&data);
            }
        }
        if let Answer::Streaming(streaming) = &mut self.0 {
            let ended = (&mut streaming.guest).await;
            ended.map_err(|error| streaming.call.fail(Failure::Platform { message: error.to_string() }))??;
        }
        Ok(bytes.freeze())
    }

    fn fail(&self, failure: Failure) -> Failure {
        match &self.0 {
            Answer::Whole { .. } => failure,
            Answer::Streaming(streaming) => streaming.call.fail(failure),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match &mut self.0 {
            Answer::Whole { frames, left_bytes } => {
                let frame = frames.pop_front();
                *left_bytes -= frame.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
                Poll::Ready(frame.map(Ok))
            }
            Answer::Streaming(streaming) => streaming.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Answer::Whole { frames, .. } => frames.is_empty(),
            Answer::Streaming(streaming) => streaming.done,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Answer::Whole { frames, .. } if frames.iter().any(Frame::is_trailers) => SizeHint::default(),
            Answer::Whole { left_bytes, .. } => SizeHint::with_exact(*left_bytes),
            Answer::Streaming(Streaming { length: Some(length), sent_bytes, .. }) => {
                SizeHint::with_exact(length.saturating_sub(*sent_bytes))
            }
            Answer::Streaming(_) => SizeHint::default(),
        }
    }
}

impl Streaming {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return Poll::Ready(Some(Err(self.call.fail(Failure::Incomplete)))),
            // A guest that failed has said so before it let go of the body.
            None => match self.call.failure().cloned() {
                Some(failure) => return Poll::Ready(Some(Err(failure))),
                None => {
                    self.end();
                    return Poll::Ready(None);
                }
            },
        };
        self.sent_bytes = self.call.count_out(frame.data_ref().map_or(0, Bytes::len));
        if self.sent_bytes > RESPONSE_BYTES_MAX {
            return Poll::Ready(Some(Err(self.call.fail(Failure::OutputTooLarge { limit_bytes: RESPONSE_BYTES_MAX }))));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn end(&mut self) {
        self.done = true;
        self.call.close_part();
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        // A connection lets go of a body as soon as the promised length is sent, without asking for the end.
        if !self.done && self.length.is_some_and(|length| self.sent_bytes >= length) && self.call.failure().is_none() {
            self.end();
        }
        if !self.done {
            self.guest.abort();
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Answer::Whole { .. } => "Whole",
            Answer::Streaming(_) => "Streaming",
        };
        f.debug_tuple("ResponseBody").field(&kind).finish()
    }
}
