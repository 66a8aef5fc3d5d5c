//! The tool root: Debian's own tools in a file system of their own, the same on every host.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use super::{Build, base, recipe::Recipe};
use crate::install::{self, Need};
use crate::progress::Step;

/// What the host has to bring.
const NEEDS: [Need; 1] = [Need { program: "mmdebstrap", package: "mmdebstrap" }];

/// Enters the tool root `$1` with the directory `$2` at the same path inside, and runs the rest there.
const ENTER: &str = r#"set -e
root=$1 shared=$2; shift 2
mkdir -p "$root$shared"
mount --rbind /dev "$root/dev"; mount -t proc proc "$root/proc"; mount --rbind /sys "$root/sys"; mount -t tmpfs tmpfs "$root/run"
mount --rbind "$shared" "$root$shared"
cp -L /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || :
cp -L /etc/hosts "$root/etc/hosts" 2>/dev/null || :
exec chroot "$root" /usr/bin/env --chdir="$shared" "$@""#;

/// Programs of the tool root.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    root: PathBuf,
    /// Seen inside under the same path.
    shared: PathBuf,
    epoch_s: u64,
}

/// The tool root of this recipe, made if it is not there yet.
pub(crate) fn ensure(build: &Build, recipe: &Recipe) -> Result<Tools> {
    let step = Step::begin("tools");
    install::ensure(&NEEDS)?;
    let root = build.cache.join(base::keyed("tools", base::SUITE, &recipe.tools));
    let tools = Tools { root, shared: build.cache.clone(), epoch_s: build.epoch_s };
    if tools.root.exists() {
        step.skipped(&format!("{} (kept)", tools.root.display()));
        return Ok(tools);
    }
    step.now(&format!("{} packages of Debian {}", recipe.tools.len(), base::SUITE));
    base::bootstrap(&mut Command::new("mmdebstrap"), &base::Wanted { build, arch: None, packages: &recipe.tools, to: &tools.root })?;
    step.done(&tools.root.display().to_string());
    Ok(tools)
}

impl Tools {
    /// A command inside. Paths below the cache are the same there.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]).args([&self.root, &self.shared]);
        command.env_clear().envs([
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("LC_ALL", "C.UTF-8"),
            ("TZ", "UTC"),
            ("DEBIAN_FRONTEND", "noninteractive"),
        ]);
        command.env("SOURCE_DATE_EPOCH", self.epoch_s.to_string()).arg(program);
        command
    }

    /// A command inside whose clock stands still at the time of the commit, for what writes the time into its result.
    pub(crate) fn command_at_commit(&self, program: &str) -> Command {
        let mut command = self.command("faketime");
        command.env("FAKETIME_FMT", "%s").args(["-f", &self.epoch_s.to_string(), program]);
        command
    }

    /// Runs a program inside and answers what it printed.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, program: &str, arguments: &[A]) -> Result<String> {
        output(self.command(program).args(arguments))
    }
}

/// Runs a command to its end; what it printed, or an error with it.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } = command.output().with_context(|| format!("run {command:?}"))?;
    let stderr = String::from_utf8_lossy(&stderr);
    // The arguments after the script are what a person would type.
    let shown = command.get_args().skip_while(|argument| *argument != "sh").map(OsStr::to_string_lossy);
    ensure!(status.success(), "{} ended with {status}: {}", shown.skip(5).collect::<Vec<_>>().join(" "), stderr.trim());
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Copies files and links of a directory into another, over what is there.
pub(crate) fn overlay(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    let mut copy = Command::new("cp");
    copy.args(["-a", "--no-preserve=ownership", "--remove-destination", "-T"]).args([from, to]);
    let output = copy.output().context("run cp")?;
    ensure!(output.status.success(), "copy {} to {}: {}", from.display(), to.display(), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
