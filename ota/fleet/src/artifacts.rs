//! Artifacts as files named by their digest. A file that is there is whole.

use crate::durable;
use sedge_protocol::Digest;
use sha2::{Digest as _, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::task::spawn_blocking;

/// The directory of artifacts.
#[derive(Debug, Clone)]
pub(crate) struct Artifacts {
    directory: PathBuf,
}

impl Artifacts {
    /// Opens or creates the directory and removes what a crash left half-written.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                std::fs::remove_file(path)?;
            }
        }
        Ok(Self { directory: directory.to_owned() })
    }

    /// Keeps `bytes`, whose digest the caller has checked; heals a file that a disk has damaged. Cancel safe: the write runs to its end.
    pub(crate) async fn keep(&self, digest: Digest, bytes: bytes::Bytes) -> io::Result<()> {
        let path = self.path(digest);
        blocking(move || match std::fs::read(&path) {
            Ok(present) if present == bytes => Ok(()),
            Ok(_) => {
                log::warn!(artifact:% = digest; "a damaged artifact was replaced by a good one");
                durable::replace(&path, &bytes, 0o644)
            }
            Err(_) => durable::replace(&path, &bytes, 0o644),
        })
        .await
    }

    /// A new file for an artifact that comes in pieces; it is no artifact before [`Incoming::keep`].
    pub(crate) async fn receive(&self) -> io::Result<Incoming> {
        let path = self.directory.join(format!("{:016x}.tmp", rand::random::<u64>()));
        let file = File::options().write(true).create_new(true).open(&path).await?;
        Ok(Incoming { path: Some(path), file, digest: Sha256::new(), bytes: 0 })
    }

    /// Deletes an artifact. One that is not here is no error.
    pub(crate) async fn remove(&self, digest: Digest) -> io::Result<()> {
        match tokio::fs::remove_file(self.path(digest)).await {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The whole artifact, if it is here.
    pub(crate) async fn read(&self, digest: Digest) -> io::Result<Option<Vec<u8>>> {
        match tokio::fs::read(self.path(digest)).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    /// The artifact's file and its size, if it is here.
    pub(crate) async fn file(&self, digest: Digest) -> io::Result<Option<(File, u64)>> {
        match File::open(self.path(digest)).await {
            Ok(file) => {
                let size = file.metadata().await?.len();
                Ok(Some((file, size)))
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.directory.join(digest.hex())
    }
}

/// An artifact on its way. Dropped before it is kept, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Incoming {
    path: Option<PathBuf>,
    file: File,
    digest: Sha256,
    bytes: u64,
}

impl Incoming {
    /// Takes the next piece.
    pub(crate) async fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        self.digest.update(piece);
        self.bytes += piece.len() as u64;
        self.file.write_all(piece).await
    }

    /// What has come: length and digest. Everything is on disk.
    pub(crate) async fn end(&mut self) -> io::Result<(u64, Digest)> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        Ok((self.bytes, Digest::from_bytes(self.digest.clone().finalize().into())))
    }

    /// Where it lies until it is kept.
    pub(crate) fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// Makes it the artifact `digest`.
    pub(crate) async fn keep(mut self, artifacts: &Artifacts, digest: Digest) -> io::Result<()> {
        let (from, to, directory) = (self.path.take().unwrap_or_default(), artifacts.path(digest), artifacts.directory.clone());
        blocking(move || {
            std::fs::rename(&from, &to)?;
            std::fs::File::open(directory)?.sync_all()
        })
        .await
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // What stays is removed at the next start.
            drop(std::fs::remove_file(path));
        }
    }
}

/// Runs disk work where it holds up nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|cause| Err(io::Error::other(cause)))
}
