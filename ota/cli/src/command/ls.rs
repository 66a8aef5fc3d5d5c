//! `sedge ls`

use super::MaybeNode;
use crate::arguments::Context;
use crate::style::{Style, Tone};
use crate::table::{Cell, Table};
use crate::text;
use clap::Args;
use sedge_protocol::api::Function;
use sedge_protocol::message::{FunctionReport, FunctionState};
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
            context.output.show(&reports, |style| of_node(&reports, style))?;
        } else {
            let functions: Vec<Function> = context.connection.client()?.get("/api/v1/functions")?;
            context.output.show(&functions, |style| of_fleet(&functions, style))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn of_fleet(functions: &[Function], style: Style) -> String {
    let mut table = Table::new(&["FUNCTION", "NEWEST", ">REVISIONS", ">CALLS", ">FAILED", "RUNNING", "WAITING"]);
    for function in functions {
        let running = function.running.iter().map(|running| format!("{}×{}", running.nodes.len(), running.revision.short()));
        let running: Vec<String> = running.collect();
        let nobody = running.is_empty();
        let waiting = waiting(function);
        table.row([
            Cell::toned(function.name.as_str(), Tone::Strong),
            function.newest.short().into(),
            text::count(function.revisions).into(),
            text::count(function.usage.calls()).into(),
            failed(function.usage.calls_failed),
            if nobody { Cell::toned("nobody", Tone::Dim) } else { Cell::toned(running.join(" "), Tone::Good) },
            Cell::toned(waiting, Tone::Busy),
        ]);
    }
    table.render(style, "no functions: `sedge publish` brings the first")
}

fn waiting(function: &Function) -> String {
    match function.waiting.as_slice() {
        [] => String::new(),
        [one] => format!("{}: {}", one.node, one.reason),
        [first, rest @ ..] => format!("{}: {} (and {} more)", first.node, first.reason, rest.len()),
    }
}

/// What one node says of its functions.
pub(crate) fn of_node(reports: &[FunctionReport], style: Style) -> String {
    let mut table = Table::new(&["FUNCTION", "RUNNING", "STATE", ">CALLS", ">FAILED", ">CPU", "NOTE"]);
    for report in reports {
        let (state, tone, mut note) = state(&report.state);
        if let Some(name) = report.missing_secrets.first().filter(|_| note.is_empty()) {
            note = format!("lacks the secret {name}: sedge secret set {name}");
        }
        table.row([
            Cell::toned(report.function.as_str(), Tone::Strong),
            report.running.map_or_else(|| "-".to_owned(), |revision| revision.short()).into(),
            Cell::toned(state, tone),
            text::count(report.totals.calls()).into(),
            failed(report.totals.calls_failed),
            text::micros(report.totals.cpu_us).into(),
            note.into(),
        ]);
    }
    table.render(style, "no functions")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::{function, report};

    #[test]
    fn functions_are_listed_with_who_runs_and_who_waits() {
        let text = of_fleet(&[function()], Style::PLAIN);
        let short = function().newest.short();
        let expected = format!(
            "FUNCTION  NEWEST        REVISIONS  CALLS  FAILED  RUNNING         WAITING\n\
             hello     {short}          2  1,234       4  2×{short}  gw-3: offline"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_refused_revision_is_shown_with_its_reason() {
        let text = of_node(&[report(FunctionState::Failed { reason: "bad\nwasm".to_owned() })], Style::PLAIN);
        assert!(text.ends_with("failed      0       0  0 µs  bad�wasm"), "{text}");
    }
}
