//! `sedge rm`

use crate::arguments::Context;
use crate::failure::{FAILED, Failure};
use crate::style::Tone;
use clap::Args;
use sedge_protocol::FunctionName;
use sedge_protocol::api::Revision;
use serde_json::json;
use std::process::ExitCode;

/// Take a function off every node
///
/// Its revisions and its usage stay. Nodes that are offline drop it when they return.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Which function
    function: FunctionName,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

impl Rm {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let function = &self.function;
        let client = context.connection.client()?;
        if !self.yes {
            if !context.output.can_ask() {
                return Err(Failure::usage(format!("nobody is there to confirm that {function} goes"), "add --yes").into());
            }
            let _exists: Vec<Revision> = client.get(&format!("/api/v1/functions/{function}/revisions"))?;
            if !context.output.confirm(&format!("Take {function} off every node?"))? {
                context.output.said("kept", Tone::Plain, function.as_str());
                return Ok(ExitCode::from(FAILED));
            }
        }
        client.delete(&format!("/api/v1/functions/{function}"))?;
        if context.output.is_json() {
            context.output.show(&json!({ "removed": function }), |_| String::new())?;
        }
        context.output.said("removed", Tone::Good, &format!("{function}: no node runs it once it has heard"));
        Ok(ExitCode::SUCCESS)
    }
}
