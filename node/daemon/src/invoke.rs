//! One invocation from admission to the meter: the same path for requests, events and `sedge invoke`.

use crate::depth;
use crate::fault::Errors;
use crate::functions::Active;
use crate::gate::{Gate, Permit, Place};
use crate::logs::{Logs, ids};
use crate::meter::{Counts, Kind, Meter};
use crate::telemetry::{Requests, Span, Tracer};
use crate::watch::Watched;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use http_body::Body;
use sedge_node_core::controller::Refusal;
use sedge_protocol::invocation::{HEADER_PREFIX, INVOCATION_HEADER, InvocationId};
use sedge_protocol::local::{Admission, Cause, LogEntry};
use sedge_protocol::{Event, FunctionName};
use sedge_runtime::limits::CALL_DEPTH_MAX;
use sedge_runtime::{Ending, Failure, Fault, Invocation, Reply, ResponseBody, Trace};
use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// Not admitted: nothing ran, try again later.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Too many functions called or woke each other before it.
    #[error("more than {CALL_DEPTH_MAX} calls and events of functions in a row led to this request; the chain ends here")]
    Deep,
    /// It ran and failed.
    #[error(transparent)]
    Ran(#[from] Failure),
}

/// What is known of an invocation before it is admitted.
struct Begin {
    kind: Kind,
    trace: Trace,
    /// Calls and events of functions that led to it.
    causes: u32,
    /// Method and route of a request, when its span is recorded.
    request: Option<(Method, Option<Arc<Requests>>)>,
}

/// Runs invocations. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Invoker {
    gate: Gate,
    meter: Meter,
    logs: Logs,
    errors: Errors,
    tracer: Tracer,
    /// Prefix of invocation ids: differs between runs of the daemon.
    run: Arc<str>,
    next: Arc<AtomicU64>,
}

impl Invoker {
    pub(crate) fn new(gate: Gate, meter: Meter, (logs, errors): (Logs, Errors), tracer: Tracer) -> Self {
        let run = format!("{:08x}", rand::random::<u32>()).into();
        Self { gate, meter, logs, errors, tracer, run, next: Arc::default() }
    }

    /// Where invocations are counted.
    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// How much runs at once.
    pub(crate) fn admission(&self) -> Admission {
        self.gate.gauge()
    }

    /// Answers a request.
    ///
    /// Cancel safe: dropping the future stops the guest; the invocation is counted all the same.
    pub(crate) async fn http<B>(&self, active: &Active, request: Request<B>) -> Result<Response<ResponseBody>, Failed>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.http_on(active, None, request).await
    }

    /// [`Invoker::http`] for a request that came by a route.
    pub(crate) async fn http_on<B>(
        &self,
        active: &Active,
        route: Option<&Arc<Requests>>,
        request: Request<B>,
    ) -> Result<Response<ResponseBody>, Failed>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let begin = self.begin_request(&request, route);
        if depth::is_too_deep(begin.causes) {
            self.errors.note(active.name(), Some(active.revision()), &Failed::Deep.to_string());
            return Err(Failed::Deep);
        }
        let watched = self.logs.watch(|| cause(&request));
        let invocation = self.admit(active, begin, watched.clone()).await?;
        answer(active, request, invocation, watched).await
    }

    /// As [`Invoker::http`], for one who watches.
    pub(crate) async fn http_watched<B>(
        &self,
        active: &Active,
        request: Request<B>,
        watched: Watched,
    ) -> Result<Response<ResponseBody>, Failed>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let invocation = self.admit(active, self.begin_request(&request, None), watched.clone()).await?;
        answer(active, request, invocation, watched).await
    }

    /// Answers a request of other functions, the outermost first, that wait for it.
    ///
    /// Cancel safe, as [`Invoker::http`].
    pub(crate) async fn called<B>(
        &self,
        active: &Active,
        request: Request<B>,
        (callers, causes): (Arc<[FunctionName]>, u32),
    ) -> Result<Response<ResponseBody>, Failed>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let begin = Begin { causes, ..self.begin_request(&request, None) };
        let admitted = self.gate.admit_called(active).await;
        let watched = self.logs.watch(|| cause(&request));
        let invocation = self.invocation(active, (begin, watched.clone()), admitted)?.called_by(callers);
        answer(active, request, invocation, watched).await
    }

    /// Handles an event.
    ///
    /// Cancel safe, as [`Invoker::http`].
    pub(crate) async fn event(&self, active: &Active, event: &Event) -> Result<Reply, Failed> {
        let watched = self.logs.watch(|| Cause::Event { id: event.id.clone(), topic: event.topic.clone() });
        self.event_watched(active, event, watched).await
    }

    /// As [`Invoker::event`], for one who watches.
    pub(crate) async fn event_watched(&self, active: &Active, event: &Event, watched: Watched) -> Result<Reply, Failed> {
        let invocation = self.admit(active, self.begin(event), watched).await?;
        Ok(active.function.event(event, invocation).await?)
    }

    /// Whether a function runs as often as its manifest allows.
    pub(crate) fn is_full(&self, function: &FunctionName) -> bool {
        self.gate.is_full(function)
    }

    fn begin(&self, event: &Event) -> Begin {
        let kind = match event.kind.as_str() {
            "sedge.timer" => Kind::Timer,
            "sedge.invoke" => Kind::Other,
            _ => Kind::Pubsub,
        };
        Begin { kind, trace: self.tracer.of_event(event), causes: depth::of_event(event), request: None }
    }

    fn begin_request<B>(&self, request: &Request<B>, route: Option<&Arc<Requests>>) -> Begin {
        let trace = self.tracer.of_request(request.headers());
        let seen = self.tracer.records(&trace).then(|| (request.method().clone(), route.cloned()));
        Begin { kind: Kind::Http, trace, causes: depth::of_request(request.headers()), request: seen }
    }

    async fn admit(&self, active: &Active, begin: Begin, watched: Watched) -> Result<Invocation, Refusal> {
        let admitted = self.gate.admit(active).await;
        self.invocation(active, (begin, watched), admitted)
    }

    /// An invocation with its place, or the count of one that got none.
    fn invocation(
        &self,
        active: &Active,
        (begin, watched): (Begin, Watched),
        admitted: Result<(Permit, Place), Refusal>,
    ) -> Result<Invocation, Refusal> {
        let (permit, place) = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => {
                self.meter.shed(&active.counts, refused.why);
                return Err(refused);
            }
        };
        let id: Arc<str> = format!("{}-{}", self.run, self.next.fetch_add(1, Ordering::Relaxed)).into();
        let (this, counts, name) = (self.clone(), Arc::clone(&active.counts), Arc::clone(&id));
        let assignment = Arc::clone(&active.assignment);
        let Begin { kind, trace, causes, request } = begin;
        let of_guest = trace.clone();
        let ended = move |ending: Ending| {
            this.meter.ended(&counts, kind, &ending);
            if let Err(failure) = &ending.result {
                this.report(&counts, (&name, &trace), failure);
            }
            watched.ended(&assignment, &name, &ending);
            if this.tracer.records(&trace) {
                this.tracer.record(Span::new(trace, (counts, kind), name, &ending).with_request(request));
            }
        };
        let invocation = Invocation::new(id, (), ended).in_trace(of_guest).caused_by(causes).on_gone(move |usage| permit.used(usage));
        Ok(match place {
            Place::Room(room) => invocation.in_room(room),
            Place::Warm(warm) => invocation.in_warm(warm),
        })
    }

    fn report(&self, counts: &Counts, (invocation, trace): (&str, &Trace), failure: &Failure) {
        let (function, revision) = (&counts.function, counts.revision);
        let reason = failure.to_string();
        match failure.fault() {
            Fault::Caller => {
                log::debug!(function:% = function, revision:% = revision.short(), invocation, reason; "invocation given up by its caller");
                return;
            }
            Fault::Function => {
                log::warn!(function:% = function, revision:% = revision.short(), invocation, reason; "invocation failed");
            }
            Fault::Platform => {
                log::error!(function:% = function, revision:% = revision.short(), invocation, reason; "the node failed an invocation");
            }
        }
        self.errors.note(function, Some(revision), &reason);
        let (trace_id, span_id) = ids(trace);
        self.logs.keep(Arc::new(LogEntry {
            time_ms: crate::clock::wall().0,
            level: "error".to_owned(),
            function: function.clone(),
            revision,
            invocation: invocation.to_owned(),
            text: format!("invocation failed: {reason}"),
            trace_id: Some(trace_id),
            span_id: Some(span_id),
            dropped: 0,
        }));
    }
}

/// Runs an invocation, and tells those who watch what it answered.
async fn answer<B>(
    active: &Active,
    mut request: Request<B>,
    invocation: Invocation,
    watched: Watched,
) -> Result<Response<ResponseBody>, Failed>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    own_headers_only(&mut request);
    let result = active.function.http(request, invocation).await;
    watched.answered(result.as_ref().ok().map(|response| response.status().as_u16()));
    Ok(result?)
}

/// The id of the call that a request belongs to, beside the request: what is in a head anybody may have written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OfCall(pub(crate) InvocationId);

/// What a function reads in a header of the node's was written by the node, and not by whoever sent the request.
fn own_headers_only<B>(request: &mut Request<B>) {
    let is_own = |name: &&HeaderName| name.as_str().starts_with(HEADER_PREFIX);
    while let Some(name) = request.headers().keys().find(is_own).cloned() {
        request.headers_mut().remove(name);
    }
    if let Some(OfCall(id)) = request.extensions().get().copied() {
        let id = HeaderValue::try_from(id.to_string()).expect("digits are the value of a header");
        request.headers_mut().insert(INVOCATION_HEADER, id);
    }
}

/// What a request is shown as to those who watch.
fn cause<B>(request: &Request<B>) -> Cause {
    Cause::Request {
        method: request.method().to_string(),
        path: request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
    }
}
