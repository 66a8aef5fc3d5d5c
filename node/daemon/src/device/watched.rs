//! A descriptor that the runtime waits for.
#![expect(unsafe_code, reason = "tokio has no other way to wait for a descriptor that is neither socket nor pipe")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// An open device: waited for, never replaced.
#[derive(Debug)]
pub(super) struct Watched(AsyncFd<OwnedFd>);

impl Watched {
    /// Waits for `device` from now on; it must be open for reading without waiting.
    pub(super) fn new(device: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` has a valid descriptor and closes it when it is dropped; it is private here and nothing replaces it.
        let watched = unsafe { AsyncFd::register(device) };
        Ok(Self(watched.map_err(|refused| refused.into_parts().1)?))
    }

    /// Until it may be read. Cancel safe: nothing is read.
    pub(super) async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        self.0.readable().await
    }

    /// Until it may be written. Cancel safe: nothing is written.
    pub(super) async fn writable(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        self.0.writable().await
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
