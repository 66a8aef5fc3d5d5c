//! Bodies on their way in and out, counted and bounded.
//!
//! A response whose guest is done is [`Whole`](Answer::Whole): it costs no task and goes out with its length. One whose
//! guest still writes is [`Streaming`](Answer::Streaming): the guest moves to a task of its own, so that its
//! deadline holds even when the client does not read.

use crate::failure::Failure;
use crate::limits::MIB;
use crate::usage::Call;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::collections::VecDeque;
use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;
use wasmtime_wasi_http::Error as HttpError;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

/// A request body: what the guest reads is counted, and reading past the bound is an error for guest and caller.
pub(crate) struct RequestBody<B> {
    inner: Arc<Inner<B>>,
    call: Arc<Call>,
    /// Where the limit is, bytes.
    limit_bytes: u64,
}

/// A body that can be taken away from the guest: one that serves again must not hold on to the connection of a request that is over.
struct Inner<B>(Mutex<Option<Pin<Box<B>>>>);

/// Takes a request body away from its guest.
pub(crate) trait Sever: Send + Sync {
    /// Drops the body; reading it from now on is an error.
    fn sever(&self);
}

impl<B: Send> Sever for Inner<B> {
    fn sever(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl<B> RequestBody<B> {
    pub(crate) fn new(inner: B, call: &Arc<Call>) -> Self {
        let limit_bytes = u64::from(call.info().revision.manifest.limits.request_mb) * MIB;
        Self { inner: Arc::new(Inner(Mutex::new(Some(Box::pin(inner))))), call: Arc::clone(call), limit_bytes }
    }
}

impl<B: Send + 'static> RequestBody<B> {
    /// The means to take the body away.
    pub(crate) fn severance(&self) -> Arc<dyn Sever> {
        Arc::clone(&self.inner) as Arc<dyn Sever>
    }
}

impl<B: Body> Inner<B> {
    fn with<T>(&self, look: impl FnOnce(Pin<&mut B>) -> T) -> Option<T> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        body.as_mut().map(|body| look(body.as_mut()))
    }
}

impl<B> RequestBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// The whole body.
    pub(crate) async fn collect(mut self) -> Result<Bytes, Failure> {
        let limit_bytes = self.limit_bytes;
        let mut bytes = BytesMut::new();
        while let Some(frame) = self.frame().await {
            let frame = frame.map_err(|error| match error {
                HttpError::HttpRequestBodySize(_) => Failure::RequestTooLarge { limit_bytes },
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

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let polled = self.inner.with(|body| body.poll_frame(cx));
        let Some(polled) = polled else { return Poll::Ready(Some(Err(HttpError::InternalError(Some("the request is over".to_owned()))))) };
        let frame = match ready!(polled) {
            None => return Poll::Ready(None),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(HttpError::InternalError(Some(error.into().to_string()))))),
        };
        let total = self.call.count_in(frame.data_ref().map_or(0, Bytes::len));
        if total > self.limit_bytes {
            return Poll::Ready(Some(Err(HttpError::HttpRequestBodySize(Some(self.limit_bytes)))));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.with(|body| body.is_end_stream()).unwrap_or(true)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.with(|body| body.size_hint()).unwrap_or_default()
    }
}

/// Largest response body, bytes.
fn response_limit(call: &Call) -> u64 {
    u64::from(call.info().revision.manifest.limits.response_mb) * MIB
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
    limit_bytes: u64,
    done: bool,
}

impl ResponseBody {
    /// A body of which everything is here.
    pub(crate) fn bytes(bytes: Bytes) -> Self {
        let left_bytes = bytes.len() as u64;
        let frames = if bytes.is_empty() { VecDeque::new() } else { VecDeque::from([Frame::data(bytes)]) };
        Self(Answer::Whole { frames, left_bytes })
    }

    /// The body of a guest that is done: all of it waits in memory. One whose end is not there either was left open, and never ends.
    pub(crate) async fn whole(mut inner: HyperOutgoingBody, call: &Call) -> Result<Self, Failure> {
        let limit_bytes = response_limit(call);
        let mut frames = VecDeque::new();
        let mut left_bytes = 0;
        while let Some(frame) = frame_now(&mut inner).await.unwrap_or(Some(Err(HttpError::HttpResponseIncomplete))) {
            let frame = frame.map_err(|_| call.fail(Failure::Incomplete))?;
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            call.count_out(bytes);
            left_bytes += bytes as u64;
            if left_bytes > limit_bytes {
                return Err(call.fail(Failure::OutputTooLarge { limit_bytes }));
            }
            frames.push_back(frame);
        }
        Ok(Self(Answer::Whole { frames, left_bytes }))
    }

    /// The body of a guest that still runs. `length` is what has to be sent; 0 for an answer without body.
    pub(crate) fn streaming(
        inner: HyperOutgoingBody,
        guest: impl Future<Output = Result<(), Failure>> + Send + 'static,
        call: Arc<Call>,
        length: Option<u64>,
    ) -> Self {
        call.open_part();
        // A task of its own, for guests that still write after they answered: the deadline holds even when nobody reads.
        let guest = tokio::spawn(guest);
        let limit_bytes = response_limit(&call);
        Self(Answer::Streaming(Streaming { inner, guest, call, length, sent_bytes: 0, limit_bytes, done: false }))
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

/// The next frame, if it is there already.
async fn frame_now(body: &mut HyperOutgoingBody) -> Option<Option<Result<Frame<Bytes>, HttpError>>> {
    // Outside of the task's budget, which would make a frame look as if it were not there.
    tokio::task::unconstrained(std::future::poll_fn(|cx| {
        Poll::Ready(match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => Some(frame),
            Poll::Pending => None,
        })
    }))
    .await
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
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.call.count_out(bytes);
        self.sent_bytes += bytes as u64;
        if self.sent_bytes > self.limit_bytes {
            return Poll::Ready(Some(Err(self.call.fail(Failure::OutputTooLarge { limit_bytes: self.limit_bytes }))));
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
