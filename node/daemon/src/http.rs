//! HTTP triggers: one listener, requests go to the function with the longest matching route.

use crate::asynchronous;
use crate::functions::{Functions, Routed};
use crate::holding::Holding;
use crate::invoke::{Failed, Invoker};
use crate::limits::HTTP_CONNECTIONS_MAX;
use crate::serve::{self, Where};
use crate::supervisor::Supervisor;
use crate::telemetry::{Open, Requests};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use sedge_node_core::controller::{Refusal, Why};
use sedge_runtime::{Failure, ResponseBody};
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpListener;

type AnswerBody = Either<ResponseBody, Full<Bytes>>;
type Answer = Response<AnswerBody>;

/// Serves until the daemon stops; requests that run are finished.
pub(crate) async fn run(
    listener: TcpListener,
    functions: Functions,
    invoker: Invoker,
    calls: asynchronous::Handle,
    supervisor: Supervisor,
) -> anyhow::Result<()> {
    let ways = Arc::new(Ways { unrouted: invoker.meter().route(None), functions, invoker, calls });
    let answer = move |request| {
        let ways = Arc::clone(&ways);
        async move { answer(&ways, request).await }
    };
    serve::run(listener, (HTTP_CONNECTIONS_MAX, Where::Executors), supervisor, answer).await
}

/// Where requests go.
struct Ways {
    functions: Functions,
    invoker: Invoker,
    calls: asynchronous::Handle,
    /// Counts what no route takes.
    unrouted: Arc<Requests>,
}

async fn answer(ways: &Ways, request: Request<Incoming>) -> Response<Holding<AnswerBody, Open>> {
    let begin = Instant::now();
    let (routed, requests) = ways.functions.table().route_counted(request.uri().path());
    let open = requests.as_ref().unwrap_or(&ways.unrouted).open(request.method(), begin);
    let answer = if asynchronous::wanted(&request) {
        ways.calls.answer(request).await.map(Either::Right)
    } else {
        match routed {
            Routed::Active(active) => match ways.invoker.http_on(&active, requests.as_ref(), with_authority(request)).await {
                Ok(response) => response.map(Either::Left),
                Err(failed) => refuse(&failed),
            },
            Routed::Coming => later("the function for this path is not ready yet, try again later\n"),
            Routed::Nowhere => say(StatusCode::NOT_FOUND, "no function has a route for this path\n"),
        }
    };
    let status = answer.status();
    answer.map(|body| open.answered(status, body))
}

/// HTTP/1 requests carry their authority in `Host` only; guests expect it in the URI.
fn with_authority<B>(mut request: Request<B>) -> Request<B> {
    if request.uri().authority().is_none() {
        let host = request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        if let Ok(uri) = http::Uri::builder().scheme("http").authority(host).path_and_query(path).build() {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// The answer to a failed request, of a client or of another function: reasons of the function stay in its log.
pub(crate) fn refuse(failed: &Failed) -> Answer {
    match failed {
        Failed::Refused(refusal) => turn_away(refusal),
        Failed::Deep => say(StatusCode::LOOP_DETECTED, &format!("{failed}\n")),
        Failed::Ran(failure @ Failure::Busy { .. }) => later(&format!("{}\n", public_reason(failure))),
        Failed::Ran(failure) => say(status_of(failure), &format!("{}\n", public_reason(failure))),
    }
}

fn status_of_refusal(refusal: &Refusal) -> StatusCode {
    match refusal.why {
        Why::Concurrency => StatusCode::TOO_MANY_REQUESTS,
        Why::Overload | Why::Memory | Why::Gone => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn status_of(failure: &Failure) -> StatusCode {
    match failure {
        Failure::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        Failure::RequestTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Failure::BadRequest { .. } => StatusCode::BAD_REQUEST,
        Failure::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn public_reason(failure: &Failure) -> &'static str {
    match failure {
        Failure::Timeout { .. } => "the function was not done in time",
        Failure::OutOfMemory { .. } => "the function needs more memory than its limit",
        Failure::RequestTooLarge { .. } => "the request is too large",
        Failure::BadRequest { .. } => "the request is not valid",
        Failure::Busy { .. } => "overloaded, try again later",
        Failure::NoResponse => "the function answered nothing",
        _ => "the function failed",
    }
}

fn later(text: &str) -> Answer {
    let mut answer = say(StatusCode::SERVICE_UNAVAILABLE, text);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// 429 where the function's own limit is reached, else 503; both say when it is worth trying again.
fn turn_away(refusal: &Refusal) -> Answer {
    let mut answer = say(status_of_refusal(refusal), &format!("{refusal}, try again later\n"));
    answer.headers_mut().insert(RETRY_AFTER, refusal.retry_after_ms.div_ceil(1_000).max(1).into());
    answer
}

fn say(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Either::Right(Full::new(Bytes::copy_from_slice(text.as_bytes()))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// The body of an answer as bytes that fit any server.
pub(crate) fn boxed(answer: Answer) -> Response<http_body_util::combinators::UnsyncBoxBody<Bytes, anyhow::Error>> {
    answer.map(|body| body.map_err(|error| anyhow::anyhow!("{error}")).boxed_unsync())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_hears_why_and_when_to_come_again() {
        for (why, retry_after_ms, status, seconds) in [
            (Why::Concurrency, 2_500, StatusCode::TOO_MANY_REQUESTS, "3"),
            (Why::Overload, 4, StatusCode::SERVICE_UNAVAILABLE, "1"),
            (Why::Memory, 0, StatusCode::SERVICE_UNAVAILABLE, "1"),
        ] {
            let answer = refuse(&Failed::Refused(Refusal { why, retry_after_ms }));
            assert_eq!((answer.status(), answer.headers()[RETRY_AFTER].to_str().unwrap()), (status, seconds), "{why}");
        }
        let answer = refuse(&Failed::Ran(Failure::Busy { reason: String::new() }));
        assert_eq!((answer.status(), &answer.headers()[RETRY_AFTER]), (StatusCode::SERVICE_UNAVAILABLE, &HeaderValue::from_static("1")));
    }
}
