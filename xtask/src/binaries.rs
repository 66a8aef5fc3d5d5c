//! The product's own programs, built by cargo, which shows its own progress.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{progress, workspace};

/// How to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Fast to build.
    Dev,
    /// What goes onto gateways: fast to run, slow to build.
    Dist,
    /// Optimised in less time, with the other ways to limit concurrency built in.
    Rivals,
}

/// Where the programs are.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    /// The node daemon.
    pub(crate) sedged: PathBuf,
    /// The fleet registry.
    pub(crate) fleet: PathBuf,
    /// The command line.
    pub(crate) sedge: PathBuf,
}

/// One line of `cargo build --message-format=json`, as far as it matters.
#[derive(Debug, Deserialize)]
struct Message {
    executable: Option<PathBuf>,
}

/// Tells programs when they were built: a time that has certainly passed when they run.
pub(crate) fn date(command: &mut Command) -> Result<&mut Command> {
    Ok(command.env("SOURCE_DATE_EPOCH", workspace::commit_time_s()?.to_string()))
}

/// Builds every program of the workspace, so that tests and programs share what was compiled.
pub(crate) fn build(profile: Profile) -> Result<Binaries> {
    progress::say("building the programs (the first time takes minutes: the Wasm engine is large)");
    let mut command = workspace::cargo();
    command.args(["build", "--workspace", "--bins", "--message-format=json-render-diagnostics"]);
    match profile {
        // Tests bring other features of shared libraries along; built apart, wasmtime would be compiled twice.
        Profile::Dev => command.arg("--tests"),
        Profile::Dist => date(command.args(["--profile", "dist"]))?,
        Profile::Rivals => command.args(["--release", "--features", "sedged/rivals"]),
    };
    let executables = run(command)?;
    let find = |name: &str| -> Result<PathBuf> {
        let found = executables.iter().find(|path| path.file_name().is_some_and(|file| file == name));
        found.cloned().with_context(|| format!("cargo built no `{name}`"))
    };
    Ok(Binaries { sedged: find("sedged")?, fleet: find("sedge-fleet")?, sedge: find("sedge")? })
}

/// Runs a `cargo build` that speaks JSON; answers which programs it built.
pub(crate) fn run(mut command: Command) -> Result<Vec<PathBuf>> {
    let mut cargo = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("run cargo")?;
    let mut executables = Vec::new();
    for line in BufReader::new(cargo.stdout.take().context("read what cargo says")?).lines() {
        // Other kinds of messages have other fields.
        if let Ok(Message { executable: Some(path) }) = serde_json::from_str(&line?) {
            executables.push(path);
        }
    }
    let status = cargo.wait().context("wait for cargo")?;
    ensure!(status.success(), "cargo build failed ({status})");
    Ok(executables)
}
