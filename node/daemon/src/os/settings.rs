//! What an operator says about the node of an image: `sedged.toml` on the boot partition, laid over the one of the image.
//!
//! ```text
//! sedged.toml ─▶ checked as the daemon checks it
//!                 ├─ good ─▶ kept beside as sedged.last-good.toml ─▶ /run/sedge/settings.toml
//!                 └─ not ──▶ sedged-fault.txt; the last good one, if it is still good ─▶ /run/sedge/settings.toml, else nothing: the image's own
//! ```
//! The file is never changed. Without it nothing is laid over, and what was kept of it goes.

use super::boot_partition::BootPartition;
use super::{claim, files};
use crate::config;
use anyhow::Context as _;
use sedge_protocol::strict::{Fault, Faults};
use sedge_provisioning::SshKey;
use sedge_provisioning::node_file::{self, NODE_FILE, NODE_FILE_BYTES_MAX};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// The last one that was good, for when the next one is not.
const LAST_GOOD: &str = "sedged.last-good.toml";
/// What a fault is written to, beside the file.
const FAULT_FILE: &str = "sedged-fault.txt";
/// Where SSH is.
const LOGIN_PORT: u16 = 22;

/// What lies on the boot partition. A file that is no text is one with a fault.
#[derive(Debug, Default)]
struct Found {
    own: Option<Result<String, Faults>>,
    last_good: Option<String>,
    fault: Option<String>,
}

/// What follows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// What is laid over the image's settings.
    over: Option<String>,
    /// What shall lie beside the file.
    last_good: Option<String>,
    fault: Option<String>,
}

/// Publishes what is to be laid over the settings in `image` at `to`. A fault of the operator's file is an error after all was done.
pub(super) fn take(boot: &BootPartition, image: &Path, to: &Path) -> anyhow::Result<()> {
    let found = boot.read(Found::look)?;
    // A box that was told nothing needs nothing of the image's settings.
    let text = match found.own {
        Some(_) => fs::read_to_string(image).with_context(|| format!("read {}", image.display()))?,
        None => String::new(),
    };
    let name = image.display().to_string();
    let plan = plan(&found, |over| config::parse_over((&name, &text), NODE_FILE, over).map(drop));
    if plan.last_good != found.last_good || plan.fault != found.fault {
        boot.write(|boot| plan.note(boot))?;
    }
    match &plan.over {
        Some(over) => claim::show(to, over)?,
        None => files::remove(to)?,
    }
    match plan.fault {
        Some(fault) => Err(anyhow::Error::msg(fault)),
        None => Ok(()),
    }
}

/// Decides what runs and what is said.
fn plan(found: &Found, check: impl Fn(&str) -> Result<(), Faults>) -> Plan {
    let Some(own) = &found.own else { return Plan::default() };
    let faults = match own.as_ref().map_err(Clone::clone).and_then(|text| check(text).map(|()| text)) {
        Ok(text) => return Plan { over: Some(text.clone()), last_good: Some(text.clone()), fault: None },
        Err(faults) => faults,
    };
    let last_good = found.last_good.clone();
    // Another version of the system may see it otherwise.
    let over = last_good.clone().filter(|text| check(text).is_ok());
    let instead = match over {
        Some(_) => format!("the file as it was before, {LAST_GOOD}"),
        None => "the settings of the image".to_owned(),
    };
    Plan { over, last_good, fault: Some(format!("{faults}\nUntil this is mended the node runs with {instead}.\n")) }
}

impl Found {
    fn look(boot: &Path) -> anyhow::Result<Self> {
        let own = files::read(&boot.join(NODE_FILE), NODE_FILE_BYTES_MAX)?.map(|bytes| node_file::text(bytes).map_err(whole_file));
        let last_good = files::read(&boot.join(LAST_GOOD), NODE_FILE_BYTES_MAX)?.and_then(|bytes| node_file::text(bytes).ok());
        Ok(Self { own, last_good, fault: fs::read_to_string(boot.join(FAULT_FILE)).ok() })
    }
}

impl Plan {
    /// Puts both files beside that of the operator, or takes them away.
    fn note(&self, boot: &Path) -> anyhow::Result<()> {
        for (name, text) in [(LAST_GOOD, &self.last_good), (FAULT_FILE, &self.fault)] {
            match text {
                Some(text) if fs::read(boot.join(name)).is_ok_and(|before| before == text.as_bytes()) => {}
                Some(text) => files::replace(&boot.join(name), text.as_bytes())?,
                None => files::remove(&boot.join(name))?,
            }
        }
        Ok(())
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

fn whole_file(message: String) -> Faults {
    Faults { file: NODE_FILE.to_owned(), list: vec![Fault { line: 0, message }] }
}

#[cfg(test)]
mod tests;
