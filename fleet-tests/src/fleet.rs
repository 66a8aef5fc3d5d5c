//! A running `sedge-fleet` behind a [`Link`], and its REST API.

use crate::link::Link;
use crate::node::Membership;
use crate::process::{Process, binary};
use crate::wait;
use anyhow::{Context as _, Result, bail};
use sedge_protocol::api::{Claim, CreatedClaim, NewClaim, NewRevision, NewRollout, Node, Revision, Rollout, UsageRow};
use sedge_protocol::usage::Counters;
use sedge_protocol::{Digest, FunctionName, Manifest, NodeId, RevisionId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Ports that are tried before a start is given up: another process may take one between choosing and using it.
const PORTS_TRIED_MAX: u32 = 5;
/// Longest answer of the API.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// A fleet with a data directory of its own.
#[derive(Debug)]
pub struct Fleet {
    directory: PathBuf,
    /// More of its configuration.
    keys: &'static str,
    /// The name that nodes know this machine by.
    host: &'static str,
    process: Process,
    api: Api,
    /// The network between nodes and this fleet.
    pub link: Link,
}

/// How its API is reached since the last start.
#[derive(Debug)]
struct Api {
    https: String,
    ca_pin: Digest,
    token: String,
    agent: ureq::Agent,
}

#[derive(Debug, Deserialize)]
struct Addresses {
    https: String,
    ca_pin: Digest,
}

impl Fleet {
    /// Starts a fleet whose data lies below `directory`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn start(directory: &Path) -> Result<Self> {
        Self::start_as("127.0.0.1", directory)
    }

    /// [`Fleet::start`] with more tables of its configuration.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn start_with(directory: &Path, keys: &'static str) -> Result<Self> {
        Self::begin("127.0.0.1", directory, keys)
    }

    /// [`Fleet::start`] for nodes that know this machine by another name.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn start_as(host: &'static str, directory: &Path) -> Result<Self> {
        Self::begin(host, directory, "")
    }

    fn begin(host: &'static str, directory: &Path, keys: &'static str) -> Result<Self> {
        let (directory, link) = (directory.join("fleet"), Link::start()?);
        fs::create_dir_all(&directory)?;
        let (process, api) = launch(&directory, (host, &link), keys)?;
        Ok(Self { directory, keys, host, process, api, link })
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.kill9()
    }

    /// Starts again on what is on disk, on other ports; nodes find it through the link.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill9()?;
        (self.process, self.api) = launch(&self.directory, (self.host, &self.link), self.keys)?;
        Ok(())
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Where `artifact` lies in it.
    #[must_use]
    pub fn artifact_path(&self, artifact: &Digest) -> PathBuf {
        self.data().join("artifacts").join(artifact.hex())
    }

    /// Address of API and enrolment.
    #[must_use]
    pub fn https(&self) -> &str {
        &self.api.https
    }

    /// Pin of its authority.
    #[must_use]
    pub fn ca_pin(&self) -> Digest {
        self.api.ca_pin
    }

    /// Makes a claim.
    ///
    /// # Errors
    /// When the fleet refuses.
    pub fn claim(&self, uses: u32, ttl_s: u64) -> Result<CreatedClaim> {
        self.post("/api/v1/claims", &NewClaim { uses, ttl_s, ..NewClaim::default() })
    }

    /// What a node needs to become a node of this fleet with a claim of its own.
    ///
    /// # Errors
    /// When the fleet makes no claim.
    pub fn membership(&self) -> Result<Membership> {
        self.claim_of(&NewClaim::default())
    }

    /// The same with a claim of this kind.
    ///
    /// # Errors
    /// When the fleet makes no claim.
    pub fn claim_of(&self, new: &NewClaim) -> Result<Membership> {
        let claim: CreatedClaim = self.post("/api/v1/claims", new)?;
        Ok(Membership { url: self.api.https.replace("127.0.0.1", self.host), ca_pin: self.api.ca_pin, claim: claim.token })
    }

    /// All claims.
    ///
    /// # Errors
    /// When the fleet does not answer.
    pub fn claims(&self) -> Result<Vec<Claim>> {
        self.get("/api/v1/claims")
    }

    /// All nodes.
    ///
    /// # Errors
    /// When the fleet does not answer.
    pub fn nodes(&self) -> Result<Vec<Node>> {
        self.get("/api/v1/nodes")
    }

    /// Makes a revision.
    ///
    /// # Errors
    /// When the fleet refuses.
    pub fn publish(&self, manifest: &Manifest, wasm: &[u8]) -> Result<Revision> {
        let artifact = Digest::of(wasm);
        let (status, text) = self.put_artifact(&artifact, wasm)?;
        anyhow::ensure!(status == 200, "the artifact is refused with {status}: {text}");
        self.post("/api/v1/revisions", &NewRevision { artifact, manifest: manifest.clone() })
    }

    /// Uploads an artifact; answers status and body.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn put_artifact(&self, artifact: &Digest, wasm: &[u8]) -> Result<(u16, String)> {
        let request = self.api.agent.put(self.url(&format!("/api/v1/artifacts/{artifact}")));
        let mut answer = request.header("authorization", self.bearer()).send(wasm)?;
        Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
    }

    /// Moves all nodes to a revision.
    ///
    /// # Errors
    /// When the fleet refuses.
    pub fn rollout(&self, function: &FunctionName, revision: RevisionId) -> Result<Rollout> {
        let new = NewRollout { function: function.clone(), revision: Some(revision), filter: String::new() };
        self.post("/api/v1/rollouts", &new)
    }

    /// Takes a function off every node.
    ///
    /// # Errors
    /// When the fleet refuses.
    pub fn remove(&self, function: &FunctionName) -> Result<()> {
        let path = format!("/api/v1/functions/{function}");
        let mut answer = self.api.agent.delete(self.url(&path)).header("authorization", self.bearer()).call()?;
        anyhow::ensure!(answer.status().is_success(), "{path}: {}", answer.body_mut().read_to_string()?);
        Ok(())
    }

    /// Publishes, rolls out, and waits until every node runs it.
    ///
    /// # Errors
    /// When one of these fails.
    pub fn roll_out(&self, manifest: &Manifest, wasm: &[u8]) -> Result<Revision> {
        self.roll_out_within(wait::PATIENCE, manifest, wasm)
    }

    /// [`Fleet::roll_out`] to nodes that take longer.
    ///
    /// # Errors
    /// As [`Fleet::roll_out`].
    pub fn roll_out_within(&self, patience: Duration, manifest: &Manifest, wasm: &[u8]) -> Result<Revision> {
        let revision = self.publish(manifest, wasm)?;
        self.rollout(&manifest.name, revision.id)?;
        self.runs_everywhere_within(patience, &manifest.name, revision.id)?;
        Ok(revision)
    }

    /// Waits until every node runs `revision` as the fleet knows it.
    ///
    /// # Errors
    /// When one does not.
    pub fn runs_everywhere(&self, function: &FunctionName, revision: RevisionId) -> Result<()> {
        self.runs_everywhere_within(wait::PATIENCE, function, revision)
    }

    fn runs_everywhere_within(&self, patience: Duration, function: &FunctionName, revision: RevisionId) -> Result<()> {
        wait::until_within(patience, &format!("every node runs {function} {}", revision.short()), || {
            let runs = |node: &Node| node.functions.iter().any(|report| report.function == *function && report.running == Some(revision));
            let nodes = self.nodes()?;
            Ok((!nodes.is_empty() && nodes.iter().all(runs)).then_some(()))
        })
    }

    /// Sum of the ledger for `function` on `node`.
    ///
    /// # Errors
    /// When the fleet does not answer.
    pub fn usage(&self, function: &FunctionName, node: Option<&NodeId>) -> Result<Counters> {
        let rows: Vec<UsageRow> = self.get(&format!("/api/v1/usage?function={function}"))?;
        let mut sum = Counters::default();
        rows.iter().filter(|row| node.is_none_or(|node| row.node == *node)).for_each(|row| sum.add(&row.usage));
        Ok(sum)
    }

    /// Asks the API.
    ///
    /// # Errors
    /// When it does not answer 200 with a `T`.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let mut answer = self.api.agent.get(self.url(path)).header("authorization", self.bearer()).call()?;
        read(path, answer.status().as_u16(), &answer.body_mut().read_to_string()?)
    }

    /// Asks the API to make something.
    ///
    /// # Errors
    /// When it does not answer with a `T`.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        let request = self.api.agent.post(self.url(path)).header("authorization", self.bearer());
        let mut answer = request.send_json(body)?;
        read(path, answer.status().as_u16(), &answer.body_mut().read_to_string()?)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.api.https)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.api.token)
    }
}

fn read<T: DeserializeOwned>(path: &str, status: u16, text: &str) -> Result<T> {
    anyhow::ensure!((200..300).contains(&status), "{path}: {status}: {text}");
    serde_json::from_str(text).with_context(|| format!("{path}: {text}"))
}

fn launch(directory: &Path, (host, link): (&str, &Link), keys: &str) -> Result<(Process, Api)> {
    for _ in 0..PORTS_TRIED_MAX {
        let sync = free_port()?;
        if let Some(started) = launch_on(directory, (host, link), (sync, keys))? {
            link.lead_to(sync);
            return Ok(started);
        }
    }
    bail!("the fleet found no port in {PORTS_TRIED_MAX} tries")
}

/// `None` when the port was taken meanwhile.
fn launch_on(directory: &Path, (host, link): (&str, &Link), (sync, keys): (SocketAddr, &str)) -> Result<Option<(Process, Api)>> {
    let (data, config) = (directory.join("data"), directory.join("fleet.toml"));
    let text = format!(
        "data_dir = '{}'\nnames = ['{host}']\npublic_sync = '{host}:{}'\n[https]\nlisten = '127.0.0.1:0'\n[sync]\nlisten = '{sync}'\n{keys}",
        data.display(),
        link.address().port()
    );
    fs::write(&config, text)?;
    drop(fs::remove_file(data.join("addresses.json")));
    let mut command = Command::new(binary("sedge-fleet")?);
    let mut process = Process::start("sedge-fleet", command.arg("--config").arg(&config), &directory.join("log"))?;
    let addresses = wait::until("the fleet has written its addresses", || {
        if process.status()?.is_some() {
            return Ok(Some(None));
        }
        let text = fs::read_to_string(data.join("addresses.json")).ok();
        Ok(text.and_then(|text| serde_json::from_str::<Addresses>(&text).ok()).map(Some))
    })?;
    let Some(Addresses { https, ca_pin }) = addresses else {
        anyhow::ensure!(process.log()?.contains("in use"), "the fleet ended at its start:\n{}", process.log()?);
        return Ok(None);
    };
    let token = fs::read_to_string(data.join("admin-token")).context("read the admin token")?.trim().to_owned();
    let agent = sedge_provisioning::client::agent(ca_pin, ANSWER_MAX)?;
    // What nodes are told is not the way from here.
    let https = https.replace(host, "127.0.0.1");
    Ok(Some((process, Api { https, ca_pin, token, agent })))
}

fn free_port() -> Result<SocketAddr> {
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
