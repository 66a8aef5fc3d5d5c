//! A prepared revision, and the ways to invoke it.
//!
//! ```text
//!  http(request) ─┬─ component: incoming-handler ─▶ response (whole, or streaming from a task)
//!                 └─ command: body on stdin ─▶ stdout is the body of a 200
//!  event(event)  ─┬─ component: the same, as a CloudEvent in binary mode ─▶ 2xx body is the reply
//!                 └─ command: data on stdin, CE_* ─▶ stdout is the reply
//! ```

use crate::aftercare::{self, Kept};
use crate::body::{RequestBody, ResponseBody};
use crate::engine::Prepared;
use crate::epoch::EpochClock;
use crate::event;
use crate::failure::Failure;
use crate::guest::{Guest, Held};
use crate::host::{CallInfo, Host, LogStream, RevisionRef};
use crate::idle::{Idle, Warm};
use crate::instance::Instance;
use crate::limits::{FAILURE_CHARS_MAX, INSTANCE_OVERHEAD_BYTES, MIB, OUTPUT_BYTES_MAX, REPLY_BYTES_MAX};
use crate::rests::Rests;
use crate::state::{State, Surroundings};
use crate::stdio::Pipe;
use crate::trace::Trace;
use crate::turns::Turns;
use crate::usage::{Call, Invocation};
use crate::usual::Usual;
use crate::wasi03;
use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use sedge_protocol::Event;
use sedge_protocol::limits::CONTENT_TYPE_BYTES_MAX;
use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Poll;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

pub(crate) type Answer = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// What a function replies to an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// The data; empty is no reply.
    pub data: Bytes,
    /// Its media type, if the function names one.
    pub content_type: Option<String>,
    /// The span it comes from.
    pub trace: Option<Trace>,
}

/// A revision that is ready to run. Cheap to clone.
#[derive(Clone)]
pub struct Function(Arc<Parts>);

pub(crate) struct Parts {
    engine: wasmtime::Engine,
    shared: Shared,
    prepared: Prepared,
    pub(crate) revision: Arc<RevisionRef>,
    host: Arc<dyn Host>,
    warm: AtomicBool,
    pub(crate) idle: Idle,
    pub(crate) usual: Usual,
}

/// What all functions of an engine run with.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) clock: Arc<EpochClock>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) kept: Arc<Kept>,
    pub(crate) rests: Arc<Rests>,
}

/// One invocation on its way to a guest.
struct Run {
    parts: Arc<Parts>,
    call: Arc<Call>,
    held: Held,
    warm: Option<Warm>,
}

impl Function {
    pub(crate) fn new(engine: &wasmtime::Engine, shared: &Shared, prepared: Prepared, revision: &RevisionRef, host: Arc<dyn Host>) -> Self {
        let (engine, shared, revision) = (engine.clone(), shared.clone(), Arc::new(revision.clone()));
        let (warm, idle, usual) = (AtomicBool::new(false), Idle::default(), Usual::default());
        Self(Arc::new(Parts { engine, shared, prepared, revision, host, warm, idle, usual }))
    }

    /// Which revision this is.
    #[must_use]
    pub fn revision(&self) -> &Arc<RevisionRef> {
        &self.0.revision
    }

    /// What one instance may take at most: reserve it before a call, so that the node never runs out.
    #[must_use]
    pub fn memory_reservation(&self) -> u64 {
        let manifest = &self.0.revision.manifest;
        // A command begins when all of its input is here, and is answered for when all of its output is.
        let whole = if self.0.prepared.is_http() { 0 } else { u64::from(manifest.limits.request_mb) * MIB + OUTPUT_BYTES_MAX as u64 };
        u64::from(manifest.limits.memory_mb) * MIB + manifest.access.scratch_bytes() + whole + INSTANCE_OVERHEAD_BYTES
    }

    /// An instance that waits for an invocation, if there is one; give it to [`Invocation::in_warm`].
    #[must_use]
    pub fn warm(&self) -> Option<Warm> {
        self.0.idle.take()
    }

    /// Takes back an instance that was not needed after all.
    pub fn put_back(&self, warm: Option<Warm>) {
        if let Some(warm) = warm {
            self.0.idle.put(warm, self.0.revision.manifest.limits.concurrency as usize);
        }
    }

    /// Instances that wait for an invocation.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.idle.len()
    }

    /// Gives back the memory of all instances that wait, but for the newest `keep`.
    pub fn release(&self, keep: usize) {
        drop(self.0.idle.older_than(std::time::Duration::ZERO, keep));
    }

    /// Gives back the memory of instances that have waited too long, but for the newest `keep`. Call it every second or so.
    pub fn sweep(&self, keep: usize) {
        drop(self.0.idle.older_than(aftercare::idle_max(&self.0.revision.manifest), keep));
    }

    /// Makes an instance ahead of its invocation, in the room that is reserved for it.
    ///
    /// # Errors
    /// When the function fails at its start; its first invocation would have failed the same way.
    pub async fn prepare(&self, room: impl Send + 'static) -> Result<(), Failure> {
        aftercare::prepare(Arc::clone(&self.0), Box::new(room)).await
    }

    /// Answers one request. The invocation ends when the guest is gone and the body is delivered or dropped; by then
    /// this future may be long done, or dropped.
    ///
    /// Cancel safe: dropping the future or the body of the response stops the guest.
    ///
    /// # Errors
    /// When there is no response; see [`Failure::fault`] for whose fault it is.
    pub async fn http<B>(&self, request: Request<B>, invocation: Invocation) -> Result<Response<ResponseBody>, Failure>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let run = self.begin(invocation);
        if self.0.prepared.is_http() { self.answer(request, run).await } else { self.answer_by_command(request, run).await }
    }

    /// Handles one event. The invocation ends with this future, at the latest when it is dropped.
    ///
    /// Cancel safe: dropping the future stops the guest.
    ///
    /// # Errors
    /// When the function failed or answered with a status that is not 2xx.
    pub async fn event(&self, event: &Event, invocation: Invocation) -> Result<Reply, Failure> {
        let run = self.begin(invocation);
        if self.0.prepared.is_http() {
            return self.reply(event, run).await;
        }
        run.call.count_in(event.data.len());
        let stdin = std::future::ready(Ok(Bytes::from(event.data.clone())));
        let trace = run.call.info().trace.clone();
        let environment = event::environment(event, trace.as_ref());
        let data = self.command(stdin, environment, REPLY_BYTES_MAX, run).await?;
        Ok(Reply { data, content_type: None, trace })
    }

    fn begin(&self, invocation: Invocation) -> Run {
        let cold = !self.0.warm.swap(true, Relaxed);
        let Invocation { id, trace, callers, causes, warm, hold: permit, gone, room, ended } = invocation;
        let info = CallInfo { revision: Arc::clone(&self.0.revision), invocation: id, callers, causes, trace };
        let call = Call::begin(info, cold, ended);
        let held = Held { permit, gone, room, ticking: self.0.shared.clock.ticking() };
        Run { parts: Arc::clone(&self.0), call, held, warm }
    }

    async fn reply(&self, event: &Event, run: Run) -> Result<Reply, Failure> {
        let call = Arc::clone(&run.call);
        let response = self.answer(event::request(event, call.info().trace.as_ref()), run).await?;
        let (parts, body) = response.into_parts();
        let data = body.collect(REPLY_BYTES_MAX).await.map_err(|failure| call.fail(failure))?;
        if !parts.status.is_success() {
            return Err(call.fail(Failure::Status { code: parts.status.as_u16(), said: first_line(&data) }));
        }
        let media = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        // No type of media is longer, and a message that is has no room on the bus.
        let content_type = media.filter(|text| text.len() <= CONTENT_TYPE_BYTES_MAX);
        Ok(Reply { data, content_type: content_type.map(str::to_owned), trace: call.info().trace.clone() })
    }

    /// Runs the incoming handler until it has answered.
    async fn answer<B>(&self, mut request: Request<B>, run: Run) -> Result<Response<ResponseBody>, Failure>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.name_authority(&mut request);
        let Run { parts, call, mut held, warm } = run;
        if let Some(trace) = &call.info().trace {
            trace.write_to(request.headers_mut());
        }
        let without_body = request.method() == Method::HEAD;
        let request = request.map(|body| RequestBody::new(body, &call));
        let severance = request.body().severance();
        let (sender, mut receiver) = oneshot::channel();
        let (instance, ready) = match warm {
            Some(Warm { instance, preparation, room, .. }) => {
                held.room = room;
                preparation.iter().for_each(|preparation| call.take_over(preparation));
                (instance, true)
            }
            None => (Instance::empty(&parts, &call), false),
        };
        let work = Arc::clone(&parts).handle((instance, ready), request, sender, Arc::clone(&call));
        let mut guest = Guest::new(Arc::clone(&call), held, &parts, work);
        let answer = first_answer(&mut guest, &mut receiver).await?;
        let care = aftercare::Care { parts, call: Arc::clone(&call), severance };
        let response = match answer {
            Some(Ok(response)) if response.status().is_informational() => {
                return Err(call.fail(Failure::NotFinal { code: response.status().as_u16() }));
            }
            Some(Ok(response)) => response,
            Some(Err(code)) => return Err(call.fail(Failure::Refused { code: code.to_string() })),
            None => return Err(call.fail(Failure::NoResponse)),
        };
        let (head, body) = response.into_parts();
        let body = if guest.is_done() {
            let body = ResponseBody::whole(body, &call).await?;
            care.after(&mut guest);
            body
        } else {
            let without_body = without_body || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
            let length = if without_body { Some(0) } else { content_length(&head.headers) };
            let guest = async move {
                let result = (&mut guest).await;
                care.after(&mut guest);
                result
            };
            ResponseBody::streaming(body, guest, call, length)
        };
        Ok(Response::from_parts(head, body))
    }

    async fn answer_by_command<B>(&self, request: Request<B>, run: Run) -> Result<Response<ResponseBody>, Failure>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let mut environment = vec![
            ("CE_TYPE".to_owned(), "http.request".to_owned()),
            ("HTTP_METHOD".to_owned(), head.method.to_string()),
            ("HTTP_PATH".to_owned(), head.uri.path().to_owned()),
            ("HTTP_QUERY".to_owned(), head.uri.query().unwrap_or_default().to_owned()),
        ];
        if let Some(trace) = &run.call.info().trace {
            environment.extend(event::trace_environment(trace));
        }
        let body = RequestBody::new(body, &run.call);
        let output = self.command(body.collect(), environment, OUTPUT_BYTES_MAX, run).await?;
        let text = std::str::from_utf8(&output).is_ok();
        let media = HeaderValue::from_static(if text { "text/plain; charset=utf-8" } else { "application/octet-stream" });
        let mut response = Response::new(ResponseBody::bytes(output));
        response.headers_mut().insert(header::CONTENT_TYPE, media);
        Ok(response)
    }

    /// Runs a command to its end and answers what it wrote on standard output.
    async fn command(
        &self,
        stdin: impl Future<Output = Result<Bytes, Failure>> + Send + 'static,
        environment: Vec<(String, String)>,
        output_bytes_max: usize,
        run: Run,
    ) -> Result<Bytes, Failure> {
        let stdout = Pipe::kept(output_bytes_max);
        let Run { parts, call, held, warm: _ } = run;
        let (output, of_guest) = (stdout.clone(), Arc::clone(&call));
        let of_function = Arc::clone(&parts);
        let work = async move {
            let stdin = stdin.await.map_err(|failure| of_guest.fail(failure))?;
            let mut around = parts.surroundings(&of_guest);
            around.wasi.stdin(MemoryInputPipe::new(stdin)).stdout(output).envs(&environment);
            parts.run(around, &of_guest).await.map(|()| None)
        };
        Guest::new(Arc::clone(&call), held, &of_function, work).await?;
        let output = stdout.take().map_err(|failure| call.fail(failure))?;
        call.count_out(output.len());
        Ok(output)
    }

    /// `wasi:http` wants to know the host; HTTP/1.0 and events have none.
    fn name_authority<B>(&self, request: &mut Request<B>) {
        let named = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.parse::<Authority>().is_ok());
        if request.uri().authority().is_none() && !request.headers().get(header::HOST).is_some_and(named) {
            let name = format!("{}.sedge.internal", self.0.revision.function);
            let name = HeaderValue::try_from(name).expect("a function name is a DNS label");
            request.headers_mut().insert(header::HOST, name);
        }
    }
}

impl Parts {
    pub(crate) const fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    pub(crate) const fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The store of an instance whose output goes to the log.
    pub(crate) fn store(&self, call: &Arc<Call>) -> Store<State> {
        State::store(&self.engine, call, &self.host, self.surroundings(call))
    }

    /// The common part of every instance's surroundings: its name, and its output to the log.
    fn surroundings(&self, call: &Arc<Call>) -> Surroundings {
        let output = [LogStream::Stdout, LogStream::Stderr].map(|stream| Pipe::log(&self.host, call, stream));
        let mut wasi = WasiCtxBuilder::new();
        wasi.arg(self.revision.function.as_str()).stdout(output[0].clone()).stderr(output[1].clone());
        Surroundings { wasi, output, outgoing: self.prepared.outgoing_import() }
    }

    /// One invocation of an HTTP component, from start to return. Answers the instance if it is still whole.
    async fn handle<B>(
        self: Arc<Self>,
        (mut instance, ready): (Box<Instance>, bool),
        request: Request<RequestBody<B>>,
        sender: oneshot::Sender<Answer>,
        call: Arc<Call>,
    ) -> Result<Option<Box<Instance>>, Failure>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let result = async {
            if ready {
                instance.enter(&call);
            } else {
                instance.make(&self).await?;
            }
            instance.handle(request, sender).await
        }
        .await;
        let whole = result.is_ok();
        let verdict = State::verdict(&mut instance.store, result);
        // After the verdict, which says more of why an answer is not whole, and before the instance goes, and its bodies with it.
        instance.abort_bodies();
        verdict?;
        Ok(whole.then_some(instance))
    }

    /// One instance of a command, from start to exit.
    async fn run(&self, around: Surroundings, call: &Arc<Call>) -> Result<(), Failure> {
        let mut store = State::store(&self.engine, call, &self.host, around);
        let result = async {
            match &self.prepared {
                Prepared::Command(pre) => {
                    let command = pre.instantiate_async(&mut store).await?;
                    let ended = command.wasi_cli_run().call_run(&mut store).await?;
                    ended.map_err(|()| wasmtime::Error::new(Failure::Exit { code: 1 }))
                }
                Prepared::Command03(pre) => wasi03::run(&mut store, pre).await,
                Prepared::Core(pre) => {
                    let instance = pre.instantiate_async(&mut store).await?;
                    let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
                    start.call_async(&mut store, ()).await
                }
                Prepared::Http(_) | Prepared::Http03(_) => unreachable!("HTTP components are handled"),
            }
        }
        .await;
        State::verdict(&mut store, result)
    }
}

/// Drives the guest until it answers or ends. `None`: it ended, or dropped its right to answer and ended, without.
async fn first_answer(guest: &mut Guest, receiver: &mut oneshot::Receiver<Answer>) -> Result<Option<Answer>, Failure> {
    let mut dropped = false;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(Err(failure)) = Pin::new(&mut *guest).poll(cx) {
            // A response that was set before the failure was not whole, or is not worth sending.
            return Poll::Ready(Err(failure));
        }
        if guest.is_done() {
            // Without asking to be woken, which the budget of this task might put off.
            return Poll::Ready(Ok(receiver.try_recv().ok().filter(|_| !dropped)));
        }
        if !dropped {
            // Asked each time, because the guest may run on another thread by now.
            match Pin::new(&mut *receiver).poll(cx) {
                Poll::Ready(Ok(answer)) => return Poll::Ready(Ok(Some(answer))),
                Poll::Ready(Err(_)) => dropped = true,
                Poll::Pending => {}
            }
        }
        Poll::Pending
    })
    .await
}

/// The first line of what a function says of its failure, without what controls a terminal.
fn first_line(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * FAILURE_CHARS_MAX)]);
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|character| !character.is_control()).take(FAILURE_CHARS_MAX).collect()
}

fn content_length(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("revision", &self.0.revision).finish_non_exhaustive()
    }
}
