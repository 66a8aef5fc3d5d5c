//! Memory: with one function, and with a thousand different ones.

use std::time::Duration;

use anyhow::Result;

use crate::bench::process;
use crate::bench::table::Row;
use crate::bench::target::{Target, function_of_repository};
use crate::progress::Step;
use crate::stage::{Look, until};

const MIB: f64 = 1024.0 * 1024.0;
const IDLE_REACH_MIB: f64 = 48.0;
const LOADED_REACH_MIB: f64 = 512.0;
const PREPARE_MAX: Duration = Duration::from_secs(3600);

#[expect(clippy::cast_precision_loss, reason = "a size for people")]
fn resident_mib(target: &Target) -> Result<f64> {
    Ok(process::resident(target.pid())? as f64 / MIB)
}

/// After the load on one function.
pub(super) fn idle(target: &Target) -> Result<Row> {
    Ok(Row::at_most("resident memory, one function, after load", "MiB", vec![resident_mib(target)?], IDLE_REACH_MIB))
}

/// Different artifacts: each has a section of its own, so each is compiled and mapped by itself.
pub(super) async fn loaded(target: &Target, functions: u32) -> Result<Row> {
    let step = Step::begin(&format!("{functions} functions"));
    let (manifest, wasm) = function_of_repository("hello")?;
    for number in 0..functions {
        let mut manifest = manifest.clone();
        manifest.name = format!("hello-{number}").parse()?;
        manifest.triggers.clear();
        let mut other = wasm.clone();
        // A custom section: id 0, length, length of the name, name, content.
        other.extend_from_slice(&[0, 6, 1, b'n']);
        other.extend_from_slice(&number.to_le_bytes());
        target.assign(&manifest, other).await?;
    }
    until("prepare all functions", PREPARE_MAX, async || {
        let running = target.status().await?.functions.iter().filter(|report| report.running.is_some()).count();
        Ok(if running >= functions as usize { Look::Done(()) } else { Look::NotYet(format!("{running} of {functions}")) })
    })
    .await?;
    let row = Row::at_most(
        &format!("resident memory, {functions} different functions loaded"),
        "MiB",
        vec![resident_mib(target)?],
        LOADED_REACH_MIB,
    );
    step.done(&row.value());
    Ok(row)
}
