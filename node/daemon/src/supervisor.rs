//! Every task of the daemon: named, stopped together, and none fails unnoticed.
//!
//! A long-lived task that panics or fails ends the process (systemd restarts it). Invocations and connections are short tasks:
//! they are counted for the drain, and a panic in one is a bug that is logged.

use crate::executor::Executors;
use std::future::Future;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns and stops tasks. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Supervisor {
    stop: CancellationToken,
    /// Stops after `stop`, when running work had its time.
    kill: CancellationToken,
    services: TaskTracker,
    work: TaskTracker,
    ended: mpsc::Sender<Ended>,
    executors: Executors,
}

/// A service that ended without being asked to.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) name: &'static str,
    pub(crate) error: anyhow::Error,
}

impl Supervisor {
    pub(crate) fn new(executors: Executors) -> (Self, mpsc::Receiver<Ended>) {
        let (ended, receiver) = mpsc::channel(16);
        let supervisor = Self {
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            services: TaskTracker::new(),
            work: TaskTracker::new(),
            ended,
            executors,
        };
        (supervisor, receiver)
    }

    /// Cancelled when the daemon stops: accept nothing new.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Cancelled when running work has had its time.
    pub(crate) fn kill(&self) -> &CancellationToken {
        &self.kill
    }

    /// Runs a service for the life of the daemon. It returns only after [`Supervisor::stop`].
    pub(crate) fn service<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.watch(name, tokio::spawn(task));
    }

    /// As [`Supervisor::service`], on an executor, for what starts invocations: where that executor has the least to do, none is woken.
    pub(crate) fn service_near<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        // Its seat is given up at once: a service that sleeps is no load.
        let executor = self.executors.place().handle().clone();
        self.watch(name, executor.spawn(task));
    }

    fn watch(&self, name: &'static str, handle: JoinHandle<anyhow::Result<()>>) {
        let (stop, ended) = (self.stop.clone(), self.ended.clone());
        self.services.spawn(async move {
            let error = match handle.await {
                Ok(Ok(())) if stop.is_cancelled() => return,
                Ok(Ok(())) => anyhow::anyhow!("ended by itself"),
                Ok(Err(error)) => error,
                Err(panic) => anyhow::anyhow!("panicked: {panic}"),
            };
            drop(ended.send(Ended { name, error }).await);
        });
    }

    /// Runs a short piece of work that the drain waits for.
    pub(crate) fn work<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.work.spawn(task);
    }

    /// Runs a short piece of work on the executor that has the least to do; the drain waits for it too.
    pub(crate) fn spread<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let seat = self.executors.place();
        let executor = seat.handle().clone();
        self.work.spawn_on(seat.keep(task), &executor);
    }

    /// Stops everything: no new work, `grace` for what runs, then the end.
    pub(crate) async fn shut_down(&self, grace: Duration) {
        self.stop.cancel();
        self.work.close();
        if tokio::time::timeout(grace, self.work.wait()).await.is_err() {
            log::warn!(tasks = self.work.len(); "work was still running at the end of the grace time");
        }
        self.kill.cancel();
        self.services.close();
        if tokio::time::timeout(Duration::from_secs(5), self.services.wait()).await.is_err() {
            log::warn!(tasks = self.services.len(); "services did not end in time");
        }
    }
}
