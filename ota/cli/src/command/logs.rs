//! `sedge logs`

use super::NodeSocket;
use crate::arguments::Context;
use crate::client::{Client, query};
use crate::failure::Failure;
use crate::output::Output;
use crate::style::{Style, Tone};
use crate::text;
use clap::Args;
use sedge_protocol::FunctionName;
use sedge_protocol::local::{Level, LocalStatus, LogEntry, LogRecord, Missing};
use std::process::ExitCode;
use std::time::Duration;
use std::{io, thread};

/// Pause between two looks for a node that is gone.
const PAUSE: Duration = Duration::from_millis(250);

/// Show what the functions of a node of this machine write
///
/// With --follow it goes on until Ctrl-C, also when the node is started anew.
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
        let client = self.node.client();
        if self.follow {
            self.follow(&client, &context.output)?;
        } else {
            self.read(&client, &context.output, self.lines, |_| true)??;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Until somebody ends it: a node that is gone is waited for. Its log is in its memory, so another run of the daemon begins with an
    /// empty one, and everything in it is new.
    fn follow(&self, client: &Client, output: &Output) -> anyhow::Result<()> {
        let (mut seen, mut lines) = (Seen::default(), self.lines);
        let mut status: LocalStatus = client.get("/v1/status")?;
        loop {
            seen.begin(status.vitals.started_ms);
            match self.read(client, output, lines, |entry| seen.is_new(entry)) {
                Ok(printed) => printed?,
                Err(Failure::Unreachable { .. }) => {}
                Err(other) => return Err(other.into()),
            }
            output.said("cut off", Tone::Bad, "the node has ended; going on when it is back");
            status = await_answer(client)?;
            output.said("back", Tone::Good, "the node answers again");
            lines = u32::MAX;
        }
    }

    /// Prints the newest `lines` that are `wanted`, and with --follow what comes after them; inside is what went wrong with our own output.
    fn read(
        &self,
        client: &Client,
        output: &Output,
        lines: u32,
        mut wanted: impl FnMut(&LogEntry) -> bool,
    ) -> Result<io::Result<()>, Failure> {
        let parameters = [
            ("function", self.function.as_ref().map(ToString::to_string)),
            ("lines", Some(lines.to_string())),
            ("level", self.level.map(|level| level.to_string())),
            ("follow", self.follow.then(|| "true".to_owned())),
        ];
        let mut printed = Ok(());
        client.lines(&query("/v1/logs", &parameters), |record: LogRecord| {
            printed = match &record {
                LogRecord::Entry(entry) if !wanted(entry) => Ok(()),
                LogRecord::Entry(entry) => output.line(&record, |style| line(entry, style)),
                LogRecord::Missing(gap) => output.line(&record, |style| missing(*gap, style)),
            };
            printed.is_ok().then_some(())
        })?;
        Ok(printed)
    }
}

/// Waits for the node. No bound but the patience of who watches.
fn await_answer(client: &Client) -> Result<LocalStatus, Failure> {
    loop {
        match client.get("/v1/status") {
            Err(Failure::Unreachable { .. }) => thread::sleep(PAUSE),
            answered => return answered,
        }
    }
}

/// What of the log was shown, so that a connection that was cut loses and repeats nothing.
#[derive(Debug, Default)]
struct Seen {
    /// When the daemon was started that wrote it.
    started_ms: u64,
    last: Option<LogEntry>,
    /// Whether what comes now may have been shown.
    again: bool,
}

impl Seen {
    /// The log is read anew, of a daemon that was started then.
    fn begin(&mut self, started_ms: u64) {
        self.again = self.last.is_some() && started_ms == self.started_ms;
        self.started_ms = started_ms;
    }

    fn is_new(&mut self, entry: &LogEntry) -> bool {
        if self.again && self.last.as_ref() == Some(entry) {
            self.again = false;
            return false;
        }
        // The last line may have left the node's memory meanwhile.
        if self.again && self.last.as_ref().is_some_and(|last| entry.time_ms <= last.time_ms) {
            return false;
        }
        self.again = false;
        self.last = Some(entry.clone());
        true
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

    fn entry(time_ms: u64, text: &str) -> LogEntry {
        let manifest = Manifest::from_toml("f", "name = 'average'").unwrap().0;
        LogEntry {
            time_ms,
            level: "warn".to_owned(),
            revision: RevisionId::of(&Digest::of(b""), &manifest),
            function: manifest.name,
            invocation: "1".to_owned(),
            text: text.to_owned(),
            trace_id: None,
            span_id: None,
            dropped: 0,
        }
    }

    #[test]
    fn a_line_of_a_guest_cannot_command_the_terminal() {
        let entry = entry(1_700_000_000_120, "\u{1b}]0;owned\u{7}hot\n");
        assert_eq!(line(&entry, Style::PLAIN), "22:13:20.120 warn   average  �]0;owned�hot");
    }

    #[test]
    fn what_was_shown_is_not_shown_again_and_another_daemon_begins_anew() {
        let mut seen = Seen::default();
        let mut shown = |started_ms: u64, entries: &[LogEntry]| {
            seen.begin(started_ms);
            entries.iter().filter(|entry| seen.is_new(entry)).map(|entry| entry.text.clone()).collect::<String>()
        };
        let [a, b, c, d] = [(1, "a"), (2, "b"), (2, "c"), (3, "d")].map(|(time_ms, text)| entry(time_ms, text));
        assert_eq!(shown(7, &[a.clone(), b.clone()]), "ab");
        assert_eq!(shown(7, &[a.clone(), b.clone(), c.clone()]), "c", "the same daemon, and the connection was cut");
        assert_eq!(shown(7, &[a.clone(), d.clone()]), "d", "the last line has left its memory");
        assert_eq!(shown(8, &[a, b]), "ab", "a clock that was set back hides nothing of another daemon");
    }
}
