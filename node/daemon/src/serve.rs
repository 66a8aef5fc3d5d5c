//! HTTP/1 connections of one listener: so many at a time, each a piece of work that the drain waits for.

mod line;
mod place;

use crate::holding::Holding;
use crate::limits::{ACCEPT_PAUSE, HTTP_HEAD_TIMEOUT, HTTP_SEND_TIMEOUT};
use crate::supervisor::Supervisor;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use line::Line;
use place::{Holder, Occupied, Places};
use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// Where connections come from.
pub(crate) trait Listener: Send + 'static {
    /// A connection on its way to the runtime that serves it.
    type Passenger: Send + 'static;
    /// What a client is served on.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and whose it is, where that can be told. Cancel safe.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Passenger, Option<Holder>)>> + Send;

    /// Makes it a stream of the runtime that calls.
    fn arrive(passenger: Self::Passenger) -> io::Result<Self::Stream>;
}

impl Listener for TcpListener {
    type Passenger = std::net::TcpStream;
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(Self::Passenger, Option<Holder>)> {
        let (stream, from) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        // A client that takes no bytes gives its connection back.
        rustix::net::sockopt::set_tcp_user_timeout(&stream, u32::try_from(HTTP_SEND_TIMEOUT.as_millis()).unwrap_or(u32::MAX))?;
        Ok((stream.into_std()?, Some(from.ip().into())))
    }

    fn arrive(passenger: Self::Passenger) -> io::Result<TcpStream> {
        TcpStream::from_std(passenger)
    }
}

impl Listener for UnixListener {
    type Passenger = std::os::unix::net::UnixStream;
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(Self::Passenger, Option<Holder>)> {
        Ok((UnixListener::accept(self).await?.0.into_std()?, None))
    }

    fn arrive(passenger: Self::Passenger) -> io::Result<UnixStream> {
        UnixStream::from_std(passenger)
    }
}

/// Where the connections of a listener are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    /// On the executors: connections that carry invocations.
    Executors,
    /// On the runtime that accepts them.
    Here,
}

/// Serves until the daemon stops; requests that run are finished. When all places are taken, an idle connection makes room for a new one.
pub(crate) async fn run<L, F, R, B>(
    listener: L,
    (connections_max, place): (usize, Where),
    supervisor: Supervisor,
    answer: F,
) -> anyhow::Result<()>
where
    L: Listener,
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let mut places = Places::new(connections_max);
    loop {
        let accepted = tokio::select! {
            () = supervisor.stop().cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let (passenger, holder) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                log::warn!(reason:% = error; "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let occupied = tokio::select! {
            () = supervisor.stop().cancelled() => return Ok(()),
            occupied = places.take(holder) => occupied,
        };
        let (stop, answer) = (supervisor.stop().clone(), answer.clone());
        let connection = async move {
            match L::arrive(passenger) {
                Ok(stream) => converse(stream, &occupied, stop, answer).await,
                Err(error) => log::warn!(reason:% = error; "a connection could not be handed on"),
            }
        };
        match place {
            Where::Executors => supervisor.spread(connection),
            Where::Here => supervisor.work(connection),
        }
    }
}

/// One connection, to its end.
async fn converse<S, F, R, B>(stream: S, occupied: &Occupied, stop: CancellationToken, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let seat = &occupied.seat;
    let here = Arc::clone(seat);
    let service = service_fn(move |request: Request<Incoming>| {
        let turn = here.begin(!request.body().is_end_stream());
        let answer = fault_of_host(request.version(), request.headers()).map_or_else(|| Ok(answer(request)), Err);
        async move {
            let response = match answer {
                Ok(answer) => answer.await.map(Either::Left),
                Err(fault) => refuse(fault).map(Either::Right),
            };
            Ok::<_, Infallible>(response.map(|body| Holding::new(body, turn)))
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HTTP_HEAD_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(Line::new(stream, Arc::clone(seat))), service);
    tokio::pin!(connection);
    let mut stopping = false;
    let result = loop {
        tokio::select! {
            // A request that has come is seen before the connection leaves.
            biased;
            result = connection.as_mut() => break result,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = seat.asked_to_leave() => if seat.leaves() {
                log::debug!("an idle connection made room for another");
                return;
            }
        }
    };
    if let Err(error) = result {
        log::debug!(reason:% = error; "a connection ended early");
    }
}

/// What is wrong with the `Host` of a request: HTTP/1.1 has it exactly once (RFC 9112, section 3.2).
fn fault_of_host(version: Version, headers: &HeaderMap) -> Option<&'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version < Version::HTTP_11 => None,
        (None, _) => Some("a request of HTTP/1.1 names its host: the header `Host` is missing\n"),
        (Some(_), Some(_)) => Some("a request names one host: there is more than one header `Host`\n"),
        (Some(host), None) if is_host(host) => None,
        (Some(_), None) => Some("the header `Host` is no host with or without a port\n"),
    }
}

/// Whether it is `host[:port]`, or nothing, which is allowed.
fn is_host(value: &HeaderValue) -> bool {
    let text = value.to_str().unwrap_or("@");
    text.is_empty() || !text.contains('@') && text.parse::<Authority>().is_ok()
}

fn refuse(fault: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(fault.as_bytes())));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_1_1_names_its_host_exactly_once() {
        let check = |version, hosts: &[&'static str], expected: Option<&str>| {
            let headers: HeaderMap = hosts.iter().map(|host| (HOST, HeaderValue::from_static(host))).collect();
            let fault = fault_of_host(version, &headers);
            assert_eq!(fault.is_some(), expected.is_some(), "{hosts:?}");
            assert!(fault.unwrap_or_default().contains(expected.unwrap_or_default()), "{fault:?}");
        };
        for good in ["a", "a:80", "10.0.0.1:8080", "[::1]:80", ""] {
            check(Version::HTTP_11, &[good], None);
        }
        check(Version::HTTP_11, &[], Some("missing"));
        check(Version::HTTP_10, &[], None);
        for version in [Version::HTTP_10, Version::HTTP_11] {
            check(version, &["a", "a"], Some("more than one"));
            check(version, &["a", "b"], Some("more than one"));
            for bad in ["user@a", "a b", "a/b", "a, b"] {
                check(version, &[bad], Some("no host"));
            }
        }
    }
}
