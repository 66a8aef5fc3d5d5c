//! Progress of one step after the other, and the wish to stop.

use crate::output::Output;
use indicatif::ProgressBar;
use sedge_flash::{Progress, Step};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The bar of the step that runs.
#[derive(Debug)]
pub(super) struct Bars<'a> {
    output: &'a Output,
    shown: Option<(Step, ProgressBar)>,
    stop: Arc<AtomicBool>,
}

impl<'a> Bars<'a> {
    /// None yet.
    pub(super) fn new(output: &'a Output) -> Self {
        Self { output, shown: None, stop: Arc::default() }
    }

    /// Set, it ends the work at the next progress.
    pub(super) fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// Shows it, with a bar of its own for each step.
    pub(super) fn show(&mut self, progress: Progress) -> ControlFlow<()> {
        if self.shown.as_ref().is_none_or(|(step, _)| *step != progress.step) {
            self.clear();
            self.shown = Some((progress.step, self.output.bar(progress.total, name(progress.step))));
        }
        if let Some((_, bar)) = &self.shown {
            bar.set_position(progress.done);
        }
        if self.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Takes the bar away.
    pub(super) fn clear(&mut self) {
        if let Some((_, bar)) = self.shown.take() {
            bar.finish_and_clear();
        }
    }
}

fn name(step: Step) -> &'static str {
    match step {
        Step::Check => "check",
        Step::Write => "write",
        Step::Verify => "read back",
    }
}
