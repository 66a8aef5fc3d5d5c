//! `sedge ls`

use super::MaybeNode;
use crate::arguments::Context;
use crate::style::{Style, Tone};
use crate::table::{Cell, Table};
use crate::text;
use clap::Args;
use sedge_protocol::api::Function;
use sedge_protocol::message::{FunctionReport, FunctionState, Health};
use std::process::ExitCode;

/// List functions and who runs which revision of them
#[derive(Debug, Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    node: MaybeNode,
}

impl Ls {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        if let Some(node) = self.node.client() {
            let reports: Vec<FunctionReport> = node.get("/v1/functions")?;
            context.output.show(&reports, |style| of_node(&reports, text::now_ms(), style))?;
        } else {
            let functions: Vec<Function> = context.connection.client()?.get("/api/v1/functions")?;
            context.output.show(&functions, |style| of_fleet(&functions, text::now_ms(), style))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn of_fleet(functions: &[Function], now_ms: u64, style: Style) -> String {
    let mut table = Table::new(&["FUNCTION", "NEWEST", ">REVISIONS", ">CALLS", ">FAILED", "RUNNING", "NOTE"]);
    for function in functions {
        let running = function.running.iter().map(|running| format!("{}×{}", running.nodes.len(), running.revision.short()));
        let running: Vec<String> = running.collect();
        let nobody = running.is_empty();
        let notes: Vec<String> = [waiting(function), health(&function.health, now_ms)].into_iter().flatten().collect();
        let tone = of_health(&function.health, Tone::Busy);
        table.row([
            Cell::toned(function.name.as_str(), Tone::Strong),
            function.newest.short().into(),
            text::count(function.revisions).into(),
            text::count(function.usage.calls()).into(),
            failed(function.usage.calls_failed),
            if nobody { Cell::toned("nobody", Tone::Dim) } else { Cell::toned(running.join(" "), Tone::Good) },
            Cell::toned(notes.join("; "), tone),
        ]);
    }
    table.render(style, "no functions: `sedge publish` brings the first")
}

fn waiting(function: &Function) -> Option<String> {
    match function.waiting.as_slice() {
        [] => None,
        [one] => Some(format!("{}: {}", one.node, one.reason)),
        [first, rest @ ..] => Some(format!("{}: {} (and {} more)", first.node, first.reason, rest.len())),
    }
}

/// What one node says of its functions.
pub(crate) fn of_node(reports: &[FunctionReport], now_ms: u64, style: Style) -> String {
    let mut table = Table::new(&["FUNCTION", "RUNNING", "STATE", ">CALLS", ">FAILED", ">CPU", "NOTE"]);
    for report in reports {
        let (state, tone, mut note) = state(&report.state);
        if let Some(name) = report.missing_secrets.first().filter(|_| note.is_empty()) {
            note = format!("lacks the secret {name}: sedge secret set {name}");
        }
        let mut of_note = Tone::Plain;
        if let Some(health) = health(&report.health, now_ms) {
            note = if note.is_empty() { health } else { format!("{note}; {health}") };
            of_note = of_health(&report.health, Tone::Dim);
        }
        table.row([
            Cell::toned(report.function.as_str(), Tone::Strong),
            report.running.map_or_else(|| "-".to_owned(), |revision| revision.short()).into(),
            Cell::toned(state, tone),
            text::count(report.totals.calls()).into(),
            failed(report.totals.calls_failed),
            text::micros(report.totals.cpu_us).into(),
            Cell::toned(note, of_note),
        ]);
    }
    table.render(style, "no functions")
}

fn of_health(health: &Health, good: Tone) -> Tone {
    if health.failed_hour > 0 || !health.lost_routes.is_empty() { Tone::Bad } else { good }
}

fn failed(calls: u64) -> Cell {
    Cell::toned(text::count(calls), if calls == 0 { Tone::Dim } else { Tone::Bad })
}

fn state(state: &FunctionState) -> (&'static str, Tone, String) {
    match state {
        FunctionState::Fetching { bytes, total } => ("fetching", Tone::Busy, format!("{} of {}", text::bytes(*bytes), text::bytes(*total))),
        FunctionState::Preparing => ("preparing", Tone::Busy, String::new()),
        FunctionState::Running => ("running", Tone::Good, String::new()),
        FunctionState::Failed { reason } => ("failed", Tone::Bad, reason.clone()),
    }
}

/// `3 failed in the last hour; 2 min ago: trap: unreachable; `other` serves the route /a`
fn health(health: &Health, now_ms: u64) -> Option<String> {
    let failed = health.last_failure.as_ref().map(|last| {
        let last = format!("{}: {}", text::ago(now_ms, last.time_ms), last.reason);
        match health.failed_hour {
            0 => format!("failed {last}"),
            number => format!("{} failed in the last hour; {last}", text::count(number.into())),
        }
    });
    let said: Vec<String> = failed.into_iter().chain(health.lost_routes.iter().map(ToString::to_string)).collect();
    (!said.is_empty()).then(|| said.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::{function, report};
    use sedge_protocol::message::{LastFailure, LostRoute};

    #[test]
    fn functions_are_listed_with_who_runs_and_who_waits() {
        let text = of_fleet(&[function()], 0, Style::PLAIN);
        let short = function().newest.short();
        let expected = format!(
            "FUNCTION  NEWEST        REVISIONS  CALLS  FAILED  RUNNING         NOTE\n\
             hello     {short}          2  1,234       4  2×{short}  gw-3: offline"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_refused_revision_is_shown_with_its_reason() {
        let text = of_node(&[report(FunctionState::Failed { reason: "bad\nwasm".to_owned() })], 0, Style::PLAIN);
        assert!(text.ends_with("failed      0       0  0 µs  bad�wasm"), "{text}");
    }

    #[test]
    fn a_function_that_fails_says_how_often_when_and_why() {
        let last_failure = Some(LastFailure { time_ms: 1000, reason: "trap: unreachable".to_owned() });
        let health = Health { failed_hour: 2, last_failure: last_failure.clone(), ..Health::default() };
        let text = of_fleet(&[Function { health, ..function() }], 6000, Style::PLAIN);
        assert!(text.ends_with("gw-3: offline; 2 failed in the last hour; 5 s ago: trap: unreachable"), "{text}");
        let mut failing = report(FunctionState::Running);
        failing.health = Health { failed_hour: 3, last_failure, ..Health::default() };
        let text = of_node(std::slice::from_ref(&failing), 6000, Style::PLAIN);
        assert!(text.ends_with("running      0       0  0 µs  3 failed in the last hour; 5 s ago: trap: unreachable"), "{text}");
        failing.health.failed_hour = 0;
        let lost = LostRoute { route: "/a/*".parse().unwrap(), served_by: "other".parse().unwrap() };
        assert!(of_node(&[failing.clone()], 7_201_000, Style::PLAIN).ends_with("failed 2 h ago: trap: unreachable"));
        failing.health = Health { lost_routes: vec![lost], ..Health::default() };
        assert!(of_node(&[failing], 0, Style::PLAIN).ends_with("0 µs  `other` serves the route /a/*"));
    }
}
