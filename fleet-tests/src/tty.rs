//! A serial line with this test at its other end: a pseudo-terminal, by socat.

use crate::wait;
use anyhow::{Context as _, Result};
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// The line. It can be unplugged, and plugged in again under the same path.
#[derive(Debug)]
pub struct Tty {
    path: PathBuf,
    plugged: Option<Plugged>,
}

#[derive(Debug)]
struct Plugged {
    child: Child,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Tty {
    /// A line called `path` that is not there yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, plugged: None }
    }

    /// What it is called.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Plugs it in.
    ///
    /// # Errors
    /// When there is no socat, or no pseudo-terminal.
    pub fn plug(&mut self) -> Result<()> {
        self.unplug()?;
        let terminal = format!("PTY,link={},rawer", self.path.display());
        let mut command = Command::new("socat");
        command.args([&terminal, "STDIO"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start socat: `cargo xtask test` installs it")?;
        let mut out = child.stdout.take().context("socat has no output")?;
        let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
        let ear = Arc::clone(&heard);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut bytes) {
                ear.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..count]);
            }
        });
        self.plugged = Some(Plugged { child, heard });
        wait::until("the serial line is there", || Ok(self.path.exists().then_some(())))
    }

    /// Pulls it out: who has it open is hung up.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub fn unplug(&mut self) -> Result<()> {
        drop(self.plugged.take());
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("remove the link"),
            _removed => Ok(()),
        }
    }

    /// Says something, as what hangs on the line.
    ///
    /// # Errors
    /// When it is not plugged in.
    pub fn say(&mut self, bytes: &[u8]) -> Result<()> {
        let plugged = self.plugged.as_mut().context("the line is not plugged in")?;
        let input = plugged.child.stdin.as_mut().context("socat has no input")?;
        Ok(input.write_all(bytes).and_then(|()| input.flush())?)
    }

    /// What was written to the line since it was plugged in.
    #[must_use]
    pub fn heard(&self) -> String {
        let heard = self.plugged.as_ref().map(|plugged| plugged.heard.lock().unwrap_or_else(PoisonError::into_inner).clone());
        String::from_utf8_lossy(&heard.unwrap_or_default()).into_owned()
    }
}

impl Drop for Plugged {
    fn drop(&mut self) {
        // Gone already is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
