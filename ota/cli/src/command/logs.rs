//! `sedge logs`

use super::NodeSocket;
use crate::arguments::Context;
use crate::client::query;
use crate::style::{Style, Tone};
use crate::text;
use clap::Args;
use sedge_protocol::FunctionName;
use sedge_protocol::local::{Level, LogEntry, LogRecord, Missing};
use std::process::ExitCode;

/// Show what the functions of a node of this machine write
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Only this function
    function: Option<FunctionName>,
    /// Go on until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Only lines of this level and worse: error, warn, info, debug, trace; what is on stdout and stderr is info
    #[arg(long, short)]
    level: Option<Level>,
    /// How many of the newest lines to begin with
    #[arg(long, short = 'n', default_value_t = 100)]
    lines: u32,
    #[command(flatten)]
    node: NodeSocket,
}

impl Logs {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let path = query(
            "/v1/logs",
            &[
                ("function", self.function.as_ref().map(ToString::to_string)),
                ("lines", Some(self.lines.to_string())),
                ("level", self.level.map(|level| level.to_string())),
                ("follow", self.follow.then(|| "true".to_owned())),
            ],
        );
        let mut printed = Ok(());
        self.node.client().lines(&path, |record: LogRecord| {
            printed = context.output.line(&record, |style| match &record {
                LogRecord::Entry(entry) => line(entry, style),
                LogRecord::Missing(gap) => missing(*gap, style),
            });
            printed.is_ok().then_some(())
        })?;
        printed?;
        Ok(ExitCode::SUCCESS)
    }
}

/// `14:03:07.120 warn   average  too hot`
pub(crate) fn line(entry: &LogEntry, style: Style) -> String {
    let tone = match entry.level.as_str() {
        "error" => Tone::Bad,
        "warn" => Tone::Busy,
        "debug" => Tone::Dim,
        _ => Tone::Plain,
    };
    let level = style.paint(&format!("{:6}", text::clean(&entry.level)), tone);
    let clock = style.paint(&text::clock(entry.time_ms), Tone::Dim);
    let function = style.paint(entry.function.as_str(), Tone::Strong);
    format!("{clock} {level} {function}  {}", text::clean(entry.text.trim_end()))
}

/// What a reader who was too slow is told.
pub(crate) fn missing(gap: Missing, style: Style) -> String {
    style.paint(&format!("{} lines are missing here: they came faster than they were read", gap.missing), Tone::Bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::{Digest, Manifest, RevisionId};

    #[test]
    fn a_line_of_a_guest_cannot_command_the_terminal() {
        let manifest = Manifest::from_toml("f", "name = 'average'").unwrap().0;
        let entry = LogEntry {
            time_ms: 1_700_000_000_120,
            level: "warn".to_owned(),
            revision: RevisionId::of(&Digest::of(b""), &manifest),
            function: manifest.name,
            invocation: "1".to_owned(),
            text: "\u{1b}]0;owned\u{7}hot\n".to_owned(),
            trace_id: None,
            span_id: None,
            dropped: 0,
        };
        assert_eq!(line(&entry, Style::PLAIN), "22:13:20.120 warn   average  �]0;owned�hot");
    }
}
