//! How many guests wait for the host: for an answer from elsewhere, a client that reads slowly, a timer. They use memory, but no processor.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use tokio::sync::Notify;

/// Counts them, over all functions of an engine, and tells whoever watches when there is one more.
#[derive(Debug, Default)]
pub struct Rests {
    count: AtomicU32,
    watched: AtomicBool,
    more: Notify,
}

impl Rests {
    /// Invocations that wait for the host now.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count.load(Relaxed)
    }

    /// Whether somebody wants to know when there are more.
    pub fn watch(&self, watched: bool) {
        self.watched.store(watched, Relaxed);
    }

    /// Waits until there is one more, while watched.
    ///
    /// Cancel safe.
    pub async fn more(&self) {
        self.more.notified().await;
    }

    pub(crate) fn begin(&self) {
        self.count.fetch_add(1, Relaxed);
        if self.watched.load(Relaxed) {
            self.more.notify_one();
        }
    }

    pub(crate) fn end(&self) {
        self.count.fetch_sub(1, Relaxed);
    }
}
