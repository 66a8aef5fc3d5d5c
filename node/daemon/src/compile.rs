//! `sedged compile`: the compiler as a process of its own, which the daemon starts for each artifact that it has no code of.
//!
//! It is bounded before it reads a byte of the artifact: address space and processor time by the kernel, less urgent than anything
//! the daemon does, first to go when memory runs out, and gone with the daemon. The time on the clock is the daemon's to watch.

use crate::config;
use crate::limits::{COMPILE_MEMORY_MB_MAX, COMPILE_MEMORY_MB_MIN, COMPILE_NICENESS, COMPILE_TIME_MAX};
use anyhow::Context as _;
use clap::Args;
use rustix::process::{Resource, Rlimit, Signal, nice, set_parent_process_death_signal, setrlimit};
use sedge_protocol::Digest;
use sedge_runtime::{Form, Order, Rules, Workshop};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The running program, also after its file was replaced by a newer one.
const OURSELVES: &str = "/proc/self/exe";

/// What the daemon tells a compiling process; the code goes to standard output.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The artifact.
    #[arg(long = "in")]
    artifact: PathBuf,
    /// Its digest.
    #[arg(long)]
    digest: Digest,
    /// What it is: component, module, or a module that becomes a component first.
    #[arg(long)]
    form: Form,
    /// For the engine of WASI 0.3.
    #[arg(long)]
    concurrent: bool,
    /// For an engine that a debugger follows.
    #[arg(long)]
    debugger: bool,
    /// Address space of a linear memory.
    #[arg(long)]
    reservation_bytes: u64,
    /// Unmapped space behind that.
    #[arg(long)]
    guard_bytes: u64,
    /// Address space that the process may take.
    #[arg(long)]
    memory_bytes: u64,
    /// Processor time that the process may take.
    #[arg(long)]
    cpu_s: u64,
}

/// Where this node compiles.
pub(crate) fn workshop(settings: &config::Machine, memory_bytes: u64) -> Workshop {
    let half_mb = (memory_bytes / 2) >> 20;
    let memory_mb = settings.compile_mb.unwrap_or_else(|| half_mb.clamp(COMPILE_MEMORY_MB_MIN, COMPILE_MEMORY_MB_MAX));
    let time = settings.compile_s.map_or(COMPILE_TIME_MAX, Duration::from_secs);
    Workshop { program: OURSELVES.into(), memory_bytes: memory_mb << 20, time }
}

/// Compiles one artifact; the last line on standard error is why it did not.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { artifact, digest, form, concurrent, debugger, reservation_bytes, guard_bytes, memory_bytes, cpu_s } = arguments;
    let rules = Rules { debugger, concurrent };
    let order = Order { artifact, digest, form, rules, reservation_bytes, guard_bytes, memory_bytes, cpu_s };
    match restrain(&order).and_then(|()| work(&order)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the daemon reads it there")]
            {
                eprintln!("{}", format!("{error:#}").replace('\n', " "));
            }
            ExitCode::FAILURE
        }
    }
}

/// Takes away from this process what the artifact must not have.
fn restrain(order: &Order) -> anyhow::Result<()> {
    let limit = |most| Rlimit { current: Some(most), maximum: Some(most) };
    set_parent_process_death_signal(Some(Signal::KILL)).context("ask to end with the daemon")?;
    nice(COMPILE_NICENESS).context("become less urgent")?;
    setrlimit(Resource::As, limit(order.memory_bytes.saturating_add(mapped_bytes()))).context("limit the address space")?;
    setrlimit(Resource::Cpu, limit(order.cpu_s)).context("limit the processor time")?;
    setrlimit(Resource::Core, limit(0)).context("leave no core dump")?;
    // Where the kernel has no such file it decides by itself who goes first.
    let _kept = std::fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}

/// What the program itself takes, before it has done anything: its code for the most part.
fn mapped_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

fn work(order: &Order) -> anyhow::Result<()> {
    let code = sedge_runtime::compile(order).map_err(|error| anyhow::anyhow!(error))?;
    let mut out = std::io::stdout().lock();
    out.write_all(&code).and_then(|()| out.flush()).context("hand over the code")
}
