//! `cargo xtask ci`: the whole check, the same here and on a server. Every part runs, and the end says which failed.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::install;
use crate::progress::{self, Timed};
use crate::{test, tidy, workspace};

/// The other processor that nodes have.
const OTHER_TARGET: &str = "aarch64-unknown-linux-gnu";
/// What links for it.
const OTHER_LINKER: &str = "aarch64-linux-gnu-gcc";
/// A project of its own: it is built for a fuzzer.
const FUZZ: &str = "fleet-tests/fuzz/Cargo.toml";

/// How a part ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Good,
    Failed,
    /// Cannot be done here; what is missing.
    Skipped(String),
}

type Part = fn() -> Result<Outcome>;

/// Runs every part.
pub(crate) fn run() -> Result<ExitCode> {
    let parts: [(&str, Part); 7] = [
        ("fmt", || cargo(&["fmt", "--all", "--check"])),
        ("tidy", || tidy::run().map(outcome)),
        ("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
        ("doc", doc),
        ("test", || test::run(&test::Options::default()).map(outcome)),
        ("aarch64", other_target),
        ("fuzz", fuzz),
    ];
    let mut outcomes = Vec::new();
    for (name, part) in parts {
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

/// The programs for the other processor, where its standard library and linker are installed.
fn other_target() -> Result<Outcome> {
    let output = Command::new("rustc").args(["--print", "target-libdir", "--target", OTHER_TARGET]).output().context("run rustc")?;
    let library = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !std::path::Path::new(&library).is_dir() {
        return Ok(Outcome::Skipped(format!("`rustup target add {OTHER_TARGET}` brings its standard library")));
    }
    if !install::has(OTHER_LINKER) {
        return Ok(Outcome::Skipped(format!("`apt-get install gcc-aarch64-linux-gnu` brings {OTHER_LINKER}")));
    }
    let mut command = workspace::cargo();
    command.args(["build", "--workspace", "--bins", "--target", OTHER_TARGET]);
    status(command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", OTHER_LINKER))
}

/// The fuzz targets still build; running them is a matter of hours.
fn fuzz() -> Result<Outcome> {
    if !workspace::root().join(FUZZ).is_file() {
        return Ok(Outcome::Skipped(format!("there is no {FUZZ}")));
    }
    let target = workspace::target().join("fuzz");
    status(workspace::cargo().args(["build", "--manifest-path", FUZZ]).env("CARGO_TARGET_DIR", target))
}
