//! A `sedged` of our own: started, asked, stopped, and nothing of it left behind.

use crate::client::Client;
use crate::command::publish;
use crate::failure::Failure;
use crate::output::Output;
use crate::project::Artifact;
use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use sedge_protocol::RevisionId;
use sedge_protocol::local::{LocalRevision, LocalStatus};
use sedge_protocol::message::FunctionState;
use serde::Serialize;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};
use tempfile::TempDir;

/// How long a node may take to answer for the first time.
const START_MAX: Duration = Duration::from_secs(30);
/// How long a node may take to compile a function.
const DEPLOY_MAX: Duration = Duration::from_secs(300);
/// How long a node may take to stop; it drains for ten seconds.
const STOP_MAX: Duration = Duration::from_secs(15);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(25);
/// Lines of the node's own log that an error shows.
const TAIL_LINES: usize = 12;

/// A node without a fleet. Dropping it ends it the hard way.
#[derive(Debug)]
pub(super) struct LocalNode {
    child: Child,
    client: Client,
    dir: TempDir,
}

/// `sedged.toml` of such a node.
#[derive(Debug, Serialize)]
struct Config {
    data_dir: PathBuf,
    http: Listen,
    mqtt: Listen,
    local: Local,
}

#[derive(Debug, Serialize)]
struct Listen {
    listen: SocketAddr,
}

#[derive(Debug, Serialize)]
struct Local {
    socket: PathBuf,
}

impl LocalNode {
    /// Starts `sedged` and waits until it answers.
    pub(super) fn start(sedged: Option<&Path>, http: SocketAddr, mqtt: SocketAddr) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("sedge-run-").tempdir().context("make a directory for the node")?;
        let socket = dir.path().join("sedged.sock");
        let config = Config {
            data_dir: dir.path().join("data"),
            http: Listen { listen: http },
            mqtt: Listen { listen: mqtt },
            local: Local { socket: socket.clone() },
        };
        let path = dir.path().join("sedged.toml");
        fs::write(&path, toml::to_string(&config)?).with_context(|| format!("write {}", path.display()))?;
        let child = spawn(&find(sedged), &path, &dir.path().join("sedged.log"))?;
        let mut node = Self { child, client: Client::node(&socket), dir };
        node.await_answer()?;
        Ok(node)
    }

    /// The node's API.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The node's socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("sedged.sock")
    }

    /// Gives the function to the node and waits until the node runs or refuses it.
    pub(super) fn give(&mut self, artifact: &Artifact, output: &Output) -> anyhow::Result<LocalStatus> {
        let function = &artifact.manifest.name;
        let revision = RevisionId::of(&artifact.digest, &artifact.manifest);
        publish::upload(&self.client, artifact, "/v1/artifacts", output)?;
        let body = LocalRevision { artifact: artifact.digest, manifest: artifact.manifest.clone() };
        self.client.put_json(&format!("/v1/functions/{function}"), &body)?;
        let bar = output.spinner(&format!("{function}: the node compiles it"));
        let begin = Instant::now();
        loop {
            self.check()?;
            let status: LocalStatus = self.client.get("/v1/status")?;
            let report = status.functions.iter().find(|report| report.function == *function);
            match report.map(|report| (&report.state, report.running, report.assigned)) {
                Some((FunctionState::Running, Some(running), _)) if running == revision => {
                    bar.finish_and_clear();
                    return Ok(status);
                }
                Some((FunctionState::Failed { reason }, _, Some(assigned))) if assigned == revision => {
                    anyhow::bail!("the node refuses {function}: {reason}")
                }
                Some(_) | None => {}
            }
            anyhow::ensure!(begin.elapsed() < DEPLOY_MAX, "the node did not get {function} ready in {} s", DEPLOY_MAX.as_secs());
            thread::sleep(POLL);
        }
    }

    /// Fails when the node has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().context("look at sedged")? {
            None => Ok(()),
            Some(status) => anyhow::bail!("sedged ended ({status}); the end of its log:\n{}", self.tail()),
        }
    }

    /// Asks the node to stop and waits; ends it the hard way when that takes too long.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // A node that ended by itself is a node that stopped.
        if self.child.try_wait()?.is_none()
            && let Some(pid) = pid
        {
            kill_process(pid, Signal::TERM).context("ask sedged to stop")?;
        }
        let begin = Instant::now();
        while self.child.try_wait().context("wait for sedged")?.is_none() {
            anyhow::ensure!(begin.elapsed() < STOP_MAX, "sedged did not stop in {} s and was killed", STOP_MAX.as_secs());
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn await_answer(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            self.check()?;
            match self.client.get::<LocalStatus>("/v1/status") {
                Ok(_) => return Ok(()),
                Err(Failure::Unreachable { .. }) if begin.elapsed() < START_MAX => thread::sleep(POLL),
                Err(cause) => {
                    return Err(anyhow::Error::new(cause).context(format!("start a node; the end of its log:\n{}", self.tail())));
                }
            }
        }
    }

    fn tail(&self) -> String {
        let log = fs::read(self.dir.path().join("sedged.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Drop for LocalNode {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Beside this program if it is there, else wherever PATH has it.
fn find(named: Option<&Path>) -> PathBuf {
    let beside = || Some(env::current_exe().ok()?.parent()?.join("sedged")).filter(|path| path.is_file());
    named.map(Path::to_owned).or_else(beside).unwrap_or_else(|| PathBuf::from("sedged"))
}

fn spawn(program: &Path, config: &Path, log: &Path) -> anyhow::Result<Child> {
    let log = File::create(log).with_context(|| format!("write {}", log.display()))?;
    let mut command = Command::new(program);
    command.arg("--config").arg(config).env_remove("SEDGED_DATA_DIR").env_remove("NOTIFY_SOCKET");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // A group of its own: Ctrl-C is for us, and we ask the node to stop.
    let spawned = command.process_group(0).spawn();
    spawned.map_err(|cause| {
        let what = format!("start {}: {cause}", program.display());
        Failure::configuration(
            what,
            "`sedge run` needs the node daemon: put `sedged` beside `sedge` or into PATH, or name it with --sedged",
        )
        .into()
    })
}
