//! The tool root: Debian's own tools in a file system of their own, the same on every host. It builds images, and boots them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

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
pub struct Tools {
    root: PathBuf,
    /// Seen inside under the same path.
    shared: PathBuf,
    epoch_s: u64,
}

impl Tools {
    /// The tool root at `root`; `shared` is seen inside under the same path, and the clock of what writes the time into its result stands at
    /// `epoch_s`, seconds since 1970.
    #[must_use]
    pub fn new(root: &Path, shared: &Path, epoch_s: u64) -> Self {
        Self { root: root.to_owned(), shared: shared.to_owned(), epoch_s }
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A command inside. Paths below the cache are the same there.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
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
    #[must_use]
    pub fn command_at_commit(&self, program: &str) -> Command {
        let mut command = self.command("faketime");
        command.env("FAKETIME_FMT", "%s").args(["-f", &self.epoch_s.to_string(), program]);
        command
    }

    /// Runs a program inside and answers what it printed.
    ///
    /// # Errors
    /// When it cannot be run, or fails: with what it said.
    pub fn run<A: AsRef<OsStr>>(&self, program: &str, arguments: &[A]) -> Result<String> {
        output(self.command(program).args(arguments))
    }
}

/// Runs a command to its end; what it printed, or an error with it.
///
/// # Errors
/// When it cannot be run, or fails: with what it said.
pub fn output(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } = command.output().with_context(|| format!("run {command:?}"))?;
    let stderr = String::from_utf8_lossy(&stderr);
    // The arguments after the script are what a person would type.
    let shown = command.get_args().skip_while(|argument| *argument != "sh").map(OsStr::to_string_lossy);
    ensure!(status.success(), "{} ended with {status}: {}", shown.skip(5).collect::<Vec<_>>().join(" "), stderr.trim());
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}
