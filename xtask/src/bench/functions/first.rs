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
/// What, which function (by a path of the same name), and the mark in milliseconds.
const FUNCTIONS: [(&str, &str, f64); 2] = [("Rust", "hello", 5.0), ("Python", "hello-python", 50.0)];

/// Starts the node again and again; the time is that of the first request, connection included, once the node says the function runs.
pub(super) async fn measure(mut target: Target, sedged: &Path, rows: &mut Vec<Row>) -> Result<Target> {
    for (what, function, reach) in FUNCTIONS {
        target.put(function).await?;
        let mut took = Vec::new();
        for _ in 0..ROUNDS {
            target = target.restart(sedged).await?;
            target.until_runs(function, None).await?;
            let begin = Instant::now();
            let path = format!("/{function}");
            let (status, _) = Connection::tcp(target.http()).await?.send(Method::GET, &path, Bytes::new()).await?;
            took.push(begin.elapsed().as_secs_f64() * 1000.0);
            ensure!(status.is_success(), "the first answer was {status}");
        }
        target.remove(function).await?;
        rows.push(Row::at_most(&format!("first answer after a restart, {what}"), "ms", took, reach));
    }
    Ok(target)
}
