//! The node that is measured: alone, without a fleet, given its functions through its own API.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hyper::Method;
use sedge_protocol::local::{LocalRevision, LocalStatus};
use sedge_protocol::message::{FunctionReport, FunctionState};
use sedge_protocol::{Digest, Manifest, RevisionId};

use crate::stage::node::Node;
use crate::stage::{Look, http, until};
use crate::workspace;

/// How long a node may take to compile a function.
const PREPARE_MAX: Duration = Duration::from_secs(120);

/// A node of its own.
#[derive(Debug)]
pub(crate) struct Target {
    node: Node,
    http: String,
    mqtt: (String, u16),
    dir: tempfile::TempDir,
}

/// Manifest and artifact of a function of this repository.
pub(crate) fn function_of_repository(function: &str) -> Result<(Manifest, Vec<u8>)> {
    let path = workspace::guests().join(format!("{function}.wasm"));
    let wasm = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let path: PathBuf = workspace::root().join("node/functions").join(function).join("function.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let (manifest, _) = Manifest::from_toml(&path.display().to_string(), &text)?;
    Ok((manifest, wasm))
}

impl Target {
    /// Starts it in a fresh directory below `dir`, which is on the disk that is measured.
    pub(crate) async fn start(sedged: &Path, dir: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("node-").tempdir_in(dir).context("make a directory for the node")?;
        Self::start_in(sedged, dir).await
    }

    /// Stops it and starts it again with what it has.
    pub(crate) async fn restart(self, sedged: &Path) -> Result<Self> {
        let dir = self.stop()?;
        Self::start_in(sedged, dir).await
    }

    async fn start_in(sedged: &Path, dir: tempfile::TempDir) -> Result<Self> {
        let node = Node::start("bench", sedged, dir.path(), dir.path(), None).await?;
        let status = node.status().await?;
        let http = status.http.context("the node serves no HTTP")?;
        let mqtt = status.mqtt.context("the node serves no MQTT")?;
        let (host, port) = mqtt.rsplit_once(':').context("an address has a port")?;
        let mqtt = (host.to_owned(), port.parse().context("a port is a number")?);
        Ok(Self { node, http, mqtt, dir })
    }

    /// Where its HTTP triggers are.
    pub(crate) fn http(&self) -> &str {
        &self.http
    }

    /// Host and port of its broker.
    pub(crate) fn mqtt(&self) -> (&str, u16) {
        (&self.mqtt.0, self.mqtt.1)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.node.child.pid()
    }

    /// Gives it a function of this repository, and waits until it runs.
    pub(crate) async fn put(&self, function: &str) -> Result<()> {
        let (manifest, wasm) = function_of_repository(function)?;
        let revision = self.assign(&manifest, wasm).await?;
        self.until_runs(function, Some(revision)).await
    }

    /// Gives it a function, without waiting.
    pub(crate) async fn assign(&self, manifest: &Manifest, wasm: Vec<u8>) -> Result<RevisionId> {
        let artifact = Digest::of(&wasm);
        let socket = &self.node.socket;
        let _stored: Digest = http::ask(socket, Method::PUT, &format!("/v1/artifacts/{artifact}"), wasm.into()).await?;
        let body = serde_json::to_vec(&LocalRevision { artifact, manifest: manifest.clone() })?;
        http::ask(socket, Method::PUT, &format!("/v1/functions/{}", manifest.name), body.into()).await
    }

    /// Waits until a function runs, in this revision if one is named.
    pub(crate) async fn until_runs(&self, function: &str, revision: Option<RevisionId>) -> Result<()> {
        until(&format!("prepare {function}"), PREPARE_MAX, async || {
            let report = self.report(function).await?;
            match report.map(|report| (report.state, report.running)) {
                Some((FunctionState::Running, Some(running))) if revision.is_none_or(|revision| running == revision) => Ok(Look::Done(())),
                Some((FunctionState::Failed { reason }, _)) => anyhow::bail!("the node refuses {function}: {reason}"),
                other => Ok(Look::NotYet(format!("{other:?}"))),
            }
        })
        .await
    }

    /// How it is.
    pub(crate) async fn status(&self) -> Result<LocalStatus> {
        self.node.status().await
    }

    /// Its local API.
    pub(crate) fn socket(&self) -> &Path {
        &self.node.socket
    }

    /// Takes a function away.
    pub(crate) async fn remove(&self, function: &str) -> Result<()> {
        http::ask(&self.node.socket, Method::DELETE, &format!("/v1/functions/{function}"), Bytes::new()).await
    }

    /// Invocations of `function` that succeeded.
    pub(crate) async fn calls_ok(&self, function: &str) -> Result<u64> {
        Ok(self.report(function).await?.map_or(0, |report| report.totals.calls_ok))
    }

    /// Stops it; a node that does not end well has measured nothing. Answers what it leaves on disk.
    pub(crate) fn stop(mut self) -> Result<tempfile::TempDir> {
        self.node.child.ask();
        let tail = self.node.child.tail();
        let status = self.node.child.wait()?;
        ensure!(status.success(), "the node ended with {status}; the end of its log:\n{tail}");
        Ok(self.dir)
    }

    async fn report(&self, function: &str) -> Result<Option<FunctionReport>> {
        let status: LocalStatus = self.node.status().await?;
        Ok(status.functions.into_iter().find(|report| report.function.as_str() == function))
    }
}
