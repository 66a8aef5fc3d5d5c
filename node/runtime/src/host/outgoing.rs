//! `wasi:http/outgoing-handler` and, with WASI 0.3, `wasi:http/client`: requests to origins that the manifest names, and to other functions of the node.
//!
//! ```text
//! request ─▶ allow-list ─┬─ http://<function>.sedge.internal ─▶ Host::call
//!                        └─ else ─▶ the function's own connections (egress) ─▶ other machines
//! ```
//! Redirects are not followed, so the allow-list cannot be led around; there is no proxy. Everything ends with the guest at
//! its deadline, because the guest's store holds what runs.

use super::egress::Client;
use super::{CallInfo, Host, LogLevel, LogLine, LogStream};
use crate::limits::CONNECT_TIMEOUT;
use crate::memory::queue;
use crate::state::refusal;
use crate::trace::TRACEPARENT;
use crate::usage::{Call, Traffic};
use bytes::Bytes;
use http::uri::Scheme;
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy;
use sedge_protocol::FunctionName;
use sedge_protocol::invocation::DEPTH_HEADER;
use sedge_protocol::manifest::INTERNAL_SUFFIX;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Interval;
use wasmtime_wasi_http::{Error, RequestOptions, Result, WasiBody, WasiHttpHooks};

/// By what name guests of either version import this.
pub(crate) const IMPORT_OF_02: &str = "wasi:http/outgoing-handler";
pub(crate) const IMPORT_OF_03: &str = "wasi:http/client";

type Io = Box<dyn Future<Output = Result<()>> + Send>;
type Sending = Box<dyn Future<Output = Result<(Response<WasiBody>, Io)>> + Send>;

/// Sends the requests of one instance.
pub(crate) struct Outgoing {
    import: &'static str,
    call: Arc<Call>,
    host: Arc<dyn Host>,
    /// Bodies that are open, or were when they were last counted and began since then.
    bodies: usize,
    /// Held by each body that is being sent.
    sending: Arc<()>,
}

/// Where a request goes.
enum Way {
    Outside(Box<Client>),
    Inside(FunctionName),
}

impl Outgoing {
    pub(crate) fn new(import: &'static str, call: &Arc<Call>, host: &Arc<dyn Host>) -> Self {
        Self { import, call: Arc::clone(call), host: Arc::clone(host), bodies: 0, sending: Arc::default() }
    }

    /// So many bodies are in the hands of the guest; those that are being sent come on top.
    pub(crate) fn bodies_are(&mut self, count: usize) {
        self.bodies = count + Arc::strong_count(&self.sending) - 1;
    }

    /// From now on requests are those of `call`.
    pub(crate) fn enter(&mut self, call: &Arc<Call>) {
        self.call = Arc::clone(call);
    }

    /// Decides whether a request may go, and where.
    fn way(&self, request: &Request<WasiBody>) -> Result<Way> {
        let (scheme, authority) = request.uri().scheme().zip(request.uri().authority()).ok_or(Error::HttpRequestUriInvalid)?;
        // A tunnel would lead around the allow-list.
        if request.method() == Method::CONNECT {
            return Err(Error::HttpRequestMethodInvalid);
        }
        let (host, info) = (authority.host(), self.call.info());
        let granted = &info.revision.manifest.access.outgoing;
        if !granted.iter().any(|origin| origin.matches(scheme.as_str(), host, authority.port_u16())) {
            let origin = origin_of(request);
            let line = format!("outgoing = [\"{origin}\"]");
            self.host.log(info, refusal(self.import, &format!("a request to {origin}"), &line));
            return Err(Error::HttpRequestDenied);
        }
        let Some(name) = internal_name(host) else {
            return Ok(Way::Outside(Box::new(self.host.egress().client(&info.revision.function))));
        };
        // Inside the node nothing is encrypted and nothing listens.
        let plain = *scheme == Scheme::HTTP && authority.port_u16().is_none_or(|port| port == 80);
        let name = name.parse().ok().filter(|_| plain);
        name.map(Way::Inside).ok_or(Error::DestinationNotFound)
    }
}

impl WasiHttpHooks for Outgoing {
    fn send_request(&mut self, mut request: Request<WasiBody>, options: Option<RequestOptions>, _sent: Io) -> Sending {
        let way = match self.way(&request) {
            Ok(way) => way,
            Err(error) => return Box::new(std::future::ready(Err(error))),
        };
        // A guest that says itself which trace this belongs to is believed.
        if let Some(trace) = self.call.info().trace.as_ref().filter(|_| !request.headers().contains_key(TRACEPARENT)) {
            trace.write_to(request.headers_mut());
        }
        if matches!(way, Way::Outside(_)) {
            // A way out may lead back here: through the node's own listener, or that of another node.
            request.headers_mut().insert(DEPTH_HEADER, self.call.info().depth().saturating_add(1).into());
        }
        let traffic = Arc::clone(self.call.traffic());
        let options = options.unwrap_or_default();
        let left = self.call.deadline().saturating_duration_since(Instant::now());
        let origin = origin_of(&request);
        let request = counted(request, &traffic, Arc::clone(&self.sending));
        match way {
            Way::Inside(callee) => {
                let answer = self.host.call(self.call.info(), &callee, request);
                let patience = options.first_byte_timeout.map_or(left, |limit| limit.min(left));
                Box::new(async move {
                    let response = tokio::time::timeout(patience, answer).await.map_err(|_| Error::HttpResponseTimeout)?;
                    Ok((received(response, traffic, &options, None), done()))
                })
            }
            Way::Outside(client) => {
                let (host, info, import) = (Arc::clone(&self.host), self.call.info().clone(), self.import);
                Box::new(async move {
                    let sent = send(*client, request, &options, left).await;
                    let (response, permit) = sent
                        .inspect_err(|error| tell(&*host, &info, &format!("{import}: a request to {origin}"), error))
                        .map_err(|failed| failed.code)?;
                    Ok((received(response, traffic, &options, Some(permit)), done()))
                })
            }
        }
    }

    // Asked for each body that begins, before its chunk size.
    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        let (chunks, _) = queue(self.bodies);
        self.bodies += 1;
        chunks
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        let (_, bytes) = queue(self.bodies.saturating_sub(1));
        bytes
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("call", &self.call).finish_non_exhaustive()
    }
}

fn done() -> Io {
    Box::new(std::future::ready(Ok(())))
}

/// The function that a host name stands for.
fn internal_name(host: &str) -> Option<String> {
    host.to_ascii_lowercase().strip_suffix(INTERNAL_SUFFIX).map(str::to_owned)
}

/// Scheme, host and port, as the manifest would write them: a user and its password are left out.
fn origin_of<B>(request: &Request<B>) -> String {
    let uri = request.uri();
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}", uri.scheme_str().unwrap_or("https"))
}

/// Counts the body on its way out, and that it is on its way.
fn counted(request: Request<WasiBody>, traffic: &Arc<Traffic>, sending: Arc<()>) -> Request<WasiBody> {
    let traffic = Arc::clone(traffic);
    request.map(|body| {
        let count = move |frame: Frame<Bytes>| {
            let _ = &sending;
            traffic.count_out(frame.data_ref().map_or(0, Bytes::len));
            frame
        };
        body.map_frame(count).boxed_unsync()
    })
}

/// Why there is no answer: for the guest, and for its log.
struct Failed {
    code: Error,
    reason: String,
}

/// Sends one request, and waits for the head of its answer no longer than everybody agrees to.
async fn send(
    client: Client,
    mut request: Request<WasiBody>,
    options: &RequestOptions,
    left: Duration,
) -> Result<(Response<hyper::body::Incoming>, OwnedSemaphorePermit), Failed> {
    strip_user(&mut request);
    let connect = options.connect_timeout.map_or(CONNECT_TIMEOUT, |limit| limit.min(CONNECT_TIMEOUT));
    let patience = options.first_byte_timeout.map_or(left, |limit| (connect + limit).min(left));
    let turn = tokio::time::timeout(connect.min(left), Arc::clone(&client.in_flight).acquire_owned()).await;
    let permit = turn.ok().and_then(std::result::Result::ok).ok_or_else(|| Failed {
        code: Error::ConnectionLimitReached,
        reason: "as many requests of this function are under way as may be: read or drop their answers".to_owned(),
    })?;
    match tokio::time::timeout(patience, client.http.request(request)).await {
        Ok(Ok(response)) => Ok((response, permit)),
        Ok(Err(error)) => Err(explain(&error)),
        Err(_) => Err(Failed { code: Error::ConnectionReadTimeout, reason: format!("no answer within {} ms", patience.as_millis()) }),
    }
}

/// `user@host` names the same pool as `host`, and is nothing that HTTP sends, neither in the address nor as `Host`.
fn strip_user(request: &mut Request<WasiBody>) {
    let Some(host) = request.uri().authority().and_then(|authority| Some(authority.as_str().rsplit_once('@')?.1.to_owned())) else {
        return;
    };
    if let Ok(named) = http::HeaderValue::try_from(&host) {
        request.headers_mut().insert(http::header::HOST, named);
    }
    let mut parts = request.uri().clone().into_parts();
    parts.authority = host.parse().ok();
    if let Ok(uri) = http::Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

fn tell(host: &dyn Host, info: &CallInfo, what: &str, failed: &Failed) {
    let text = format!("{what} failed: {}", failed.reason);
    host.log(info, LogLine { stream: LogStream::Logging(LogLevel::Warn), text: super::logging::cut(&text).to_owned() });
}

/// Puts the client's chain of causes into one of the codes that guests know.
fn explain(error: &legacy::Error) -> Failed {
    let mut reason = error.to_string();
    let mut code = if error.is_connect() { Error::DestinationUnavailable } else { Error::HttpProtocolError };
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !reason.ends_with(&text) {
            reason = format!("{reason}: {text}");
        }
        code = cause_code(cause).unwrap_or(code);
        next = cause.source();
    }
    if reason.contains("dns error") {
        code = Error::DnsError { rcode: None, info_code: None };
    }
    Failed { code, reason }
}

fn cause_code(cause: &(dyn StdError + 'static)) -> Option<Error> {
    if let Some(error) = cause.downcast_ref::<hyper::Error>() {
        return Some(match error {
            error if error.is_timeout() => Error::HttpResponseTimeout,
            error if error.is_parse_too_large() => Error::HttpResponseHeaderSectionSize(None),
            error if error.is_parse() => Error::HttpProtocolError,
            error if error.is_incomplete_message() || error.is_canceled() => Error::ConnectionTerminated,
            _ => return None,
        });
    }
    let error = innermost(cause.downcast_ref::<io::Error>()?);
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return Some(match tls {
            rustls::Error::InvalidCertificate(_) => Error::TlsCertificateError,
            _ => Error::TlsProtocolError,
        });
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(Error::ConnectionRefused),
        io::ErrorKind::TimedOut => Some(Error::ConnectionTimeout),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => Some(Error::ConnectionTerminated),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some(Error::DestinationIpUnroutable),
        _ => None,
    }
}

/// TLS wraps one error of the system in another, and the chain of causes skips what is inside.
fn innermost(error: &io::Error) -> &io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>()) {
        Some(inner) => innermost(inner),
        None => error,
    }
}

/// The body of an answer: counted, given up when nothing comes for too long; holds the request's permit.
struct Received<B> {
    inner: B,
    traffic: Arc<Traffic>,
    patience: Option<Interval>,
    _permit: Option<OwnedSemaphorePermit>,
}

fn received<B>(
    response: Response<B>,
    traffic: Arc<Traffic>,
    options: &RequestOptions,
    permit: Option<OwnedSemaphorePermit>,
) -> Response<WasiBody>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<BodyError>,
{
    let patience = options.between_bytes_timeout.map(|limit| {
        let mut interval = tokio::time::interval(limit.max(Duration::from_nanos(1)));
        interval.reset();
        interval
    });
    response.map(|inner| Received { inner, traffic, patience, _permit: permit }.boxed_unsync())
}

/// An error of either kind of answer.
struct BodyError(Error);

impl From<Error> for BodyError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<hyper::Error> for BodyError {
    fn from(error: hyper::Error) -> Self {
        Self(match error {
            error if error.is_timeout() => Error::HttpResponseTimeout,
            error if error.is_incomplete_message() => Error::HttpResponseIncomplete,
            _ => Error::HttpProtocolError,
        })
    }
}

impl<B> Body for Received<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.traffic.count_in(frame.data_ref().map_or(0, Bytes::len));
                if let Some(patience) = &mut this.patience {
                    patience.reset();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into().0))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let Some(patience) = &mut this.patience else { return Poll::Pending };
                ready!(patience.poll_tick(cx));
                Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_named_as_the_manifest_writes_it_and_without_a_password() {
        let of = |uri: &str| origin_of(&Request::get(uri).body(()).unwrap());
        assert_eq!(of("https://api.example.org/a?b"), "https://api.example.org");
        assert_eq!(of("http://user:word@[::1]:8080/"), "http://[::1]:8080");
    }

    #[test]
    fn only_names_below_the_suffix_are_functions() {
        assert_eq!(internal_name("Average.SEDGE.internal").as_deref(), Some("average"));
        assert_eq!(internal_name("sedge.internal"), None);
        assert_eq!(internal_name("a.sedge.internal.example.org"), None);
    }
}
