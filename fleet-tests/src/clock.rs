//! The clock that a process sees, by the library of Debian's package `faketime`.

use anyhow::{Context as _, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What the clock of a box shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Clock {
    /// What this machine's does.
    #[default]
    Right,
    /// This moment when the process starts, such as `1970-01-01 00:00:10`, and on from there.
    At(&'static str),
    /// So much more than this machine's, such as `+10y`.
    Ahead(&'static str),
}

impl Clock {
    /// Shows it to a process that is to be started. Its monotonic clock is as it is: boxes have that in order.
    ///
    /// # Errors
    /// When the library is not installed.
    pub fn show(self, command: &mut Command) -> Result<()> {
        let time = match self {
            Self::Right => return Ok(()),
            Self::At(time) => format!("@{time}"),
            Self::Ahead(offset) => offset.to_owned(),
        };
        command.env("LD_PRELOAD", library()?).env("FAKETIME", time).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Ok(())
    }
}

fn library() -> Result<PathBuf> {
    let places = fs::read_dir("/usr/lib").context("list /usr/lib")?.flatten();
    let found = places.map(|place| place.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.is_file());
    found.context("libfaketime is not installed: run `cargo xtask test`, or `apt-get install faketime`")
}
