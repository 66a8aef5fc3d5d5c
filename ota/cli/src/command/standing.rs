//! `sedge node approve`, `quarantine`, `revoke`, `rm` and `label`

use crate::arguments::Context;
use crate::client::{Client, query};
use crate::failure::{FAILED, Failure};
use crate::style::Tone;
use anyhow::Context as _;
use clap::Args;
use sedge_protocol::api::{LabelChange, Node, NodeState};
use sedge_protocol::label::Label;
use sedge_protocol::{Labels, NodeId, Standing};
use serde_json::json;
use std::process::ExitCode;
use ureq::http::Method;

/// Which nodes: named, or all that match.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Which nodes
    #[arg(value_name = "NODE", required_unless_present = "filter")]
    nodes: Vec<NodeId>,
    /// All nodes that match a label filter, such as site=berlin
    #[arg(long = "nodes", value_name = "FILTER", conflicts_with = "nodes")]
    filter: Option<String>,
}

/// Let a node take part: one that waits for approval, that was quarantined, or that was revoked by mistake
#[derive(Debug, Args)]
pub(crate) struct Approve {
    #[command(flatten)]
    which: Which,
}

/// Give a node nothing new: it goes on with what it runs, reports, and stays connected
#[derive(Debug, Args)]
pub(crate) struct Quarantine {
    #[command(flatten)]
    which: Which,
    /// Why, one line
    #[arg(long, default_value = "by the operator")]
    reason: String,
}

/// Refuse a node from now on, at once and for good
///
/// Its connection is closed, it gets no certificate any more, and no claim that exists today lets its key in. What it runs goes on there.
/// A claim that is made afterwards lets it join again.
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    #[command(flatten)]
    which: Which,
    /// Why, one line; the node shows it
    #[arg(long, default_value = "by the operator")]
    reason: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Forget a node
///
/// Its usage stays: it is billed. Its key is let in by no claim that exists today; one that is made afterwards makes a new node of it.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    #[command(flatten)]
    which: Which,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Give a node labels, or take them away: `sedge node label gate-7 site=berlin canary-`
///
/// They go before those of its claim and of its own configuration. Rollouts that match now move the node.
#[derive(Debug, Args)]
pub(crate) struct LabelNode {
    /// The node, unless --nodes says which, then KEY=VALUE to give and KEY- to take away
    #[arg(required = true, value_name = "NODE|KEY=VALUE|KEY-")]
    words: Vec<String>,
    /// All nodes that match a label filter, such as site=berlin
    #[arg(long = "nodes", value_name = "FILTER")]
    filter: Option<String>,
}

impl Which {
    /// Each node, in the order of the command line or of the ids. None that match is an error: a filter has most likely a fault. An empty one
    /// may be a variable that was not set.
    fn resolve(self, client: &Client) -> anyhow::Result<Vec<NodeId>> {
        let Some(filter) = self.filter else { return Ok(self.nodes) };
        if filter.trim().is_empty() {
            return Err(Failure::usage(
                "the filter is empty, which would be every node",
                "name a label, such as site=berlin, or the nodes",
            )
            .into());
        }
        let nodes: Vec<Node> = client.get(&query("/api/v1/nodes", &[("filter", Some(filter.clone()))]))?;
        if nodes.is_empty() {
            return Err(Failure::usage(format!("no node matches `{filter}`"), "`sedge node ls` shows nodes with their labels").into());
        }
        Ok(nodes.into_iter().map(|node| node.id).collect())
    }
}

impl Approve {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let client = context.connection.client()?;
        let nodes = self.which.resolve(&client)?;
        set(context, &client, &nodes, &Standing::Active)
    }
}

impl Quarantine {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let client = context.connection.client()?;
        let nodes = self.which.resolve(&client)?;
        set(context, &client, &nodes, &Standing::Quarantined { reason: self.reason })
    }
}

impl Revoke {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let client = context.connection.client()?;
        let nodes = self.which.resolve(&client)?;
        if !agreed(context, self.yes, &nodes, "Revoke")? {
            return Ok(ExitCode::from(FAILED));
        }
        set(context, &client, &nodes, &Standing::Revoked { reason: self.reason })
    }
}

impl Rm {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let client = context.connection.client()?;
        let nodes = self.which.resolve(&client)?;
        if !agreed(context, self.yes, &nodes, "Forget")? {
            return Ok(ExitCode::from(FAILED));
        }
        known(&client, &nodes)?;
        for node in &nodes {
            client.delete(&format!("/api/v1/nodes/{node}"))?;
            context.output.said("removed", Tone::Good, &format!("{node}: its usage stays"));
        }
        if context.output.is_json() {
            context.output.show(&json!({ "removed": nodes }), |_| String::new())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl LabelNode {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let (which, change) = self.split()?;
        let client = context.connection.client()?;
        let mut nodes: Vec<Node> = Vec::new();
        for node in which.resolve(&client)? {
            let node: Node = client.send_json(Method::PATCH, &format!("/api/v1/nodes/{node}/labels"), &change)?;
            context.output.said("labelled", Tone::Good, &format!("{}: {}", node.id, node.labels));
            for key in change.remove.iter().filter(|key| node.labels.value(key).is_some()) {
                context.output.note(&format!("`{key}` stays: its claim or its own configuration gives it; {key}=VALUE goes before them"));
            }
            nodes.push(node);
        }
        show(context, &nodes)
    }

    fn split(self) -> anyhow::Result<(Which, LabelChange)> {
        let mut words = self.words;
        let nodes = if self.filter.is_none() { vec![words.remove(0).parse()?] } else { Vec::new() };
        if words.is_empty() {
            return Err(Failure::usage("no label is named", "write KEY=VALUE to give one and KEY- to take one away").into());
        }
        let mut change = LabelChange::default();
        let mut set = Labels::default();
        for word in words {
            match word.strip_suffix('-').filter(|key| !key.contains('=')) {
                Some(key) => change.remove.push(key.to_owned()),
                None => {
                    let Label { key, value } = word.parse()?;
                    set.insert(&key, &value)?;
                }
            }
        }
        Ok((Which { nodes, filter: self.filter }, LabelChange { set, ..change }))
    }
}

/// Of several names one with a fault shall change nothing: what is alone tells by itself.
fn known(client: &Client, nodes: &[NodeId]) -> anyhow::Result<()> {
    for node in nodes.iter().filter(|_| nodes.len() > 1) {
        let _node: serde_json::Value = client.get(&format!("/api/v1/nodes/{node}")).context("nothing was changed")?;
    }
    Ok(())
}

fn set(context: &Context, client: &Client, nodes: &[NodeId], standing: &Standing) -> anyhow::Result<ExitCode> {
    let mut answers: Vec<Node> = Vec::new();
    known(client, nodes)?;
    for node in nodes {
        let node: Node = client.send_json(Method::PUT, &format!("/api/v1/nodes/{node}/standing"), standing)?;
        let tone = if node.standing == Standing::Active { Tone::Good } else { Tone::Busy };
        context.output.said(node.standing.word(), tone, node.id.as_str());
        if node.standing == Standing::Active && node.state == NodeState::Offline {
            context.output.note(&format!(
                "{} is not connected; a box that was revoked asks again within six hours, and when it is started again",
                node.id
            ));
        }
        answers.push(node);
    }
    show(context, &answers)
}

fn show(context: &Context, nodes: &[Node]) -> anyhow::Result<ExitCode> {
    if context.output.is_json() {
        context.output.show(&nodes, |_| String::new())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether somebody wants it. Without anybody to ask it is an error that says so.
fn agreed(context: &Context, yes: bool, nodes: &[NodeId], verb: &str) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    let names = match nodes {
        [one] => one.to_string(),
        [first, ..] => format!("{} nodes, {first} among them", nodes.len()),
        [] => return Ok(true),
    };
    let question = format!("{verb} {names}?");
    if !context.output.can_ask() {
        return Err(Failure::usage(format!("nobody is there to answer: {question}"), "add --yes").into());
    }
    let agreed = context.output.confirm(&question)?;
    if !agreed {
        context.output.said("kept", Tone::Plain, &names);
    }
    Ok(agreed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(words: &[&str], filter: Option<&str>) -> anyhow::Result<(Which, LabelChange)> {
        LabelNode { words: words.iter().map(ToString::to_string).collect(), filter: filter.map(str::to_owned) }.split()
    }

    #[test]
    fn labels_are_given_and_taken_away() {
        let (which, change) = split(&["gate-7", "site=berlin", "canary-", "a-b=c-"], None).unwrap();
        assert_eq!((which.nodes[0].as_str(), which.filter), ("gate-7", None));
        assert_eq!((change.set.to_string().as_str(), change.remove.as_slice()), ("a-b=c-,site=berlin", &["canary".to_owned()][..]));
        let (which, change) = split(&["canary-"], Some("site=berlin")).unwrap();
        assert!(which.nodes.is_empty() && change.remove == ["canary"]);
        for (words, filter) in [(&["gate-7"][..], None), (&["gate-7", "x"], None), (&["Gate", "a=b"], None), (&["gate-7"], Some(""))] {
            assert!(split(words, filter).is_err(), "{words:?}");
        }
    }
}
