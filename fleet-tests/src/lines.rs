//! Lines out of a machine: the serial line on which a device hangs, and the port of the test's hand inside (`image/tree-test`).

use crate::wait;
use anyhow::{Context as _, Result};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Both lines.
#[derive(Debug)]
pub struct Lines {
    /// The second serial line, `/dev/ttyS1` inside.
    pub serial: Line,
    /// Does what it is told: plugs, pulls, floods.
    pub hand: Line,
}

/// The outer end of a line; the machine connects to it when it is switched on.
#[derive(Debug)]
pub struct Line {
    path: PathBuf,
    listener: UnixListener,
    stream: Option<UnixStream>,
    heard: Vec<u8>,
}

impl Lines {
    /// Lays them below `directory`.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn new(directory: &Path) -> Result<Self> {
        Ok(Self { serial: Line::new(directory.join("line-serial"))?, hand: Line::new(directory.join("line-hand"))? })
    }

    /// What QEMU is told.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let chardev = |id: &str, line: &Line| format!("socket,id={id},path={}", line.path.display());
        let (serial, hand) = (chardev("line-serial", &self.serial), chardev("line-hand", &self.hand));
        let port = "virtserialport,chardev=line-hand,name=sedge.test";
        let serial = ["-chardev", &serial, "-serial", "chardev:line-serial"];
        let hand = ["-device", "virtio-serial-pci", "-chardev", &hand, "-device", port];
        serial.into_iter().chain(hand).map(str::to_owned).collect()
    }
}

impl Line {
    fn new(path: PathBuf) -> Result<Self> {
        let listener = UnixListener::bind(&path).with_context(|| format!("bind {}", path.display()))?;
        listener.set_nonblocking(true)?;
        Ok(Self { path, listener, stream: None, heard: Vec::new() })
    }

    /// Says something into the machine.
    ///
    /// # Errors
    /// When the machine is off.
    pub fn say(&mut self, text: &str) -> Result<()> {
        Ok(self.stream()?.write_all(text.as_bytes())?)
    }

    /// Everything that has come out of the machine.
    ///
    /// # Errors
    /// When the machine is off.
    pub fn heard(&mut self) -> Result<String> {
        let mut bytes = [0; 4096];
        loop {
            match self.stream()?.read(&mut bytes) {
                Ok(count) => {
                    anyhow::ensure!(count > 0, "the machine has let go of {}", self.path.display());
                    self.heard.extend_from_slice(&bytes[..count]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(String::from_utf8_lossy(&self.heard).into_owned()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn stream(&mut self) -> Result<&mut UnixStream> {
        if self.stream.is_none() {
            let (stream, _) = wait::until("the machine has its lines", || match self.listener.accept() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                accepted => Ok(Some(accepted?)),
            })?;
            stream.set_nonblocking(true)?;
            self.stream = Some(stream);
        }
        self.stream.as_mut().context("it is there")
    }
}
