//! A file that an operator puts on the boot partition: the last one that was good goes on when the one that is there has a fault.
//!
//! ```text
//! NAME.toml ─▶ checked
//!               ├─ good ─▶ what is kept of it beside as NAME.last-good.toml ─▶ holds
//!               └─ not ──▶ NAME-fault.txt; the last good one, if it is still good ─▶ holds, else nothing
//! ```
//! The file itself is not changed here.

use super::boot_partition::BootPartition;
use super::files;
use sedge_protocol::strict::{Fault, Faults};
use sedge_provisioning::node_file::{self, NODE_FILE_BYTES_MAX};
use std::fs;
use std::path::Path;

/// Which file it is, and what is done with it.
#[derive(Debug)]
pub(super) struct OperatorFile {
    pub(super) name: &'static str,
    /// The last one that was good, for when the next one is not.
    pub(super) last_good: &'static str,
    /// What a fault is written to, beside the file.
    pub(super) fault: &'static str,
    /// What holds where there was never a good one, for people.
    pub(super) otherwise: &'static str,
    /// Whether the last good one holds on when the file is taken away.
    pub(super) outlives: bool,
    /// What is kept of one that is good.
    pub(super) keep: fn(&str) -> String,
}

/// What lies on the boot partition. A file that is no text is one with a fault.
#[derive(Debug, Default)]
struct Found {
    own: Option<Result<String, Faults>>,
    last_good: Option<String>,
    fault: Option<String>,
}

/// What follows.
#[derive(Debug, Default)]
struct Plan {
    /// What holds.
    text: Option<String>,
    /// What shall lie beside the file.
    last_good: Option<String>,
    fault: Option<String>,
}

impl OperatorFile {
    /// What holds, and what is wrong with the file that is there. Both are noted beside it.
    pub(super) fn take(
        &self,
        boot: &BootPartition,
        check: impl Fn(&str) -> Result<(), Faults>,
    ) -> anyhow::Result<(Option<String>, Option<String>)> {
        let found = boot.read(|boot| self.look(boot))?;
        let plan = self.plan(&found, check);
        if (plan.last_good != found.last_good || plan.fault != found.fault)
            && let Err(error) = boot.write(|boot| self.note(&plan, boot))
        {
            log::error!(file = self.name, reason:% = format!("{error:#}"); "nothing could be noted beside a file of the boot partition");
        }
        Ok((plan.text, plan.fault))
    }

    fn look(&self, boot: &Path) -> anyhow::Result<Found> {
        let whole = |message| Faults { file: self.name.to_owned(), list: vec![Fault { line: 0, message }] };
        let read = |name: &str| files::read(&boot.join(name), NODE_FILE_BYTES_MAX);
        let own = read(self.name)?.map(|bytes| node_file::text(bytes).map_err(whole));
        let last_good = read(self.last_good)?.and_then(|bytes| node_file::text(bytes).ok());
        Ok(Found { own, last_good, fault: fs::read_to_string(boot.join(self.fault)).ok() })
    }

    /// Decides what holds and what is said.
    fn plan(&self, found: &Found, check: impl Fn(&str) -> Result<(), Faults>) -> Plan {
        // Another version of the system may see it otherwise.
        let before = || found.last_good.clone().filter(|text| check(text).is_ok());
        let faults = match found.own.as_ref().map(|own| own.as_ref().map_err(Clone::clone).and_then(|text| check(text).map(|()| text))) {
            Some(Ok(text)) => return Plan { text: Some(text.clone()), last_good: Some((self.keep)(text)), fault: None },
            None if self.outlives => return Plan { text: before(), last_good: found.last_good.clone(), fault: None },
            None => return Plan::default(),
            Some(Err(faults)) => faults,
        };
        let text = before();
        let instead = match text {
            Some(_) => format!("the file as it was before, {}", self.last_good),
            None => self.otherwise.to_owned(),
        };
        let fault = format!("{faults}\nUntil this is mended the node runs with {instead}.\n");
        Plan { text, last_good: found.last_good.clone(), fault: Some(fault) }
    }

    /// Puts both files beside that of the operator, or takes them away.
    fn note(&self, plan: &Plan, boot: &Path) -> anyhow::Result<()> {
        for (name, text) in [(self.last_good, &plan.last_good), (self.fault, &plan.fault)] {
            match text {
                Some(text) if fs::read(boot.join(name)).is_ok_and(|before| before == text.as_bytes()) => {}
                Some(text) => files::replace(&boot.join(name), text.as_bytes())?,
                None => files::remove(&boot.join(name))?,
            }
        }
        Ok(())
    }
}
