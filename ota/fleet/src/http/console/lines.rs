//! What the console's tables say, line by line, as texts. The templates only place and escape them.

use super::words::{ago, bytes, count, memory_time, milli, span_us};
use crate::fleet::Shared;
use crate::store::StoreError;
use crate::view;
use sedge_protocol::api::{Function, Node, NodeError, NodeState, Status};
use sedge_protocol::image::{OsPhase, OsReport, SlotChange};
use sedge_protocol::message::{FunctionReport, FunctionState};
use sedge_protocol::{RevisionId, Standing};

/// Most errors on the page.
const ERRORS_SHOWN_MAX: u64 = 30;

/// Everything that changes while the page is open.
pub(super) struct Live {
    pub(super) tiles: Vec<Tile>,
    pub(super) nodes: Vec<NodeLine>,
    pub(super) functions: Vec<FunctionLine>,
    pub(super) errors: Vec<ErrorLine>,
    pub(super) version: String,
}

/// One number at the top.
pub(super) struct Tile {
    pub(super) key: &'static str,
    pub(super) label: &'static str,
    pub(super) value: String,
    pub(super) note: String,
}

pub(super) struct NodeLine {
    pub(super) id: String,
    pub(super) dot: &'static str,
    pub(super) state: String,
    pub(super) labels: Vec<String>,
    pub(super) functions: Vec<Chip>,
    pub(super) seen: String,
    pub(super) memory: String,
    pub(super) memory_percent: u64,
    pub(super) load: String,
    pub(super) events: String,
    pub(super) trouble: String,
    pub(super) machine: String,
    /// The operating system: version, slot and how far an update is. Empty when the node does not keep one.
    pub(super) system: String,
    pub(super) system_dot: &'static str,
    /// The last changes of the slot that runs.
    pub(super) system_changes: String,
}

/// One function on a node.
pub(super) struct Chip {
    pub(super) dot: &'static str,
    pub(super) name: String,
    pub(super) revision: String,
    pub(super) title: String,
}

pub(super) struct FunctionLine {
    pub(super) name: String,
    pub(super) newest: String,
    pub(super) revisions: String,
    pub(super) rate: String,
    pub(super) calls: String,
    pub(super) failed: String,
    pub(super) has_failed: bool,
    pub(super) cpu: String,
    pub(super) memory: String,
    pub(super) traffic: String,
    pub(super) running: Vec<RunningLine>,
    pub(super) waiting: Vec<WaitingLine>,
    pub(super) waiting_more: usize,
}

pub(super) struct RunningLine {
    pub(super) revision: String,
    pub(super) is_newest: bool,
    pub(super) count: String,
    pub(super) nodes: String,
}

pub(super) struct WaitingLine {
    pub(super) node: String,
    pub(super) revision: String,
    pub(super) reason: String,
    pub(super) dot: &'static str,
}

pub(super) struct ErrorLine {
    pub(super) when: String,
    pub(super) node: String,
    pub(super) function: String,
    pub(super) revision: String,
    pub(super) reason: String,
}

impl Live {
    pub(super) async fn of(shared: &Shared) -> Result<Self, StoreError> {
        let status = view::status(shared).await?;
        let nodes = view::nodes(shared).await?;
        let functions = view::functions(shared).await?;
        let errors = shared.store.errors(ERRORS_SHOWN_MAX).await?;
        Ok(Self {
            tiles: tiles(&status),
            nodes: nodes.iter().map(|node| NodeLine::of(node, status.time_ms)).collect(),
            functions: functions.iter().map(|function| FunctionLine::of(function, &status)).collect(),
            errors: errors.iter().map(|error| ErrorLine::of(error, status.time_ms)).collect(),
            version: status.version,
        })
    }
}

fn tiles(status: &Status) -> Vec<Tile> {
    let usage = &status.usage;
    let failed = usage.calls_failed;
    vec![
        Tile { key: "rate", label: "Invocations per second", value: milli(status.calls_per_second_milli), note: String::new() },
        Tile { key: "online", label: "Nodes online", value: count(status.online), note: format!("of {}", count(status.nodes)) },
        Tile { key: "calls", label: "Invocations metered", value: count(usage.calls()), note: format!("{} failed", count(failed)) },
        Tile { key: "cpu", label: "CPU time metered", value: span_us(usage.cpu_us), note: memory_time(usage.memory_mib_ms) },
    ]
}

impl NodeLine {
    fn of(node: &Node, now_ms: u64) -> Self {
        let vitals = &node.vitals;
        let online = node.state == NodeState::Online;
        let behind = node.reported_epoch < node.desired_epoch;
        let (dot, state) = match (online, behind) {
            (true, false) => ("good", "online".to_owned()),
            (true, true) => ("busy", "changing".to_owned()),
            (false, _) => ("off", "offline".to_owned()),
        };
        let (dot, state) = match &node.standing {
            Standing::Active => (dot, state),
            Standing::Pending => ("busy", format!("{state}, waits for approval")),
            Standing::Quarantined { .. } => ("bad", format!("{state}, {}", node.standing)),
            Standing::Revoked { .. } => ("bad", node.standing.to_string()),
        };
        let mut trouble = Vec::new();
        let letters = if vitals.dead_letters == 1 { "dead letter" } else { "dead letters" };
        for (number, word) in [(vitals.events_waiting, "waiting"), (vitals.events_dropped, "dropped"), (vitals.dead_letters, letters)] {
            if number > 0 {
                trouble.push(format!("{} {word}", count(number)));
            }
        }
        trouble.extend(vitals.store_trouble.clone());
        trouble.extend(vitals.device_trouble.as_ref().map(|reason| format!("device {reason}")));
        let has_vitals = vitals.memory_total > 0;
        Self {
            id: node.id.to_string(),
            dot,
            state,
            labels: node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            functions: node.functions.iter().map(|report| Chip::of(report, now_ms)).collect(),
            seen: node.seen_ms.map_or_else(|| "never".to_owned(), |seen_ms| ago(seen_ms, now_ms)),
            memory: if has_vitals { format!("{} of {}", bytes(vitals.memory_used), bytes(vitals.memory_total)) } else { "–".to_owned() },
            memory_percent: vitals.memory_used.saturating_mul(100).checked_div(vitals.memory_total).unwrap_or(0).min(100),
            load: if has_vitals { format!("{}.{:02}", vitals.load_centi / 100, vitals.load_centi % 100) } else { "–".to_owned() },
            events: count(vitals.events_in),
            trouble: trouble.join(", "),
            machine: [node.architecture.as_str(), node.daemon.as_str()]
                .into_iter()
                .filter(|text| !text.is_empty())
                .collect::<Vec<_>>()
                .join(" · "),
            system: node.os.as_ref().map(system).unwrap_or_default(),
            system_dot: node.os.as_ref().map_or("off", system_dot),
            system_changes: node.os.as_ref().map(|os| changes(os, now_ms)).unwrap_or_default(),
        }
    }
}

/// What runs, from where, and how far the next one is.
fn system(os: &OsReport) -> String {
    let trouble = os.trouble.as_ref().map(|trouble| format!(" · {trouble}")).unwrap_or_default();
    format!("system {} · slot {} · {}{trouble}", os.version, os.slot, os.phase)
}

fn system_dot(os: &OsReport) -> &'static str {
    match os.phase {
        _ if os.trouble.is_some() => "bad",
        OsPhase::RolledBack { .. } | OsPhase::Refused { .. } => "bad",
        OsPhase::Fetching { .. } | OsPhase::Staged { .. } | OsPhase::Trial { .. } => "busy",
        OsPhase::Idle | OsPhase::Confirmed => "good",
    }
}

/// One line for each change of the slot, the newest first.
fn changes(os: &OsReport, now_ms: u64) -> String {
    let lines = os.changes.iter().map(|change| {
        let SlotChange { time_ms, to, slot, reason, .. } = change;
        format!("{}: {to} in slot {slot}, {reason}", ago(*time_ms, now_ms))
    });
    lines.collect::<Vec<_>>().join("\n")
}

impl Chip {
    fn of(report: &FunctionReport, now_ms: u64) -> Self {
        let health = &report.health;
        let (dot, mut said) = match &report.state {
            FunctionState::Running if !report.missing_secrets.is_empty() => {
                ("bad", format!("running, lacks the secret {}: set it on the node", report.missing_secrets[0]))
            }
            FunctionState::Running if health.failed_hour > 0 || !health.lost_routes.is_empty() => ("busy", "running".to_owned()),
            FunctionState::Running => ("good", "running".to_owned()),
            FunctionState::Preparing => ("busy", "compiling".to_owned()),
            FunctionState::Fetching { bytes, total } => ("busy", format!("fetching {} %", bytes.saturating_mul(100) / (*total).max(1))),
            FunctionState::Failed { reason } => ("bad", format!("refused: {reason}")),
        };
        if let Some(last) = &health.last_failure {
            let (failed, when) = (count(health.failed_hour.into()), ago(last.time_ms, now_ms));
            said.push_str(&format!("; {failed} failed in the last hour, the last {when}: {}", last.reason));
        }
        for lost in &health.lost_routes {
            said.push_str(&format!("; {lost}"));
        }
        let revision = report.running.map_or_else(|| "–".to_owned(), short);
        Self { dot, name: report.function.to_string(), title: said, revision }
    }
}

impl FunctionLine {
    /// Most nodes that are named under what they wait for.
    const WAITING_SHOWN_MAX: usize = 12;

    fn of(function: &Function, status: &Status) -> Self {
        let usage = &function.usage;
        let rate = status.by_function.iter().find(|sum| sum.function == function.name).map_or(0, |sum| sum.calls_per_second_milli);
        let running = function.running.iter().map(|line| RunningLine {
            revision: short(line.revision),
            is_newest: line.revision == function.newest,
            count: count(line.nodes.len() as u64),
            nodes: line.nodes.iter().take(50).map(ToString::to_string).collect::<Vec<_>>().join(", "),
        });
        let waiting = function.waiting.iter().take(Self::WAITING_SHOWN_MAX).map(|line| WaitingLine {
            node: line.node.to_string(),
            revision: line.assigned.map_or_else(|| "removal".to_owned(), short),
            dot: if line.reason.starts_with("refused") {
                "bad"
            } else if line.reason == "offline" {
                "off"
            } else {
                "busy"
            },
            reason: line.reason.clone(),
        });
        Self {
            name: function.name.to_string(),
            newest: short(function.newest),
            revisions: count(function.revisions),
            rate: milli(rate),
            calls: count(usage.calls()),
            failed: count(usage.calls_failed),
            has_failed: usage.calls_failed > 0,
            cpu: span_us(usage.cpu_us),
            memory: memory_time(usage.memory_mib_ms),
            traffic: format!("{} in, {} out", bytes(usage.bytes_in), bytes(usage.bytes_out)),
            running: running.collect(),
            waiting: waiting.collect(),
            waiting_more: function.waiting.len().saturating_sub(Self::WAITING_SHOWN_MAX),
        }
    }
}

impl ErrorLine {
    fn of(error: &NodeError, now_ms: u64) -> Self {
        Self {
            when: ago(error.time_ms, now_ms),
            node: error.node.to_string(),
            function: error.function.to_string(),
            revision: error.revision.map(short).unwrap_or_default(),
            reason: error.reason.clone(),
        }
    }
}

fn short(revision: RevisionId) -> String {
    revision.short()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_says_what_its_system_is_and_how_it_came_to_be() {
        let version = |text: &str| text.parse().unwrap();
        let change = SlotChange {
            time_ms: 0,
            from: version("1"),
            to: version("2"),
            slot: "b".to_owned(),
            reason: "updated by rollout 7".to_owned(),
        };
        let phase = OsPhase::Fetching { version: version("3"), bytes: 5, total: 9 };
        let report = |phase, trouble| OsReport {
            board: "x".to_owned(),
            slot: "b".to_owned(),
            version: version("2"),
            phase,
            trouble,
            changes: vec![change.clone()],
        };
        let os = report(phase, None);
        assert_eq!(system(&os), "system 2 · slot b · fetching 3, 5 of 9 bytes");
        assert_eq!((system_dot(&os), changes(&os, 60_000)), ("busy", format!("{}: 2 in slot b, updated by rollout 7", ago(0, 60_000))));
        let os = report(OsPhase::Confirmed, Some("disk".to_owned()));
        assert_eq!((system_dot(&os), system(&os).as_str()), ("bad", "system 2 · slot b · confirmed · disk"));
    }
}
