//! Waiting for a condition, the only way to wait.

use anyhow::{Context as _, Result, bail};
use std::time::{Duration, Instant};

/// Longest wait for anything: far above what a slow machine needs, reached only by a failure.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks at `condition` until it has a value.
///
/// # Errors
/// When it has none within [`PATIENCE`], with what was waited for; and what the condition itself fails with, at once.
pub fn until<T>(what: &str, condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    until_within(PATIENCE, what, condition)
}

/// [`until`] with another patience, for what is slow by nature.
///
/// # Errors
/// As [`until`].
pub fn until_within<T>(patience: Duration, what: &str, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(value) = condition().with_context(|| format!("while waiting until {what}"))? {
            return Ok(value);
        }
        if begin.elapsed() > patience {
            bail!("{} seconds were not enough until {what}", patience.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
}
