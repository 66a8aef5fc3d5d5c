//! `cargo xtask bench overload`: a real node in a control group, offered five times what it can do, beside four other ways to limit
//! concurrency.
//!
//! ```text
//! open loop (fixed times) ─▶ sedged in 2 processors and 1 GiB: 70 % ─ 5 × ─ 70 % ─▶ useful work, p99, refusals, victim, recovery
//!                            once as it is, and once for each rival (built in with the feature `rivals`)
//! ```

mod group;
mod load;
mod outcome;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hyper::Method;
use sedge_protocol::Manifest;
use sedge_protocol::local::InvokeResult;
use serde::Serialize;

use super::Options;
use super::table::{self, Row};
use super::target::{Target, function_of_repository};
use crate::binaries::Profile;
use crate::progress::Step;
use crate::stage::http;
use crate::{guests, workspace};
use group::{CORES, Group};
use load::{Load, capacity, offer};
use outcome::{Outcome, good_by_second, recovered_s};

/// The one that asks for little and shall get it.
const VICTIM: &str = "victim";
/// How much nicer the node is than the load, which is to come in time.
const LOAD_NICE: i32 = -10;
const CALM: f64 = 0.7;
const OVERLOAD: f64 = 5.0;
const RIVALS: [(&str, &str); 4] =
    [("unlimited", "no limit"), ("fixed", "fixed 64"), ("gradient2", "Gradient2"), ("pressure", "pressure only")];
/// Invocations by which the processor time of one is found.
const PROBES: usize = 9;

/// Name, thousands of rounds, memory it touches (MiB), its limit (MiB), patience (ms), share of the box at factor 1.
const FUNCTIONS: [(&str, u64, u32, u64, u64, f64); 3] =
    [("short", 1_200, 1, 8, 200, 0.45), ("long", 9_000, 16, 24, 1_000, 0.45), (VICTIM, 2_500, 1, 8, 200, 0.10)];
/// What the box can do is found with so many clients that ask again as soon as they are answered.
const CLIENTS: usize = 6;
const CAPACITY_TIME: Duration = Duration::from_secs(4);

/// How long the phases are, and how much of each is not counted.
#[derive(Debug, Clone, Copy)]
struct Plan {
    phase: Duration,
    warm_up: Duration,
}

/// All phases of one way.
#[derive(Debug, Serialize)]
struct Proof {
    name: &'static str,
    calm: Outcome,
    overload: Outcome,
    recovered_s: f64,
    /// After the overload: for each second, the share that was answered in time.
    good_after: Vec<f64>,
    /// Processes that the kernel ended for want of memory.
    ended_for_memory: u64,
}

pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let seconds = |phase, warm_up| Plan { phase: Duration::from_secs(phase), warm_up: Duration::from_secs(warm_up) };
    let plan = if options.quick { seconds(6, 2) } else { seconds(15, 4) };
    guests::run(&guests::Options::of(&["faulty"]))?;
    let sedged = options.sedged(Profile::Rivals)?;
    let dir = workspace::target().join("bench");
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    prefer_the_load()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let proofs = runtime.block_on(async {
        let step = Step::begin("what the box can do");
        let cores = survey(&sedged, &dir).await?;
        step.done(&format!("{cores:.2} of {CORES} processors' worth of guests"));
        let mut proofs = Vec::new();
        for (rival, name) in std::iter::once((None, "ours")).chain(RIVALS.map(|(rival, name)| (Some(rival), name))) {
            let step = Step::begin(name);
            let proof = prove((name, rival), cores, &sedged, &dir, plan).await?;
            let (useful, victim) = (proof.overload.useful * 100.0, proof.overload.victim * 100.0);
            let after: Vec<String> = proof.good_after.iter().map(|share| format!("{:.0}", share * 100.0)).collect();
            step.done(&format!("useful {useful:.0} %, victim {victim:.0} %; after it, by second, good {} %", after.join(" ")));
            proofs.push(proof);
        }
        anyhow::Ok(proofs)
    })?;
    if !options.json {
        print(&proofs);
    }
    table::print(&rows(&proofs), options.json)
}

/// A load that comes late measures itself.
fn prefer_the_load() -> Result<()> {
    let mut renice = Command::new("renice");
    let output = renice.args(["-n", &LOAD_NICE.to_string(), "-p", &std::process::id().to_string()]).output().context("run renice")?;
    ensure!(output.status.success(), "renice (as root): {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// What the box can do, found on a node of its own that runs as it is shipped.
async fn survey(sedged: &Path, dir: &Path) -> Result<f64> {
    let group = Group::make()?;
    let target = Target::start(&group.program(sedged, None, dir)?, dir).await?;
    let loads = prepare(&target).await?;
    let cores = capacity(target.http(), &loads, CLIENTS, CAPACITY_TIME).await?;
    drop(target.stop()?);
    Ok(cores)
}

async fn prove((name, rival): (&'static str, Option<&str>), cores: f64, sedged: &Path, dir: &Path, plan: Plan) -> Result<Proof> {
    let group = Group::make()?;
    let target = Target::start(&group.program(sedged, rival, dir)?, dir).await?;
    let loads = prepare(&target).await?;
    let of = |factor: f64| -> Vec<Load> {
        let share = |load: &Load| if load.name == VICTIM { load.share } else { load.share * factor };
        loads.iter().map(|load| Load { share: share(load), ..load.clone() }).collect()
    };
    let counted = (plan.warm_up, plan.phase);
    let calm = offer(target.http(), &of(CALM), cores, plan.phase, 1).await?;
    let over = offer(target.http(), &of(OVERLOAD), cores, plan.phase, 2).await?;
    let after = offer(target.http(), &of(CALM), cores, plan.phase, 3).await?;
    let good_after = good_by_second(&after, plan.phase.as_secs());
    let proof = Proof {
        name,
        calm: Outcome::of(&calm, &loads, counted, cores),
        overload: Outcome::of(&over, &loads, counted, cores),
        recovered_s: recovered_s(&good_after),
        good_after,
        ended_for_memory: group.ended_for_memory()?,
    };
    // One that the kernel ended has no better end to come to.
    let stopped = target.stop();
    if proof.ended_for_memory == 0 {
        drop(stopped?);
    }
    Ok(proof)
}

/// Gives the node the functions of the mix, and finds out what an invocation of each costs.
async fn prepare(target: &Target) -> Result<Vec<Load>> {
    let (_, wasm) = function_of_repository("faulty")?;
    let mut loads = Vec::new();
    for (name, thousands, mib, memory_mb, patience_ms, share) in FUNCTIONS {
        let text = format!(
            "name = '{name}'\n[[trigger]]\nhttp = '/{name}/*'\n[limits]\nmemory_mb = {memory_mb}\ntimeout_ms = {patience_ms}\nconcurrency = 1000\n"
        );
        let (manifest, _) = Manifest::from_toml(name, &text)?;
        let revision = target.assign(&manifest, wasm.clone()).await?;
        target.until_runs(name, Some(revision)).await?;
        let wish = format!("compute-{thousands}-{mib}");
        let mut cpu_us = u64::MAX;
        for _ in 0..PROBES {
            let path = format!("/v1/functions/{name}/invoke?topic=bench");
            let result: InvokeResult = http::ask(target.socket(), Method::POST, &path, Bytes::from(wish.clone())).await?;
            cpu_us = cpu_us.min(result.cpu_us);
        }
        loads.push(Load { name, path: format!("/{name}/{wish}"), cpu_us, patience: Duration::from_millis(patience_ms), share });
    }
    Ok(loads)
}

#[expect(clippy::print_stdout, reason = "the table is what a person reads of it")]
fn print(proofs: &[Proof]) {
    println!(
        "{:<22}{:>8}{:>10}{:>10}{:>12}{:>8}{:>11}{:>6}",
        "5 × overload", "useful", "p99 ms", "refused", "after ms", "victim", "recovered", "OOM"
    );
    let line = |name: &str, of: &Outcome, rest: &str| {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let (useful, refused, victim) = (percent(of.useful), percent(of.refused), percent(of.victim));
        println!("{name:<22}{useful:>8}{:>10.1}{refused:>10}{:>12.1}{victim:>8}{rest}", of.p99_ms, of.refused_p99_ms);
    };
    if let Some(ours) = proofs.first() {
        line("ours at 70 %", &ours.calm, "");
    }
    for proof in proofs {
        line(proof.name, &proof.overload, &format!("{:>9.0} s{:>6}", proof.recovered_s, proof.ended_for_memory));
    }
    println!();
}

/// What the proof promises, for ours.
#[expect(clippy::cast_precision_loss, reason = "a count of a few")]
fn rows(proofs: &[Proof]) -> Vec<Row> {
    let Some(ours) = proofs.first() else { return Vec::new() };
    let best = proofs.iter().map(|proof| proof.overload.useful).fold(0.0, f64::max);
    vec![
        Row::at_least("useful work in 5 × overload ÷ the best of all", "×", vec![ours.overload.useful / best], 0.9),
        Row::at_most("p99 of what is answered, overload ÷ 70 % load", "×", vec![ours.overload.p99_ms / ours.calm.p99_ms], 3.0),
        Row::at_most("refusals answered after, p99", "ms", vec![ours.overload.refused_p99_ms], 5.0),
        Row::at_least("victim's goodput ÷ at 70 % load", "×", vec![ours.overload.victim / ours.calm.victim], 0.9),
        Row::at_most("recovered after", "s", vec![ours.recovered_s], 10.0),
        Row::at_most("processes ended for want of memory", "", vec![ours.ended_for_memory as f64], 0.0),
    ]
}
