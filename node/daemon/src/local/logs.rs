//! `GET /v1/logs`: the newest lines, one JSON object a line, and with `follow=true` what comes after them.

use super::{Local, LocalBody, Refusal, parse};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use sedge_protocol::FunctionName;
use sedge_protocol::local::LogEntry;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Lines a reader may lag behind before its connection waits.
const LINES_WAITING: usize = 64;

pub(super) fn stream(local: &Arc<Local>, query: &str) -> Result<Response<LocalBody>, Refusal> {
    let (mut function, mut lines, mut follow) = (None::<FunctionName>, 100_usize, false);
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match key {
            "function" if !value.is_empty() => function = Some(parse(value)?),
            "lines" => lines = parse(value)?,
            "follow" => follow = value == "true",
            _ => {}
        }
    }
    let (newest, mut live) = local.logs.follow(function.as_ref(), lines);
    let (sender, receiver) = mpsc::channel(LINES_WAITING);
    if follow {
        let stop = local.supervisor.stop().clone();
        local.supervisor.work(async move {
            loop {
                let entry = tokio::select! {
                    () = stop.cancelled() => return,
                    () = sender.closed() => return,
                    entry = live.recv() => entry,
                };
                match entry {
                    Ok(entry) if function.as_ref().is_none_or(|name| entry.function == *name) => tokio::select! {
                        () = stop.cancelled() => return,
                        sent = sender.send(entry) => if sent.is_err() { return },
                    },
                    // Another function's line, or a reader that was too slow: it goes on with the newest.
                    Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                }
            }
        });
    } else {
        drop(sender);
    }
    let body = Lines { newest: newest.into(), live: receiver };
    let mut response = Response::new(body.map_err(|never: std::convert::Infallible| match never {}).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

struct Lines {
    newest: VecDeque<Arc<LogEntry>>,
    live: mpsc::Receiver<Arc<LogEntry>>,
}

impl Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(entry) = self.newest.pop_front() {
            return Poll::Ready(Some(Ok(line(&entry))));
        }
        self.live.poll_recv(context).map(|entry| entry.map(|entry| Ok(line(&entry))))
    }
}

fn line(entry: &LogEntry) -> Frame<Bytes> {
    let mut bytes = serde_json::to_vec(entry).expect("a log entry is made of texts and numbers");
    bytes.push(b'\n');
    Frame::data(bytes.into())
}
