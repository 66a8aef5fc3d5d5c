//! Tells somebody that a call is over: its answer as a CloudEvent, by HTTP, with attempts and backoff.

use super::record::{Answered, Record};
use super::{Calls, Happened, Parts};
use crate::fault::clip;
use crate::limits::CALLBACK_TIMEOUT;
use crate::{chunks, clock};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use sedge_node_core::queue::{self, Item};
use sedge_protocol::FunctionName;
use sedge_protocol::invocation::{CallbackState, DEPTH_HEADER, InvocationId};
use sedge_protocol::limits::CALLBACK_BYTES_MAX;
use sedge_protocol::manifest::{Access, INTERNAL_SUFFIX};
use sedge_store::{Batch, Durability, ItemId, Tree};

/// Whether a function with this access may have its callers call back to `url`; what is wrong, and the line to add, if not.
pub(super) fn check(url: &str, access: &Access) -> Result<(), (String, Option<String>)> {
    let wrong = || (format!("`{}` is no address for a callback: write http://host:port/path or https://host/path", clip(url)), None);
    if url.len() > CALLBACK_BYTES_MAX {
        return Err((format!("a callback's address has at most {CALLBACK_BYTES_MAX} bytes"), None));
    }
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else { return Err(wrong()) };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(wrong());
    }
    if access.outgoing.iter().any(|origin| origin.matches(scheme, host, uri.port_u16())) {
        // Inside the node nothing is encrypted and nothing listens.
        let plain = host.ends_with(INTERNAL_SUFFIX);
        return match scheme {
            "https" if plain => Err((format!("a function of the node is called over http: write http://{host}/path"), None)),
            _ => Ok(()),
        };
    }
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    let line = format!("add to function.toml under [access]: outgoing = [\"{scheme}://{host}{port}\"]");
    Err((format!("the function may not send to {scheme}://{host}{port}"), Some(line)))
}

impl Calls {
    /// Starts the callbacks that may start.
    pub(super) fn tell(&mut self) {
        while let Some(item) = self.callbacks.poll_dispatch(clock::mono()) {
            let record = self.telling.get(&item.payload.number).cloned();
            let Some(record) = record.filter(|record| self.shelf.contains(record.id.number)) else {
                log::warn!(invocation:% = item.payload; "a callback is dropped: nothing is known of its call any more");
                self.callbacks.handle_done(&item.function, &item.topic);
                self.telling.remove(&item.payload.number);
                let mut batch = Batch::new();
                batch.finish(ItemId(item.id));
                self.write(batch);
                continue;
            };
            let (parts, report) = (self.parts.clone(), self.report.clone());
            self.parts.supervisor.spread(async move {
                let told = tokio::time::timeout(CALLBACK_TIMEOUT, deliver(&parts, record)).await;
                let result = match told {
                    Ok(result) => result.map_err(|error| format!("{error:#}")),
                    Err(_) => Err(format!("no answer within {} s", CALLBACK_TIMEOUT.as_secs())),
                };
                drop(report.send(Happened::Told { item, result }));
            });
        }
    }

    pub(super) fn handle_told(&mut self, item: &Item<InvocationId>, result: Result<(), String>) {
        let (state, attempts, reason) = match result {
            Ok(()) => match self.callbacks.handle_done(&item.function, &item.topic) {
                Some(done) => (CallbackState::Delivered, done.attempts + 1, None),
                None => return,
            },
            Err(reason) => match self.callbacks.handle_failed(&item.function, &item.topic, clock::mono()) {
                queue::Failed::Again { attempts } => (CallbackState::Waiting, attempts, Some(clip(&reason))),
                queue::Failed::DeadLetter(dead) => {
                    log::warn!(function:% = item.function, invocation:% = item.payload, attempts = dead.attempts, reason; "a callback is given up");
                    self.parts.errors.note(&item.function, None, &format!("callback given up after {} attempts: {reason}", dead.attempts));
                    (CallbackState::GivenUp, dead.attempts, Some(clip(&reason)))
                }
                queue::Failed::Gone => return,
            },
        };
        let mut batch = Batch::new();
        let over = state != CallbackState::Waiting;
        let number = item.payload.number;
        if let Some(record) = self.telling.get_mut(&number) {
            if let Some(callback) = &mut record.callback {
                (callback.state, callback.attempts, callback.reason) = (state, attempts, reason);
            }
            // A call that was replayed meanwhile has another record, and will have another callback.
            if self.shelf.contains(number) {
                record.put(&mut batch);
            }
        }
        if over {
            self.telling.remove(&number);
            batch.finish(ItemId(item.id));
        }
        self.write(batch);
    }
}

/// One attempt.
async fn deliver(parts: &Parts, record: Record) -> anyhow::Result<()> {
    let store = parts.store.clone();
    // What the receiver hears of must not be undone by a power cut.
    store.commit(Batch::new(), Durability::Grouped)?.durable().await?;
    let number = record.id.number;
    let read = move || chunks::get(&store, Tree::Answer, number);
    let body = tokio::task::spawn_blocking(read).await??.unwrap_or_default();
    let url = record.callback.as_ref().map(|callback| callback.url.clone()).context("no callback")?;
    let uri: Uri = url.parse()?;
    let request = request(&record, &uri, body)?;
    let host = uri.host().context("no host")?;
    let status = match host.strip_suffix(INTERNAL_SUFFIX) {
        Some(name) => inside(parts, name, request).await?,
        None => outside(parts, uri.clone(), request).await?,
    };
    ensure!(status.is_success(), "the receiver answered with status {status}");
    Ok(())
}

/// To another function of the node, without a socket.
async fn inside(parts: &Parts, name: &str, mut request: Request<Full<Bytes>>) -> anyhow::Result<StatusCode> {
    let name: FunctionName = name.parse()?;
    let active = parts.functions.table().active.get(&name).cloned();
    let active = active.with_context(|| format!("no function called `{name}` runs here"))?;
    *request.uri_mut() = format!("http://{name}{INTERNAL_SUFFIX}{}", request.uri()).parse()?;
    let mut response = parts.invoker.http(&active, request).await?;
    while let Some(frame) = response.body_mut().frame().await {
        drop(frame?);
    }
    Ok(response.status())
}

/// To another machine, with the trust of the functions' own requests.
async fn outside(parts: &Parts, to: Uri, request: Request<Full<Bytes>>) -> anyhow::Result<StatusCode> {
    let host = to.host().unwrap_or_default().to_owned();
    let stream = parts.egress.connect(to).await.map_err(anyhow::Error::from_boxed).with_context(|| format!("connect to {host}"))?;
    let (mut sender, connection) = http1::handshake(stream).await?;
    let exchange = async { Ok(sender.send_request(request).await?.status()) };
    tokio::pin!(exchange);
    // The connection is driven here, so nothing of it outlives the attempt.
    tokio::select! {
        result = &mut exchange => result,
        ended = connection => match ended {
            // The answer may have been the last that came.
            Ok(()) => exchange.await,
            Err(error) => Err(error.into()),
        },
    }
}

/// The end of a call as a CloudEvent in binary mode: attributes in the head, the function's answer as the body.
fn request(record: &Record, uri: &Uri, body: Vec<u8>) -> anyhow::Result<Request<Full<Bytes>>> {
    let view = record.view(true);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().context("no host")?;
    let mut request = Request::post(path)
        .header(HOST, authority.as_str())
        .header("ce-specversion", "1.0")
        .header("ce-id", record.id.to_string())
        .header("ce-source", format!("/function/{}", record.function))
        .header("ce-type", format!("sedge.invocation.{}", view.state.as_str()))
        .header("ce-attempts", record.attempts.to_string())
        // Who is told may be a function, and call again.
        .header(DEPTH_HEADER, record.depth.saturating_add(1));
    if let Some(time) = view.ended_ms.and_then(rfc3339) {
        request = request.header("ce-time", time);
    }
    if let Some(Answered { status, headers, .. }) = &record.answer {
        request = request.header("ce-status", status.to_string());
        let media = headers.iter().find(|(name, _)| *name == CONTENT_TYPE.as_str());
        if let Some(value) = media.and_then(|(_, value)| HeaderValue::from_bytes(&value.0).ok()) {
            request = request.header(CONTENT_TYPE, value);
        }
    }
    Ok(request.header(CONTENT_LENGTH, body.len()).body(Full::new(Bytes::from(body)))?)
}

fn rfc3339(time_ms: u64) -> Option<String> {
    Some(jiff::Timestamp::from_millisecond(i64::try_from(time_ms).ok()?).ok()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_goes_only_where_the_function_may_send_and_the_refusal_names_the_line() {
        let outgoing = ["http://10.0.0.7:8080", "https://hooks.example", "https://f.sedge.internal"].map(|origin| origin.parse().unwrap());
        let access = Access { outgoing: outgoing.to_vec(), ..Access::default() };
        assert_eq!(check("https://hooks.example/done", &access), Ok(()));
        assert!(check("https://f.sedge.internal/done", &access).unwrap_err().0.contains("http://f.sedge.internal"));
        assert_eq!(check("http://10.0.0.7:8080/done?x=1", &access), Ok(()));
        let (error, hint) = check("http://10.0.0.8:8080/done", &access).unwrap_err();
        assert!(error.contains("may not send to http://10.0.0.8:8080"), "{error}");
        assert_eq!(hint.unwrap(), "add to function.toml under [access]: outgoing = [\"http://10.0.0.8:8080\"]");
        for wrong in
            ["", "/path", "10.0.0.7:8080", "http://u@10.0.0.7:8080/", &format!("http://10.0.0.7:8080/{}", "x".repeat(CALLBACK_BYTES_MAX))]
        {
            assert!(check(wrong, &access).is_err(), "{wrong}");
        }
    }
}
