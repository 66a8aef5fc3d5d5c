//! The keys that sign what the firmware starts.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::Build;
use super::tools::{Tools, output};
use crate::progress;

/// A key and its certificate, PEM.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) key: PathBuf,
    pub(crate) certificate: PathBuf,
}

/// The keys of this machine, made if there are none. They are for development: whoever sells boxes keeps others elsewhere.
pub(crate) fn ensure(build: &Build, tools: &Tools) -> Result<Keys> {
    let directory = build.cache.join("keys");
    let keys = Keys { key: directory.join("boot.key"), certificate: directory.join("boot.crt") };
    if keys.certificate.exists() {
        return Ok(keys);
    }
    progress::say(&format!("  making a key for development in {}", directory.display()));
    fs::create_dir_all(&directory).context("create the directory of keys")?;
    let mut command = tools.command("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-sha256",
        "-nodes",
        "-days",
        "7300",
        "-subj",
        "/CN=Sedge development/",
        "-keyout",
    ]);
    output(command.arg(&keys.key).arg("-out").arg(&keys.certificate)).context("make a key")?;
    Ok(keys)
}
