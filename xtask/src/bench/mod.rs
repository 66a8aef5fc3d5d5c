//! `cargo xtask bench`: what one node does on this machine, in numbers.
//!
//! ```text
//! wrk ── HTTP ──▶ sedged (hello)                 requests/s, p50, p99 at 1, 16, 64 connections; resident memory
//! publishers ── MQTT QoS 1 ──▶ sedged (convert)  events/s from publish to completed invocation; p50, p99 to the reply
//! steady 10 events, 10 calls a second ──▶ sedged (average, hello)   bytes to the disk, as a day
//! ```
//! The load and the node share the machine; a figure is what they reach together.

mod disk;
mod functions;
mod load;
mod mqtt;
mod overload;
mod process;
mod report;
mod table;
mod target;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::binaries::{self, Profile};
use crate::install::{self, Need};
use crate::progress::{self, Step};
use crate::{guests, workspace};
use report::Report;
use target::Target;

/// The load generator for HTTP.
const NEEDS: [Need; 1] = [Need { program: "wrk", package: "wrk" }];
/// Connections at the same time.
const CONNECTIONS: [u32; 3] = [1, 16, 64];

/// How long to measure and how to show it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Measure for seconds instead of minutes; the figures are coarse
    #[arg(long)]
    quick: bool,
    /// Print JSON for machines
    #[arg(long)]
    json: bool,
    /// Measure this `sedged` instead of building one
    #[arg(long)]
    sedged: Option<PathBuf>,
    /// Of `functions`, measure only this; can be given several times
    #[arg(long)]
    only: Vec<functions::Group>,
    /// Measure only this; without, the node as a whole
    part: Option<Part>,
}

impl Options {
    /// The daemon to measure.
    fn sedged(&self, profile: Profile) -> Result<PathBuf> {
        self.sedged.clone().map_or_else(|| Ok(binaries::build(profile)?.sedged), Ok)
    }
}

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Running functions, as ratios to `wasmtime serve` in the same run
    Functions,
    /// Five times what a node can bear, beside other ways to limit concurrency
    Overload,
}

/// How long each part measures.
#[derive(Debug, Clone, Copy)]
struct Plan {
    http: Duration,
    events: u64,
    latency: Duration,
    steady: Duration,
}

impl Plan {
    fn new(quick: bool) -> Self {
        if quick {
            Self { http: Duration::from_secs(3), events: 2_000, latency: Duration::from_secs(4), steady: Duration::from_secs(15) }
        } else {
            Self { http: Duration::from_secs(10), events: 20_000, latency: Duration::from_secs(15), steady: Duration::from_secs(60) }
        }
    }
}

/// Builds, measures, prints.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    install::ensure(&NEEDS)?;
    match options.part {
        Some(Part::Functions) => return functions::run(options),
        Some(Part::Overload) => return overload::run(options),
        None => {}
    }
    guests::run(&guests::Options::of(&["hello", "average", "convert"]))?;
    let sedged = options.sedged(Profile::Dist)?;
    let dir = workspace::target().join("bench");
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let report = runtime.block_on(async {
        let target = Target::start(&sedged, &dir).await?;
        let report = measure(&target, Plan::new(options.quick)).await;
        drop(target.stop()?);
        report
    })?;
    report::print(&report, options.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn measure(target: &Target, plan: Plan) -> Result<Report> {
    target.put("hello").await?;
    let idle_bytes = process::resident(target.pid())?;
    let mut http = Vec::new();
    let mut loaded_bytes = 0;
    for connections in CONNECTIONS {
        let step = Step::begin(&format!("http {connections}"));
        let (figure, peak) = load::http(target, connections, plan.http).await?;
        loaded_bytes = peak.max(loaded_bytes);
        step.done(&format!("{:.0} requests/s", figure.per_second));
        http.push(figure);
    }
    target.put("convert").await?;
    let step = Step::begin("events");
    let events_per_second = mqtt::throughput(target, "convert", plan.events).await?;
    step.done(&format!("{events_per_second:.0} events/s"));
    let step = Step::begin("event latency");
    let event_latency = mqtt::latency(target, plan.latency).await?;
    step.done(&format!("p50 {:.1} ms", event_latency.p50_ms));
    target.remove("convert").await?;
    target.put("average").await?;
    progress::say(&format!("  steady load for {} s", plan.steady.as_secs()));
    let disk = disk::steady(target, plan.steady).await?;
    Ok(Report { http, events_per_second, event_latency, idle_bytes, loaded_bytes, disk })
}
