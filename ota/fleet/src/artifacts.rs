//! Artifacts as files named by their digest. A file that is there is whole.

use crate::durable;
use sedge_protocol::Digest;
use std::io;
use std::path::{Path, PathBuf};
use tokio::fs::File;
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

/// Runs disk work where it holds up nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|cause| Err(io::Error::other(cause)))
}
