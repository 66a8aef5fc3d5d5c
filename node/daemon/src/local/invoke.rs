//! `POST /v1/functions/{name}/invoke`: a request as it is, with `?async=true` one that is kept and run later, or with `?topic=` an event.

use super::{Local, LocalBody, Refusal, collect, json, parse};
use crate::functions::Active;
use crate::http::{boxed, refuse};
use crate::invoke::Failed;
use crate::{asynchronous, clock};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::Either;
use hyper::body::Incoming;
use sedge_protocol::limits::EVENT_BYTES_MAX;
use sedge_protocol::local::{Cause, InvokeResult};
use sedge_protocol::{Event, FunctionName, Topic};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) async fn invoke(local: &Arc<Local>, name: &FunctionName, request: Request<Incoming>) -> Result<Response<LocalBody>, Refusal> {
    let table = local.functions.table();
    let active = table.active.get(name).cloned();
    let active = active.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("no function called `{name}` runs here")))?;
    match query(&request, "topic") {
        Some(topic) => event(local, &active, parse(&topic)?, request).await,
        None if query(&request, "async").as_deref() == Some("true") => call(local, &active, request).await,
        None => http(local, &active, request).await,
    }
}

/// The request that the function gets: method and path as the query says.
fn rewrite(request: &mut Request<Incoming>) -> Result<String, Refusal> {
    let path = query(request, "path").unwrap_or_else(|| "/".to_owned());
    let method = query(request, "method").unwrap_or_else(|| "POST".to_owned());
    *request.method_mut() = parse(&method)?;
    let path = if path.starts_with('/') { path } else { format!("/{path}") };
    *request.uri_mut() = parse::<Uri>(&format!("http://localhost{path}"))?;
    Ok(path)
}

/// As a caller that prefers an answer at once gets it over HTTP, without a route.
async fn call(local: &Arc<Local>, active: &Active, mut request: Request<Incoming>) -> Result<Response<LocalBody>, Refusal> {
    let target = rewrite(&mut request)?;
    let answer = local.calls.accept(active, target, request).await;
    Ok(super::boxed(answer.unwrap_or_else(|unfit| asynchronous::refuse(&unfit))))
}

async fn http(local: &Arc<Local>, active: &Active, mut request: Request<Incoming>) -> Result<Response<LocalBody>, Refusal> {
    rewrite(&mut request)?;
    match local.invoker.http(active, request).await {
        Ok(response) => Ok(boxed(response.map(Either::Left))),
        Err(failed @ (Failed::Refused(_) | Failed::Deep)) => Ok(boxed(refuse(&failed))),
        Err(Failed::Ran(failure)) => Err(Refusal::new(StatusCode::BAD_GATEWAY, failure.to_string())),
    }
}

async fn event(local: &Arc<Local>, active: &Active, topic: Topic, request: Request<Incoming>) -> Result<Response<LocalBody>, Refusal> {
    let header = request.headers().get(http::header::CONTENT_TYPE);
    let content_type = header.and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
    let data = collect(request, EVENT_BYTES_MAX).await?.to_vec();
    let event = Event {
        id: format!("invoke-{:016x}", rand::random::<u64>()),
        source: "/sedge/invoke".to_owned(),
        kind: "sedge.invoke".to_owned(),
        time_ms: Some(clock::wall().0),
        topic,
        content_type,
        extensions: BTreeMap::new(),
        data,
    };
    let (watched, told) = local.logs.watch_for(Cause::Event { id: event.id.clone(), topic: event.topic.clone() });
    let (ok, output) = match local.invoker.event_watched(active, &event, watched).await {
        Ok(reply) => (true, String::from_utf8_lossy(&reply.data).into_owned()),
        Err(failed) => (false, failed.to_string()),
    };
    // One that was not admitted never ends.
    let (wall_us, cpu_us) = told.await.map_or((0, 0), |ended| (ended.wall_us, ended.cpu_us));
    Ok(json(&InvokeResult { ok, output, wall_us, cpu_us }))
}

/// A value of the query, with its percent signs decoded.
fn query<B>(request: &Request<B>, wanted: &str) -> Option<String> {
    let query = request.uri().query()?;
    let (_, value) = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == wanted)?;
    Some(decode(value))
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match (bytes[at], pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 2;
            }
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_are_decoded_once() {
        assert_eq!(decode("plant%2Fa%20b"), "plant/a b");
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%2"), "%2");
        assert_eq!(decode("%252F"), "%2F");
    }
}
