//! All tasks of the fleet: named, counted, ended together. A task that panics ends the process.

use log::{debug, error};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts tasks and ends them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Supervisor {
    token: CancellationToken,
    tasks: TaskTracker,
    panicked: Arc<AtomicBool>,
}

impl Supervisor {
    /// Cancelled when the fleet is to stop.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Starts a task.
    pub(crate) fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let inner = self.tasks.spawn(task);
        let (token, panicked) = (self.token.clone(), Arc::clone(&self.panicked));
        self.tasks.spawn(async move {
            if inner.await.is_err_and(|end| end.is_panic()) {
                error!(task = name; "task panicked");
                panicked.store(true, Ordering::Relaxed);
                token.cancel();
            }
        });
    }

    /// Asks every task to end and waits until all have. Answers whether none had panicked.
    pub(crate) async fn stop(&self) -> bool {
        self.token.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        debug!("all tasks ended");
        !self.panicked.load(Ordering::Relaxed)
    }
}
