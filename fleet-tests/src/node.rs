//! A running `sedged`, its HTTP triggers and its local API.

use crate::clock::Clock;
use crate::disk::SmallDisk;
use crate::http::{Answer, Target, exchange};
use crate::process::{Process, binary, run};
use crate::{cli, wait};
use anyhow::{Context as _, Result};
use http::Method;
use sedge_protocol::local::{FleetLink, InvokeResult, LocalRevision, LocalStatus, LogEntry};
use sedge_protocol::usage::Counters;
use sedge_protocol::{Digest, FunctionName, Manifest, NodeId, RevisionId};
use serde::de::DeserializeOwned;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// What makes a node one of a fleet.
#[derive(Debug, Clone)]
pub struct Membership {
    /// Address of the fleet.
    pub url: String,
    /// Pin of its authority.
    pub ca_pin: Digest,
    /// Claim token.
    pub claim: String,
}

/// A node with a directory of its own.
#[derive(Debug)]
pub struct Node {
    name: String,
    directory: PathBuf,
    process: Process,
    socket: Target,
    addresses: Addresses,
    disk: Option<SmallDisk>,
    clock: Clock,
}

#[derive(Debug, Clone, Copy)]
struct Addresses {
    http: SocketAddr,
    mqtt: SocketAddr,
}

impl Node {
    /// Starts a node called `name` below `directory`; of a fleet, or of its own.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn start(directory: &Path, name: &str, fleet: Option<&Membership>) -> Result<Self> {
        Self::start_with(directory, name, fleet, "")
    }

    /// [`Node::start`] with more top-level keys for its configuration.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn start_with(directory: &Path, name: &str, fleet: Option<&Membership>, keys: &str) -> Result<Self> {
        let directory = directory.join(name);
        configure(&directory, name, fleet, keys)?;
        Self::begin(directory, name, (None, Clock::Right))
    }

    /// [`Node::start`] of a node of its own with more tables for its configuration.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn start_with_tables(directory: &Path, name: &str, tables: &str) -> Result<Self> {
        let directory = directory.join(name);
        configure(&directory, name, None, "")?;
        let config = directory.join("sedged.toml");
        let text = fs::read_to_string(&config)?;
        fs::write(config, text + tables)?;
        Self::begin(directory, name, (None, Clock::Right))
    }

    /// [`Node::start`] on a box whose clock shows something else.
    ///
    /// # Errors
    /// When it does not answer, or clocks cannot be faked here.
    pub fn start_at(clock: Clock, directory: &Path, name: &str, fleet: &Membership) -> Result<Self> {
        let directory = directory.join(name);
        configure(&directory, name, Some(fleet), "")?;
        Self::begin(directory, name, (None, clock))
    }

    /// [`Node::start`] with a data directory on a disk of `mib` mebibytes.
    ///
    /// # Errors
    /// When there is no such disk, or the node does not answer.
    pub fn start_on_small_disk(directory: &Path, name: &str, fleet: Option<&Membership>, mib: u32) -> Result<Self> {
        let directory = directory.join(name);
        configure(&directory, name, fleet, "")?;
        let disk = SmallDisk::mount(&directory.join("data"), mib)?;
        Self::begin(directory, name, (Some(disk), Clock::Right))
    }

    fn begin(directory: PathBuf, name: &str, (disk, clock): (Option<SmallDisk>, Clock)) -> Result<Self> {
        let socket = Target::Unix(directory.join("socket"));
        let (process, addresses) = launch(name, &directory, &socket, (disk.as_ref(), clock))?;
        Ok(Self { name: name.to_owned(), directory, process, socket, addresses, disk, clock })
    }

    /// The disk that was made for it.
    #[must_use]
    pub fn disk(&self) -> Option<&SmallDisk> {
        self.disk.as_ref()
    }

    /// Starts a node that has a claim as a file, and nothing else of a fleet.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn start_with_bundle(directory: &Path, name: &str, bundle: &Path) -> Result<Self> {
        let directory = directory.join(name);
        configure(&directory, name, None, "")?;
        let config = directory.join("sedged.toml");
        let text = fs::read_to_string(&config)?;
        fs::write(config, format!("{text}[fleet]\nname = '{name}'\nbundle = '{}'\n", bundle.display()))?;
        Self::begin(directory, name, (None, Clock::Right))
    }

    /// Starts again on what is on disk. The node must have ended.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn restart(&mut self) -> Result<()> {
        (self.process, self.addresses) = launch(&self.name, &self.directory, &self.socket, (self.disk.as_ref(), self.clock))?;
        Ok(())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.kill9()
    }

    /// SIGTERM, and the end.
    ///
    /// # Errors
    /// When it goes on.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.terminate()?;
        self.process.ended()
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it goes on.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        self.process.ended()
    }

    /// Everything it keeps.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Its socket, for `sedge --node`.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// Its id in the fleet.
    ///
    /// # Errors
    /// When it is no name of a node.
    pub fn id(&self) -> Result<NodeId> {
        Ok(self.name.parse()?)
    }

    /// Where its broker listens since the last start.
    #[must_use]
    pub fn mqtt(&self) -> SocketAddr {
        self.addresses.mqtt
    }

    /// Where its HTTP triggers are since the last start.
    #[must_use]
    pub fn http(&self) -> Target {
        Target::Tcp(self.addresses.http)
    }

    /// `GET path` from the HTTP triggers.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn fetch(&self, path: &str) -> Result<Answer> {
        exchange(&self.http(), Method::GET, path, "")
    }

    /// How it is.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<LocalStatus> {
        self.local("/v1/status")
    }

    /// Waits until it is connected to its fleet.
    ///
    /// # Errors
    /// When it does not connect.
    pub fn online(&self) -> Result<()> {
        wait::until(&format!("{} is online", self.name), || Ok((self.status()?.fleet == FleetLink::Online).then_some(())))
    }

    /// What it has counted for `function` since its start.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn totals(&self, function: &FunctionName) -> Result<Counters> {
        let functions = self.status()?.functions;
        Ok(functions.into_iter().find(|report| report.function == *function).map(|report| report.totals).unwrap_or_default())
    }

    /// Which revision of `function` it runs.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn running(&self, function: &FunctionName) -> Result<Option<RevisionId>> {
        Ok(self.status()?.functions.into_iter().find(|report| report.function == *function).and_then(|report| report.running))
    }

    /// What it and `function` have logged.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn logs(&self, function: &FunctionName) -> Result<Vec<LogEntry>> {
        let answer = self.ask(Method::GET, &format!("/v1/logs?function={function}&lines=2000"), "")?;
        answer.text().lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Invokes `function` with an event and waits for its reply.
    ///
    /// # Errors
    /// When it does not answer 200.
    pub fn invoke(&self, function: &FunctionName, topic: &str, data: &str) -> Result<InvokeResult> {
        let path = format!("/v1/functions/{function}/invoke?topic={}", topic.replace('/', "%2F"));
        let answer = self.ask(Method::POST, &path, data.to_owned())?;
        anyhow::ensure!(answer.status.is_success(), "{path}: {}: {}", answer.status, answer.text());
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// Writes other top-level keys into the configuration of a node of its own; they hold from its next start.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure(&self, keys: &str) -> Result<()> {
        configure(&self.directory, &self.name, None, keys)
    }

    /// Writes another membership into its configuration; it holds from its next start.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn join(&self, fleet: &Membership) -> Result<()> {
        configure(&self.directory, &self.name, Some(fleet), "")
    }

    /// Gives a function to a node of its own and waits until it runs.
    ///
    /// # Errors
    /// When the node refuses.
    pub fn give(&self, manifest: &Manifest, wasm: &[u8]) -> Result<RevisionId> {
        let artifact = Digest::of(wasm);
        let answer = self.ask(Method::PUT, &format!("/v1/artifacts/{artifact}"), wasm.to_vec())?;
        anyhow::ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.text());
        let body = serde_json::to_vec(&LocalRevision { artifact, manifest: manifest.clone() })?;
        let answer = self.ask(Method::PUT, &format!("/v1/functions/{}", manifest.name), body)?;
        anyhow::ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.text());
        let revision = RevisionId::of(&artifact, manifest);
        self.runs(&manifest.name, revision)?;
        Ok(revision)
    }

    /// Waits until it runs `revision`.
    ///
    /// # Errors
    /// When it does not.
    pub fn runs(&self, function: &FunctionName, revision: RevisionId) -> Result<()> {
        wait::until(&format!("{} runs {function}", self.name), || Ok((self.running(function)? == Some(revision)).then_some(())))
    }

    /// One exchange with the local API.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask(&self, method: Method, path: &str, body: impl Into<bytes::Bytes>) -> Result<Answer> {
        exchange(&self.socket, method, path, body)
    }

    fn local<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.ask(Method::GET, path, "")?;
        serde_json::from_slice(&answer.body).with_context(|| format!("{path}: {}", answer.text()))
    }
}

fn configure(directory: &Path, name: &str, fleet: Option<&Membership>, keys: &str) -> Result<()> {
    fs::create_dir_all(directory)?;
    let mut text = format!(
        "{keys}\ndata_dir = '{0}/data'\n[http]\nlisten = '127.0.0.1:0'\n[mqtt]\nlisten = '127.0.0.1:0'\n[local]\nsocket = '{0}/socket'\n",
        directory.display()
    );
    if let Some(Membership { url, ca_pin, claim }) = fleet {
        text.push_str(&format!("[fleet]\nname = '{name}'\nurl = '{url}'\nca_pin = '{ca_pin}'\nclaim = '{claim}'\n"));
    }
    Ok(fs::write(directory.join("sedged.toml"), text)?)
}

fn launch(name: &str, directory: &Path, socket: &Target, (disk, clock): (Option<&SmallDisk>, Clock)) -> Result<(Process, Addresses)> {
    let binary = binary("sedged")?;
    let mut command = disk.map_or_else(|| Command::new(&binary), |disk| disk.command(&binary));
    command.arg("--config").arg(directory.join("sedged.toml"));
    clock.show(&mut command)?;
    let mut process = Process::start(name, &mut command, &directory.join("log"))?;
    let status: LocalStatus = wait::until(&format!("{name} answers"), || {
        if let Some(status) = process.status()? {
            anyhow::bail!("{name} ended at its start with {status}:\n{}", process.log()?);
        }
        let answer = exchange(socket, Method::GET, "/v1/status", "").ok();
        Ok(answer.and_then(|answer| serde_json::from_slice(&answer.body).ok()))
    })?;
    let http = status.http.context("no HTTP address")?.parse()?;
    let mqtt = status.mqtt.context("no MQTT address")?.parse()?;
    Ok((process, Addresses { http, mqtt }))
}

/// Runs `sedged` with the configuration `text` (written into `directory`) until it ends by itself.
///
/// # Errors
/// When it cannot be started.
pub fn sedged_with(directory: &Path, text: &str, arguments: &[&str]) -> Result<cli::Done> {
    let config = directory.join("sedged.toml");
    fs::write(&config, text)?;
    let mut command = Command::new(binary("sedged")?);
    Ok(cli::done(&run(command.arg("--config").arg(config).args(arguments))?))
}
