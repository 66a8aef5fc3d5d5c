//! Brings artifacts from the fleet, from where the last try stopped.

use crate::limits::ARTIFACT_STALL_MAX;
use crate::session::{self, Exchange, Link};
use anyhow::Context as _;
use quinn::Connection;
use sedge_protocol::Digest;
use sedge_protocol::local::FleetLink;
use sedge_protocol::message::{Assignment, FromFleet, FromNode};
use sedge_store::{FileError, Files, FinishError, Partial};
use std::path::PathBuf;
use tokio::sync::watch;

/// Fetches artifacts. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher {
    files: Files,
    link: watch::Receiver<Link>,
}

/// Why an artifact is not here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// Worth another try.
    #[error("{0:#}")]
    Passing(anyhow::Error),
    /// The disk has no room for it.
    #[error(transparent)]
    NoRoom(FileError),
    /// What came is not what was promised; it is deleted.
    #[error("the artifact's digest differs from {0}: what came was deleted; if this lasts, publish it again")]
    Digest(Digest),
    /// It is not here, and nobody has it.
    #[error("the artifact {0} is not on this node, which has no fleet to fetch it from: publish it again")]
    NoFleet(Digest),
}

impl Fetcher {
    pub(crate) fn new(files: Files, link: watch::Receiver<Link>) -> Self {
        Self { files, link }
    }

    /// Where the artifact lies, if it is here.
    pub(crate) fn here(&self, digest: &Digest) -> Option<PathBuf> {
        self.files.contains(digest.as_bytes()).then(|| self.files.path(digest.as_bytes()))
    }

    /// Brings the artifact of `assignment`; `progress` is told the bytes that are here. Waits for a connection as long as it takes.
    ///
    /// Cancel safe: what has come stays and is not fetched again.
    pub(crate) async fn fetch(&self, assignment: &Assignment, mut progress: impl FnMut(u64)) -> Result<PathBuf, FetchError> {
        let digest = assignment.artifact;
        if let Some(path) = self.here(&digest) {
            return Ok(path);
        }
        let mut link = self.link.clone();
        if link.borrow().state == FleetLink::None {
            return Err(FetchError::NoFleet(digest));
        }
        let connection = session::connection(&mut link).await.context("the daemon stops").map_err(FetchError::Passing)?;
        let partial = self.receive(&connection, assignment, &mut progress).await.map_err(|error| match error.downcast() {
            Ok(error @ FileError::NoRoom { .. }) => FetchError::NoRoom(error),
            Ok(error) => FetchError::Passing(error.into()),
            Err(error) => FetchError::Passing(error),
        })?;
        match blocking(move || Ok(partial.finish())).await.map_err(FetchError::Passing)? {
            Ok(path) => Ok(path),
            Err(FinishError::DigestMismatch { .. }) => Err(FetchError::Digest(digest)),
            Err(error) => Err(FetchError::Passing(error.into())),
        }
    }

    async fn receive(&self, connection: &Connection, assignment: &Assignment, progress: &mut impl FnMut(u64)) -> anyhow::Result<Partial> {
        let (files, digest, total) = (self.files.clone(), assignment.artifact, assignment.size);
        let mut partial = blocking(move || Ok(files.partial(*digest.as_bytes())?)).await?;
        if partial.len() > total {
            partial = blocking(move || {
                partial.restart()?;
                Ok(partial)
            })
            .await?;
        }
        // Its machine code takes about twice as much again.
        self.files.ensure_room(total - partial.len() + 2 * total)?;
        progress(partial.len());
        let fetch = FromNode::Fetch { digest, offset: partial.len() };
        let mut exchange = Exchange::open(connection, &fetch).await?;
        let FromFleet::Head { size } = exchange.answer().await? else { anyhow::bail!("the fleet answered no head") };
        anyhow::ensure!(size == total, "the fleet has {size} bytes, {total} were assigned");
        let mut frames = exchange.finish_sending();
        while partial.len() < total {
            let chunk = tokio::time::timeout(ARTIFACT_STALL_MAX, frames.raw()).await.context("the artifact stalls")??;
            let chunk = chunk.context("the artifact ended early")?;
            partial = blocking(move || {
                partial.append(&chunk)?;
                Ok(partial)
            })
            .await?;
            progress(partial.len());
        }
        Ok(partial)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}
