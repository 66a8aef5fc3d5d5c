//! What functions may reach, over the store, the disk, the bus, the secrets and the log.

mod blob;
pub(crate) mod call;
pub(crate) mod keyvalue;

use crate::bus::{BusHandle, Publication};
use crate::dumps::Dumps;
use crate::secrets::Secrets;
use crate::{clock, depth, logs::Logs};
use bytes::Bytes;
use call::Calls;
use http::Request;
use keyvalue::Keyvalue;
use sedge_protocol::manifest::SecretName;
use sedge_protocol::{Event, FunctionName, Topic};
use sedge_runtime::limits::CALL_DEPTH_MAX;
use sedge_runtime::{
    Assets, BlobChange, CallAnswer, CallInfo, Egress, Host, HostError, KeyPage, LogLevel, LogLine, LogStream, Secret, StoreRef, Swap,
    Trace, WasiBody,
};
use sedge_store::Blobs;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// The host of all functions of this node.
#[derive(Debug)]
pub(crate) struct NodeHost {
    pub(crate) keyvalue: Keyvalue,
    pub(crate) assets: Assets,
    pub(crate) blobs: Blobs,
    pub(crate) secrets: Secrets,
    pub(crate) egress: Egress,
    pub(crate) calls: Calls,
    pub(crate) bus: BusHandle,
    pub(crate) logs: Logs,
    pub(crate) dumps: Dumps,
    /// Guests may run on threads that know no runtime.
    pub(crate) blocking: tokio::runtime::Handle,
    pub(crate) published: AtomicU64,
}

/// What every event of a function carries: its trace, and how long the chain is that led to it.
fn extensions(call: &CallInfo) -> BTreeMap<String, String> {
    call.trace.iter().flat_map(Trace::extensions).chain([depth::extension_after(call.depth())]).collect()
}

impl NodeHost {
    fn next(&self) -> u64 {
        self.published.fetch_add(1, Ordering::Relaxed)
    }

    /// Refuses an event that would wake functions at the end of a chain that is too long; who only listens gets it.
    fn allow(&self, call: &CallInfo, topic: &Topic) -> Result<(), HostError> {
        let deep = depth::is_too_deep(call.depth().saturating_add(1));
        if !deep || self.calls.functions.table().matches(topic).is_empty() {
            return Ok(());
        }
        let text = format!("{topic}: more than {CALL_DEPTH_MAX} calls and events of functions in a row; this chain ends here");
        self.logs.write(call, LogLine { stream: LogStream::Logging(LogLevel::Error), text: text.clone() });
        Err(HostError::Denied(text))
    }
}

impl Host for NodeHost {
    fn kv_get(&self, store: StoreRef<'_>, key: &str) -> Result<Option<Vec<u8>>, HostError> {
        self.keyvalue.get(store, key)
    }

    fn kv_set(&self, store: StoreRef<'_>, pairs: Vec<(String, Vec<u8>)>) -> Result<(), HostError> {
        self.keyvalue.set(store, pairs)
    }

    fn kv_delete(&self, store: StoreRef<'_>, keys: &[String]) -> Result<(), HostError> {
        self.keyvalue.delete(store, keys)
    }

    fn kv_list(&self, store: StoreRef<'_>, cursor: Option<&str>) -> Result<KeyPage, HostError> {
        self.keyvalue.list(store, cursor)
    }

    fn kv_increment(&self, store: StoreRef<'_>, key: &str, delta: i64) -> Result<i64, HostError> {
        self.keyvalue.increment(store, key, delta)
    }

    fn kv_swap(&self, store: StoreRef<'_>, key: &str, swap: Swap<'_>) -> Result<bool, HostError> {
        self.keyvalue.swap(store, key, swap)
    }

    fn assets(&self) -> &Assets {
        &self.assets
    }

    fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    fn blob_changed(&self, call: &CallInfo, change: &BlobChange) -> Result<(), HostError> {
        blob::publish(&self.bus, call, self.next(), change)
    }

    fn secret(&self, name: &SecretName) -> Result<Option<Secret<String>>, HostError> {
        self.secrets.get(name)
    }

    fn egress(&self) -> &Egress {
        &self.egress
    }

    fn call(&self, caller: &CallInfo, callee: &FunctionName, request: Request<WasiBody>) -> CallAnswer {
        self.calls.call(caller, callee, request)
    }

    fn publish(&self, call: &CallInfo, topic: &Topic, message: Bytes, content_type: Option<&str>) -> Result<(), HostError> {
        self.allow(call, topic)?;
        let event = Event {
            id: format!("{}-{}", call.invocation, self.next()),
            source: format!("/function/{}", call.revision.function),
            kind: "sedge.function.message".to_owned(),
            time_ms: Some(clock::wall().0),
            topic: topic.clone(),
            content_type: content_type.map(ToOwned::to_owned),
            extensions: extensions(call),
            data: message.to_vec(),
        };
        let publication = Publication { event, kept: true, fan_out: true, only: None, letter: None, answer: None };
        self.bus.publish(publication).map_err(|refusal| HostError::Full(refusal.to_string()))?;
        self.logs.published(call, topic, &message, content_type);
        Ok(())
    }

    fn core_dump(&self, call: &CallInfo, dump: Vec<u8>) {
        let Some(path) = self.dumps.take(call) else { return };
        let (dumps, logs, call) = (self.dumps.clone(), self.logs.clone(), call.clone());
        // Megabytes to a slow disk: neither the guest nor its thread waits for that.
        drop(self.blocking.spawn_blocking(move || {
            let text = match dumps.write(&path, &dump) {
                Ok(()) => format!("core dump: {} ({} bytes)", path.display(), dump.len()),
                Err(error) => format!("no core dump: {}: {error}", path.display()),
            };
            logs.write(&call, LogLine { stream: LogStream::Trap, text });
        }));
    }

    fn log(&self, call: &CallInfo, line: LogLine) {
        self.logs.write(call, line);
    }
}
