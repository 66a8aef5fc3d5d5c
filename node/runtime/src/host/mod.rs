//! What functions may reach, seen from both sides: the [`Host`] that the daemon implements, and one file for each
//! interface that guests import.

pub(crate) mod config;
pub(crate) mod keyvalue;
pub(crate) mod logging;
pub(crate) mod messaging;
pub(crate) mod outgoing;

use bytes::Bytes;
use sedge_protocol::{Digest, FunctionName, Manifest, RevisionId, Topic};
use std::sync::Arc;

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

/// What functions may reach: state, topics and the log.
///
/// The methods are called on the thread that runs the guest. They must return quickly: memory and bounded queues, no
/// waiting for a disk or a network. Their processor time counts as the function's. Names and grants are checked before.
pub trait Host: Send + Sync + 'static {
    /// The value of `key`.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn kv_get(&self, function: &FunctionName, bucket: &str, key: &str) -> Result<Option<Vec<u8>>, HostError>;

    /// Writes `value`; reads that follow see it.
    ///
    /// # Errors
    /// When the value is too large, a quota is reached or the store fails.
    fn kv_set(&self, function: &FunctionName, bucket: &str, key: &str, value: Vec<u8>) -> Result<(), HostError>;

    /// Removes `key`; one that is absent is no error.
    ///
    /// # Errors
    /// When the store fails.
    fn kv_delete(&self, function: &FunctionName, bucket: &str, key: &str) -> Result<(), HostError>;

    /// One page of keys, from `cursor` or the beginning.
    ///
    /// # Errors
    /// When the cursor is not one of ours or the store fails.
    fn kv_list(&self, function: &FunctionName, bucket: &str, cursor: Option<&str>) -> Result<KeyPage, HostError>;

    /// Adds `delta` to a number kept as decimal text, atomically; absent counts as 0. Answers the sum.
    ///
    /// # Errors
    /// When the value is not a number, the sum overflows or the store fails.
    fn kv_increment(&self, function: &FunctionName, bucket: &str, key: &str, delta: i64) -> Result<i64, HostError>;

    /// Writes `value` only if the present value is `expected`, atomically. Answers whether it did.
    ///
    /// # Errors
    /// When the store fails.
    fn kv_swap(&self, function: &FunctionName, bucket: &str, key: &str, swap: Swap<'_>) -> Result<bool, HostError>;

    /// Whether `key` has a value.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn kv_exists(&self, function: &FunctionName, bucket: &str, key: &str) -> Result<bool, HostError> {
        Ok(self.kv_get(function, bucket, key)?.is_some())
    }

    /// Several writes at once; a host that can makes them one.
    ///
    /// # Errors
    /// As [`kv_set`](Self::kv_set); some may be written.
    fn kv_set_many(&self, function: &FunctionName, bucket: &str, pairs: Vec<(String, Vec<u8>)>) -> Result<(), HostError> {
        pairs.into_iter().try_for_each(|(key, value)| self.kv_set(function, bucket, &key, value))
    }

    /// Several removals at once; a host that can makes them one.
    ///
    /// # Errors
    /// As [`kv_delete`](Self::kv_delete); some may be removed.
    fn kv_delete_many(&self, function: &FunctionName, bucket: &str, keys: &[String]) -> Result<(), HostError> {
        keys.iter().try_for_each(|key| self.kv_delete(function, bucket, key))
    }

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
        imports: { default: trappable },
        with: {
            "wasi:keyvalue/store.bucket": crate::host::keyvalue::Bucket,
            "wasi:keyvalue/atomics.cas": crate::host::keyvalue::Cas,
            "wasi:messaging/types.client": crate::host::messaging::Client,
            "wasi:messaging/types.message": crate::host::messaging::Message,
        },
    });

    pub(crate) use self::wasi::*;
}
