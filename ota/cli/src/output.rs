//! The only module that prints: results on stdout, talk on stderr, progress where somebody watches.

use crate::failure;
use crate::style::{Style, Tone};
use crate::text;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// Where results go and in which form.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    json: bool,
    out: Style,
    err: Style,
}

impl Output {
    /// JSON for machines or text for people.
    pub(crate) fn new(json: bool) -> Self {
        Self { json, out: Style::of(&io::stdout()), err: Style::of(&io::stderr()) }
    }

    /// Whether machines read the output.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// The result of a command: `value` as JSON, or what `human` makes of it.
    pub(crate) fn show<T: Serialize + ?Sized>(&self, value: &T, human: impl FnOnce(Style) -> String) -> io::Result<()> {
        if !self.json {
            return print(human(self.out).as_bytes(), "\n");
        }
        print(&serde_json::to_vec_pretty(value).map_err(io::Error::other)?, "\n")
    }

    /// One of many results: `value` as one line of JSON, or what `human` makes of it.
    pub(crate) fn line<T: Serialize>(&self, value: &T, human: impl FnOnce(Style) -> String) -> io::Result<()> {
        if !self.json {
            return print(human(self.out).as_bytes(), "\n");
        }
        print(&serde_json::to_vec(value).map_err(io::Error::other)?, "\n")
    }

    /// Bytes as they are. On a terminal a line that is not ended is ended.
    pub(crate) fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        let open = !bytes.is_empty() && !bytes.ends_with(b"\n");
        if io::stdout().is_terminal() { print(bytes, if open { "\n" } else { "" }) } else { print(bytes, "") }
    }

    /// Talk: what goes on, for people.
    pub(crate) fn note(&self, text: &str) {
        talk(text);
    }

    /// How talk looks.
    pub(crate) fn talk_style(&self) -> Style {
        self.err
    }

    /// Talk that begins with a coloured word.
    pub(crate) fn said(&self, word: &str, tone: Tone, text: &str) {
        talk(&format!("{} {text}", self.err.paint(word, tone)));
    }

    /// Asks a question that is answered by `y`. Nothing else is a yes.
    pub(crate) fn confirm(&self, question: &str) -> io::Result<bool> {
        let mut err = io::stderr();
        write!(err, "{question} [y/N] ")?;
        err.flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    /// Whether somebody could answer a question.
    pub(crate) fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// A bar over `length` bytes. Hidden where nobody watches.
    pub(crate) fn bar(&self, length: u64, what: &str) -> ProgressBar {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}");
        self.drawn(ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::hidden()), style.ok(), what)
    }

    /// A bar over `length` things.
    pub(crate) fn steps(&self, length: u64, what: &str) -> ProgressBar {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed}");
        self.drawn(ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::hidden()), style.ok(), what)
    }

    /// Something of unknown length.
    pub(crate) fn spinner(&self, what: &str) -> ProgressBar {
        let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}");
        self.drawn(ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()), style.ok(), what)
    }

    fn drawn(&self, bar: ProgressBar, style: Option<ProgressStyle>, what: &str) -> ProgressBar {
        if let Some(style) = style {
            bar.set_style(style);
        }
        bar.set_message(text::clean(what));
        bar.set_draw_target(ProgressDrawTarget::stderr());
        if io::stderr().is_terminal() {
            bar.enable_steady_tick(TICK);
        }
        bar
    }
}

fn print(bytes: &[u8], end: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.write_all(end.as_bytes())?;
    out.flush()
}

fn talk(text: &str) {
    // There is nowhere left to complain when stderr is closed.
    writeln!(io::stderr(), "{text}").ok();
}

/// What clap says: help and version are results, anything else is wrong usage.
pub(crate) fn usage(refusal: &clap::Error) -> ExitCode {
    refusal.print().ok();
    if refusal.use_stderr() { ExitCode::from(failure::USAGE) } else { ExitCode::SUCCESS }
}

/// Prints the whole chain of an error and what to do next, and gives its exit code. A reader that has seen enough is no error.
pub(crate) fn failure(error: &anyhow::Error) -> ExitCode {
    let closed = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    if error.downcast_ref::<io::Error>().is_some_and(closed) {
        return ExitCode::SUCCESS;
    }
    talk(&describe(error, Style::of(&io::stderr())));
    ExitCode::from(failure::code(error))
}

fn describe(error: &anyhow::Error, style: Style) -> String {
    let mut text = style.paint("error:", Tone::Bad);
    for (at, cause) in error.chain().enumerate() {
        let lines: Vec<String> = cause.to_string().lines().map(text::clean).collect();
        text.push_str(if at == 0 { " " } else { "\n  because: " });
        text.push_str(&lines.join("\n    "));
    }
    if let Some(hint) = failure::hint(error) {
        text.push_str(&format!("\n  {} {}", style.paint("next:", Tone::Strong), text::clean(&hint)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;
    use anyhow::Context as _;

    #[test]
    fn an_error_says_what_why_and_what_next() {
        let error = Err::<(), _>(Failure::usage("a\u{7}b\nc", "do it")).context("publish hello").unwrap_err();
        assert_eq!(describe(&error, Style::PLAIN), "error: publish hello\n  because: a�b\n    c\n  next: do it");
    }
}
