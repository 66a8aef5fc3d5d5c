//! What functions write and do: the newest lines for `sedge logs`, the daemon's own log, and everything live for who watches.

use crate::clock;
use crate::limits::{LOG_FUNCTIONS_MAX, LOG_LAG_MAX, LOG_LINES_MAX, LOG_LINES_PER_SECOND_MAX};
use crate::watch::{Watch, Watched};
use bytes::Bytes;
use sedge_node_core::Flow;
use sedge_node_core::flow::Verdict;
use sedge_protocol::local::{Cause, Ended, LogEntry, Payload, Published};
use sedge_protocol::{FunctionName, Topic};
use sedge_runtime::{CallInfo, LogLevel, LogLine, LogStream, Trace};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{broadcast, oneshot};

/// The newest lines and who follows them. Cheap to clone.
// Two leaf locks, held for a push or a copy and never across an await.
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    ring: Arc<Mutex<VecDeque<Arc<LogEntry>>>>,
    flows: Arc<Mutex<Flows>>,
    live: broadcast::Sender<Live>,
    /// How many listen to `live`: what nobody hears is not made.
    listeners: Arc<AtomicUsize>,
    /// Lines that were dropped since the start.
    dropped: Arc<Mutex<BTreeMap<FunctionName, u64>>>,
}

/// Something that just happened.
#[derive(Debug, Clone)]
pub(crate) enum Live {
    Line(Arc<LogEntry>),
    Ended(Arc<Ended>),
    Published(Arc<Published>),
}

/// One who listens from now on.
#[derive(Debug)]
pub(crate) struct Listener {
    live: broadcast::Receiver<Live>,
    listeners: Arc<AtomicUsize>,
}

/// How much each function may write.
#[derive(Debug)]
struct Flows {
    lines: Flow,
    /// Where traps happened: counted apart, so that a function that writes much and then traps still says where.
    traps: Flow,
    /// Who lost lines last, for telling it later.
    losing: BTreeMap<FunctionName, CallInfo>,
}

impl Logs {
    pub(crate) fn new() -> Self {
        let flow = || Flow::new(LOG_LINES_PER_SECOND_MAX);
        Self {
            ring: Arc::default(),
            flows: Arc::new(Mutex::new(Flows { lines: flow(), traps: flow(), losing: BTreeMap::new() })),
            live: broadcast::channel(LOG_LAG_MAX).0,
            listeners: Arc::default(),
            dropped: Arc::default(),
        }
    }

    /// Takes one line of a function and passes it to the daemon's own log with its fields. A function that writes too much loses
    /// lines, and the log says how many; why an invocation failed is never lost.
    pub(crate) fn write(&self, call: &CallInfo, line: LogLine) {
        let Some(dropped) = self.admit(call, line.stream) else { return self.count_dropped(&call.revision.function) };
        if dropped > 0 {
            self.tell_dropped(call, dropped);
        }
        self.pass(call, level_of(line.stream), line.text, 0);
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

    /// Whether a line is kept, and how many were dropped before it.
    fn admit(&self, call: &CallInfo, stream: LogStream) -> Option<u64> {
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        let (function, now) = (&call.revision.function, clock::mono());
        let verdict = match stream {
            LogStream::Trap => flows.traps.line(function, now),
            LogStream::Stdout | LogStream::Stderr | LogStream::Logging(_) => flows.lines.line(function, now),
        };
        match verdict {
            Verdict::Drop => {
                if !flows.losing.contains_key(function) {
                    flows.losing.insert(function.clone(), call.clone());
                }
                None
            }
            Verdict::Keep { dropped } => Some(dropped),
        }
    }

    /// Says what functions have lost that have been silent since.
    pub(crate) fn tell_untold(&self) {
        let lost: Vec<(CallInfo, u64)> = {
            let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
            let now = clock::mono();
            let untold: Vec<_> = flows.lines.untold(now).into_iter().chain(flows.traps.untold(now)).collect();
            untold.into_iter().filter_map(|(function, dropped)| Some((flows.losing.remove(&function)?, dropped))).collect()
        };
        for (call, dropped) in lost {
            self.tell_dropped(&call, dropped);
        }
    }

    fn tell_dropped(&self, call: &CallInfo, dropped: u64) {
        let text = format!("{dropped} lines were dropped: the function writes too many a second");
        self.pass(call, ("warn", log::Level::Warn), text, dropped);
    }

    fn pass(&self, call: &CallInfo, (name, level): (&str, log::Level), text: String, dropped: u64) {
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
            dropped,
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
        drop(self.live.send(Live::Line(entry)));
    }

    /// The newest `lines` that are `wanted`, and what comes after them.
    pub(crate) fn follow(&self, wanted: impl Fn(&LogEntry) -> bool, lines: usize) -> (Vec<Arc<LogEntry>>, Listener) {
        self.tell_untold();
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let mut newest: Vec<_> = ring.iter().rev().filter(|entry| wanted(entry)).take(lines).cloned().collect();
        newest.reverse();
        (newest, self.listen())
    }

    /// Whether a line of `function` is kept.
    pub(crate) fn knows(&self, function: &FunctionName) -> bool {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|entry| entry.function == *function)
    }

    /// Hears of everything from now on.
    pub(crate) fn listen(&self) -> Listener {
        self.listeners.fetch_add(1, Ordering::Relaxed);
        Listener { live: self.live.subscribe(), listeners: Arc::clone(&self.listeners) }
    }

    /// Notes what a function publishes, for who listens.
    pub(crate) fn published(&self, call: &CallInfo, topic: &Topic, data: &Bytes, content_type: Option<&str>) {
        if self.listeners.load(Ordering::Relaxed) == 0 {
            return;
        }
        let published = Published {
            time_ms: clock::wall().0,
            function: call.revision.function.clone(),
            invocation: call.invocation.to_string(),
            topic: topic.clone(),
            content_type: content_type.map(ToOwned::to_owned),
            data: Payload::from(&**data),
        };
        drop(self.live.send(Live::Published(Arc::new(published))));
    }

    /// Watches an invocation that is about to begin, if anybody listens.
    pub(crate) fn watch(&self, cause: impl FnOnce() -> Cause) -> Watched {
        let heard = self.listeners.load(Ordering::Relaxed) > 0;
        Watched::new(heard.then(|| Watch::new(self.clone(), cause(), None)))
    }

    /// Watches an invocation that is about to begin, and tells its end also to one who waits for it.
    pub(crate) fn watch_for(&self, cause: Cause) -> (Watched, oneshot::Receiver<Ended>) {
        let (tell, told) = oneshot::channel();
        (Watched::new(Some(Watch::new(self.clone(), cause, Some(tell)))), told)
    }

    /// Tells all who listen that an invocation ended.
    pub(crate) fn ended(&self, ended: Ended) {
        drop(self.live.send(Live::Ended(Arc::new(ended))));
    }
}

impl Listener {
    /// What happens next. Cancel safe.
    pub(crate) async fn recv(&mut self) -> Result<Live, broadcast::error::RecvError> {
        self.live.recv().await
    }

    /// What has happened already.
    pub(crate) fn try_recv(&mut self) -> Result<Live, broadcast::error::TryRecvError> {
        self.live.try_recv()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.listeners.fetch_sub(1, Ordering::Relaxed);
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
