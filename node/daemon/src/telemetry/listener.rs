//! `GET /metrics` on a TCP listener of its own: never where functions are served, and open to nobody who was not named.

use super::TEXT_MEDIA;
use super::metrics::Sources;
use crate::limits::METRICS_CONNECTIONS_MAX;
use crate::serve::{self, Where};
use crate::supervisor::Supervisor;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::TcpListener;

/// Serves until the daemon stops.
pub(crate) async fn run(listener: TcpListener, sources: Sources, supervisor: Supervisor) -> anyhow::Result<()> {
    let answer = move |request: Request<Incoming>| {
        let sources = sources.clone();
        async move { answer(sources, &request).await }
    };
    serve::run(listener, (METRICS_CONNECTIONS_MAX, Where::Here), supervisor, answer).await
}

async fn answer(sources: Sources, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return say(StatusCode::NOT_FOUND, "the metrics are at /metrics\n".to_owned());
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut answer = say(StatusCode::METHOD_NOT_ALLOWED, "GET reads the metrics\n".to_owned());
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match tokio::task::spawn_blocking(move || sources.text()).await {
        Ok(text) => {
            let mut answer = say(StatusCode::OK, text);
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_MEDIA));
            answer
        }
        Err(panic) => say(StatusCode::INTERNAL_SERVER_ERROR, format!("{panic}\n")),
    }
}

fn say(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
