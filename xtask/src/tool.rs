//! Log files of what tools print: the terminal shows one line, the file keeps all of them.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::workspace;

/// The log of one step: `target/xtask/<step>.log`, begun anew each time.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Log {
    pub(crate) fn create(step: &str) -> Result<Self> {
        let dir = workspace::target().join("xtask");
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let path = dir.join(format!("{step}.log"));
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path, file: BufWriter::new(file) })
    }

    /// Adds a line. A log that cannot be written must not stop the work it is about.
    pub(crate) fn line(&mut self, line: &str) {
        writeln!(self.file, "{line}").ok();
    }

    /// Adds to a failed step's error where the whole output is.
    pub(crate) fn explain<T, E: Into<anyhow::Error>>(mut self, result: Result<T, E>, what: &str) -> Result<T> {
        self.file.flush().ok();
        result.map_err(Into::into).with_context(|| format!("{what} (whole output: {})", self.path.display()))
    }
}
