//! Errors of the node that travel to the fleet's page: the newest few, numbered.

use crate::clock;
use crate::limits::ERRORS_MAX;
use sedge_protocol::limits::REASON_BYTES_MAX;
use sedge_protocol::message::ErrorReport;
use sedge_protocol::{FunctionName, RevisionId};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// The newest errors. Cheap to clone.
// A leaf lock, held for a push or a copy and never across an await: every invocation may write here, and a task for it would only add a queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct Errors(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    next: u64,
    list: VecDeque<ErrorReport>,
}

impl Errors {
    /// Notes an error of a function.
    pub(crate) fn note(&self, function: &FunctionName, revision: Option<RevisionId>, reason: &str) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ring.next += 1;
        let report =
            ErrorReport { number: ring.next, time_ms: clock::wall().0, function: function.clone(), revision, reason: clip(reason) };
        ring.list.push_back(report);
        if ring.list.len() > ERRORS_MAX {
            ring.list.pop_front();
        }
    }

    /// The newest errors, oldest first.
    pub(crate) fn newest(&self) -> Vec<ErrorReport> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).list.iter().cloned().collect()
    }
}

/// The first line of `reason`, bounded.
pub(crate) fn clip(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or_default();
    let mut end = line.len().min(REASON_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line[..end].to_owned()
}
