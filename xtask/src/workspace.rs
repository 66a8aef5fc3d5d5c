//! Where things are in the repository.

use anyhow::{Context, Result, ensure};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's root: the directory above this crate.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Everything that is built; never committed.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// Where built guests lie, as `<name>.wasm`.
pub(crate) fn guests() -> PathBuf {
    target().join("guests")
}

/// The cargo that started us, at the root. What it told us about this package is kept from it: build scripts that watch those
/// variables would run again, and much be compiled twice.
pub(crate) fn cargo() -> Command {
    tool(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()).as_ref())
}

/// A tool that calls cargo, at the root, as [`cargo`].
pub(crate) fn tool(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    let ours = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name.starts_with("CARGO_BIN_");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
        command.env_remove(name);
    }
    command
}

/// When the commit was made, seconds since 1970: the time of every file of an image, and of a program that is shipped.
pub(crate) fn commit_time_s() -> Result<u64> {
    let output = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(root()).output().context("run git")?;
    ensure!(output.status.success(), "git cannot say when the commit was made: {}", String::from_utf8_lossy(&output.stderr).trim());
    String::from_utf8_lossy(&output.stdout).trim().parse().context("the commit's time")
}
