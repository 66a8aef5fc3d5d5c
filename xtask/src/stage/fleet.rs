//! One `sedge-fleet`, its API, and `sedge` as a person would type it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sedge_protocol::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::child::Child;
use super::{Look, until};

/// How long a fleet may take to answer for the first time.
const START_MAX: Duration = Duration::from_secs(60);
/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A fleet that runs.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// Its process.
    pub(crate) child: Child,
    /// Where it is.
    pub(crate) addresses: Addresses,
    /// Its API.
    pub(crate) api: Api,
    data: PathBuf,
    sedge: PathBuf,
}

/// `addresses.json`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Addresses {
    /// The API, `https://host:port`.
    pub(crate) https: String,
    /// Where nodes connect, `host:port`.
    pub(crate) sync: String,
    /// The page for people.
    pub(crate) console: String,
    /// Pin of its authority.
    pub(crate) ca_pin: Digest,
}

/// The fleet's API with the admin token. Cheap to clone; calls block.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    agent: ureq::Agent,
    url: String,
    authorization: String,
}

#[derive(Debug, Serialize)]
struct Config<'a> {
    data_dir: &'a Path,
    https: Listen,
    sync: Listen,
}

#[derive(Debug, Serialize)]
struct Listen {
    listen: String,
}

impl Fleet {
    /// Starts a fleet in `dir`, at free ports or, when it has been there before, at those it had: its nodes know them.
    pub(crate) async fn start(program: &Path, sedge: &Path, dir: &Path, run: &Path) -> Result<Self> {
        let data = dir.join("data");
        fs::create_dir_all(&data).with_context(|| format!("create {}", data.display()))?;
        let known = data.join("addresses.json");
        let before: Option<Addresses> = fs::read(&known).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let address = |text: Option<&str>| Listen { listen: text.unwrap_or("127.0.0.1:0").to_owned() };
        let config = Config {
            data_dir: &data,
            https: address(before.as_ref().map(|before| before.https.trim_start_matches("https://"))),
            sync: address(before.as_ref().map(|before| before.sync.as_str())),
        };
        let path = dir.join("fleet.toml");
        fs::write(&path, toml::to_string(&config)?).with_context(|| format!("write {}", path.display()))?;
        // What is there after the start is of this start.
        fs::remove_file(&known).ok();
        let mut child = Child::start("fleet", program, &path, run)?;
        let (addresses, api) = until("start the fleet", START_MAX, async || {
            child.check()?;
            Ok(reach(&data).await.map_or_else(|cause| Look::NotYet(format!("{cause:#}")), Look::Done))
        })
        .await?;
        Ok(Self { child, addresses, api, data, sedge: sedge.to_owned() })
    }

    /// Runs `sedge --json …` and reads what it prints.
    pub(crate) async fn sedge<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let mut command = Command::new(&self.sedge);
        command.arg("--json").arg("--fleet-data").arg(&self.data).args(arguments).stdin(Stdio::null());
        let line = format!("sedge {}", arguments.join(" "));
        let output = tokio::task::spawn_blocking(move || command.output()).await?.with_context(|| format!("run `{line}`"))?;
        if !output.status.success() {
            bail!("`{line}` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("read what `{line}` printed"))
    }

    /// The file with the admin token.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.data.join("admin-token")
    }
}

async fn reach(data: &Path) -> Result<(Addresses, Api)> {
    let addresses: Addresses = serde_json::from_slice(&fs::read(data.join("addresses.json"))?)?;
    let token = fs::read_to_string(data.join("admin-token"))?;
    let agent = sedge_provisioning::client::agent(addresses.ca_pin, ANSWER_MAX)?;
    let api = Api { agent, url: addresses.https.clone(), authorization: format!("Bearer {}", token.trim()) };
    let _status: sedge_protocol::api::Status = api.get("/api/v1/status").await?;
    Ok((addresses, api))
}

impl Api {
    /// Asks for a JSON value.
    pub(crate) async fn get<T: DeserializeOwned + Send + 'static>(&self, path: &str) -> Result<T> {
        let (api, path) = (self.clone(), path.to_owned());
        tokio::task::spawn_blocking(move || {
            let mut answer = api.agent.get(format!("{}{path}", api.url)).header("authorization", &api.authorization).call()?;
            let status = answer.status();
            anyhow::ensure!(status.is_success(), "{path} answered {status}: {}", answer.body_mut().read_to_string()?);
            answer.body_mut().read_json().with_context(|| format!("read the answer of {path}"))
        })
        .await?
    }
}
