//! What functions may reach, over the store, the bus and the log.
//!
//! Keys in the store: function, 0, bucket, 0, key. Function and bucket names cannot hold a zero byte, so no function reads another's state.

use crate::bus::{BusHandle, Publication};
use crate::dumps::Dumps;
use crate::limits::KV_PAGE_KEYS;
use crate::{clock, logs::Logs};
use bytes::Bytes;
use sedge_protocol::{Event, FunctionName, Topic};
use sedge_runtime::{CallInfo, Host, HostError, KeyPage, LogLine, LogStream, Swap};
use sedge_store::{Batch, CommitError, Durability, Store, Tree};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The host of all functions of this node.
#[derive(Debug)]
pub(crate) struct NodeHost {
    store: Store,
    bus: BusHandle,
    logs: Logs,
    dumps: Dumps,
    /// Guests may run on threads that know no runtime.
    blocking: tokio::runtime::Handle,
    /// Makes read-modify-write of one key atomic. Held for a read and a commit in memory.
    atomic: Mutex<()>,
    published: AtomicU64,
}

impl NodeHost {
    /// Call it inside the daemon's runtime.
    pub(crate) fn new(store: Store, bus: BusHandle, logs: Logs, dumps: Dumps) -> Self {
        Self { store, bus, logs, dumps, blocking: tokio::runtime::Handle::current(), atomic: Mutex::new(()), published: AtomicU64::new(0) }
    }

    fn commit(&self, batch: Batch) -> Result<(), HostError> {
        match self.store.commit(batch, Durability::Grouped) {
            Ok(commit) => {
                drop(commit);
                Ok(())
            }
            Err(error @ (CommitError::KeyTooLong { .. } | CommitError::ValueTooLong { .. } | CommitError::BatchTooBig { .. })) => {
                Err(HostError::Denied(error.to_string()))
            }
            Err(error) => Err(HostError::Full(error.to_string())),
        }
    }

    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, HostError> {
        self.store.get(Tree::Keyvalue, key).map_err(|error| HostError::Failed(error.to_string()))
    }
}

impl Host for NodeHost {
    fn kv_get(&self, function: &FunctionName, bucket: &str, key: &str) -> Result<Option<Vec<u8>>, HostError> {
        self.read(&full_key(function, bucket, key))
    }

    fn kv_set(&self, function: &FunctionName, bucket: &str, key: &str, value: Vec<u8>) -> Result<(), HostError> {
        let _one_writer = self.atomic.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch::new();
        batch.set(Tree::Keyvalue, full_key(function, bucket, key), value);
        self.commit(batch)
    }

    fn kv_delete(&self, function: &FunctionName, bucket: &str, key: &str) -> Result<(), HostError> {
        self.kv_delete_many(function, bucket, &[key.to_owned()])
    }

    fn kv_list(&self, function: &FunctionName, bucket: &str, cursor: Option<&str>) -> Result<KeyPage, HostError> {
        let prefix = full_key(function, bucket, "");
        let after = cursor.map(|key| full_key(function, bucket, key));
        let pairs = self
            .store
            .scan(Tree::Keyvalue, &prefix, after.as_deref(), KV_PAGE_KEYS + 1)
            .map_err(|error| HostError::Failed(error.to_string()))?;
        let more = pairs.len() > KV_PAGE_KEYS;
        let keys: Vec<String> =
            pairs.into_iter().take(KV_PAGE_KEYS).map(|(key, _)| String::from_utf8_lossy(&key[prefix.len()..]).into_owned()).collect();
        let cursor = if more { keys.last().cloned() } else { None };
        Ok(KeyPage { keys, cursor })
    }

    fn kv_increment(&self, function: &FunctionName, bucket: &str, key: &str, delta: i64) -> Result<i64, HostError> {
        let key = full_key(function, bucket, key);
        let _one_writer = self.atomic.lock().unwrap_or_else(PoisonError::into_inner);
        let present = match self.read(&key)? {
            None => 0,
            Some(bytes) => parse_number(&bytes)?,
        };
        let sum = present.checked_add(delta).ok_or_else(|| HostError::Failed("the sum does not fit".to_owned()))?;
        let mut batch = Batch::new();
        batch.set(Tree::Keyvalue, key, sum.to_string());
        self.commit(batch)?;
        Ok(sum)
    }

    fn kv_swap(&self, function: &FunctionName, bucket: &str, key: &str, swap: Swap<'_>) -> Result<bool, HostError> {
        let key = full_key(function, bucket, key);
        let _one_writer = self.atomic.lock().unwrap_or_else(PoisonError::into_inner);
        if self.read(&key)?.as_deref() != swap.expected {
            return Ok(false);
        }
        let mut batch = Batch::new();
        batch.set(Tree::Keyvalue, key, swap.value);
        self.commit(batch)?;
        Ok(true)
    }

    fn kv_set_many(&self, function: &FunctionName, bucket: &str, pairs: Vec<(String, Vec<u8>)>) -> Result<(), HostError> {
        let _one_writer = self.atomic.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch::new();
        for (key, value) in pairs {
            batch.set(Tree::Keyvalue, full_key(function, bucket, &key), value);
        }
        self.commit(batch)
    }

    fn kv_delete_many(&self, function: &FunctionName, bucket: &str, keys: &[String]) -> Result<(), HostError> {
        let _one_writer = self.atomic.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch::new();
        for key in keys {
            batch.delete(Tree::Keyvalue, full_key(function, bucket, key));
        }
        self.commit(batch)
    }

    fn publish(&self, call: &CallInfo, topic: &Topic, message: Bytes, content_type: Option<&str>) -> Result<(), HostError> {
        let number = self.published.fetch_add(1, Ordering::Relaxed);
        let event = Event {
            id: format!("{}-{number}", call.invocation),
            source: format!("/function/{}", call.revision.function),
            kind: "sedge.function.message".to_owned(),
            time_ms: Some(clock::wall().0),
            topic: topic.clone(),
            content_type: content_type.map(ToOwned::to_owned),
            extensions: BTreeMap::new(),
            data: message.to_vec(),
        };
        let publication = Publication { event, kept: true, fan_out: true, only: None, answer: None };
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

fn full_key(function: &FunctionName, bucket: &str, key: &str) -> Vec<u8> {
    [function.as_str().as_bytes(), b"\0", bucket.as_bytes(), b"\0", key.as_bytes()].concat()
}

fn parse_number(bytes: &[u8]) -> Result<i64, HostError> {
    let text = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| HostError::Failed("the value is not a whole number".to_owned()))
}
