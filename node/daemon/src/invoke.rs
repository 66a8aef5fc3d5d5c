//! One invocation from admission to the meter: the same path for requests, events and `sedge invoke`.

use crate::fault::Errors;
use crate::functions::Active;
use crate::gate::{Gate, Permit, Place};
use crate::logs::Logs;
use crate::meter::Meter;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use sedge_node_core::controller::Refusal;
use sedge_protocol::local::{Admission, LogEntry};
use sedge_protocol::{Event, FunctionName};
use sedge_runtime::{Ending, Failure, Fault, Invocation, Reply, ResponseBody, Usage};
use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::oneshot;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// Not admitted: nothing ran, try again later.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It ran and failed.
    #[error(transparent)]
    Ran(#[from] Failure),
}

/// Runs invocations. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Invoker {
    gate: Gate,
    meter: Meter,
    logs: Logs,
    errors: Errors,
    /// Prefix of invocation ids: differs between runs of the daemon.
    run: Arc<str>,
    next: Arc<AtomicU64>,
}

impl Invoker {
    pub(crate) fn new(gate: Gate, meter: Meter, logs: Logs, errors: Errors) -> Self {
        let run = format!("{:08x}", rand::random::<u32>()).into();
        Self { gate, meter, logs, errors, run, next: Arc::default() }
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
        let invocation = self.admit(active, |_| {}).await?;
        Ok(active.function.http(request, invocation).await?)
    }

    /// Answers a request of other functions, the outermost first, that wait for it.
    ///
    /// Cancel safe, as [`Invoker::http`].
    pub(crate) async fn called<B>(
        &self,
        active: &Active,
        request: Request<B>,
        callers: Arc<[FunctionName]>,
    ) -> Result<Response<ResponseBody>, Failed>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let admitted = self.gate.admit_called(active).await;
        let invocation = self.invocation(active, admitted, |_| {})?.called_by(callers);
        Ok(active.function.http(request, invocation).await?)
    }

    /// Handles an event.
    ///
    /// Cancel safe, as [`Invoker::http`].
    pub(crate) async fn event(&self, active: &Active, event: &Event) -> Result<Reply, Failed> {
        let invocation = self.admit(active, |_| {}).await?;
        Ok(active.function.event(event, invocation).await?)
    }

    /// Handles an event and tells what it used.
    ///
    /// Cancel safe, as [`Invoker::http`].
    pub(crate) async fn event_measured(&self, active: &Active, event: &Event) -> (Result<Reply, Failed>, Usage) {
        let (tell, told) = oneshot::channel();
        let invocation = match self
            .admit(active, |usage| {
                let _unheard = tell.send(usage);
            })
            .await
        {
            Ok(invocation) => invocation,
            Err(refused) => return (Err(refused.into()), Usage::default()),
        };
        let result = active.function.event(event, invocation).await;
        (result.map_err(Failed::from), told.await.unwrap_or_default())
    }

    /// Whether a function runs as often as its manifest allows.
    pub(crate) fn is_full(&self, function: &FunctionName) -> bool {
        self.gate.is_full(function)
    }

    async fn admit(&self, active: &Active, tell: impl FnOnce(Usage) + Send + 'static) -> Result<Invocation, Refusal> {
        let admitted = self.gate.admit(active).await;
        self.invocation(active, admitted, tell)
    }

    /// An invocation with its place, or the count of one that got none.
    fn invocation(
        &self,
        active: &Active,
        admitted: Result<(Permit, Place), Refusal>,
        tell: impl FnOnce(Usage) + Send + 'static,
    ) -> Result<Invocation, Refusal> {
        let (permit, place) = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => {
                self.meter.shed(active.name(), active.revision());
                return Err(refused);
            }
        };
        let id: Arc<str> = format!("{}-{}", self.run, self.next.fetch_add(1, Ordering::Relaxed)).into();
        let (this, assignment, name) = (self.clone(), Arc::clone(&active.assignment), Arc::clone(&id));
        let ended = move |ending: Ending| {
            let function = assignment.function();
            this.meter.ended(function, assignment.revision, &ending);
            if let Err(failure) = &ending.result {
                this.report(&assignment, &name, failure);
            }
            tell(ending.usage);
        };
        let invocation = Invocation::new(id, (), ended).on_gone(move |usage| permit.used(usage));
        Ok(match place {
            Place::Room(room) => invocation.in_room(room),
            Place::Warm(warm) => invocation.in_warm(warm),
        })
    }

    fn report(&self, assignment: &sedge_protocol::message::Assignment, invocation: &str, failure: &Failure) {
        let (function, revision) = (assignment.function(), assignment.revision);
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
        self.logs.keep(Arc::new(LogEntry {
            time_ms: crate::clock::wall().0,
            level: "error".to_owned(),
            function: function.clone(),
            revision,
            invocation: invocation.to_owned(),
            text: format!("invocation failed: {reason}"),
        }));
    }
}
