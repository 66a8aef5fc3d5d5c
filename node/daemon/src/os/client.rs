//! The daemon's side of the socket.

use super::words::{self, Answer, Request};
use crate::session::{self, Link};
use anyhow::{Context as _, bail};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long an answer may take: a boot partition on a slow card.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause before what was not answered is said again.
const AGAIN: Duration = Duration::from_secs(30);

/// The process that keeps the operating system, as the daemon speaks to it.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) socket: PathBuf,
    /// Whether the node belongs to a fleet, or should.
    pub(crate) fleet: bool,
    pub(crate) link: watch::Receiver<Link>,
}

impl Keeper {
    /// Says that the claim can go and that the system which runs is good, once the node is up and its fleet was reached. Said until it is heard.
    pub(crate) async fn tell(mut self, stop: CancellationToken) {
        let said = async {
            // Without a fleet a claim that lies there was not used: it may be one that cannot be read.
            let requests: &[Request] = if self.fleet { &[Request::ClaimUsed, Request::Healthy] } else { &[Request::Healthy] };
            if self.fleet && session::connection(&mut self.link).await.is_none() {
                return;
            }
            for request in requests {
                while let Err(error) = ask(self.socket.clone(), request.clone()).await {
                    log::warn!(request:? = request, reason:% = format!("{error:#}"); "the operating system's keeper did not do it; trying again");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = said => {}
        }
    }
}

/// Asks, and waits for the answer.
async fn ask(socket: PathBuf, request: Request) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || exchange(&socket, &request)).await?
}

fn exchange(socket: &Path, request: &Request) -> anyhow::Result<()> {
    let mut peer = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    peer.set_read_timeout(Some(PATIENCE))?;
    peer.set_write_timeout(Some(PATIENCE))?;
    words::write(&mut peer, request)?;
    match words::read(&mut peer)? {
        Answer::Failed { reason } => bail!("{reason}"),
        Answer::Done => Ok(()),
    }
}
