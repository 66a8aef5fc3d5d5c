//! What the node is told: `sedged.toml`, checked as the box will check it.

use crate::command::run::node::find;
use crate::failure::Failure;
use crate::output::Output;
use anyhow::Context as _;
use sedge_protocol::strict::{Fault, Faults, Reader};
use sedge_provisioning::node_file::{self, IMAGE_SETTINGS, NODE_FILE_BYTES_MAX};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// Exit code of `sedged check-config` for a file with faults.
const FAULTS: i32 = 78;

/// A checked file. There may be passwords in it.
pub(super) struct Settings {
    text: String,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("bytes", &self.text.len()).finish()
    }
}

impl Settings {
    /// Reads the file and has `sedged` check it; where there is no `sedged`, only whether it is TOML.
    pub(super) fn read(path: &Path, output: &Output) -> anyhow::Result<Self> {
        let file = path.display().to_string();
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(NODE_FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        read.with_context(|| format!("read {file}"))?;
        let whole = |message| Faults { file: file.clone(), list: vec![Fault { line: 0, message }] };
        let text = node_file::text(bytes).map_err(whole)?;
        Reader::over(("the image", IMAGE_SETTINGS), &file, &text)?;
        match checked(path)? {
            Some(Ok(())) => {}
            Some(Err(faults)) => return Err(Failure::configuration(faults, "mend the file; docs/node.md has every key").into()),
            None => output.note(&format!("{file} is TOML and was not checked further: there is no `sedged` beside `sedge` or in PATH")),
        }
        Ok(Self { text })
    }

    /// What goes onto the boot partition.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// What `sedged` says of the file; nothing when there is no `sedged`. The inner error is the list of faults.
fn checked(path: &Path) -> anyhow::Result<Option<Result<(), String>>> {
    let directory = tempfile::tempdir().context("make a directory for the image's settings")?;
    let image = directory.path().join("image.toml");
    fs::write(&image, IMAGE_SETTINGS).with_context(|| format!("write {}", image.display()))?;
    let mut command = Command::new(find(None));
    command.args(["check-config", "--config"]).arg(&image).arg("--over").arg(path).stdin(Stdio::null());
    let said = match command.env_remove("SEDGED_DATA_DIR").output() {
        Ok(said) => said,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("run sedged check-config"),
    };
    let talk = String::from_utf8_lossy(&said.stderr).trim().to_owned();
    match said.status.code() {
        Some(0) => Ok(Some(Ok(()))),
        Some(FAULTS) => Ok(Some(Err(talk))),
        _other => anyhow::bail!("sedged check-config ended with {}: {talk}", said.status),
    }
}
