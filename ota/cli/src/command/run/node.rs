//! A `sedged` of our own: started, asked, stopped, and nothing of it left behind.

use crate::client::Client;
use crate::command::give::{COMPILE_S, Poll, give};
use crate::failure::Failure;
use crate::output::Output;
use crate::project::Artifact;
use crate::style::Tone;
use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use sedge_protocol::local::LocalStatus;
use serde::Serialize;
use std::env;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a node may take to answer for the first time.
const START_MAX: Duration = Duration::from_secs(30);
/// How long a node may take to stop; it drains for ten seconds.
const STOP_MAX: Duration = Duration::from_secs(15);
/// Where core dumps are kept in a project: hidden, so that they are no sources.
const CORE_DUMPS: &str = ".sedge/core-dumps";
/// Lines of the node's own log that an error shows.
const TAIL_LINES: usize = 12;

/// A node without a fleet. Dropping it ends it the hard way.
#[derive(Debug)]
pub(crate) struct LocalNode {
    child: Child,
    client: Client,
    dir: TempDir,
}

/// `sedged.toml` of such a node.
#[derive(Debug, Serialize)]
struct Config {
    data_dir: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<Listen>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mqtt: Option<Listen>,
    local: Local,
    machine: Machine,
}

#[derive(Debug, Serialize)]
struct Machine {
    debug_info: bool,
    compile_s: u64,
}

/// What the node serves beside its local API.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Serve {
    /// HTTP triggers.
    pub(crate) http: Option<SocketAddr>,
    /// MQTT.
    pub(crate) mqtt: Option<SocketAddr>,
    /// Whether gdb and lldb can follow the function.
    pub(crate) debugger: bool,
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
    pub(crate) fn start(sedged: Option<&Path>, serve: Serve) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("sedge-run-").tempdir().context("make a directory for the node")?;
        let socket = dir.path().join("sedged.sock");
        let config = Config {
            data_dir: dir.path().join("data"),
            http: serve.http.map(|listen| Listen { listen }),
            mqtt: serve.mqtt.map(|listen| Listen { listen }),
            local: Local { socket: socket.clone() },
            machine: Machine { debug_info: serve.debugger, compile_s: COMPILE_S },
        };
        let path = dir.path().join("sedged.toml");
        fs::write(&path, toml::to_string(&config)?).with_context(|| format!("write {}", path.display()))?;
        let child = spawn(&find(sedged), &path, &dir.path().join("sedged.log"))?;
        let mut node = Self { child, client: Client::node(&socket), dir };
        node.await_answer()?;
        Ok(node)
    }

    /// The node's API.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The node's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("sedged.sock")
    }

    /// The process that a debugger attaches to.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives the function to the node and waits until the node runs or refuses it.
    pub(crate) fn give(&mut self, artifact: &Artifact, output: &Output) -> anyhow::Result<LocalStatus> {
        let client = self.client.clone();
        give(&client, artifact, output, || self.check())
    }

    /// Fails when the node has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().context("look at sedged")? {
            None => Ok(()),
            Some(status) => anyhow::bail!("sedged ended ({status}); the end of its log:\n{}", self.tail()),
        }
    }

    /// Asks the node to stop and waits; ends it the hard way when that takes too long.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.end()
    }

    /// Like [`LocalNode::stop`]; what trapped functions left goes into the project, because the node's directory goes.
    pub(crate) fn stop_keeping_core_dumps(mut self, project: &Path, output: &Output) -> anyhow::Result<()> {
        let ended = self.end();
        self.keep_core_dumps(project, output);
        ended
    }

    fn end(&mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // A node that ended by itself is a node that stopped.
        if self.child.try_wait()?.is_none()
            && let Some(pid) = pid
        {
            kill_process(pid, Signal::TERM).context("ask sedged to stop")?;
        }
        let (begin, mut poll) = (Instant::now(), Poll::new());
        while self.child.try_wait().context("wait for sedged")?.is_none() {
            anyhow::ensure!(begin.elapsed() < STOP_MAX, "sedged did not stop in {} s and was killed", STOP_MAX.as_secs());
            poll.pause();
        }
        Ok(())
    }

    fn await_answer(&mut self) -> anyhow::Result<()> {
        let (begin, mut poll) = (Instant::now(), Poll::new());
        loop {
            self.check()?;
            match self.client.get::<LocalStatus>("/v1/status") {
                Ok(_) => return Ok(()),
                Err(Failure::Unreachable { .. }) if begin.elapsed() < START_MAX => poll.pause(),
                Err(cause) => {
                    return Err(anyhow::Error::new(cause).context(format!("start a node; the end of its log:\n{}", self.tail())));
                }
            }
        }
    }

    fn keep_core_dumps(&self, project: &Path, output: &Output) {
        let found = fs::read_dir(self.dir.path().join("data/core-dumps")).into_iter().flatten().flatten();
        let into = project.join(CORE_DUMPS);
        for dump in found {
            let to = into.join(dump.file_name());
            match fs::create_dir_all(&into).and_then(|()| fs::copy(dump.path(), &to)) {
                Ok(_) => output.said("core dump", Tone::Busy, &to.display().to_string()),
                Err(error) => output.said("core dump", Tone::Bad, &format!("{} is lost: {error}", to.display())),
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
pub(crate) fn find(named: Option<&Path>) -> PathBuf {
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
