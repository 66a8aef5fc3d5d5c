//! `POST /v1/functions/{name}/trace`: one invocation, and everything it did: answer, publications, changes of its state, log.

use super::{Local, LocalBody, Refusal, blocking, collect, json, own, parse};
use crate::functions::Active;
use crate::http::{boxed, refuse};
use crate::invoke::Failed;
use crate::limits::{TRACE_BODY_BYTES_MAX, TRACE_ITEMS_MAX, TRACE_REQUEST_BYTES_MAX};
use crate::logs::{Listener, Live};
use crate::state;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Either, Full, Limited};
use hyper::body::Incoming;
use sedge_protocol::limits::EVENT_BYTES_MAX;
use sedge_protocol::local::{Cause, Ended, Input, Payload, Replied, Responded, State, Trace, TraceRequest};
use sedge_protocol::{Event, FunctionName};
use std::future::Future;
use std::sync::Arc;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// What one invocation answered.
#[derive(Default)]
struct Answer {
    ended: Option<Ended>,
    failure: Option<String>,
    reply: Option<Replied>,
    response: Option<Responded>,
}

/// What happened meanwhile on the node.
struct Seen {
    live: Listener,
    function: FunctionName,
    items: Vec<Live>,
    missing: u64,
}

pub(super) async fn trace(local: &Arc<Local>, name: &FunctionName, request: Request<Incoming>) -> Result<Response<LocalBody>, Refusal> {
    let body = collect(request, TRACE_REQUEST_BYTES_MAX).await?;
    let wrong = |error: serde_json::Error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string());
    let TraceRequest { input, state: begin } = serde_json::from_slice(&body).map_err(wrong)?;
    let active = local.functions.table().active.get(name).cloned();
    let active = active.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("no function called `{name}` runs here")))?;
    if let Some(begin) = begin {
        own(local)?;
        let (places, function) = (local.places.clone(), name.clone());
        blocking(move || places.replace(&function, &begin)).await?;
    }
    let before = snapshot(local, name).await?;
    let mut seen = Seen { live: local.logs.listen(), function: name.clone(), items: Vec::new(), missing: 0 };
    let answer = match input {
        Input::Event(event) => seen.during(event_of(local, &active, event)).await?,
        Input::Request { method, path, headers, body } => {
            let request = build(&method, &path, &headers, &body)?;
            seen.during(request_of(local, &active, request)).await?
        }
    };
    let after = snapshot(local, name).await?;
    let changes = before.zip(after).map(|(before, after)| state::compare(before, after));
    Ok(json(&seen.into_trace(answer, changes)))
}

async fn snapshot(local: &Arc<Local>, name: &FunctionName) -> Result<Option<State>, Refusal> {
    let (places, function) = (local.places.clone(), name.clone());
    blocking(move || places.read(&function)).await
}

async fn event_of(local: &Arc<Local>, active: &Active, event: Event) -> Result<Answer, Refusal> {
    if event.data.len() > EVENT_BYTES_MAX {
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the data of an event has at most {EVENT_BYTES_MAX} bytes")));
    }
    let (watched, told) = local.logs.watch_for(Cause::Event { id: event.id.clone(), topic: event.topic.clone() });
    let result = local.invoker.event_watched(active, &event, watched).await;
    let mut answer = Answer { ended: told.await.ok(), ..Answer::default() };
    match result {
        Ok(reply) => answer.reply = Some(Replied { content_type: reply.content_type, data: Payload::from(&*reply.data) }),
        Err(failed) => answer.failure = Some(failed.to_string()),
    }
    Ok(answer)
}

async fn request_of(local: &Arc<Local>, active: &Active, request: Request<Full<bytes::Bytes>>) -> Result<Answer, Refusal> {
    let path = request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let (watched, told) = local.logs.watch_for(Cause::Request { method: request.method().to_string(), path });
    let (response, mut failure) = match local.invoker.http_watched(active, request, watched).await {
        Ok(response) => (boxed(response.map(Either::Left)), None),
        Err(failed @ (Failed::Refused(_) | Failed::Deep)) => (boxed(refuse(&failed)), Some(failed.to_string())),
        Err(failed @ Failed::Ran(_)) => (boxed(refuse(&failed)), Some(failed.to_string())),
    };
    let (head, body) = response.into_parts();
    let body = match Limited::new(body, TRACE_BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(cut) => {
            failure.get_or_insert_with(|| format!("the body of the answer was not finished: {cut}"));
            bytes::Bytes::new()
        }
    };
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let response = Responded { status: head.status.as_u16(), headers: headers.collect(), body: Payload::from(&*body) };
    let ended = told.await.ok();
    let failure = ended.as_ref().and_then(|ended| ended.reason.clone()).or(failure);
    Ok(Answer { ended, failure, reply: None, response: Some(response) })
}

fn build(method: &str, path: &str, headers: &[(String, String)], body: &Payload) -> Result<Request<Full<bytes::Bytes>>, Refusal> {
    if !path.starts_with('/') {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, format!("the path `{path}` does not begin with `/`")));
    }
    let data = body.decode().map_err(|broken| Refusal::new(StatusCode::BAD_REQUEST, format!("the body of the request: {broken}")))?;
    let length = data.len();
    let mut request = Request::new(Full::new(bytes::Bytes::from(data.into_owned())));
    *request.method_mut() = parse::<Method>(method)?;
    *request.uri_mut() = parse::<Uri>(&format!("http://localhost{path}"))?;
    for (name, value) in headers {
        let wrong = |cause: &dyn std::fmt::Display| Refusal::new(StatusCode::BAD_REQUEST, format!("the header `{name}`: {cause}"));
        let key = HeaderName::try_from(name).map_err(|cause| wrong(&cause))?;
        request.headers_mut().append(key, HeaderValue::try_from(value).map_err(|cause| wrong(&cause))?);
    }
    if length > 0 {
        request.headers_mut().entry(http::header::CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    Ok(request)
}

impl Seen {
    /// Listens while `work` goes on.
    async fn during(&mut self, work: impl Future<Output = Result<Answer, Refusal>>) -> Result<Answer, Refusal> {
        let mut work = Box::pin(work);
        let answer = loop {
            tokio::select! {
                biased;
                live = self.live.recv() => match live {
                    Ok(live) => self.take(live),
                    Err(RecvError::Lagged(missing)) => self.missing += missing,
                    Err(RecvError::Closed) => break work.await,
                },
                answer = &mut work => break answer,
            }
        };
        loop {
            match self.live.try_recv() {
                Ok(live) => self.take(live),
                Err(TryRecvError::Lagged(missing)) => self.missing += missing,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return answer,
            }
        }
    }

    fn take(&mut self, live: Live) {
        let of_it = match &live {
            Live::Line(entry) => entry.function == self.function,
            Live::Published(published) => published.function == self.function,
            Live::Ended(_) => false,
        };
        if of_it && self.items.len() < TRACE_ITEMS_MAX {
            self.items.push(live);
        } else {
            self.missing += u64::from(of_it);
        }
    }

    fn into_trace(self, answer: Answer, changes: Option<Vec<sedge_protocol::local::Change>>) -> Trace {
        let Answer { ended, failure, reply, response } = answer;
        let ours = ended.as_ref().map(|ended| ended.invocation.clone()).unwrap_or_default();
        let (mut publications, mut log, mut missing) = (Vec::new(), Vec::new(), self.missing);
        for item in self.items {
            match item {
                Live::Line(entry) if entry.invocation == ours => {
                    missing += entry.dropped;
                    log.push((*entry).clone());
                }
                Live::Published(published) if published.invocation == ours => publications.push((*published).clone()),
                Live::Line(_) | Live::Published(_) | Live::Ended(_) => {}
            }
        }
        Trace { ended, failure, reply, response, publications, changes, log, missing }
    }
}
