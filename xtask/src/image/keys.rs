//! The keys that sign what the firmware starts, and what boxes take as a new version.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use sedge_bundle::SigningKey;

use super::Build;
use super::enrolment;
use super::tools::{Tools, output};
use crate::progress;

/// The keys of an image.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// Signs what the firmware starts, PEM.
    pub(crate) key: PathBuf,
    /// Its certificate, PEM.
    pub(crate) certificate: PathBuf,
    /// The certificate as firmware takes it in, `PK.auth`, `KEK.auth` and `db.auth`.
    pub(crate) enrolment: PathBuf,
    /// Signs bundles, PKCS #8.
    bundle: PathBuf,
}

impl Keys {
    /// The key that signs bundles.
    pub(crate) fn bundle(&self) -> Result<SigningKey> {
        let bytes = fs::read(&self.bundle).with_context(|| format!("read {}", self.bundle.display()))?;
        SigningKey::from_pkcs8(&bytes).with_context(|| format!("{}", self.bundle.display()))
    }
}

/// The keys of this machine, made if there are none. They are for development: whoever sells boxes keeps others elsewhere.
pub(crate) fn ensure(build: &Build, tools: &Tools) -> Result<Keys> {
    let directory = build.cache.join("keys");
    let at = |name: &str| directory.join(name);
    let keys = Keys { key: at("boot.key"), certificate: at("boot.crt"), enrolment: at("firmware"), bundle: at("bundle.pk8") };
    fs::create_dir_all(&directory).context("create the directory of keys")?;
    if !keys.certificate.exists() {
        progress::say(&format!("  making a key for development in {}", directory.display()));
        make_boot_key(tools, &keys)?;
    }
    // Made once, because it names the time: two images with one key are the same.
    if !keys.enrolment.exists() {
        enrolment::make(tools, enrolment::Pair { key: &keys.key, certificate: &keys.certificate }, &keys.enrolment)?;
    }
    if !keys.bundle.exists() {
        progress::say(&format!("  making a key for bundles in {}", directory.display()));
        // Whole or not at all, and nobody else ever reads it.
        let beside = directory.join("bundle.pk8.new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).context("keep a key for bundles")?;
        file.write_all(&SigningKey::generate()?).and_then(|()| file.sync_all()).context("keep a key for bundles")?;
        fs::rename(&beside, &keys.bundle).context("keep a key for bundles")?;
    }
    Ok(keys)
}

fn make_boot_key(tools: &Tools, keys: &Keys) -> Result<()> {
    let mut command = tools.command("openssl");
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-sha256", "-nodes", "-days", "7300", "-subj", "/CN=Sedge development/"]);
    output(command.arg("-keyout").arg(&keys.key).arg("-out").arg(&keys.certificate)).context("make a key")?;
    Ok(())
}
