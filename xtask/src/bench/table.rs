//! Rows of the table: what was measured, and whether it reaches what was set.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

/// Two series of one figure, taken in turn.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Ratio {
    pub(super) ours: Vec<f64>,
    pub(super) theirs: Vec<f64>,
    /// Whether more is better.
    pub(super) at_least: bool,
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    what: String,
    /// Least, median and most of the figure.
    spread: [f64; 3],
    unit: &'static str,
    /// What it should reach, and whether more is better.
    reach: f64,
    at_least: bool,
    reached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    series: Option<Ratio>,
}

impl Row {
    /// The ratio ours ÷ theirs of each round.
    pub(super) fn ratio(what: &str, unit: &str, ratio: Ratio, reach: f64) -> Self {
        let each = ratio.ours.iter().zip(&ratio.theirs).map(|(ours, theirs)| ours / theirs).collect();
        let what = format!("{what} ({} against {} {unit})", short(median(&ratio.ours)), short(median(&ratio.theirs)));
        let mut row = Self::new(&what, "×", each, (reach, ratio.at_least));
        row.series = Some(ratio);
        row
    }

    /// A figure that should stay below a bound.
    pub(super) fn at_most(what: &str, unit: &'static str, values: Vec<f64>, reach: f64) -> Self {
        Self::new(what, unit, values, (reach, false))
    }

    /// A figure that should stay above a bound.
    pub(super) fn at_least(what: &str, unit: &'static str, values: Vec<f64>, reach: f64) -> Self {
        Self::new(what, unit, values, (reach, true))
    }

    fn new(what: &str, unit: &'static str, values: Vec<f64>, (reach, at_least): (f64, bool)) -> Self {
        let spread = spread(values);
        let reached = if at_least { spread[1] >= reach } else { spread[1] <= reach };
        Self { what: what.to_owned(), spread, unit, reach, at_least, reached, series: None }
    }

    /// The median, with its unit.
    pub(super) fn value(&self) -> String {
        format!("{} {}", short(self.spread[1]), self.unit)
    }
}

fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    match values.as_slice() {
        [] => [f64::NAN; 3],
        all => [all[0], all[all.len() / 2], all[all.len() - 1]],
    }
}

fn median(values: &[f64]) -> f64 {
    spread(values.to_vec())[1]
}

fn short(number: f64) -> String {
    if number >= 100.0 { format!("{number:.0}") } else { format!("{number:.2}") }
}

/// Prints all rows; a figure that was not reached is told, not an error: whoever reads the table decides.
pub(super) fn print(rows: &[Row], json: bool) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, rows)?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{:<86}{:>9}{:>9}{:>9}      reach", "", "least", "median", "most")?;
    for row in rows {
        let [least, median, most] = row.spread.map(short);
        let (sign, mark) = (if row.at_least { "≥" } else { "≤" }, if row.reached { "✓" } else { "✗" });
        writeln!(out, "{:<86}{least:>9}{median:>9}{most:>9} {:<3} {sign} {} {mark}", row.what, row.unit, short(row.reach))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_round_by_round_and_judged_by_its_median() {
        let ratio = Ratio { ours: vec![4.0, 6.0, 30.0], theirs: vec![2.0, 2.0, 10.0], at_least: true };
        let row = Row::ratio("x", "/s", ratio, 2.5);
        assert_eq!(row.spread, [2.0, 3.0, 3.0]);
        assert!(row.reached && !Row::at_most("y", "ms", vec![1.0, 5.0, 6.0], 4.0).reached);
    }
}
