//! HTTP/1 connections of one listener: so many at a time, each a piece of work that the drain waits for.

use crate::limits::{ACCEPT_PAUSE, HTTP_HEAD_TIMEOUT, HTTP_SEND_TIMEOUT};
use crate::supervisor::Supervisor;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Where connections come from.
pub(crate) trait Listener: Send + 'static {
    /// A connection on its way to the runtime that serves it.
    type Passenger: Send + 'static;
    /// What a client is served on.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection. Cancel safe.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Passenger>> + Send;

    /// Makes it a stream of the runtime that calls.
    fn arrive(passenger: Self::Passenger) -> io::Result<Self::Stream>;
}

impl Listener for TcpListener {
    type Passenger = std::net::TcpStream;
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<Self::Passenger> {
        let (stream, _) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        // A client that takes no bytes gives its connection back.
        rustix::net::sockopt::set_tcp_user_timeout(&stream, u32::try_from(HTTP_SEND_TIMEOUT.as_millis()).unwrap_or(u32::MAX))?;
        stream.into_std()
    }

    fn arrive(passenger: Self::Passenger) -> io::Result<TcpStream> {
        TcpStream::from_std(passenger)
    }
}

impl Listener for UnixListener {
    type Passenger = std::os::unix::net::UnixStream;
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<Self::Passenger> {
        UnixListener::accept(self).await?.0.into_std()
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

/// Serves until the daemon stops; requests that run are finished.
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
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let connections = Arc::new(Semaphore::new(connections_max));
    loop {
        let permit = Arc::clone(&connections).acquire_owned().await?;
        let passenger = tokio::select! {
            () = supervisor.stop().cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok(passenger) => passenger,
                Err(error) => {
                    log::warn!(reason:% = error; "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (stop, answer) = (supervisor.stop().clone(), answer.clone());
        let connection = async move {
            let _permit = permit;
            match L::arrive(passenger) {
                Ok(stream) => converse(stream, stop, answer).await,
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
async fn converse<S, F, R, B>(stream: S, stop: CancellationToken, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let service = service_fn(move |request| {
        let response = answer(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HTTP_HEAD_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        log::debug!(reason:% = error; "a connection ended early");
    }
}
