//! What functions may reach, seen from both sides: the [`Host`] that the daemon implements, and one file for each
//! interface that guests import.

pub(crate) mod blobstore;
mod blobstream;
pub(crate) mod config;
pub(crate) mod egress;
mod filesystem;
pub(crate) mod filesystem03;
pub(crate) mod keyvalue;
pub(crate) mod logging;
pub(crate) mod messaging;
pub(crate) mod outgoing;
pub(crate) mod sockets;
pub(crate) mod sockets03;

use crate::assets::Assets;
use crate::trace::Trace;
use bytes::Bytes;
pub use egress::{Egress, EgressError};
use http::{Request, Response};
use sedge_protocol::manifest::SecretName;
use sedge_protocol::{Digest, FunctionName, Manifest, RevisionId, Topic};
use sedge_store::Blobs;
use std::pin::Pin;
use std::sync::Arc;
use wasmtime_wasi_http::WasiBody;

/// Which revision runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionRef {
    /// The function's name.
    pub function: FunctionName,
    /// The revision.
    pub revision: RevisionId,
    /// Digest of its artifact.
    pub digest: Digest,
    /// What its owner says about it.
    pub manifest: Arc<Manifest>,
}

/// Which invocation a host call belongs to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CallInfo {
    /// The revision that runs.
    pub revision: Arc<RevisionRef>,
    /// Unique name of the invocation.
    pub invocation: Arc<str>,
    /// The functions that wait for it, the outermost first; empty when nobody on this node called it.
    pub callers: Arc<[FunctionName]>,
    /// Calls and events of functions that led to the first of them one after the other, and waited for nothing.
    pub causes: u32,
    /// Its span, which outgoing calls and what it publishes carry on; none while an instance is made ahead.
    pub trace: Option<Trace>,
}

impl CallInfo {
    /// Calls and events of functions in a row that led to this invocation: at most [`CALL_DEPTH_MAX`](crate::limits::CALL_DEPTH_MAX).
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.causes.saturating_add(u32::try_from(self.callers.len()).unwrap_or(u32::MAX))
    }
}

/// Where a line of guest output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// `wasi:logging`, with its level.
    Logging(LogLevel),
    /// The runtime itself, about this invocation: where a trap happened.
    Trap,
}

/// Levels of `wasi:logging`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For the function's author.
    Trace,
    /// For the function's author.
    Debug,
    /// Something happened.
    Info,
    /// Something is odd.
    Warn,
    /// Something failed.
    Error,
    /// Nothing works any more.
    Critical,
}

/// One line of guest output, without its line end, at most [`LOG_LINE_BYTES_MAX`](crate::limits::LOG_LINE_BYTES_MAX).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Where it came from.
    pub stream: LogStream,
    /// The text; what was not UTF-8 is replaced.
    pub text: String,
}

/// One page of the keys of a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// Keys in their order.
    pub keys: Vec<String>,
    /// Where the next page begins; `None` after the last.
    pub cursor: Option<String>,
}

/// Why the host did not do what a function asked for. The text reaches the function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The manifest or the node does not allow it.
    #[error("not allowed: {0}")]
    Denied(String),
    /// A quota or the disk is full.
    #[error("full: {0}")]
    Full(String),
    /// It did not work.
    #[error("{0}")]
    Failed(String),
}

/// A key-value store: one of a function's own, or one that functions share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreRef<'a> {
    /// Whose it is; `None` is shared.
    pub owner: Option<&'a FunctionName>,
    /// Its name.
    pub bucket: &'a str,
    /// What the owner's stores may hold together; for shared ones the node decides.
    pub quota_bytes: u64,
}

/// A value that must not be seen: it has no `Debug` and no `Display`.
#[expect(missing_debug_implementations, reason = "so that it never gets into a log")]
#[derive(Clone)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Hides a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for whoever may have it.
    pub const fn reveal(&self) -> &T {
        &self.0
    }
}

/// What happened to an object of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobChange {
    /// The container.
    pub container: String,
    /// The object.
    pub name: String,
    /// Its size when it was created or replaced; `None` when it was deleted.
    pub size: Option<u64>,
}

/// The answer to a call between functions. It is an HTTP response also when the callee did not run.
pub type CallAnswer = Pin<Box<dyn Future<Output = Response<WasiBody>> + Send>>;

/// What functions may reach: state, files, topics, secrets, other machines, other functions, and the log.
///
/// The methods are called on the thread that runs the guest. They must return quickly: memory and bounded queues, no
/// waiting for a disk or a network. Their processor time counts as the function's. Names and grants are checked before.
pub trait Host: Send + Sync + 'static {
    /// The value of `key`.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn kv_get(&self, store: StoreRef<'_>, key: &str) -> Result<Option<Vec<u8>>, HostError>;

    /// Writes all of `pairs` or none; reads that follow see them.
    ///
    /// # Errors
    /// When a value is too large, a quota is reached or the store fails.
    fn kv_set(&self, store: StoreRef<'_>, pairs: Vec<(String, Vec<u8>)>) -> Result<(), HostError>;

    /// Removes all of `keys` at once; one that is absent is no error.
    ///
    /// # Errors
    /// When the store fails.
    fn kv_delete(&self, store: StoreRef<'_>, keys: &[String]) -> Result<(), HostError>;

    /// One page of keys, from `cursor` or the beginning.
    ///
    /// # Errors
    /// When the store fails.
    fn kv_list(&self, store: StoreRef<'_>, cursor: Option<&str>) -> Result<KeyPage, HostError>;

    /// Adds `delta` to a number kept as decimal text, atomically; absent counts as 0. Answers the sum.
    ///
    /// # Errors
    /// When the value is not a number, the sum overflows, a quota is reached or the store fails.
    fn kv_increment(&self, store: StoreRef<'_>, key: &str, delta: i64) -> Result<i64, HostError>;

    /// Writes `value` only if the present value is `expected`, atomically. Answers whether it did.
    ///
    /// # Errors
    /// When a quota is reached or the store fails.
    fn kv_swap(&self, store: StoreRef<'_>, key: &str, swap: Swap<'_>) -> Result<bool, HostError>;

    /// The files inside artifacts, unpacked.
    fn assets(&self) -> &Assets;

    /// The files of functions. Their methods block: the runtime calls them where that is allowed.
    fn blobs(&self) -> &Blobs;

    /// Tells those who want to know that an object was created or deleted.
    ///
    /// # Errors
    /// When the bus does not take it.
    fn blob_changed(&self, call: &CallInfo, change: &BlobChange) -> Result<(), HostError>;

    /// A secret of the node; `None` if it is not here.
    ///
    /// # Errors
    /// When it is here and cannot be read.
    fn secret(&self, name: &SecretName) -> Result<Option<Secret<String>>, HostError>;

    /// The way to other machines.
    fn egress(&self) -> &Egress;

    /// Sends a request to another function of the node, which is admitted, limited and metered as itself.
    ///
    /// Cancel safe: dropping the future or the body of the answer stops the callee.
    fn call(&self, caller: &CallInfo, callee: &FunctionName, request: Request<WasiBody>) -> CallAnswer;

    /// Publishes a message as an event of the function.
    ///
    /// # Errors
    /// When the bus does not take it.
    fn publish(&self, call: &CallInfo, topic: &Topic, message: Bytes, content_type: Option<&str>) -> Result<(), HostError>;

    /// Takes what was in memory when an instance trapped, in the format of WebAssembly core dumps. Asked for in the manifest.
    fn core_dump(&self, _call: &CallInfo, _dump: Vec<u8>) {}

    /// Takes one line of output.
    fn log(&self, call: &CallInfo, line: LogLine);
}

/// A compare-and-swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swap<'a> {
    /// What must be there now; `None` is nothing.
    pub expected: Option<&'a [u8]>,
    /// What is written then.
    pub value: &'a [u8],
}

/// The interfaces that wasmtime does not provide.
#[expect(clippy::error_impl_error, reason = "generated by bindgen, with the names of the interfaces")]
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "sedge:node/bindings",
        imports: {
            "wasi:blobstore/types.[static]outgoing-value.new-outgoing-value": async | trappable,
            "wasi:blobstore/types.[static]outgoing-value.finish": async | trappable,
            "wasi:blobstore/types.[static]incoming-value.incoming-value-consume-sync": async | trappable,
            "wasi:blobstore/container.[method]container.info": async | trappable,
            "wasi:blobstore/container.[method]container.get-data": async | trappable,
            "wasi:blobstore/container.[method]container.delete-object": async | trappable,
            "wasi:blobstore/container.[method]container.delete-objects": async | trappable,
            "wasi:blobstore/container.[method]container.has-object": async | trappable,
            "wasi:blobstore/container.[method]container.object-info": async | trappable,
            "wasi:blobstore/container.[method]container.clear": async | trappable,
            "wasi:blobstore/container.[method]stream-object-names.read-stream-object-names": async | trappable,
            "wasi:blobstore/container.[method]stream-object-names.skip-stream-object-names": async | trappable,
            "wasi:blobstore/blobstore.delete-container": async | trappable,
            "wasi:blobstore/blobstore.copy-object": async | trappable,
            "wasi:blobstore/blobstore.move-object": async | trappable,
            default: trappable,
        },
        with: {
            "wasi:io/streams": wasmtime_wasi::p2::bindings::io::streams,
            "wasi:blobstore/types.outgoing-value": crate::host::blobstore::OutgoingValue,
            "wasi:blobstore/types.incoming-value": crate::host::blobstore::IncomingValue,
            "wasi:blobstore/container.container": crate::host::blobstore::OpenContainer,
            "wasi:blobstore/container.stream-object-names": crate::host::blobstore::Names,
            "wasi:keyvalue/store.bucket": crate::host::keyvalue::Bucket,
            "wasi:keyvalue/atomics.cas": crate::host::keyvalue::Cas,
            "wasi:messaging/types.client": crate::host::messaging::Client,
            "wasi:messaging/types.message": crate::host::messaging::Message,
        },
    });

    pub(crate) use self::wasi::*;
}
