//! `sedge`, as people run it.

use crate::process::{binary, run};
use anyhow::{Context as _, Result};
use std::path::Path;
use std::process::{Command, Output};

/// What one command did.
#[derive(Debug)]
pub struct Done {
    /// Exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `sedge` with `arguments` for the fleet whose data lies in `fleet`.
///
/// # Errors
/// When it cannot be started.
pub fn sedge(fleet: Option<&Path>, arguments: &[&str]) -> Result<Done> {
    let mut command = Command::new(binary("sedge")?);
    command.env("XDG_CONFIG_HOME", "/nonexistent").args(arguments);
    if let Some(data) = fleet {
        command.arg("--fleet-data").arg(data);
    }
    Ok(done(&run(&mut command)?))
}

/// What a process printed and how it ended.
#[must_use]
pub fn done(output: &Output) -> Done {
    Done {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Done {
    /// Its output, when it succeeded.
    ///
    /// # Errors
    /// When it did not.
    pub fn success(self) -> Result<String> {
        anyhow::ensure!(self.code == Some(0), "exit code {:?}\n{}{}", self.code, self.stdout, self.stderr);
        Ok(self.stdout)
    }

    /// Its JSON output, when it succeeded.
    ///
    /// # Errors
    /// When it did not, or the output is something else.
    pub fn json<T: serde::de::DeserializeOwned>(self) -> Result<T> {
        let text = self.success()?;
        serde_json::from_str(&text).with_context(|| format!("read {text}"))
    }
}
