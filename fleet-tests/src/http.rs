//! One HTTP exchange over TCP or a Unix socket.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Longest exchange: a failure, not a slow machine.
const EXCHANGE_MAX: Duration = Duration::from_secs(60);

/// Whom to ask.
#[derive(Debug, Clone)]
pub enum Target {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as what its JSON says.
    ///
    /// # Errors
    /// When it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).with_context(|| format!("{}: {}", self.status, self.text()))
    }
}

/// Sends one request and reads the whole answer.
///
/// # Errors
/// When there is no whole answer.
pub fn exchange(target: &Target, method: Method, path: &str, body: impl Into<Bytes>) -> Result<Answer> {
    exchange_with(target, method, path, &[], body)
}

/// [`exchange`] with more headers.
///
/// # Errors
/// When there is no whole answer.
pub fn exchange_with(target: &Target, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Result<Answer> {
    let what = format!("{method} {path}");
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let request = request.body(Full::new(body.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = async {
        match target {
            Target::Tcp(address) => send(TcpStream::connect(address).await?, request).await,
            Target::Unix(path) => send(UnixStream::connect(path).await?, request).await,
        }
    };
    let answer = runtime.block_on(async { tokio::time::timeout(EXCHANGE_MAX, answer).await });
    let answer = answer.with_context(|| format!("{what}: no answer"))?.with_context(|| what)?;
    Ok(Answer { status: answer.status(), headers: answer.headers().clone(), body: answer.into_body() })
}

async fn send(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, request: Request<Full<Bytes>>) -> Result<Response<Bytes>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    connection.abort();
    Ok(Response::from_parts(head, body))
}
