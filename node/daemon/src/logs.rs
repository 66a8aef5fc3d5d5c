//! What functions write: the newest lines, for `sedge logs`, and the daemon's own log.

use crate::clock;
use crate::limits::{LOG_FUNCTIONS_MAX, LOG_LAG_MAX, LOG_LINES_MAX, LOG_LINES_PER_SECOND_MAX};
use sedge_node_core::Flow;
use sedge_node_core::flow::Verdict;
use sedge_protocol::FunctionName;
use sedge_protocol::local::LogEntry;
use sedge_runtime::{CallInfo, LogLevel, LogLine, LogStream, Trace};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::broadcast;

/// The newest lines and who follows them. Cheap to clone.
// Three leaf locks, held for a push or a copy and never across an await.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    ring: Arc<Mutex<VecDeque<Arc<LogEntry>>>>,
    flow: Arc<Mutex<Flow>>,
    live: broadcast::Sender<Arc<LogEntry>>,
    /// Lines that were dropped since the start.
    dropped: Arc<Mutex<BTreeMap<FunctionName, u64>>>,
}

impl Logs {
    pub(crate) fn new() -> Self {
        Self {
            ring: Arc::default(),
            flow: Arc::new(Mutex::new(Flow::new(LOG_LINES_PER_SECOND_MAX))),
            live: broadcast::channel(LOG_LAG_MAX).0,
            dropped: Arc::default(),
        }
    }

    /// Takes one line of a function and passes it to the daemon's own log with its fields. A function that writes too much loses
    /// lines, and the log says how many; why an invocation failed is never lost.
    pub(crate) fn write(&self, call: &CallInfo, line: LogLine) {
        let verdict = match line.stream {
            LogStream::Trap => Verdict::Keep { dropped: 0 },
            LogStream::Stdout | LogStream::Stderr | LogStream::Logging(_) => {
                self.flow.lock().unwrap_or_else(PoisonError::into_inner).line(&call.revision.function, clock::mono())
            }
        };
        match verdict {
            Verdict::Drop => return self.count_dropped(&call.revision.function),
            Verdict::Keep { dropped: 0 } => {}
            Verdict::Keep { dropped } => {
                self.pass(call, "warn", log::Level::Warn, format!("{dropped} lines were dropped: the function writes too many a second"));
            }
        }
        let (name, level) = level_of(line.stream);
        self.pass(call, name, level, line.text);
    }

    /// Lines that were dropped since the start, by function.
    pub(crate) fn dropped(&self) -> BTreeMap<FunctionName, u64> {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count_dropped(&self, function: &FunctionName) {
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = dropped.get_mut(function) {
            *count += 1;
        } else if dropped.len() < LOG_FUNCTIONS_MAX {
            dropped.insert(function.clone(), 1);
        }
    }

    fn pass(&self, call: &CallInfo, name: &str, level: log::Level, text: String) {
        let (function, revision) = (&call.revision.function, call.revision.revision);
        let (trace, span) = call.trace.as_ref().map(ids).unzip();
        log::log!(
            target: "sedge_function", level,
            function:% = function, revision:% = revision.short(), invocation:% = call.invocation, stream = name,
            trace_id = trace.as_deref().unwrap_or_default(), span_id = span.as_deref().unwrap_or_default();
            "{text}"
        );
        let entry = LogEntry {
            time_ms: clock::wall().0,
            level: name.to_owned(),
            function: function.clone(),
            revision,
            invocation: call.invocation.to_string(),
            text,
            trace_id: trace,
            span_id: span,
        };
        self.keep(Arc::new(entry));
    }

    /// Keeps a line that the node itself says about an invocation.
    pub(crate) fn keep(&self, entry: Arc<LogEntry>) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.push_back(Arc::clone(&entry));
        if ring.len() > LOG_LINES_MAX {
            ring.pop_front();
        }
        // Sent under the lock, so that `follow` sees each line once.
        drop(self.live.send(entry));
    }

    /// The newest `lines` of `function` (or all), and what comes after them.
    pub(crate) fn follow(&self, function: Option<&FunctionName>, lines: usize) -> (Vec<Arc<LogEntry>>, broadcast::Receiver<Arc<LogEntry>>) {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |entry: &&Arc<LogEntry>| function.is_none_or(|name| entry.function == *name);
        let mut newest: Vec<_> = ring.iter().rev().filter(wanted).take(lines).cloned().collect();
        newest.reverse();
        (newest, self.live.subscribe())
    }
}

/// Trace and span as logs write them.
pub(crate) fn ids(trace: &Trace) -> (String, String) {
    (format!("{:032x}", trace.trace_id()), format!("{:016x}", trace.span_id()))
}

fn level_of(stream: LogStream) -> (&'static str, log::Level) {
    match stream {
        LogStream::Stdout => ("stdout", log::Level::Info),
        LogStream::Stderr => ("stderr", log::Level::Info),
        LogStream::Trap => ("error", log::Level::Warn),
        LogStream::Logging(level) => match level {
            LogLevel::Trace => ("trace", log::Level::Trace),
            LogLevel::Debug => ("debug", log::Level::Debug),
            LogLevel::Info => ("info", log::Level::Info),
            LogLevel::Warn => ("warn", log::Level::Warn),
            LogLevel::Error | LogLevel::Critical => ("error", log::Level::Warn),
        },
    }
}
