//! Answers that are one JSON object a line and may go on for ever: bounded, and a reader that is too slow is told what it missed.

use super::{Local, LocalBody, Refusal};
use crate::limits::{FOLLOWERS_MAX, UNTOLD_EVERY};
use crate::logs::{Listener, Live};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use serde::Serialize;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, interval_at};

/// Lines a reader may lag behind before its connection waits.
const LINES_WAITING: usize = 64;

/// What a line is made of.
pub(super) enum Next {
    /// Something happened.
    Live(Live),
    /// The reader was too slow: so much is missing.
    Missing(u64),
}

/// The right of so many to follow what happens: each keeps its connection, and the others of the socket are for those who ask and go.
#[derive(Debug)]
pub(crate) struct Followers(Arc<Semaphore>);

impl Default for Followers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(FOLLOWERS_MAX)))
    }
}

impl Followers {
    fn admit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            let error = format!("{FOLLOWERS_MAX} readers follow this node already, and no more may");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error)
                .hint("end one of them (each `sedge logs --follow` and `sedge run` is one), or read without following")
        })
    }
}

/// `first`, and then for as long as the daemon runs what `line` makes of everything that happens.
pub(super) fn follow<F>(local: &Local, first: Vec<Bytes>, live: Listener, line: F) -> Result<Response<LocalBody>, Refusal>
where
    F: Fn(Next) -> Option<Bytes> + Send + 'static,
{
    let admitted = local.followers.admit()?;
    let (sender, receiver) = mpsc::channel(LINES_WAITING);
    local.supervisor.work(feed(local.supervisor.stop().clone(), local.logs.clone(), live, sender, line));
    Ok(response(Lines { first: first.into(), live: Some((receiver, admitted)) }))
}

/// `first` and no more.
pub(super) fn whole(first: Vec<Bytes>) -> Response<LocalBody> {
    response(Lines { first: first.into(), live: None })
}

async fn feed<F>(
    stop: tokio_util::sync::CancellationToken,
    logs: crate::logs::Logs,
    mut live: Listener,
    sender: mpsc::Sender<Bytes>,
    line: F,
) where
    F: Fn(Next) -> Option<Bytes> + Send + 'static,
{
    let mut untold = interval_at(Instant::now() + UNTOLD_EVERY, UNTOLD_EVERY);
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return finish(live, &sender, &line),
            () = sender.closed() => return,
            _ = untold.tick() => { logs.tell_untold(); continue; }
            next = live.recv() => match next {
                Ok(live) => Next::Live(live),
                Err(RecvError::Lagged(missing)) => Next::Missing(missing),
                Err(RecvError::Closed) => return,
            },
        };
        let Some(bytes) = line(next) else { continue };
        tokio::select! {
            // Where there is room it is sent, whatever else there is to do.
            biased;
            sent = sender.send(bytes) => if sent.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// What has happened already still reaches who reads. What happens while work is finished does not: this is work as well.
fn finish(mut live: Listener, sender: &mpsc::Sender<Bytes>, line: &impl Fn(Next) -> Option<Bytes>) {
    while let Ok(happened) = live.try_recv() {
        if line(Next::Live(happened)).is_some_and(|bytes| sender.try_send(bytes).is_err()) {
            return;
        }
    }
}

fn response(lines: Lines) -> Response<LocalBody> {
    let mut response = Response::new(lines.map_err(|never: std::convert::Infallible| match never {}).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

struct Lines {
    first: VecDeque<Bytes>,
    live: Option<(mpsc::Receiver<Bytes>, OwnedSemaphorePermit)>,
}

impl Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(line) = self.first.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(line))));
        }
        match &mut self.live {
            Some((live, _)) => live.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line)))),
            None => Poll::Ready(None),
        }
    }
}

/// `value` as one line.
pub(super) fn line<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = serde_json::to_vec(value).expect("our own types have text keys");
    bytes.push(b'\n');
    bytes.into()
}
