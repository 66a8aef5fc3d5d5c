//! `sedge login`

use crate::arguments::Context;
use crate::client::Client;
use crate::connection::{config_path, remember};
use crate::failure::Failure;
use crate::style::Tone;
use anyhow::Context as _;
use clap::Args;
use sedge_protocol::api::Status;
use std::process::ExitCode;

/// Remember a fleet for later commands
///
/// Takes --fleet, --token-file (or --token) and --ca-pin, or --fleet-data alone; tries them, and keeps them in
/// `~/.config/sedge/config.toml`, readable by you only.
#[derive(Debug, Args)]
pub(crate) struct Login {}

impl Login {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let fleet = context.connection.resolve()?;
        let status: Status = Client::fleet(&fleet.url, fleet.token.clone(), fleet.trust)?.get("/api/v1/status")?;
        let path = config_path().ok_or_else(|| {
            Failure::configuration("there is no home directory to keep the configuration in", "set HOME or XDG_CONFIG_HOME")
        })?;
        remember(&path, &fleet).with_context(|| format!("write {}", path.display()))?;
        let nodes = format!("{} of {} nodes online", status.online, status.nodes);
        context.output.said("signed in", Tone::Good, &format!("to {} ({nodes}); kept in {}", fleet.url, path.display()));
        if context.output.is_json() {
            context.output.show(&status, |_| String::new())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
