//! One `sedged`: its configuration, its process, its local API.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use hyper::Method;
use sedge_protocol::Digest;
use sedge_protocol::api::CreatedClaim;
use sedge_protocol::local::LocalStatus;
use serde::Serialize;

use super::child::Child;
use super::{Look, http, until};

/// How long a node may take to answer for the first time.
const START_MAX: Duration = Duration::from_secs(60);
/// A Unix socket's path has at most 107 bytes.
const SOCKET_PATH_MAX: usize = 100;
/// Any free port.
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A node that runs.
#[derive(Debug)]
pub(crate) struct Node {
    /// What it is called.
    pub(crate) name: String,
    /// Its process.
    pub(crate) child: Child,
    /// Its local API.
    pub(crate) socket: PathBuf,
    /// Holds the socket where the node's own directory has too long a path.
    _short: Option<tempfile::TempDir>,
}

/// `sedged.toml`.
#[derive(Debug, Serialize)]
struct Config<'a> {
    data_dir: PathBuf,
    http: Listen,
    mqtt: Listen,
    local: Local<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fleet: Option<Fleet<'a>>,
}

#[derive(Debug, Serialize)]
struct Listen {
    listen: SocketAddr,
}

#[derive(Debug, Serialize)]
struct Local<'a> {
    socket: &'a Path,
}

#[derive(Debug, Serialize)]
struct Fleet<'a> {
    url: &'a str,
    ca_pin: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<&'a str>,
    name: &'a str,
}

/// Which fleet a node belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    /// Where it enrols.
    pub(crate) url: String,
    /// Whom it believes.
    pub(crate) ca_pin: Digest,
    /// What it presents; not needed by one that has enrolled before.
    pub(crate) claim: Option<String>,
}

impl From<CreatedClaim> for Membership {
    fn from(created: CreatedClaim) -> Self {
        Self { url: created.fleet, ca_pin: created.ca_pin, claim: Some(created.token) }
    }
}

impl Node {
    /// Starts a node called `name` in `dir`, and waits until it answers.
    pub(crate) async fn start(name: &str, sedged: &Path, dir: &Path, run: &Path, fleet: Option<&Membership>) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let (socket, short) = socket(dir)?;
        let config = Config {
            data_dir: dir.join("data"),
            http: Listen { listen: ANY_PORT },
            mqtt: Listen { listen: ANY_PORT },
            local: Local { socket: &socket },
            fleet: fleet.map(|fleet| Fleet { url: &fleet.url, ca_pin: fleet.ca_pin, claim: fleet.claim.as_deref(), name }),
        };
        let path = dir.join("sedged.toml");
        fs::write(&path, toml::to_string(&config)?).with_context(|| format!("write {}", path.display()))?;
        let child = Child::start(name, sedged, &path, run)?;
        let mut node = Self { name: name.to_owned(), child, socket, _short: short };
        until(&format!("start {name}"), START_MAX, async || {
            node.child.check()?;
            Ok(node.status().await.map_or_else(|cause| Look::NotYet(format!("{cause:#}")), Look::Done))
        })
        .await?;
        Ok(node)
    }

    /// How it is.
    pub(crate) async fn status(&self) -> Result<LocalStatus> {
        status(&self.socket).await
    }
}

/// How the node behind `socket` is.
pub(crate) async fn status(socket: &Path) -> Result<LocalStatus> {
    http::ask(socket, Method::GET, "/v1/status", Bytes::new()).await
}

/// Inside `dir`, or where that is too deep, in a directory of its own.
fn socket(dir: &Path) -> Result<(PathBuf, Option<tempfile::TempDir>)> {
    let near = dir.join("sedged.sock");
    if near.as_os_str().len() <= SOCKET_PATH_MAX {
        return Ok((near, None));
    }
    let short = tempfile::Builder::new().prefix("sedge-").tempdir().context("make a directory for a socket")?;
    Ok((short.path().join("sedged.sock"), Some(short)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_moves_where_its_path_fits() {
        assert_eq!(socket(Path::new("/a/b")).unwrap().0, Path::new("/a/b/sedged.sock"));
        let deep = PathBuf::from("/").join("d".repeat(SOCKET_PATH_MAX));
        let (path, short) = socket(&deep).unwrap();
        assert!(path.as_os_str().len() <= SOCKET_PATH_MAX && path.starts_with(short.unwrap().path()));
    }

    #[test]
    fn a_node_without_a_fleet_has_no_such_table() {
        let config = |fleet| Config {
            data_dir: PathBuf::from("/d"),
            http: Listen { listen: ANY_PORT },
            mqtt: Listen { listen: ANY_PORT },
            local: Local { socket: Path::new("/s") },
            fleet,
        };
        let alone = toml::to_string(&config(None)).unwrap();
        assert!(alone.contains("listen = \"127.0.0.1:0\"") && !alone.contains("fleet"), "{alone}");
        let fleet = Fleet { url: "https://a:1", ca_pin: Digest::of(b""), claim: None, name: "gw-1" };
        let text = toml::to_string(&config(Some(fleet))).unwrap();
        assert!(text.contains("[fleet]") && !text.contains("claim"), "{text}");
    }
}
