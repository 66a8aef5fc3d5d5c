//! `sedge test`: the cases of a project, on a node of its own.
//!
//! ```text
//! tests/*.toml ─▶ cases ─┐
//! sources ─▶ artifact ───┼─▶ sedged (a directory that goes with it) ─▶ one trace a case, from the state it names ─▶ check ─▶ report
//! ```
//! The function gets no triggers there: only the case starts it, and nothing it publishes comes back to it.

mod case;
mod expect;
mod matcher;
mod secret;

use super::run::node::{LocalNode, Serve};
use crate::arguments::Context;
use crate::failure::{FAILED, Failure};
use crate::output::Output;
use crate::project::{self, Artifact};
use crate::style::{Style, Tone};
use crate::{text, trace_view};
use case::Case;
use clap::Args;
use expect::Mismatch;
use secret::{Keeper, Secrets};
use sedge_protocol::Manifest;
use sedge_protocol::local::TraceRequest;
use sedge_protocol::manifest::SecretName;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Run the cases of a project: tests/*.toml
///
/// Each begins with the state that it names and nothing else, on a node of their own. Exits with 1 when one fails.
#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Directory with a `function.toml` and `tests/*.toml`
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Only cases whose names contain this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// The node daemon [default: beside `sedge`, else in PATH]
    #[arg(long, value_name = "FILE", env = "SEDGED")]
    sedged: Option<PathBuf>,
}

/// What became of all cases.
#[derive(Debug, Serialize)]
struct Report {
    passed: usize,
    failed: usize,
    cases: Vec<Outcome>,
}

/// What became of one.
#[derive(Debug, Serialize)]
struct Outcome {
    name: String,
    passed: bool,
    time_us: u64,
    mismatches: Vec<Mismatch>,
    /// Secrets that the manifest names and nobody gave a value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing_secrets: Vec<SecretName>,
    /// What the function wrote, for one that failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    log: Vec<String>,
}

impl Test {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let cases = self.wanted(case::read_all(&self.dir)?)?;
        let keeper = Keeper::new(Secrets::read(&self.dir)?);
        let artifact = project::load(&self.dir, None, &context.output)?;
        Keeper::check(&cases, &artifact.manifest)?;
        for name in keeper.missing(&cases, &artifact.manifest) {
            let how = format!("`{name} = \"…\"` in {}/{}, or `secrets` of the case", case::DIRECTORY, secret::FILE);
            context.output.said(
                "no value",
                Tone::Busy,
                &format!("for the secret {name}: a function that reads it fails; give it by {how}"),
            );
        }
        let node = LocalNode::start(self.sedged.as_deref(), Serve::default())?;
        let mut bench = Bench { node, artifact, keeper, given: None };
        let mut report = Report { passed: 0, failed: 0, cases: Vec::with_capacity(cases.len()) };
        for case in &cases {
            let outcome = bench.try_case(case, &context.output)?;
            if !context.output.is_json() {
                context.output.line(&outcome, |style| describe(&outcome, style))?;
            }
            *if outcome.passed { &mut report.passed } else { &mut report.failed } += 1;
            report.cases.push(outcome);
        }
        bench.node.stop()?;
        if context.output.is_json() {
            context.output.show(&report, |_| String::new())?;
        }
        let tone = if report.failed == 0 { Tone::Good } else { Tone::Bad };
        context.output.said("tested", tone, &format!("{} passed, {} failed", report.passed, report.failed));
        Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
    }

    fn wanted(&self, mut cases: Vec<Case>) -> anyhow::Result<Vec<Case>> {
        let Some(filter) = &self.filter else { return Ok(cases) };
        let names: Vec<String> = cases.iter().map(|case| case.name.clone()).collect();
        cases.retain(|case| case.name.contains(filter));
        if cases.is_empty() {
            return Err(Failure::usage(format!("no case has `{filter}` in its name"), format!("there are: {}", names.join(", "))).into());
        }
        Ok(cases)
    }
}

/// A node with the function as the last case wanted it.
struct Bench {
    node: LocalNode,
    artifact: Artifact,
    keeper: Keeper,
    given: Option<Manifest>,
}

impl Bench {
    fn try_case(&mut self, case: &Case, output: &Output) -> anyhow::Result<Outcome> {
        let mut manifest = self.artifact.manifest.clone();
        manifest.triggers.clear();
        manifest.settings.extend(case.settings.clone());
        if self.given.as_ref() != Some(&manifest) {
            self.node.give(&Artifact { manifest: manifest.clone(), ..self.artifact.clone() }, output)?;
            self.given = Some(manifest);
        }
        self.keeper.give(self.node.client(), case, &self.artifact.manifest)?;
        let begin = Instant::now();
        let request = TraceRequest { input: case.input.clone(), state: Some(case.state.clone()) };
        let trace = trace_view::ask(self.node.client(), &self.artifact.manifest.name, &request)?;
        let time_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mismatches = case.expected.check(&case.state, &trace);
        let passed = mismatches.is_empty();
        let log = if passed { Vec::new() } else { trace.log.iter().map(|entry| entry.text.clone()).collect() };
        let missing_secrets = self.keeper.missing_in(case, &self.artifact.manifest);
        Ok(Outcome { name: case.name.clone(), passed, time_us, mismatches, missing_secrets, log })
    }
}

fn describe(outcome: &Outcome, style: Style) -> String {
    let (word, tone) = if outcome.passed { ("passed", Tone::Good) } else { ("FAILED", Tone::Bad) };
    let mut lines =
        vec![format!("{} {}  {}", style.paint(word, tone), outcome.name, style.paint(&text::micros(outcome.time_us), Tone::Dim))];
    for Mismatch { what, difference } in &outcome.mismatches {
        lines.push(format!("  {}", style.paint(&text::clean(what), Tone::Strong)));
        lines.extend(difference.lines().map(|line| {
            let tone = match line.as_bytes().first() {
                Some(b'-') => Tone::Good,
                Some(b'+') => Tone::Bad,
                _ => Tone::Plain,
            };
            format!("    {}", style.paint(&text::clean(line), tone))
        }));
    }
    if !outcome.passed {
        let lacks = |name| format!("    {}", style.paint(&format!("no value was given for the secret {name}"), Tone::Busy));
        lines.extend(outcome.missing_secrets.iter().map(lacks));
    }
    lines.extend(outcome.log.iter().map(|line| format!("    {}", style.paint(&format!("log: {}", text::clean(line)), Tone::Dim))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_what_was_expected_and_what_was_found() {
        let mismatch = Mismatch { what: "reply".to_owned(), difference: "- 21\n+ \u{1b}22".to_owned() };
        let (name, missing_secrets) = ("a: mean".to_owned(), vec!["token".parse().unwrap()]);
        let outcome =
            Outcome { name, passed: false, time_us: 1250, mismatches: vec![mismatch], missing_secrets, log: vec!["hot".to_owned()] };
        let said = "FAILED a: mean  1.25 ms\n  reply\n    - 21\n    + �22\n    no value was given for the secret token\n    log: hot";
        assert_eq!(describe(&outcome, Style::PLAIN), said);
    }
}
