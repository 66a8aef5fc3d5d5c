//! `sedge rollouts`

use crate::arguments::Context;
use crate::style::{Style, Tone};
use crate::table::{Cell, Table};
use crate::text;
use clap::Args;
use sedge_protocol::api::Rollout;
use std::process::ExitCode;

/// List rollouts and how far they are
#[derive(Debug, Args)]
pub(crate) struct Rollouts {}

impl Rollouts {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let rollouts: Vec<Rollout> = context.connection.client()?.get("/api/v1/rollouts")?;
        context.output.show(&rollouts, |style| list(&rollouts, text::now_ms(), style))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Rollouts as a table.
pub(crate) fn list(rollouts: &[Rollout], now_ms: u64, style: Style) -> String {
    let mut table = Table::new(&["ROLLOUT", "FUNCTION", "REVISION", "BEGUN", ">NODES", ">DONE", ">FAILED", ">WAITING", "FILTER"]);
    for rollout in rollouts {
        let number = |number: u64, tone| Cell::toned(text::count(number), if number == 0 { Tone::Dim } else { tone });
        table.row([
            rollout.id.as_str().into(),
            Cell::toned(rollout.function.as_str(), Tone::Strong),
            rollout.revision.short().into(),
            text::ago(now_ms, rollout.created_ms).into(),
            number(rollout.nodes, Tone::Plain),
            number(rollout.done, Tone::Good),
            number(rollout.failed, Tone::Bad),
            number(rollout.waiting, Tone::Busy),
            if rollout.filter.is_empty() { Cell::toned("all nodes", Tone::Dim) } else { rollout.filter.as_str().into() },
        ]);
    }
    table.render(style, "no rollouts: `sedge rollout FUNCTION` begins one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::rollout;

    #[test]
    fn rollouts_are_listed() {
        let text = list(&[rollout(2, 1, 0)], 3000, Style::PLAIN);
        let expected = format!(
            "ROLLOUT  FUNCTION  REVISION      BEGUN    NODES  DONE  FAILED  WAITING  FILTER\nr1       hello     {}  2 s ago      3     2       1        0  all nodes",
            rollout(2, 1, 0).revision.short()
        );
        assert_eq!(text, expected);
    }
}
