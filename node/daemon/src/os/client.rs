//! The daemon's side of the socket.

use super::words::{self, Answer, Request};
use anyhow::{Context as _, bail};
use sedge_protocol::image::OsReport;
use std::io::{BufWriter, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an answer may take: a boot partition on a slow card.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to compare the slots, or to bring a new version to a slow disk.
const WRITING_PATIENCE: Duration = Duration::from_secs(30 * 60);

/// The process that keeps the operating system, as the daemon speaks to it.
#[derive(Debug, Clone)]
pub(super) struct Keeper {
    pub(super) socket: PathBuf,
}

/// What became of a request to take a new version.
#[derive(Debug)]
pub(super) enum Staging {
    /// It is staged already.
    Done,
    /// It will never be taken.
    Refused(String),
    /// These chunks are to be sent.
    Missing(Vec<u32>, Sending),
}

/// Chunks on their way.
#[derive(Debug)]
pub(crate) struct Sending {
    peer: BufWriter<UnixStream>,
}

impl Keeper {
    /// Asks for something that is done when this comes back.
    pub(super) async fn ask(&self, request: Request) -> anyhow::Result<()> {
        match self.exchange(request).await? {
            Answer::Done | Answer::Status { .. } | Answer::Missing { .. } => Ok(()),
            Answer::Refused { reason } | Answer::Failed { reason } => bail!("{reason}"),
        }
    }

    /// How things stand.
    pub(super) async fn status(&self) -> anyhow::Result<OsReport> {
        match self.exchange(Request::Status).await? {
            Answer::Status { report } => Ok(report),
            Answer::Refused { reason } | Answer::Failed { reason } => bail!("{reason}"),
            Answer::Done | Answer::Missing { .. } => bail!("the operating system's keeper answered something else"),
        }
    }

    /// Offers a new version.
    pub(super) async fn stage(&self, head: Vec<u8>, rollout: u64) -> anyhow::Result<Staging> {
        let socket = self.socket.clone();
        blocking(move || {
            let mut peer = connect(&socket, WRITING_PATIENCE)?;
            words::write(&mut peer, &Request::Stage { head: head.len() as u64, rollout })?;
            peer.write_all(&head).context("send the head of a bundle")?;
            match words::read(&mut peer)? {
                Answer::Done => Ok(Staging::Done),
                Answer::Refused { reason } => Ok(Staging::Refused(reason)),
                Answer::Missing { chunks } => Ok(Staging::Missing(chunks, Sending { peer: BufWriter::with_capacity(256 * 1024, peer) })),
                Answer::Failed { reason } => bail!("{reason}"),
                Answer::Status { .. } => bail!("the operating system's keeper answered something else"),
            }
        })
        .await
    }

    async fn exchange(&self, request: Request) -> anyhow::Result<Answer> {
        let socket = self.socket.clone();
        blocking(move || {
            let mut peer = connect(&socket, PATIENCE)?;
            words::write(&mut peer, &request)?;
            words::read(&mut peer)
        })
        .await
    }
}

impl Sending {
    /// Sends the next chunk. Cancel safe: a chunk that was begun is sent.
    pub(crate) async fn chunk(mut self, chunk: Vec<u8>) -> anyhow::Result<Self> {
        blocking(move || {
            // At once: what is on the disk is not fetched again.
            self.peer.write_all(&chunk).and_then(|()| self.peer.flush()).context("hand a chunk over")?;
            Ok(self)
        })
        .await
    }

    /// After the last chunk: waits until the version is staged. The inner error is a refusal for good.
    pub(super) async fn finish(self) -> anyhow::Result<Result<(), String>> {
        blocking(move || {
            let mut peer = self.peer.into_inner().context("hand the last chunks over")?;
            match words::read(&mut peer)? {
                Answer::Done => Ok(Ok(())),
                Answer::Refused { reason } => Ok(Err(reason)),
                Answer::Failed { reason } => bail!("{reason}"),
                Answer::Status { .. } | Answer::Missing { .. } => bail!("the operating system's keeper answered something else"),
            }
        })
        .await
    }
}

fn connect(socket: &Path, patience: Duration) -> anyhow::Result<UnixStream> {
    let peer = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    peer.set_read_timeout(Some(patience))?;
    peer.set_write_timeout(Some(patience))?;
    Ok(peer)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}
