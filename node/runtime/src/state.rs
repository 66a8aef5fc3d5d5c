//! What a store carries: the WASI contexts of one invocation, its limits and its way to the host.

use crate::failure::Failure;
use crate::host::outgoing::Outgoing;
use crate::host::sockets::Sockets;
use crate::host::{Host, LogLevel, LogLine, LogStream};
use crate::limits::{
    BLOB_CHUNK_BYTES, CALLS_PER_WEIGHING, CONCURRENT_MAX, CORE_DUMP_MEMORY_BYTES_MAX, EPOCHS_OF_FIRST_TURN, EPOCHS_PER_TURN, HANDLES_MAX,
    HEADER_BYTES_MAX, TRAP_BYTES_MAX,
};
use crate::memory::{Held, Memory};
use crate::scratch::{SCRATCH, Scratch};
use crate::stdio::Pipe;
use crate::usage::Call;
use sedge_protocol::{FunctionName, Manifest};
use std::sync::Arc;
use std::time::Instant;
use wasmtime::component::ResourceTable;
use wasmtime::{PoolConcurrencyLimitError, Store, UpdateDeadline, WasmBacktrace, WasmCoreDump};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// Data of one store. Its WASI context serves components and preview 1 modules alike.
pub(crate) struct State {
    wasi: WasiP1Ctx,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    pub(crate) sockets: Sockets,
    /// Held by every object that is being read or written: their number is bounded.
    pub(crate) blobs_open: Arc<()>,
    /// What messages take that were made and neither sent nor dropped.
    pub(crate) messages_bytes: usize,
    memory: Memory,
    /// Calls to the host since what it holds for the guest was weighed.
    calls: u8,
    output: [Pipe; 2],
    pub(crate) call: Arc<Call>,
    pub(crate) host: Arc<dyn Host>,
}

/// What an instance finds around it: its WASI context, and the ends of its output that the node reads.
pub(crate) struct Surroundings {
    pub(crate) wasi: WasiCtxBuilder,
    pub(crate) output: [Pipe; 2],
    /// The name under which it sends requests.
    pub(crate) outgoing: &'static str,
}

impl State {
    /// Epochs of the first turn, which is taken where the request came in.
    pub(crate) const FIRST_TURN: u64 = EPOCHS_OF_FIRST_TURN;

    /// A store that is ready for one invocation: limits set, deadline armed.
    pub(crate) fn store(engine: &wasmtime::Engine, call: &Arc<Call>, host: &Arc<dyn Host>, around: Surroundings) -> Store<Self> {
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(HEADER_BYTES_MAX);
        let Surroundings { mut wasi, output, outgoing } = around;
        let sockets = Sockets::grant(&mut wasi, call, host);
        grant_files(&mut wasi, call, host);
        let scratch = grant_scratch(&mut wasi, call);
        let mut wasi = wasi.build_p1();
        wasi.ctx().table.set_max_capacity(HANDLES_MAX);
        let memory = Memory::new(Arc::clone(call), scratch);
        let outgoing = Outgoing::new(outgoing, call, host);
        let (call, host) = (Arc::clone(call), Arc::clone(host));
        let state =
            Self { wasi, http, outgoing, sockets, blobs_open: Arc::default(), messages_bytes: 0, memory, calls: 0, output, call, host };
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.memory);
        store.set_max_component_handles(HANDLES_MAX);
        if let Some(table) = store.concurrent_resource_table() {
            table.set_max_capacity(CONCURRENT_MAX);
        }
        store.set_epoch_deadline(Self::FIRST_TURN);
        store.epoch_deadline_callback(|context| take_turns(&context.data().call));
        store
    }

    /// From now on everything is on behalf of `call`.
    pub(crate) fn enter(&mut self, call: &Arc<Call>) {
        self.memory.enter(call);
        // What the one before left is held on behalf of this one, and explains it if this one gets nothing for that.
        self.weigh();
        self.output.iter().for_each(|pipe| pipe.enter(call));
        self.outgoing.enter(call);
        self.sockets.enter(call);
        self.call = Arc::clone(call);
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.call.info().revision.manifest
    }

    pub(crate) fn function(&self) -> &FunctionName {
        &self.call.info().revision.function
    }

    pub(crate) fn table(&mut self) -> &mut ResourceTable {
        self.wasi.ctx().table
    }

    /// Counts what the node holds for the guest with its memory. When that is more than its limit, the guest gets no more handles.
    pub(crate) fn weigh(&mut self) {
        self.calls = 0;
        let Held { bytes, bodies } = Held::weigh(self.wasi.ctx().table);
        let objects = Arc::strong_count(&self.blobs_open) - 1;
        self.outgoing.bodies_are(bodies);
        let fits = self.memory.held_is(bytes + self.messages_bytes + objects * BLOB_CHUNK_BYTES);
        self.wasi.ctx().table.set_max_capacity(if fits { HANDLES_MAX } else { 0 });
    }

    /// One more call that may leave something with the node.
    fn weigh_in_turn(&mut self) {
        self.calls += 1;
        if self.calls >= CALLS_PER_WEIGHING {
            self.weigh();
        }
    }

    /// Its scratch directory, if it was granted one.
    pub(crate) const fn scratch(&self) -> Option<&Scratch> {
        self.memory.scratch()
    }

    pub(crate) fn preview1(&mut self) -> &mut WasiP1Ctx {
        &mut self.wasi
    }

    pub(crate) fn emit(&self, line: LogLine) {
        self.host.log(self.call.info(), line);
    }

    /// Tells the function's log that something was refused, and which line of the manifest would grant it.
    pub(crate) fn refuse(&self, import: &str, what: &str, line: &str) {
        self.emit(refusal(import, what, line));
    }

    /// Says in our words how the guest ended, and records it while the guest's streams are still open.
    pub(crate) fn verdict(store: &mut Store<Self>, result: wasmtime::Result<()>) -> Result<(), Failure> {
        let Err(error) = result else { return Ok(()) };
        let explained = store.data().explain(&error);
        if let (Err(Failure::Trap { .. }), true) = (&explained, store.data().manifest().debug.core_dump) {
            Self::dump(store, &error);
        }
        explained.map_err(|failure| store.data().call.fail(failure))
    }

    /// Hands the memory of the guest to the host, for the author who asked for it.
    fn dump(store: &mut Store<Self>, error: &wasmtime::Error) {
        let Some(dump) = error.downcast_ref::<WasmCoreDump>() else { return };
        let used_bytes = store.data().memory.linear_bytes();
        if used_bytes > CORE_DUMP_MEMORY_BYTES_MAX {
            let text = format!("no core dump: {used_bytes} bytes of memory, one is made of at most {CORE_DUMP_MEMORY_BYTES_MAX}");
            store.data().emit(LogLine { stream: LogStream::Trap, text });
            return;
        }
        let name = store.data().function().to_string();
        let bytes = dump.serialize(&mut *store, &name);
        let state = store.data();
        state.host.core_dump(state.call.info(), bytes);
    }

    /// A trap is logged with its place in the code.
    fn explain(&self, error: &wasmtime::Error) -> Result<(), Failure> {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return Err(failure.clone());
        }
        if error.is::<Expired>() {
            return Err(Failure::Timeout { limit_ms: self.call.limit_ms() });
        }
        match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(0)) => return Ok(()),
            Some(I32Exit(code)) => return Err(Failure::Exit { code: *code }),
            None => {}
        }
        if let Some(limit) = error.downcast_ref::<PoolConcurrencyLimitError>() {
            return Err(Failure::Busy { reason: limit.to_string() });
        }
        if let Some(limit_bytes) = self.memory.refused() {
            return Err(Failure::OutOfMemory { limit_bytes });
        }
        let cause = error.root_cause().to_string();
        let mut message = cause.strip_prefix("wasm trap: ").unwrap_or(&cause).to_owned();
        let places = error.downcast_ref::<WasmBacktrace>().map(ToString::to_string).unwrap_or_default();
        for line in std::iter::once(cause.as_str()).chain(places.lines()) {
            self.emit(LogLine { stream: LogStream::Trap, text: crate::host::logging::cut(line).to_owned() });
        }
        if let Some(words) = self.call.last_words() {
            message.push_str(&format!(" ({words})"));
        }
        message.truncate(message.floor_char_boundary(TRAP_BYTES_MAX));
        Err(Failure::Trap { message })
    }
}

/// Shows the files of the artifact at `/assets`.
fn grant_files(wasi: &mut WasiCtxBuilder, call: &Call, host: &Arc<dyn Host>) {
    let Some(path) = host.assets().of(&call.info().revision.digest) else { return };
    if let Err(error) = wasi.preopened_dir(path, "/assets", FsPerms::ReadOnly) {
        let text = format!("/assets cannot be opened: {error}");
        host.log(call.info(), LogLine { stream: LogStream::Trap, text });
    }
}

/// Makes the scratch directory that the manifest asks for, and tells programs that it is the place for such files.
fn grant_scratch(wasi: &mut WasiCtxBuilder, call: &Arc<Call>) -> Option<Scratch> {
    let limit_bytes = call.info().revision.manifest.access.scratch_bytes();
    (limit_bytes > 0).then(|| {
        wasi.env("TMPDIR", SCRATCH);
        Scratch::new(limit_bytes, call)
    })
}

/// The line about something that the manifest did not ask for.
pub(crate) fn refusal(import: &str, what: &str, line: &str) -> LogLine {
    let text = format!("{import}: {what} was refused; add `{line}` under [access] in function.toml");
    LogLine { stream: LogStream::Logging(LogLevel::Error), text: crate::host::logging::cut(&text).to_owned() }
}

/// Lets the others run at the end of a turn, and stops the guest at the end of its time.
fn take_turns(call: &Call) -> wasmtime::Result<UpdateDeadline> {
    if Instant::now() >= call.deadline() {
        return Err(wasmtime::Error::new(Expired));
    }
    call.turn();
    // Tokio's own yield also lets timers and sockets be looked at; waking ourselves would starve them.
    Ok(UpdateDeadline::YieldCustom(EPOCHS_PER_TURN, Box::pin(tokio::task::yield_now())))
}

/// The guest computed until its deadline.
#[derive(Debug, thiserror::Error)]
#[error("deadline reached")]
pub(crate) struct Expired;

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.weigh_in_turn();
        WasiHttpCtxView { hooks: &mut self.outgoing, table: self.wasi.ctx().table, ctx: &mut self.http }
    }
}
