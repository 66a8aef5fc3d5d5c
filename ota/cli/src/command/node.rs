//! `sedge node ls` and `sedge node show`; what an operator decides about nodes is in [`super::standing`]

use super::{ls, standing};
use crate::arguments::Context;
use crate::client::query;
use crate::style::{Style, Tone};
use crate::table::{Cell, Table, facts};
use crate::text;
use clap::{Args, Subcommand};
use sedge_protocol::api::{self, NodeState};
use sedge_protocol::image::{OsPhase, OsReport, SlotChange};
use sedge_protocol::message::Vitals;
use sedge_protocol::{NodeId, Standing};
use std::process::ExitCode;

/// The nodes of the fleet
#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    Ls(Ls),
    Show(Show),
    Approve(standing::Approve),
    Quarantine(standing::Quarantine),
    Revoke(standing::Revoke),
    Rm(standing::Rm),
    Label(standing::LabelNode),
}

/// List nodes
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Only those that match a label filter, such as site=berlin
    #[arg(long = "nodes", value_name = "FILTER")]
    filter: Option<String>,
}

/// Show one node: its state, its box and its functions
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Which node
    node: NodeId,
}

impl Node {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        match self {
            Self::Ls(Ls { filter }) => {
                let nodes: Vec<api::Node> = context.connection.client()?.get(&query("/api/v1/nodes", &[("filter", filter.clone())]))?;
                context.output.show(&nodes, |style| list(&nodes, filter.as_deref(), (text::now_ms(), style)))?;
            }
            Self::Show(Show { node }) => {
                let node: api::Node = context.connection.client()?.get(&format!("/api/v1/nodes/{node}"))?;
                context.output.show(&node, |style| describe(&node, text::now_ms(), style))?;
            }
            Self::Approve(approve) => return approve.run(context),
            Self::Quarantine(quarantine) => return quarantine.run(context),
            Self::Revoke(revoke) => return revoke.run(context),
            Self::Rm(rm) => return rm.run(context),
            Self::Label(label) => return label.run(context),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(nodes: &[api::Node], filter: Option<&str>, (now_ms, style): (u64, Style)) -> String {
    let mut table = Table::new(&["NODE", "STATE", "SEEN", ">FUNCTIONS", ">CALLS", "SEDGED", "SYSTEM", "LABELS"]);
    for node in nodes {
        table.row([
            Cell::toned(node.id.as_str(), Tone::Strong),
            state(node),
            seen(node, now_ms).into(),
            text::count(node.functions.len() as u64).into(),
            text::count(node.functions.iter().map(|report| report.totals.calls()).sum()).into(),
            node.daemon.as_str().into(),
            node.os.as_ref().map(|os| os.version.to_string()).unwrap_or_default().into(),
            node.labels.to_string().into(),
        ]);
    }
    match filter.filter(|filter| !filter.is_empty()) {
        Some(filter) => table.render(style, &format!("no node matches `{filter}`")),
        None => table.render(style, "no nodes: `sedge claim create` says how one joins"),
    }
}

fn describe(node: &api::Node, now_ms: u64, style: Style) -> String {
    let epochs = match node.desired_epoch {
        desired if desired == node.reported_epoch => format!("{desired}, answered"),
        desired => format!("{desired}, answered for {}", node.reported_epoch),
    };
    let mut known = vec![
        ("node", Cell::toned(node.id.as_str(), Tone::Strong)),
        ("state", state(node)),
        ("seen", seen(node, now_ms).into()),
        ("labels", node.labels.to_string().into()),
        ("sedged", format!("{} on {}", node.daemon, node.architecture).into()),
        ("enrolled", text::ago(now_ms, node.enrolled_ms).into()),
        ("certificate", format!("ends {}", text::until(now_ms, node.certificate_until_ms)).into()),
        ("desired state", epochs.into()),
    ];
    if node.standing != Standing::Active {
        let since = text::ago(now_ms, node.standing_ms);
        known.insert(2, ("standing", Cell::toned(format!("{}, {since}", node.standing), Tone::Bad)));
    }
    known.extend(vitals(&node.vitals));
    known.extend(node.os.iter().flat_map(|os| system(os, now_ms)));
    format!("{}\n\n{}", facts(style, &known), ls::of_node(&node.functions, now_ms, style))
}

fn state(node: &api::Node) -> Cell {
    match (&node.standing, node.state) {
        (Standing::Active, state) => connection(state),
        // It is refused: whether it is there is not known.
        (Standing::Revoked { .. }, _) => Cell::toned("revoked", Tone::Bad),
        (standing @ (Standing::Pending | Standing::Quarantined { .. }), NodeState::Online) => Cell::toned(standing.word(), Tone::Busy),
        (standing @ (Standing::Pending | Standing::Quarantined { .. }), NodeState::Offline) => {
            Cell::toned(format!("{}, offline", standing.word()), Tone::Bad)
        }
    }
}

fn connection(state: NodeState) -> Cell {
    match state {
        NodeState::Online => Cell::toned("online", Tone::Good),
        NodeState::Offline => Cell::toned("offline", Tone::Bad),
    }
}

fn seen(node: &api::Node, now_ms: u64) -> String {
    node.seen_ms.map_or_else(|| "never".to_owned(), |seen_ms| text::ago(now_ms, seen_ms))
}

/// How the box is, as facts.
pub(crate) fn vitals(vitals: &Vitals) -> Vec<(&'static str, Cell)> {
    let load = format!("{}.{:02} on {} cores", vitals.load_centi / 100, vitals.load_centi % 100, vitals.cores);
    let memory = format!("{} of {}", text::bytes(vitals.memory_used), text::bytes(vitals.memory_total));
    let mut events = format!("{} in, {} waiting", text::count(vitals.events_in), text::count(vitals.events_waiting));
    let letters = if vitals.dead_letters == 1 { "dead letter" } else { "dead letters" };
    for (number, what) in [(vitals.events_dropped, "dropped"), (vitals.dead_letters, letters)] {
        if number > 0 {
            events.push_str(&format!(", {} {what}", text::count(number)));
        }
    }
    let troubled = vitals.dead_letters > 0 || vitals.events_dropped > 0;
    let mut facts = vec![
        ("up for", text::span(vitals.uptime_ms).into()),
        ("load", load.into()),
        ("memory", memory.into()),
        ("events", Cell::toned(events, if troubled { Tone::Busy } else { Tone::Plain })),
    ];
    facts.extend(vitals.store_trouble.as_ref().map(|trouble| ("store", Cell::toned(text::clean(trouble), Tone::Bad))));
    facts.extend(vitals.device_trouble.as_ref().map(|trouble| ("device", Cell::toned(text::clean(trouble), Tone::Bad))));
    facts
}

/// How the operating system stands, as facts.
fn system(os: &OsReport, now_ms: u64) -> Vec<(&'static str, Cell)> {
    let tone = match os.phase {
        OsPhase::Idle | OsPhase::Confirmed => Tone::Good,
        OsPhase::Fetching { .. } | OsPhase::Staged { .. } | OsPhase::Trial { .. } => Tone::Busy,
        OsPhase::RolledBack { .. } | OsPhase::Refused { .. } => Tone::Bad,
    };
    let mut known = vec![
        ("image", format!("{} for {}, slot {}", os.version, os.board, os.slot).into()),
        ("update", Cell::toned(text::clean(&os.phase.to_string()), tone)),
    ];
    known.extend(os.trouble.as_ref().map(|trouble| ("trouble", Cell::toned(text::clean(trouble), Tone::Bad))));
    let slot = |change: &SlotChange| {
        format!("{} in slot {} since {}: {}", change.to, change.slot, text::ago(now_ms, change.time_ms), change.reason)
    };
    known.extend(os.changes.iter().map(|change| ("slot", text::clean(&slot(change)).into())));
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::node;

    #[test]
    fn nodes_are_listed() {
        let expected = "NODE  STATE    SEEN     FUNCTIONS  CALLS  SEDGED  SYSTEM  LABELS\ngw-1  offline  5 s ago          1      0  0.1.0           site=berlin";
        assert_eq!(list(&[node()], None, (6000, Style::PLAIN)), expected);
        assert_eq!(list(&[], Some("site=nope"), (0, Style::PLAIN)), "no node matches `site=nope`");
        assert!(list(&[], None, (0, Style::PLAIN)).contains("sedge claim create"));
    }

    #[test]
    fn a_node_that_is_not_in_order_says_so() {
        let reason = || "two boxes have its key".to_owned();
        for (standing, listed) in [
            (Standing::Pending, "pending, offline"),
            (Standing::Quarantined { reason: reason() }, "quarantined, offline"),
            (Standing::Revoked { reason: reason() }, "revoked"),
        ] {
            let node = api::Node { standing: standing.clone(), ..node() };
            assert!(list(std::slice::from_ref(&node), None, (6000, Style::PLAIN)).contains(listed), "{standing}");
            assert!(describe(&node, 6000, Style::PLAIN).contains(&format!("standing       {standing}, 6 s ago")), "{standing}");
        }
    }

    #[test]
    fn one_node_is_shown_whole() {
        let text = describe(&node(), 6000, Style::PLAIN);
        let expected = "\
node           gw-1
state          offline
seen           5 s ago
labels         site=berlin
sedged         0.1.0 on x86_64
enrolled       6 s ago
certificate    ends in 30 d
desired state  3, answered for 2
up for         60 s
load           1.05 on 4 cores
memory         1.00 GiB of 4.00 GiB
events         1,000 in, 0 waiting, 2 dead letters

FUNCTION  RUNNING";
        assert!(text.starts_with(expected), "{text}");
    }
}
