//! Ctrl-C and SIGTERM as one event.

use anyhow::Context as _;
use std::thread;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Calls `stop` at the first signal. From now on a signal does not end the process by itself.
pub(crate) fn watch(stop: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build().context("watch for Ctrl-C")?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        let terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
        (signal(SignalKind::interrupt()).context("watch for Ctrl-C")?, terminate)
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        stop();
    });
    Ok(())
}
