//! `sedge rm`

use super::MaybeNode;
use crate::arguments::Context;
use crate::client::Client;
use crate::failure::{FAILED, Failure};
use crate::style::Tone;
use crate::text;
use clap::Args;
use sedge_protocol::FunctionName;
use sedge_protocol::api::Revision;
use sedge_protocol::local::Kept;
use sedge_protocol::message::FunctionReport;
use serde_json::json;
use std::process::ExitCode;

const ON_A_NODE: &str = "state lies on the nodes and not at the fleet: once they have dropped the function, `sedge rm FUNCTION --state --node` \
                         on each of them removes it";

/// Take a function off every node
///
/// Its revisions, its usage and what it keeps on the nodes stay. Nodes that are offline drop it when they return. With --node it is
/// taken off one node without a fleet, with --state too together with all that the node keeps for it.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Which function
    function: FunctionName,
    /// Remove also what the node keeps for it: key-value stores, objects, waiting events, asynchronous calls, dead letters, core dumps (only with --node)
    #[arg(long)]
    state: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    node: MaybeNode,
}

impl Rm {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let function = &self.function;
        if let Some(node) = self.node.client() {
            return self.off_node(&node, context);
        }
        if self.state {
            return Err(Failure::usage(format!("the fleet cannot remove the state of {function}"), ON_A_NODE).into());
        }
        let client = context.connection.client()?;
        let exists = || {
            let _revisions: Vec<Revision> = client.get(&format!("/api/v1/functions/{function}/revisions"))?;
            Ok(())
        };
        if !self.agreed(context, &format!("that {function} goes"), exists, &format!("Take {function} off every node?"))? {
            return Ok(ExitCode::from(FAILED));
        }
        client.delete(&format!("/api/v1/functions/{function}"))?;
        if context.output.is_json() {
            context.output.show(&json!({ "removed": function }), |_| String::new())?;
        }
        context.output.said("removed", Tone::Good, &format!("{function}: no node runs it once it has heard"));
        Ok(ExitCode::SUCCESS)
    }

    fn off_node(&self, node: &Client, context: &Context) -> anyhow::Result<ExitCode> {
        let function = &self.function;
        let here = node.get::<Vec<FunctionReport>>("/v1/functions")?.iter().any(|report| report.function == *function);
        let kept: Kept = node.get(&format!("/v1/functions/{function}/state"))?;
        if !here && (!self.state || kept.is_nothing()) {
            let what = format!("no function called `{function}` is on this node");
            let hint = if kept.is_nothing() { "`sedge ls --node` lists those that are" } else { "its state is: add --state" };
            return Err(Failure::Refused { status: 404, error: what, hint: Some(hint.to_owned()) }.into());
        }
        let (what, question) = if self.state {
            let state = describe(&kept);
            (format!("that {function} goes with its state ({state})"), format!("Take {function} off this node, with its state ({state})?"))
        } else {
            (format!("that {function} goes"), format!("Take {function} off this node? What it keeps stays: {}", describe(&kept)))
        };
        if !self.agreed(context, &what, || Ok(()), &question)? {
            return Ok(ExitCode::from(FAILED));
        }
        let removed: Option<Kept> = match (here, self.state) {
            (true, true) => Some(node.delete_json(&format!("/v1/functions/{function}?state=true"))?),
            (false, _) => Some(node.delete_json(&format!("/v1/functions/{function}/state"))?),
            (true, false) => {
                node.delete(&format!("/v1/functions/{function}"))?;
                None
            }
        };
        if context.output.is_json() {
            context.output.show(&json!({ "removed": function, "state": removed }), |_| String::new())?;
        }
        let said = removed.map_or_else(|| format!("{function}; what it kept stays"), |kept| format!("{function} and {}", describe(&kept)));
        context.output.said("removed", Tone::Good, &said);
        Ok(ExitCode::SUCCESS)
    }

    /// Whether somebody wants it. Without anybody to ask it is an error that says so.
    fn agreed(&self, context: &Context, what: &str, exists: impl FnOnce() -> anyhow::Result<()>, question: &str) -> anyhow::Result<bool> {
        if self.yes {
            return Ok(true);
        }
        if !context.output.can_ask() {
            return Err(Failure::usage(format!("nobody is there to confirm {what}"), "add --yes").into());
        }
        exists()?;
        let agreed = context.output.confirm(question)?;
        if !agreed {
            context.output.said("kept", Tone::Plain, self.function.as_str());
        }
        Ok(agreed)
    }
}

/// `12 keys of 3.40 KiB, objects of 2.00 KiB, 3 waiting events, 1 dead letter`
fn describe(kept: &Kept) -> String {
    let some = |number: u64, one: &str, many: &str| match number {
        0 => None,
        1 => Some(format!("1 {one}")),
        number => Some(format!("{} {many}", text::count(number))),
    };
    let parts = [
        some(kept.keys, "key", "keys").map(|keys| format!("{keys} of {}", text::bytes(kept.bytes))),
        (kept.blob_bytes > 0).then(|| format!("objects of {}", text::bytes(kept.blob_bytes))),
        some(kept.events, "waiting event", "waiting events"),
        some(kept.calls, "asynchronous call", "asynchronous calls"),
        some(kept.dead_letters, "dead letter", "dead letters"),
        some(kept.core_dumps, "core dump", "core dumps"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_is_counted_in_words() {
        assert_eq!(describe(&Kept::default()), "nothing");
        let kept = Kept { keys: 12, bytes: 3482, blob_bytes: 2048, events: 3, calls: 2, dead_letters: 1, core_dumps: 2 };
        let said = "12 keys of 3.40 KiB, objects of 2.00 KiB, 3 waiting events, 2 asynchronous calls, 1 dead letter, 2 core dumps";
        assert_eq!(describe(&kept), said);
    }
}
