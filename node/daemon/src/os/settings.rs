//! What an operator says about the node of an image: `sedged.toml` on the boot partition, laid over the one of the image.
//!
//! The file is never changed ([`super::operator_file`]). Without it nothing is laid over, and what was kept of it goes.

use super::boot_partition::BootPartition;
use super::operator_file::OperatorFile;
use super::{claim, files};
use crate::config;
use anyhow::Context as _;
use sedge_provisioning::SshKey;
use sedge_provisioning::node_file::NODE_FILE;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// The file.
const FILE: OperatorFile = OperatorFile {
    name: NODE_FILE,
    last_good: "sedged.last-good.toml",
    fault: "sedged-fault.txt",
    otherwise: "the settings of the image",
    outlives: false,
    keep: str::to_owned,
};
/// Where SSH is.
const LOGIN_PORT: u16 = 22;

/// Publishes what is to be laid over the settings in `image` at `to`. A fault of the operator's file is an error after all was done.
pub(super) fn take(boot: &BootPartition, image: &Path, to: &Path) -> anyhow::Result<()> {
    // A box that was told nothing needs nothing of the image's settings.
    let text = fs::read_to_string(image).with_context(|| format!("read {}", image.display()));
    let name = image.display().to_string();
    let (over, fault) = FILE.take(boot, |over| {
        let text = text.as_deref().unwrap_or_default();
        config::parse_over((&name, text), NODE_FILE, over).map(drop)
    })?;
    match &over {
        Some(over) => claim::show(to, over)?,
        None => files::remove(to)?,
    }
    match fault {
        Some(fault) => Err(anyhow::Error::msg(fault)),
        None => Ok(()),
    }
}

/// Lets the key sign in, and no other; nobody without one.
pub(super) fn admit(path: &Path, key: Option<&SshKey>) -> anyhow::Result<()> {
    let Some(key) = key else { return files::remove(path) };
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(|| format!("create {}", directory.display()))?;
    sedge_store::durable::replace_private(path, format!("{key}\n").as_bytes())?;
    log::warn!("whoever has the key of [debug] in claim.toml can sign in");
    Ok(())
}

/// Writes down for the firewall which ports it has to open beside those that are always open.
pub(super) fn open(path: &Path, ports: &[u16], login: bool) -> anyhow::Result<()> {
    let ports: Vec<String> = ports.iter().copied().chain(login.then_some(LOGIN_PORT)).map(|port| port.to_string()).collect();
    if ports.is_empty() {
        return files::remove(path);
    }
    let text = format!("add element inet sedge opened {{ {} }}\n", ports.join(", "));
    sedge_store::durable::replace_private(path, text.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests;
