//! Components of WASI 0.3: how they are called.
//!
//! ```text
//!  handle(request) ─▶ run_concurrent ─┬─ the handler returns a response ─▶ Answer, its body is the end of a relay
//!                                     ├─ pump: body of the guest ─▶ relay ─▶ client
//!                                     └─ until the guest has no task left: what it does after its answer belongs to the invocation
//! ```
//! All of it is one future, polled where its guest is polled: so it is metered, takes turns and ends at the deadline as one of 0.2.
//! A small answer is in the relay when the future is done, and goes out in one piece.

pub(crate) mod engine;
mod linker;
mod relay;

#[cfg(test)]
pub(crate) use linker::concurrent as linker_of_03;

use crate::body::RequestBody;
use crate::failure::Failure;
use crate::function::Answer;
use crate::state::State;
use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{Request, Uri};
use http_body::Body;
use http_body_util::BodyExt as _;
use std::error::Error as StdError;
use std::future::poll_fn;
use tokio::sync::oneshot;
use wasmtime::component::Accessor;
use wasmtime::{AsContextMut as _, Store};
use wasmtime_wasi::p3::bindings::CommandPre;
use wasmtime_wasi_http::p3::bindings::Service;
use wasmtime_wasi_http::p3::{self, bindings::http::types::ErrorCode};
use wasmtime_wasi_http::{Error as HttpError, WasiHttpView as _};

/// Runs the handler until nothing is left to do: the answer is sent, its body handed over, the guest's last task gone.
pub(crate) async fn handle<B>(
    store: &mut Store<State>,
    service: &Service,
    mut request: Request<RequestBody<B>>,
    sender: oneshot::Sender<Answer>,
) -> wasmtime::Result<()>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    complete(&mut request);
    let (request, _) = p3::Request::from_http(store.data_mut().http().hooks, request);
    let (mut source, body) = relay::pair();
    // Open until the verdict is spoken: whoever reads the body sees a failure, never a clean end.
    let open = source.clone();
    let result = store
        .run_concurrent(async |accessor| {
            let response = service.handle(accessor, request).await?.map_err(refused)?;
            let (delivered, delivery) = oneshot::channel();
            let transmitted = async move { delivery.await.unwrap_or(Err(HttpError::ConnectionTerminated)) };
            let response = accessor.with(|mut access| response.into_http(access.as_context_mut(), transmitted))?;
            let (head, from_guest) = response.into_parts();
            if sender.send(Ok(http::Response::from_parts(head, body.boxed_unsync()))).is_ok() {
                let result = source.pump(from_guest).await;
                // A guest that does not want to know has dropped the other end.
                drop(delivered.send(result));
            }
            idle(accessor).await;
            Ok(())
        })
        .await
        .flatten();
    let verdict = State::verdict(store, result).map_err(wasmtime::Error::new);
    drop(open);
    verdict
}

/// Runs a command until nothing is left to do.
pub(crate) async fn run(store: &mut Store<State>, pre: &CommandPre<State>) -> wasmtime::Result<()> {
    let command = pre.instantiate_async(&mut *store).await?;
    let ended = store
        .run_concurrent(async |accessor| {
            let ended = command.wasi_cli_run().call_run(accessor).await;
            if ended.is_ok() {
                idle(accessor).await;
            }
            ended
        })
        .await
        .flatten()?;
    ended.map_err(|()| wasmtime::Error::new(Failure::Exit { code: 1 }))
}

/// Until the guest has no task left. Cancel safe.
async fn idle(accessor: &Accessor<State>) {
    poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
}

/// A handler of 0.3 is told scheme and authority beside the headers, not in them.
fn complete<B>(request: &mut Request<B>) {
    let mut parts = request.uri().clone().into_parts();
    if parts.authority.is_none() {
        let named = request.headers().get(HOST).and_then(|value| value.to_str().ok());
        parts.authority = named.and_then(|text| text.parse::<Authority>().ok());
    }
    if parts.authority.is_some() {
        parts.scheme.get_or_insert(Scheme::HTTP);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

fn refused(code: ErrorCode) -> wasmtime::Error {
    wasmtime::Error::new(Failure::Refused { code: code.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_where_it_was_sent() {
        let check = |uri: &str, host: Option<&str>, expected: &str| {
            let mut request = Request::get(uri);
            if let Some(host) = host {
                request = request.header(HOST, host);
            }
            let mut request = request.body(()).unwrap();
            complete(&mut request);
            assert_eq!(request.uri().to_string(), expected);
        };
        check("/a?b", Some("node.local:8080"), "http://node.local:8080/a?b");
        check("https://other/a", Some("node.local"), "https://other/a");
        check("/a", Some("no host"), "/a");
        check("/a", None, "/a");
    }
}
