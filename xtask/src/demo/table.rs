//! The live table: one row a node, drawn over itself on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use sedge_protocol::usage::Counters;

use super::check::{NodeView, View};

/// How often plain lines are printed.
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// Columns and their widths; the first is aligned to the left.
const COLUMNS: [(&str, usize); 8] = [
    ("node", 6),
    ("events", 9),
    ("invocations", 11),
    ("errors", 6),
    ("calls at node", 13),
    ("calls at fleet", 14),
    ("CPU at node", 11),
    ("CPU at fleet", 12),
];

/// What was drawn and when.
#[derive(Debug)]
pub(crate) struct Table {
    terminal: bool,
    lines: usize,
    last: Option<Instant>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { terminal: io::stdout().is_terminal(), lines: 0, last: None }
    }

    /// Draws what is seen now.
    pub(crate) fn draw(&mut self, view: &View, before: &View, caption: &str) {
        if !self.terminal && self.last.is_some_and(|last| last.elapsed() < PLAIN_EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        let lines = lines(view, before, caption);
        let mut text = String::new();
        if self.terminal && self.lines > 0 {
            text.push_str(&format!("\x1b[{}A\x1b[J", self.lines));
        }
        self.lines = lines.len();
        text.push_str(&lines.join("\n"));
        print(&text);
    }

    /// What is printed next stands below.
    pub(crate) fn leave(&mut self) {
        self.lines = 0;
    }
}

/// Prints a line on standard output.
pub(crate) fn print(text: &str) {
    // Nobody can be told that nobody can be told.
    writeln!(io::stdout(), "{text}").ok();
}

fn lines(view: &View, before: &View, caption: &str) -> Vec<String> {
    let heads: Vec<String> = COLUMNS.iter().map(|(head, _)| (*head).to_owned()).collect();
    let mut lines = vec![String::new(), format!("  {caption}"), row(&heads)];
    lines.extend(view.nodes.iter().map(|node| row(&cells(node, view, before))));
    lines
}

fn cells(node: &NodeView, view: &View, before: &View) -> Vec<String> {
    let (at_node, at_fleet, then) = (node.sum(), view.fleet_sum(&node.name), before.fleet_sum(&node.name));
    let events: u64 = node.acknowledged.iter().sum();
    let errors = at_node.calls_failed + at_node.calls_platform + node.unanswered;
    vec![
        node.name.clone(),
        events.to_string(),
        (at_node.calls_ok + at_node.calls_failed + at_node.calls_platform).to_string(),
        errors.to_string(),
        at_node.calls().to_string(),
        at_fleet.calls().saturating_sub(then.calls()).to_string(),
        seconds(at_node.cpu_us),
        seconds(at_fleet.cpu_us.saturating_sub(then.cpu_us)),
    ]
}

fn row(cells: &[String]) -> String {
    let mut line = String::from(" ");
    for (index, (cell, (_, width))) in cells.iter().zip(COLUMNS).enumerate() {
        line.push_str(&if index == 0 { format!(" {cell:<width$}") } else { format!("  {cell:>width$}") });
    }
    line
}

fn seconds(us: u64) -> String {
    format!("{}.{:03} s", us / 1_000_000, us / 1000 % 1000)
}

/// Sum over all nodes of what ran.
pub(crate) fn total(view: &View) -> Counters {
    let mut total = Counters::default();
    view.nodes.iter().for_each(|node| total.add(&node.sum()));
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let heads: Vec<String> = COLUMNS.iter().map(|(head, _)| (*head).to_owned()).collect();
        let cells: Vec<String> = ["gw-1", "12", "13", "0", "13", "9", "0.004 s", "0.003 s"].map(str::to_owned).to_vec();
        assert_eq!(row(&heads).len(), row(&cells).len());
        assert!(row(&cells).ends_with("0.003 s"));
    }

    #[test]
    fn time_is_shown_in_seconds() {
        assert_eq!(seconds(12_345_678), "12.345 s");
        assert_eq!(seconds(999), "0.000 s");
    }
}
