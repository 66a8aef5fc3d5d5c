//! `cargo xtask bench functions`: running functions, as ratios to `wasmtime serve` where that does the same.
//!
//! ```text
//! wrk ─▶ wasmtime serve (pooling) ┐ the same component, in turn, round after round
//! wrk ─▶ sedged ──────────────────┘ ─▶ ratios: least, median, most
//! ```
//! Everything of the node is on: limits, metering, logs, one instance for each invocation. Ratios hold on any machine; the figures
//! beside them are of this one.

mod events;
mod first;
mod many;
mod peer;
mod stop;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use sedge_protocol::Manifest;
use sedge_protocol::manifest::Reuse;

use super::table::{self, Ratio, Row};
use super::target::{Target, function_of_repository};
use super::{Options, load};
use crate::binaries::Profile;
use crate::progress::Step;
use crate::{guests, workspace};
use peer::Peer;

/// Connections at the same time, and what is compared there.
const CONNECTIONS: [(u32, Figure, f64); 3] = [(1, Figure::Latency, 0.5), (16, Figure::Rate, 2.0), (64, Figure::Rate, 2.0)];

/// The function in Python, and its load.
const PYTHON: &str = "hello-python";
const PYTHON_CONNECTIONS: u32 = 8;
/// Invocations of one instance, and the ratio to reach.
const PYTHON_REACH: [(&str, u32, f64); 2] = [("Python, an instance for each invocation", 1, 1.5), ("Python, with reuse", 10_000, 10.0)];

/// What of a run is compared.
#[derive(Debug, Clone, Copy)]
enum Figure {
    /// Requests a second: more is better.
    Rate,
    /// Median time of an answer: less is better.
    Latency,
}

/// How often and how long.
#[derive(Debug, Clone, Copy)]
struct Plan {
    rounds: usize,
    each: Duration,
    functions: u32,
}

/// Rows that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Group {
    /// A small function in Rust beside `wasmtime serve`
    Hello,
    /// The same in Python, and with reuse
    Python,
    /// How long a timeout takes to be in force
    Stop,
    /// Events on the local bus
    Events,
    /// The first answer after a restart
    First,
    /// Memory with many functions
    Many,
}

pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let plan = if options.quick {
        Plan { rounds: 5, each: Duration::from_secs(1), functions: 100 }
    } else {
        Plan { rounds: 7, each: Duration::from_secs(4), functions: 1000 }
    };
    guests::run(&guests::Options::of(&["hello", "convert", "faulty", PYTHON]))?;
    let wasmtime = peer::bring()?;
    let sedged = options.sedged(Profile::Dist)?;
    let dir = workspace::target().join("bench");
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let rows = runtime.block_on(measure(options, plan, &sedged, &dir, &wasmtime))?;
    table::print(&rows, options.json)
}

async fn measure(options: &Options, plan: Plan, sedged: &Path, dir: &Path, wasmtime: &Path) -> Result<Vec<Row>> {
    let wants = |group| options.only.is_empty() || options.only.contains(&group);
    let mut target = Target::start(sedged, dir).await?;
    let mut rows = Vec::new();
    if wants(Group::Hello) {
        rows.extend(hello(&target, &Peer::start(wasmtime, "hello").await?, plan).await?);
        rows.push(many::idle(&target)?);
    }
    if wants(Group::Python) {
        rows.extend(python(&target, &Peer::start(wasmtime, PYTHON).await?, plan).await?);
    }
    if wants(Group::Stop) {
        rows.extend(stop::measure(&target).await?);
    }
    if wants(Group::Events) {
        rows.extend(events::measure(&target, plan.rounds, plan.each).await?);
    }
    if wants(Group::First) {
        target = first::measure(target, sedged, &mut rows).await?;
    }
    drop(target.stop()?);
    if wants(Group::Many) {
        let target = Target::start(sedged, dir).await?;
        rows.push(many::loaded(&target, plan.functions).await?);
        drop(target.stop()?);
    }
    Ok(rows)
}

/// The same component behind both, in turn.
async fn hello(target: &Target, peer: &Peer, plan: Plan) -> Result<Vec<Row>> {
    target.put("hello").await?;
    let mut rows = Vec::new();
    for (connections, figure, reach) in CONNECTIONS {
        let step = Step::begin(&format!("hello, {connections} connections"));
        let ratio = compare(target, peer, "/hello", (connections, figure), plan).await?;
        let (unit, what) = match figure {
            Figure::Rate => ("/s", "requests/s"),
            Figure::Latency => ("ms", "p50"),
        };
        let row = Row::ratio(&format!("hello, {connections} connections: {what} ÷ wasmtime serve"), unit, ratio, reach);
        step.done(&row.value());
        rows.push(row);
    }
    Ok(rows)
}

/// The same in Python, where starting an instance is what takes the time: with an instance for each invocation, and with reuse.
async fn python(target: &Target, peer: &Peer, plan: Plan) -> Result<Vec<Row>> {
    let (manifest, wasm) = function_of_repository(PYTHON)?;
    let mut rows = Vec::new();
    for (what, reuse, reach) in PYTHON_REACH {
        let step = Step::begin(what);
        let manifest = Manifest { reuse: Reuse { count: reuse, ..Reuse::default() }, ..manifest.clone() };
        let revision = target.assign(&manifest, wasm.clone()).await?;
        target.until_runs(PYTHON, Some(revision)).await?;
        let ratio = compare(target, peer, "/hello-python", (PYTHON_CONNECTIONS, Figure::Rate), plan).await?;
        let row = Row::ratio(&format!("{what}: requests/s ÷ wasmtime serve"), "/s", ratio, reach);
        step.done(&row.value());
        rows.push(row);
    }
    target.remove(PYTHON).await?;
    Ok(rows)
}

/// One load on both sides, in turn, round after round.
async fn compare(target: &Target, peer: &Peer, path: &str, (connections, figure): (u32, Figure), plan: Plan) -> Result<Ratio> {
    let urls = [format!("http://{}{path}", peer.address()), format!("http://{}{path}", target.http())];
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        // Who goes first changes, so a machine that slows down slows both.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let run = load::wrk(&urls[which], connections, plan.each).await?;
            let value = match figure {
                Figure::Rate => run.per_second,
                Figure::Latency => run.latency.p50_ms,
            };
            if which == 0 { theirs.push(value) } else { ours.push(value) }
        }
    }
    Ok(Ratio { ours, theirs, at_least: matches!(figure, Figure::Rate) })
}
