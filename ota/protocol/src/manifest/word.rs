//! The words of a manifest that are parsed: routes, names of stores and secrets, origins, sockets.

use super::Durability;
use crate::limits::NAME_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Why a text is not one of the words of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// Not a route.
    #[error("`{0}` is not a path: begin with `/`, use letters, digits and `-._~/`, and `*` only as the whole last part")]
    Route(String),
    /// The node's own.
    #[error("`{0}` is below `/.sedge`, which the node answers itself: take another path")]
    Reserved(String),
    /// Not a store name.
    #[error("`{0}` is not a store name: use 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`")]
    Bucket(String),
    /// Not the name of a secret.
    #[error("`{0}` is not the name of a secret: use 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`")]
    Secret(String),
    /// Not an origin.
    #[error("`{0}` is not an origin: write http:// or https://, a host, and a port where it is not 80 or 443; no path, no user")]
    Origin(String),
    /// Not a socket.
    #[error("`{0}` is not a socket: write tcp:// or udp://, a host name or address, and a port")]
    Socket(String),
    /// Not a durability.
    #[error("`{0}` is not a durability: grouped, each or none")]
    Durability(String),
}

/// The beginning of a wrong text, for its error.
fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

/// A path of an HTTP trigger: exact (`/hello`) or a prefix (`/hello/*`, which also takes `/hello`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Route(String);

impl Route {
    /// The route as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it takes requests for `path`.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self.0.strip_suffix("/*") {
            Some(prefix) => path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            None => path == self.0,
        }
    }
}

impl FromStr for Route {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let body = text.strip_suffix("/*").unwrap_or(text);
        let fits = text.starts_with('/')
            && text.len() <= 256
            && !body.contains("//")
            && body.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/".contains(&b));
        if body == "/.sedge" || text.starts_with("/.sedge/") {
            return Err(WordError::Reserved(clip(text)));
        }
        if fits { Ok(Self(text.to_owned())) } else { Err(WordError::Route(clip(text))) }
    }
}

/// The name of a key-value store or of a container of files: 1 to 63 letters, digits, `-`, `_`, `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BucketName(String);

/// The name of a secret of the node: 1 to 63 letters, digits, `-`, `_`, `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(String);

fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

impl BucketName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BucketName {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        // Names become directories.
        if is_name(text) && !text.starts_with('.') { Ok(Self(text.to_owned())) } else { Err(WordError::Bucket(clip(text))) }
    }
}

impl SecretName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        if is_name(text) && !text.starts_with('.') { Ok(Self(text.to_owned())) } else { Err(WordError::Secret(clip(text))) }
    }
}

impl FromStr for Durability {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        match text {
            "grouped" => Ok(Self::Grouped),
            "each" => Ok(Self::Each),
            "none" => Ok(Self::None),
            other => Err(WordError::Durability(clip(other))),
        }
    }
}

/// Where a function may send HTTP requests: `scheme://host:port`, the port always written out, the host in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin(String);

/// The suffix of hosts that are functions of the same node.
pub const INTERNAL_SUFFIX: &str = ".sedge.internal";

impl Origin {
    /// The origin as text, with its port.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it takes a request to this scheme, host and port (`None` is the scheme's own).
    #[must_use]
    pub fn matches(&self, scheme: &str, host: &str, port: Option<u16>) -> bool {
        let port = port.unwrap_or(if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 });
        let rest = self.0.split_once("://").filter(|(own, _)| own.eq_ignore_ascii_case(scheme)).map(|(_, rest)| rest);
        let parts = rest.and_then(|rest| rest.rsplit_once(':'));
        parts.is_some_and(|(own, number)| own.eq_ignore_ascii_case(host) && number.parse() == Ok(port))
    }
}

impl FromStr for Origin {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong = || WordError::Origin(clip(text));
        let lower = text.to_ascii_lowercase();
        let (scheme, rest) = lower.split_once("://").ok_or_else(wrong)?;
        let default = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return Err(wrong()),
        };
        let (host, port) = host_and_port(rest, Some(default)).ok_or_else(wrong)?;
        Ok(Self(format!("{scheme}://{host}:{port}")))
    }
}

/// Where a function may connect or send datagrams to: `tcp://host:port` or `udp://host:port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Socket(String);

impl Socket {
    /// The socket as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Protocol (`tcp` or `udp`), host and port.
    ///
    /// # Panics
    /// Never: the text was parsed.
    #[must_use]
    pub fn parts(&self) -> (&str, &str, u16) {
        const PARSED: &str = "a socket is built by parsing only";
        let (protocol, rest) = self.0.split_once("://").expect(PARSED);
        let (host, port) = rest.rsplit_once(':').expect(PARSED);
        (protocol, host.trim_start_matches('[').trim_end_matches(']'), port.parse().expect(PARSED))
    }
}

impl FromStr for Socket {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong = || WordError::Socket(clip(text));
        let lower = text.to_ascii_lowercase();
        let (protocol, rest) = lower.split_once("://").filter(|(protocol, _)| matches!(*protocol, "tcp" | "udp")).ok_or_else(wrong)?;
        let (host, port) = host_and_port(rest, None).ok_or_else(wrong)?;
        Ok(Self(format!("{protocol}://{host}:{port}")))
    }
}

/// A host name, an IPv4 address, or an IPv6 address in brackets, and a port.
fn host_and_port(text: &str, default: Option<u16>) -> Option<(&str, u16)> {
    let host_end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
    let (host, port) = text.split_at(host_end);
    let named = |host: &str| {
        (1..=253).contains(&host.len())
            && !host.starts_with(['-', '.'])
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = inner.map_or_else(|| named(host), |address| address.parse::<std::net::Ipv6Addr>().is_ok());
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => default?,
        Some(number) => number.parse().ok().filter(|port| *port > 0)?,
        None => return None,
    };
    is_host.then_some((host, port))
}

/// Parsed from and shown as text. A macro, because five words times three conversions would hide what differs.
macro_rules! text {
    ($($word:ty),*) => {$(
        impl TryFrom<String> for $word {
            type Error = WordError;

            fn try_from(text: String) -> Result<Self, WordError> {
                text.parse()
            }
        }

        impl From<$word> for String {
            fn from(word: $word) -> Self {
                word.0
            }
        }

        impl fmt::Display for $word {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
text!(Route, BucketName, SecretName, Origin, Socket);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_match_whole_parts() {
        let route: Route = "/hello/*".parse().unwrap();
        assert!(route.matches("/hello") && route.matches("/hello/a/b") && !route.matches("/hellou"));
        let all: Route = "/*".parse().unwrap();
        assert!(all.matches("/") && all.matches("/x"));
        assert!("/a*".parse::<Route>().is_err() && "a".parse::<Route>().is_err());
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin: Origin = "https://API.example.com".parse().unwrap();
        assert_eq!(origin.as_str(), "https://api.example.com:443");
        assert!(origin.matches("https", "api.EXAMPLE.com", None) && origin.matches("HTTPS", "api.example.com", Some(443)));
        assert!(!origin.matches("http", "api.example.com", Some(443)) && !origin.matches("https", "example.com", None));
        assert!("http://[::1]:8080".parse::<Origin>().unwrap().matches("http", "[::1]", Some(8080)));
        for wrong in [
            "api.example.com",
            "ftp://a",
            "http://",
            "http://a/b",
            "http://u@a",
            "http://a:0",
            "http://a:99999",
            "http://[::g]",
            "http://*",
        ] {
            assert!(wrong.parse::<Origin>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_socket_has_a_protocol_and_a_port() {
        assert_eq!("tcp://10.0.0.7:502".parse::<Socket>().unwrap().parts(), ("tcp", "10.0.0.7", 502));
        assert_eq!("udp://[fe80::1]:47808".parse::<Socket>().unwrap().parts(), ("udp", "fe80::1", 47808));
        for wrong in ["tcp://a", "a:1", "http://a:1", "tcp://:1", "tcp://a:b"] {
            assert!(wrong.parse::<Socket>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_never_climb_out_of_a_directory() {
        for wrong in ["", "..", ".x", "a/b", "ä", "a b"] {
            assert!(wrong.parse::<BucketName>().is_err() && wrong.parse::<SecretName>().is_err(), "{wrong}");
        }
        assert!("a-b_c.d".parse::<BucketName>().is_ok());
    }
}
