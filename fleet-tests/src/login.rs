//! Signing in to a box over SSH, with the client of this machine.

use crate::process::run;
use anyhow::{Context as _, Result, ensure};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A pair of keys, in files.
#[derive(Debug)]
pub struct Key {
    private: PathBuf,
}

impl Key {
    /// Makes one in `directory`.
    ///
    /// # Errors
    /// When `ssh-keygen` fails.
    pub fn new(directory: &Path, name: &str) -> Result<Self> {
        let private = directory.join(name);
        let made = run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&private))?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Ok(Self { private })
    }

    /// The file with the half that may be known.
    ///
    /// # Errors
    /// When its path is no text.
    pub fn public(&self) -> Result<String> {
        self.private.with_extension("pub").into_os_string().into_string().ok().context("the path of a key is no text")
    }

    /// Runs `command` in the box; what it printed, once it ended well. What was asked before is the same box.
    ///
    /// # Errors
    /// When nobody answers, the key is not taken, the box is another one, or the command fails.
    pub fn ask(&self, at: SocketAddr, command: &str) -> Result<String> {
        let Output { status, stdout, stderr } = self.try_ask(at, command)?;
        ensure!(status.success(), "`{command}` in the box ended with {status}: {}", String::from_utf8_lossy(&stderr).trim());
        Ok(String::from_utf8_lossy(&stdout).trim().to_owned())
    }

    /// [`Key::ask`], however it ends.
    ///
    /// # Errors
    /// When there is no `ssh`.
    pub fn try_ask(&self, at: SocketAddr, command: &str) -> Result<Output> {
        let known = self.private.with_file_name("known-boxes");
        let mut ssh = Command::new("ssh");
        ssh.args([
            "-F",
            "none",
            "-T",
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "ConnectTimeout=30",
            "-o",
            "LogLevel=ERROR",
        ]);
        ssh.args(["-o", "StrictHostKeyChecking=accept-new", "-o", "HostKeyAlias=box", "-o"]);
        ssh.arg(format!("UserKnownHostsFile={}", known.display())).arg("-i").arg(&self.private).env_remove("SSH_AUTH_SOCK");
        run(ssh.args(["-p", &at.port().to_string()]).arg(format!("root@{}", at.ip())).arg(command))
    }
}
