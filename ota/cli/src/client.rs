//! Asks the fleet over HTTPS or a node over its socket, and turns every refusal into an error with advice.

use crate::failure::Failure;
use crate::unix;
use sedge_protocol::Digest;
use sedge_protocol::api::{CLAIM_HEADER, Problem};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::http::{Method, Request, Response, header};
use ureq::{Agent, AsSendBody, Body, BodyReader, SendBody};

/// Largest answer that is read into memory.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long a connection to a fleet may take to open.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long the fleet may think about an answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Whom the server's certificate has to come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The authority with this digest and no other.
    Pin(Digest),
    /// Nobody: plain HTTP on this machine.
    Loopback,
}

/// One fleet or one node.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: Agent,
    base: String,
    token: Option<Token>,
    peer: Peer,
}

/// A secret: it has no text but the header it travels in.
#[derive(Clone)]
pub(crate) struct Token(pub(crate) String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

#[derive(Debug, Clone)]
enum Peer {
    Fleet(String),
    Node(PathBuf),
}

/// Bytes that come.
pub(crate) struct Download {
    /// How many were announced.
    pub(crate) length: Option<u64>,
    /// Public id of the claim that is in them.
    pub(crate) claim: Option<String>,
    /// They.
    pub(crate) from: BodyReader<'static>,
}

impl Client {
    /// The fleet at `url` (`https://host:port`).
    ///
    /// A fleet and its people share a network, so no proxy of the environment is asked.
    pub(crate) fn fleet(url: &str, token: Token, trust: Trust) -> Result<Self, Failure> {
        let peer = Peer::Fleet(url.to_owned());
        let agent = match trust {
            Trust::Pin(pin) => {
                sedge_provisioning::client::agent(pin, ANSWER_MAX).map_err(|cause| Failure::Answer { peer: peer.to_string(), cause })?
            }
            Trust::Loopback => Agent::config_builder().proxy(None).max_redirects(0).build().new_agent(),
        };
        Ok(Self { agent, base: url.to_owned(), token: Some(token), peer })
    }

    /// The node whose socket this is.
    pub(crate) fn node(socket: &Path) -> Self {
        Self { agent: unix::agent(socket), base: "http://node".to_owned(), token: None, peer: Peer::Node(socket.to_owned()) }
    }

    /// `GET`, JSON.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.json(self.send(Method::GET, path, None, ())?)
    }

    /// Any method without a body, answered in JSON.
    pub(crate) fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, Failure> {
        self.json(self.send(method, path, None, ())?)
    }

    /// `POST` or `PUT` of a JSON body, answered in JSON.
    pub(crate) fn send_json<T: DeserializeOwned>(&self, method: Method, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).expect("bodies are made of strings and numbers");
        self.json(self.send(method, path, Some("application/json"), body)?)
    }

    /// Like [`Client::send_json`] where the answer's body does not matter.
    pub(crate) fn put_json(&self, path: &str, body: &impl Serialize) -> Result<(), Failure> {
        let body = serde_json::to_vec(body).expect("bodies are made of strings and numbers");
        self.send(Method::PUT, path, Some("application/json"), body).map(|_| ())
    }

    /// `PUT` of `length` raw bytes.
    pub(crate) fn put_bytes(&self, path: &str, length: u64, bytes: &mut dyn Read) -> Result<(), Failure> {
        self.put(path, "application/wasm", (length, bytes)).map(|_| ())
    }

    /// `PUT` of `length` raw bytes that are no Wasm, answered in JSON.
    pub(crate) fn put_file<T: DeserializeOwned>(&self, path: &str, length: u64, bytes: &mut dyn Read) -> Result<T, Failure> {
        self.json(self.put(path, "application/octet-stream", (length, bytes))?)
    }

    fn put(&self, path: &str, media_type: &str, (length, bytes): (u64, &mut dyn Read)) -> Result<Response<Body>, Failure> {
        let request = self.request(Method::PUT, path, Some(media_type)).header(header::CONTENT_LENGTH, length);
        let request = request.body(SendBody::from_reader(bytes)).map_err(|cause| self.unsent(cause.into()))?;
        self.exchange(request)
    }

    /// `POST` of a JSON body, answered by bytes of any number.
    pub(crate) fn download(&self, path: &str, body: &impl Serialize) -> Result<Download, Failure> {
        let body = serde_json::to_vec(body).expect("bodies are made of strings and numbers");
        let answer = self.send(Method::POST, path, Some("application/json"), body)?;
        let told = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let length = told(header::CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
        let claim = told(CLAIM_HEADER).map(str::to_owned);
        Ok(Download { length, claim, from: answer.into_body().into_with_config().limit(u64::MAX).reader() })
    }

    /// `DELETE`.
    pub(crate) fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(Method::DELETE, path, None, ()).map(|_| ())
    }

    /// `DELETE`, answered in JSON.
    pub(crate) fn delete_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.json(self.send(Method::DELETE, path, None, ())?)
    }

    /// `GET` of one JSON value a line, for as long as lines come. `None` from `each` ends it.
    pub(crate) fn lines<T: DeserializeOwned>(&self, path: &str, mut each: impl FnMut(T) -> Option<()>) -> Result<(), Failure> {
        let answer = self.send(Method::GET, path, None, ())?;
        let reader = BufReader::new(answer.into_body().into_with_config().limit(u64::MAX).reader());
        for line in reader.lines() {
            let line = line.map_err(|cause| self.unsent(cause.into()))?;
            if line.is_empty() {
                continue;
            }
            let value = serde_json::from_str(&line).map_err(|cause| self.unread(ureq::Error::from(cause)))?;
            if each(value).is_none() {
                break;
            }
        }
        Ok(())
    }

    /// A `POST` whose answer is whatever a function made of it: its status and body. Only a [`Problem`] is an error.
    pub(crate) fn post_raw(&self, path: &str, media_type: &str, body: &[u8]) -> Result<(u16, Vec<u8>), Failure> {
        self.raw(self.request(Method::POST, path, Some(media_type)), body)
    }

    /// [`Client::post_raw`] with more headers.
    pub(crate) fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<(u16, Vec<u8>), Failure> {
        let request = self.request(Method::POST, path, None);
        self.raw(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)), body)
    }

    /// `GET` of whatever a function answered: its status and body. Only a [`Problem`] is an error.
    pub(crate) fn get_raw(&self, path: &str) -> Result<(u16, Vec<u8>), Failure> {
        self.raw(self.request(Method::GET, path, None), &[])
    }

    fn raw(&self, request: ureq::http::request::Builder, body: &[u8]) -> Result<(u16, Vec<u8>), Failure> {
        let request = request.body(body).map_err(|cause| self.unsent(cause.into()))?;
        let mut answer = self.run(request)?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(|cause| self.unread(cause))?;
        if status >= 400 && serde_json::from_slice::<Problem>(&body).is_ok() {
            return Err(self.refused(status, &body));
        }
        Ok((status, body))
    }

    fn send(&self, method: Method, path: &str, media_type: Option<&str>, body: impl AsSendBody) -> Result<Response<Body>, Failure> {
        let request = self.request(method, path, media_type);
        self.exchange(request.body(body).map_err(|cause| self.unsent(cause.into()))?)
    }

    fn request(&self, method: Method, path: &str, media_type: Option<&str>) -> ureq::http::request::Builder {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(Token(token)) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        match media_type {
            Some(media_type) => request.header(header::CONTENT_TYPE, media_type),
            None => request,
        }
    }

    fn exchange(&self, request: Request<impl AsSendBody>) -> Result<Response<Body>, Failure> {
        let mut answer = self.run(request)?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        // A refusal without a readable body still has its status.
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().unwrap_or_default();
        Err(self.refused(status, &body))
    }

    /// Bounds the steps and not the whole: an upload takes as long as it takes, and a node thinks as long as its functions do.
    fn run(&self, request: Request<impl AsSendBody>) -> Result<Response<Body>, Failure> {
        let answer_max = match self.peer {
            Peer::Fleet(_) => Some(ANSWER_MAX),
            Peer::Node(_) => None,
        };
        let request = self
            .agent
            .configure_request(request)
            .http_status_as_error(false)
            .user_agent(concat!("sedge/", env!("CARGO_PKG_VERSION")))
            .timeout_global(None)
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_recv_response(answer_max)
            .build();
        self.agent.run(request).map_err(|cause| self.unsent(cause))
    }

    fn json<T: DeserializeOwned>(&self, mut answer: Response<Body>) -> Result<T, Failure> {
        answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_json().map_err(|cause| self.unread(cause))
    }

    fn refused(&self, status: u16, body: &[u8]) -> Failure {
        let problem = serde_json::from_slice::<Problem>(body).ok();
        let (error, hint) = match problem {
            Some(problem) => (problem.error, problem.hint),
            None => (format!("{} answered with status {status}", self.peer), None),
        };
        let hint = hint.or_else(|| (status == 401).then(|| "sign in again: `sedge login --fleet URL --token-file FILE`".to_owned()));
        Failure::Refused { status, error, hint }
    }

    fn unsent(&self, cause: ureq::Error) -> Failure {
        if let Peer::Node(path) = &self.peer
            && let Some(fault) = no_socket(path)
        {
            return fault;
        }
        let hint = match &self.peer {
            Peer::Fleet(_) if is_distrust(&cause) => {
                "its certificate does not come from the pinned CA: compare the pin with the one that `sedge-fleet` prints when it starts"
                    .to_owned()
            }
            Peer::Fleet(url) => format!("see that `sedge-fleet` runs and that {url} leads to it; `--fleet` or SEDGE_FLEET names another"),
            Peer::Node(_) if is_denied(&cause) => "the socket belongs to the node's user: try it as that user or with sudo".to_owned(),
            Peer::Node(_) => "see that `sedged` runs; `--node SOCKET` or SEDGE_NODE names another socket".to_owned(),
        };
        Failure::Unreachable { peer: self.peer.to_string(), hint, cause }
    }

    fn unread(&self, cause: ureq::Error) -> Failure {
        Failure::Answer { peer: self.peer.to_string(), cause }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fleet(url) => write!(f, "the fleet at {url}"),
            Self::Node(socket) => write!(f, "the node at {}", socket.display()),
        }
    }
}

/// What is wrong with a path that is there and can be no node's socket.
fn no_socket(path: &Path) -> Option<Failure> {
    let kind = fs::metadata(path).ok()?.file_type();
    if kind.is_socket() {
        return None;
    }
    let what = if kind.is_dir() { "a directory" } else { "no socket" };
    let inside = fs::read_dir(path).into_iter().flatten().flatten();
    let socket = inside.map(|entry| entry.path()).find(|path| fs::metadata(path).is_ok_and(|entry| entry.file_type().is_socket()));
    let hint = match socket {
        Some(socket) => format!("did you mean {}?", socket.display()),
        None => "name the socket of `[local]` in the node's sedged.toml, or write --node alone, as the last word, for the usual one: \
                 `sedge publish DIR --node`"
            .to_owned(),
    };
    Some(Failure::usage(format!("{} is {what}: --node and SEDGE_NODE take the Unix socket of a node", path.display()), hint))
}

/// Whether the server's certificate is what went wrong.
fn is_distrust(cause: &ureq::Error) -> bool {
    let invalid = |cause: &rustls::Error| matches!(cause, rustls::Error::InvalidCertificate(_));
    match cause {
        ureq::Error::Rustls(cause) => invalid(cause),
        ureq::Error::Io(cause) => cause.get_ref().and_then(|inner| inner.downcast_ref()).is_some_and(invalid),
        _ => false,
    }
}

fn is_denied(cause: &ureq::Error) -> bool {
    matches!(cause, ureq::Error::Io(cause) if cause.kind() == ErrorKind::PermissionDenied)
}

/// `text` as one part of a path or query: everything but letters, digits and `-._~` escaped.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

/// `path` with those parameters that have a value.
pub(crate) fn query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let given = parameters.iter().filter_map(|(key, value)| Some(format!("{key}={}", escape(value.as_deref()?))));
    match given.collect::<Vec<_>>().join("&") {
        none if none.is_empty() => path.to_owned(),
        some => format!("{path}?{some}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_escaped_and_absent_ones_left_out() {
        let parameters = [("topic", Some("plant/a b+#".to_owned())), ("lines", None), ("x", Some("ü".to_owned()))];
        assert_eq!(query("/v1/logs", &parameters), "/v1/logs?topic=plant%2Fa%20b%2B%23&x=%C3%BC");
        assert_eq!(query("/v1/logs", &[("lines", None)]), "/v1/logs");
    }

    #[test]
    fn a_token_has_no_debug_text() {
        assert_eq!(format!("{:?}", Token("secret".to_owned())), "Token");
    }
}
