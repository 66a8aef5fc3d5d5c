//! Runs calls: a lease on disk, one invocation under it, the answer read to its end.

use super::record::Answered;
use super::{Calls, Happened, wall};
use crate::clock;
use crate::functions::Active;
use crate::invoke::{Failed, Invoker, OfCall};
use crate::limits::{ANSWER_HEAD_BYTES_MAX, CALL_ADMISSION_MAX, CALL_REFUSED_PAUSE};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use sedge_node_core::asynchronous::{LEASE_MARGIN, Lease, may_run};
use sedge_node_core::queue::Item;
use sedge_protocol::invocation::{Call, HeaderBytes};
use sedge_protocol::limits::CALL_BYTES_MAX;
use sedge_runtime::Failure;
use sedge_store::{Batch, Commit, Durability};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

/// What a run came to.
#[derive(Debug)]
pub(super) enum Ran {
    /// Nothing ran: no lease, or no room.
    NotBegun(String),
    /// It failed.
    Failed(String),
    /// The function answered.
    Answered { head: Answered, body: Vec<u8> },
}

impl Calls {
    /// Starts what may start. Nothing does while an end waits for the disk: its call would seem to run for ever.
    pub(super) fn dispatch(&mut self) {
        let table = self.parts.functions.table();
        while self.unwritten.is_empty()
            && let Some(item) = self.queue.poll_dispatch(clock::mono())
        {
            let Some(active) = table.active.get(&item.function) else {
                self.queue.handle_refused(&item.function, &item.topic, clock::mono().after(CALL_REFUSED_PAUSE));
                self.queue.hold(&item.function);
                continue;
            };
            if may_run(&active.assignment.manifest.retry, item.attempts) {
                self.begin(item, Arc::clone(active));
            } else {
                self.queue.handle_done(&item.function, &item.topic);
                self.bury(&item, "the daemon ended during each of its runs", None);
            }
        }
    }

    fn begin(&mut self, item: Item<Arc<Call>>, active: Arc<Active>) {
        let span = Duration::from_millis(active.assignment.manifest.limits.timeout_ms) + CALL_ADMISSION_MAX + LEASE_MARGIN;
        let lease = Lease::grant(clock::moment(), span);
        let Some(live) = self.live.get_mut(&item.payload.id.number) else {
            self.queue.handle_done(&item.function, &item.topic);
            return;
        };
        live.record.begin(lease, wall());
        let mut batch = Batch::new();
        live.record.put(&mut batch);
        let commit = self.parts.store.commit(batch, Durability::Grouped);
        let (invoker, report) = (self.parts.invoker.clone(), self.report.clone());
        self.parts.supervisor.spread(async move {
            let ran = match commit {
                Ok(commit) => under(lease, commit, &invoker, &active, &item.payload).await,
                Err(error) => Ran::NotBegun(error.to_string()),
            };
            drop(report.send(Happened::Ran { item, ran }));
        });
    }
}

/// One run, once its lease is on disk; the end of the lease is its end.
async fn under(lease: Lease, commit: Commit, invoker: &Invoker, active: &Active, call: &Call) -> Ran {
    if let Err(lost) = commit.durable().await {
        return Ran::NotBegun(lost.to_string());
    }
    let left = lease.left(clock::moment());
    match tokio::time::timeout(left, once(invoker, active, call)).await {
        Ok(ran) => ran,
        Err(_) => Ran::Failed("not done at the end of its lease".to_owned()),
    }
}

async fn once(invoker: &Invoker, active: &Active, call: &Call) -> Ran {
    let request = match request(call) {
        Ok(request) => request,
        Err(error) => return Ran::Failed(format!("its request is damaged: {error}")),
    };
    match invoker.http(active, request).await {
        Ok(response) => answered(response).await,
        Err(Failed::Refused(refused)) => Ran::NotBegun(refused.to_string()),
        Err(Failed::Ran(Failure::Busy { reason })) => Ran::NotBegun(reason),
        Err(deep @ Failed::Deep) => Ran::Failed(deep.to_string()),
        Err(Failed::Ran(failure)) => Ran::Failed(failure.to_string()),
    }
}

/// The request as it came, with the id of the call.
fn request(call: &Call) -> Result<Request<Full<Bytes>>, http::Error> {
    let uri = format!("http://{}{}", call.authority, call.target);
    let mut request = Request::builder().method(call.method.as_str()).uri(uri);
    for (name, value) in &call.headers {
        request = request.header(HeaderName::try_from(name)?, HeaderValue::from_bytes(&value.0)?);
    }
    let request = request.extension(OfCall(call.id)).header(CONTENT_LENGTH, call.body.len());
    request.body(Full::new(Bytes::from(call.body.clone())))
}

/// Reads an answer to its end: a function that is not done yet is not cut off because its answer is too large to be kept.
async fn answered<B>(response: Response<B>) -> Ran
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let (parts, mut body) = response.into_parts();
    let (mut kept, mut bytes) = (Vec::new(), 0_u64);
    while let Some(frame) = body.frame().await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => {
                bytes += data.len() as u64;
                if bytes <= CALL_BYTES_MAX as u64 {
                    kept.extend_from_slice(&data);
                }
            }
            Ok(Err(_trailers)) => {}
            Err(failure) => return Ran::Failed(failure.to_string()),
        }
    }
    let headers = headers(&parts.headers);
    let head_bytes: usize = headers.iter().map(|(name, value)| name.len() + value.0.len()).sum();
    let dropped = if bytes > CALL_BYTES_MAX as u64 {
        Some(format!("it was larger than {CALL_BYTES_MAX} bytes"))
    } else if head_bytes > ANSWER_HEAD_BYTES_MAX {
        Some(format!("its headers were larger than {ANSWER_HEAD_BYTES_MAX} bytes"))
    } else {
        None
    };
    let (headers, kept) = if dropped.is_some() { (Vec::new(), Vec::new()) } else { (headers, kept) };
    Ran::Answered { head: Answered { status: parts.status.as_u16(), headers, bytes, dropped }, body: kept }
}

/// Headers that belong to the answer and not to its transport.
fn headers(map: &HeaderMap) -> Vec<(String, HeaderBytes)> {
    let transport = [CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH];
    let own = map.iter().filter(|(name, _)| !transport.contains(name));
    own.map(|(name, value)| (name.to_string(), HeaderBytes(value.as_bytes().to_vec()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_is_kept_to_the_bound_and_not_one_byte_above() {
        for (length, fits) in [(CALL_BYTES_MAX, true), (CALL_BYTES_MAX + 1, false)] {
            let response = Response::builder().status(201).header("x", "y").body(Full::new(Bytes::from(vec![7; length]))).unwrap();
            let Ran::Answered { head, body } = answered(response).await else { panic!("it was answered") };
            assert_eq!((head.status, head.bytes, head.dropped.is_none()), (201, length as u64, fits));
            assert_eq!((body.len(), head.headers.len()), if fits { (length, 1) } else { (0, 0) });
        }
    }
}
