//! How soon a guest is gone after its time, whether it computes or waits.

use anyhow::{Context, Result};
use bytes::Bytes;
use hyper::Method;
use sedge_protocol::local::InvokeResult;

use crate::bench::table::Row;
use crate::bench::target::{Target, function_of_repository};
use crate::stage::http;

const LIMIT_MS: u64 = 200;
const ROUNDS: usize = 15;
/// After its limit it may take so long, milliseconds.
const REACH_MS: f64 = 20.0;

pub(super) async fn measure(target: &Target) -> Result<Vec<Row>> {
    let (mut manifest, wasm) = function_of_repository("faulty")?;
    manifest.limits.timeout_ms = LIMIT_MS;
    let revision = target.assign(&manifest, wasm).await?;
    target.until_runs("faulty", Some(revision)).await?;
    let mut rows = Vec::new();
    for (what, event) in [("an endless loop", "loop"), ("a call that blocks in the host", "slow")] {
        let mut late = Vec::new();
        for _ in 0..ROUNDS {
            let result: InvokeResult =
                http::ask(target.socket(), Method::POST, "/v1/functions/faulty/invoke?topic=bench", Bytes::from(event))
                    .await
                    .context(event)?;
            #[expect(clippy::cast_precision_loss, reason = "a time for people")]
            late.push(result.wall_us as f64 / 1000.0 - LIMIT_MS as f64);
        }
        rows.push(Row::at_most(&format!("timeout against {what}: stopped after it"), "ms", late, REACH_MS));
    }
    target.remove("faulty").await?;
    Ok(rows)
}
