//! The WebAssembly host of a node: takes an artifact and runs it, one fresh instance for each invocation.
//!
//! ```text
//!  artifact ─▶ Engine::prepare ─▶ Function ─┬─ http(request) ─▶ response, streaming
//!               inspect, compile or load,   └─ event(event)  ─▶ reply
//!               link                              │
//!                                     Guest: store, limits, deadline, meter
//!                                                 │
//!               Host (state, topics, log) ◀───────┴──────▶ Ending { result, usage }, exactly once
//! ```
//!
//! Invariants
//! - No instance outlives its time limit, whether it computes, waits for the host or streams to a slow client; a guest
//!   that computes gives way every few milliseconds, so it delays nobody else.
//! - No instance gets more memory than its manifest says; instances come from a pool that is reserved at the start.
//! - A guest reaches what [`Host`] gives it and what `sedge_protocol::artifact::GRANTED` lists, nothing else.
//! - Every call ends exactly once with its [`Usage`], also when the caller goes away.
//! - Compiled code is executed only if this node compiled it and its checksum fits.
//!
//! Absent on purpose: admission, queues, retries, routing (the node's core and daemon).

mod aftercare;
mod assets;
mod body;
mod compiled;
mod compiler;
mod engine;
mod epoch;
mod event;
mod failure;
mod form;
mod function;
mod guest;
mod host;
mod idle;
mod instance;
mod last_words;
pub mod limits;
mod linker;
mod memory;
mod pool;
mod rests;
mod scratch;
mod state;
mod stdio;
mod trace;
mod turns;
mod usage;
mod usual;
mod wasi03;

pub use assets::{Assets, UnpackError};
pub use body::ResponseBody;
pub use compiler::{CompileError, Order, Workshop, compile};
pub use engine::{Engine, EngineConfig, EngineError, PrepareError, Rules};
pub use failure::{Failure, Fault};
pub use form::{Form, FormError};
pub use function::{Function, Reply};
pub use host::{
    BlobChange, CallAnswer, CallInfo, Egress, EgressError, Host, HostError, KeyPage, LogLevel, LogLine, LogStream, RevisionRef, Secret,
    StoreRef, Swap,
};
pub use idle::Warm;
pub use pool::{Machine, Plan};
pub use rests::Rests;
pub use trace::Trace;
pub use usage::{Ending, Invocation, Usage};
pub use wasmtime_wasi_http::{Error as HttpError, WasiBody};
