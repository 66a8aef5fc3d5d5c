//! The first answer of a function after the node was started again.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use bytes::Bytes;
use hyper::Method;

use crate::bench::table::Row;
use crate::bench::target::Target;
use crate::stage::http::Connection;

const ROUNDS: usize = 7;
/// For a function of a few kilobytes, milliseconds.
const REACH_MS: f64 = 5.0;

/// Starts the node again and again; the time is that of the first request, connection included, once the node says the function runs.
pub(super) async fn measure(mut target: Target, sedged: &Path, rows: &mut Vec<Row>) -> Result<Target> {
    target.put("hello").await?;
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        target = target.restart(sedged).await?;
        target.until_runs("hello", None).await?;
        let begin = Instant::now();
        let (status, _) = Connection::tcp(target.http()).await?.send(Method::GET, "/hello", Bytes::new()).await?;
        took.push(begin.elapsed().as_secs_f64() * 1000.0);
        ensure!(status.is_success(), "the first answer was {status}");
    }
    rows.push(Row::at_most("first answer after a restart, Rust", "ms", took, REACH_MS));
    Ok(target)
}
