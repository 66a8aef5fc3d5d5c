//! What a person sees while a task runs: one moving line on a terminal, plain lines elsewhere. All of it on standard error.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often the moving line is drawn anew.
const TICK: Duration = Duration::from_millis(100);

/// One step of a task, from its begin to `done`, `skipped` or the error that ends it.
#[derive(Debug)]
pub(crate) struct Step {
    bar: ProgressBar,
    name: String,
    begin: Instant,
}

impl Step {
    /// Begins the step `name`.
    pub(crate) fn begin(name: &str) -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {prefix} {wide_msg:.dim} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(TICK);
        Self { bar, name: name.to_owned(), begin: Instant::now() }
    }

    /// Says what is being done within the step; off a terminal this is a line of its own.
    pub(crate) fn now(&self, what: &str) {
        self.detail(what);
        if self.bar.is_hidden() {
            say(&format!("    {}: {what}", self.name));
        }
    }

    /// Shows the latest line of a tool; only on a terminal.
    pub(crate) fn detail(&self, line: &str) {
        self.bar.set_message(line.trim().to_owned());
    }

    /// Ends the step well.
    pub(crate) fn done(self, result: &str) {
        self.bar.finish_and_clear();
        say(&format!("  ✓ {:<16} {result} ({:.1} s)", self.name, self.begin.elapsed().as_secs_f64()));
    }

    /// Ends the step: there was nothing to do.
    pub(crate) fn skipped(self, result: &str) {
        self.bar.finish_and_clear();
        say(&format!("  · {:<16} {result}", self.name));
    }
}

/// Shows an error with all its causes.
pub(crate) fn failure(error: &anyhow::Error) {
    say(&format!("  ✗ {error}"));
    for cause in error.chain().skip(1) {
        say(&format!("    because: {}", cause.to_string().replace('\n', "\n      ")));
    }
}

/// Says one line.
pub(crate) fn say(line: &str) {
    // Nobody can be told that nobody can be told.
    writeln!(io::stderr(), "{line}").ok();
}

/// A part of a task that shows its own progress: its name before, its time after.
#[derive(Debug)]
pub(crate) struct Timed {
    name: String,
    begin: Instant,
}

impl Timed {
    /// Begins the part `name`.
    pub(crate) fn begin(name: &str) -> Self {
        say(&format!("── {name}"));
        Self { name: name.to_owned(), begin: Instant::now() }
    }

    /// Ends it.
    pub(crate) fn end(self) {
        say(&format!("── {} took {:.1} s", self.name, self.begin.elapsed().as_secs_f64()));
    }
}
