//! `sedge usage`

use crate::arguments::Context;
use crate::client::query;
use crate::failure::Failure;
use crate::style::{Style, Tone};
use crate::table::{Cell, Table};
use crate::text;
use clap::Args;
use jiff::Timestamp;
use sedge_protocol::api::{Node, UsageRow};
use sedge_protocol::schedule::Interval;
use sedge_protocol::usage::Counters;
use sedge_protocol::{FunctionName, NodeId};
use std::process::ExitCode;

/// Show the ledger: what ran, where, and what it took
///
/// Windows are whole hours; --since takes those that began at that time or later.
#[derive(Debug, Args)]
pub(crate) struct Usage {
    /// Only this function
    #[arg(long)]
    function: Option<FunctionName>,
    /// Only this node
    #[arg(long)]
    node: Option<NodeId>,
    /// Only since then: a time such as 2026-07-01T00:00:00Z, or how long ago, such as 7d
    #[arg(long)]
    since: Option<String>,
}

impl Usage {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let since_ms = self.since.as_deref().map(|text| parse_since(text, text::now_ms())).transpose()?;
        let path = query(
            "/api/v1/usage",
            &[
                ("function", self.function.as_ref().map(ToString::to_string)),
                ("node", self.node.as_ref().map(ToString::to_string)),
                ("since_ms", since_ms.map(|ms| ms.to_string())),
            ],
        );
        let client = context.connection.client()?;
        let rows: Vec<UsageRow> = client.get(&path)?;
        // The ledger keeps nodes and functions that are gone; who is not in it may be a slip of the pen.
        if let (true, Some(node)) = (rows.is_empty(), &self.node)
            && !client.get::<Vec<Node>>("/api/v1/nodes")?.iter().any(|known| known.id == *node)
        {
            anyhow::bail!("there is no node `{node}`, and there was none that ran anything: `sedge node ls` lists them");
        }
        context.output.show(&rows, |style| list(&rows, style))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn parse_since(text: &str, now_ms: u64) -> Result<u64, Failure> {
    if let Ok(interval) = text.parse::<Interval>() {
        return Ok(now_ms.saturating_sub(interval.as_ms()));
    }
    let moment: Option<Timestamp> = text.parse().ok();
    moment
        .and_then(|moment| u64::try_from(moment.as_millisecond()).ok())
        .ok_or_else(|| Failure::usage(format!("`{text}` is neither a time nor a span"), "write --since 7d or --since 2026-07-01T00:00:00Z"))
}

fn list(rows: &[UsageRow], style: Style) -> String {
    let titles = ["FUNCTION", "REVISION", "NODE", ">OK", ">FAILED", ">NODE'S FAULT", ">SHED", ">CPU", ">MEMORY", ">IN", ">OUT"];
    let mut table = Table::new(&titles);
    let mut sum = Counters::default();
    for row in rows {
        sum.add(&row.usage);
        let who = [row.function.as_str().into(), row.revision.short().into(), row.node.as_str().into()];
        table.row(cells(who, &row.usage));
    }
    if rows.len() > 1 {
        table.row(cells([Cell::toned("all", Tone::Strong), "".into(), "".into()], &sum));
    }
    table.render(style, "no usage")
}

fn cells([function, revision, node]: [Cell; 3], usage: &Counters) -> [Cell; 11] {
    [
        function,
        revision,
        node,
        text::count(usage.calls_ok).into(),
        text::count(usage.calls_failed).into(),
        text::count(usage.calls_platform).into(),
        text::count(usage.calls_shed).into(),
        text::micros(usage.cpu_us).into(),
        text::memory_time(usage.memory_mib_ms).into(),
        text::bytes(usage.bytes_in).into(),
        text::bytes(usage.bytes_out).into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::{revision, usage};

    #[test]
    fn since_is_a_time_or_a_span() {
        assert_eq!(parse_since("1h", 3_600_500).unwrap(), 500);
        assert_eq!(parse_since("1970-01-01T00:00:01Z", 0).unwrap(), 1000);
        assert!(parse_since("yesterday", 0).is_err());
    }

    #[test]
    fn rows_are_summed() {
        let row = |node: &str| UsageRow {
            node: node.parse().unwrap(),
            function: "hello".parse().unwrap(),
            revision: revision().id,
            from_ms: 0,
            usage: usage(),
        };
        let text = list(&[row("gw-1"), row("gw-2")], Style::PLAIN);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[3].starts_with("all") && lines[3].contains("2,460       8"), "{text}");
        assert_eq!(list(&[row("gw-1")], Style::PLAIN).lines().count(), 2);
    }
}
