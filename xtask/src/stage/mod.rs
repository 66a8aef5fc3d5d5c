//! The product's own processes, started for a demonstration or a measurement.
//!
//! ```text
//! child  a process that does not outlive us, nor a killed predecessor of us
//! fleet  sedge-fleet, its API, and `sedge` as a person would type it
//! node   sedged, its configuration and its local API
//! http   requests over TCP and Unix sockets
//! ```

pub(crate) mod child;
pub(crate) mod fleet;
pub(crate) mod http;
pub(crate) mod node;

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

/// How often a condition is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(100);

/// Looks at `condition` until it gives a value; fails after `limit` with what was seen last.
pub(crate) async fn until<T>(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> Result<Look<T>>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        let seen = match condition().await? {
            Look::Done(value) => return Ok(value),
            Look::NotYet(seen) => seen,
        };
        if Instant::now() >= end {
            bail!("{what}: not within {} s ({seen})", limit.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What a look at a condition gave.
#[derive(Debug)]
pub(crate) enum Look<T> {
    /// It holds.
    Done(T),
    /// It does not hold; what was seen.
    NotYet(String),
}
