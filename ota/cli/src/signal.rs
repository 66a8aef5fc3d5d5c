//! Ctrl-C, SIGTERM and a terminal that hangs up as one event.

use anyhow::Context as _;
use std::thread;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Calls `stop` at the first signal. From now on a signal does not end the process by itself.
pub(crate) fn watch(stop: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build().context("watch for Ctrl-C")?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        let watched = |kind, name| signal(kind).with_context(|| format!("watch for {name}"));
        (
            watched(SignalKind::interrupt(), "Ctrl-C")?,
            watched(SignalKind::terminate(), "SIGTERM")?,
            watched(SignalKind::hangup(), "SIGHUP")?,
        )
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        stop();
    });
    Ok(())
}
