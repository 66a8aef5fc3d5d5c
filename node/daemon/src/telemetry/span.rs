//! The span of an invocation: where in which trace it is, and what is recorded of it.

use super::requests::Requests;
use crate::clock;
use crate::limits::SPANS_WAITING_MAX;
use crate::meter::{Counts, Kind};
use http::{HeaderMap, Method};
use sedge_protocol::Event;
use sedge_runtime::{Ending, Trace};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::mpsc;

/// One invocation that is over.
#[derive(Debug)]
pub(crate) struct Span {
    pub(super) trace: Trace,
    pub(super) counts: Arc<Counts>,
    pub(super) kind: Kind,
    pub(super) invocation: Arc<str>,
    /// Method and route of a request.
    pub(super) request: Option<(Method, Option<Arc<Requests>>)>,
    pub(super) end_ms: u64,
    pub(super) wall_us: u64,
    pub(super) cold: bool,
    pub(super) failure: Option<String>,
}

/// Gives spans their numbers, and takes those that are recorded. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tracer {
    /// Where recorded spans go; nowhere without a collector.
    line: Option<mpsc::Sender<Span>>,
    /// Traces that begin here are recorded when the lower half of their number is below this.
    below: Option<u64>,
    dropped: Arc<AtomicU64>,
}

/// The line from invocations to the exporter, which records so many millionths of the traces that begin here.
pub(crate) fn line(millionths: u32) -> (Tracer, mpsc::Receiver<Span>) {
    let (sender, receiver) = mpsc::channel(SPANS_WAITING_MAX);
    let below = match millionths {
        0 => None,
        1_000_000.. => Some(u64::MAX),
        some => Some(u64::MAX / 1_000_000 * u64::from(some)),
    };
    (Tracer { line: Some(sender), below, dropped: Arc::default() }, receiver)
}

impl Tracer {
    /// The span of a request: of its caller's trace if it names one.
    pub(crate) fn of_request(&self, headers: &HeaderMap) -> Trace {
        self.below(Trace::from_headers(headers))
    }

    /// The span of an event: of the trace that it comes from, if it names one.
    pub(crate) fn of_event(&self, event: &Event) -> Trace {
        let extension = |name: &str| event.extensions.get(name).map(String::as_str);
        self.below(extension("traceparent").and_then(|parent| Trace::parse(parent, extension("tracestate"))))
    }

    fn below(&self, caller: Option<Trace>) -> Trace {
        let span = rand::random();
        if let Some(caller) = caller {
            return caller.follow(span);
        }
        let trace: u128 = rand::random();
        let low = u64::try_from(trace & u128::from(u64::MAX)).unwrap_or(u64::MAX);
        Trace::root(trace, span, self.below.is_some_and(|below| low <= below))
    }

    /// Whether something is to be recorded of this span.
    pub(crate) fn records(&self, trace: &Trace) -> bool {
        self.line.is_some() && trace.is_sampled()
    }

    /// Puts a span in line, or counts it as dropped when the line is full. Never blocks.
    pub(crate) fn record(&self, span: Span) {
        if let Some(line) = &self.line
            && line.try_send(span).is_err()
        {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// How many spans were not exported.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }
}

impl Span {
    pub(crate) fn new(trace: Trace, (counts, kind): (Arc<Counts>, Kind), invocation: Arc<str>, ending: &Ending) -> Self {
        let failure = ending.result.as_ref().err().map(ToString::to_string);
        let (end_ms, usage) = (clock::wall().0, &ending.usage);
        Self { trace, counts, kind, invocation, request: None, end_ms, wall_us: usage.wall_us, cold: usage.cold, failure }
    }

    /// The span of a request.
    pub(crate) fn with_request(self, request: Option<(Method, Option<Arc<Requests>>)>) -> Self {
        Self { request, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_gone_on_with_or_begun_and_the_share_decides_only_about_those_begun_here() {
        let (none, _kept) = line(0);
        let (all, _kept_too) = line(1_000_000);
        let (half, _kept_as_well) = line(500_000);
        let mut headers = HeaderMap::new();
        assert!(all.of_request(&headers).is_sampled() && !none.of_request(&headers).is_sampled());
        let sampled = (0..2_000).filter(|_| half.of_request(&headers).is_sampled()).count();
        assert!((800..1_200).contains(&sampled), "{sampled}");
        let caller = Trace::root(3, 4, true);
        caller.write_to(&mut headers);
        let span = none.of_request(&headers);
        assert_eq!((span.trace_id(), span.parent_id(), none.records(&span)), (3, Some(4), true));
        assert!(!Tracer::default().records(&span), "nobody records without a collector");
        headers.insert("traceparent", http::HeaderValue::from_static("00-nonsense"));
        assert_eq!(none.of_request(&headers).parent_id(), None);
    }

    #[test]
    fn what_finds_the_line_full_is_dropped_and_counted() {
        let (tracer, mut kept) = line(1_000_000);
        let manifest = sedge_protocol::Manifest::from_toml("f", "name = 'f'").unwrap().0;
        let revision = sedge_protocol::RevisionId::of(&sedge_protocol::Digest::of(b""), &manifest);
        let counts = crate::meter::Meter::default().of(&manifest.name, revision);
        let ending = Ending { result: Ok(()), usage: sedge_runtime::Usage::default() };
        for _ in 0..=SPANS_WAITING_MAX {
            tracer.record(Span::new(Trace::root(1, 2, true), (Arc::clone(&counts), Kind::Http), "i".into(), &ending));
        }
        assert_eq!(tracer.dropped().load(Relaxed), 1);
        assert!(kept.try_recv().is_ok());
    }
}
