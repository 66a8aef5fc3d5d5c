//! The memory of one instance: its linear memories and tables, and what the node holds for it.
//!
//! ```text
//! linear memories ───────────────────────────────┐
//! tables, fields, messages, objects ─ allowance ─┴─▶ ≤ limits.memory_mb      scratch ≤ its own limit
//! bodies that wait to be read ─────────────────────▶ ≤ what `queue` gives, part of INSTANCE_OVERHEAD_BYTES
//! ```
//! What is reserved before an instance starts ([`crate::Function::memory_reservation`]) is the sum of the three, so a guest cannot use more
//! of the machine than was reserved for it. Linear memory and tables are asked for before they grow. What the node holds is weighed in every
//! [`CALLS_PER_WEIGHING`](crate::limits::CALLS_PER_WEIGHING)th call that can add to it; what fits in between is part of the overhead.

use crate::limits::{
    BODY_CHUNK_BYTES_MAX, BODY_CHUNKS_WAITING, CORE_INSTANCES_MAX, HELD_ALLOWANCE_BYTES, MEMORIES_MAX, TABLE_ELEMENT_BYTES,
    TABLE_ELEMENTS_MAX, TABLES_MAX,
};
use crate::scratch::Scratch;
use crate::usage::Call;
use http::HeaderMap;
use std::any::Any;
use std::sync::Arc;
use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi_http::p2::body::HostOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostIncomingResponse, HostOutgoingRequest, HostOutgoingResponse};
use wasmtime_wasi_http::{FieldMap, p3};

/// What one field of a header takes beside its text.
const FIELD_BYTES: usize = 104;

/// Counts the memories of one instance together and refuses what passes the limit. A scratch directory has a limit of its own, and is
/// counted as memory with them.
pub(crate) struct Memory {
    call: Arc<Call>,
    scratch: Option<Scratch>,
    limit_bytes: usize,
    linear_bytes: usize,
    tables_bytes: usize,
    held_bytes: usize,
    /// Something was refused, which explains a trap that follows.
    refused: bool,
}

impl Memory {
    pub(crate) fn new(call: Arc<Call>, scratch: Option<Scratch>) -> Self {
        let limit_bytes = call.info().revision.manifest.limits.memory_mb as usize * 1024 * 1024;
        Self { call, scratch, limit_bytes, linear_bytes: 0, tables_bytes: 0, held_bytes: 0, refused: false }
    }

    pub(crate) const fn scratch(&self) -> Option<&Scratch> {
        self.scratch.as_ref()
    }

    /// Size of its linear memories, bytes.
    pub(crate) const fn linear_bytes(&self) -> usize {
        self.linear_bytes
    }

    /// The limit, if something was refused for its sake, bytes.
    pub(crate) const fn refused(&self) -> Option<u64> {
        if self.refused { Some(self.limit_bytes as u64) } else { None }
    }

    pub(crate) fn enter(&mut self, call: &Arc<Call>) {
        self.call = Arc::clone(call);
        self.refused = false;
        match &self.scratch {
            Some(scratch) => scratch.enter(call),
            None => self.call.count_memory(self.used_bytes()),
        }
    }

    /// The node holds so much for the guest. Whether that is within the limit.
    pub(crate) fn held_is(&mut self, bytes: usize) -> bool {
        let changed = self.held_bytes != bytes;
        self.held_bytes = bytes;
        if changed {
            self.count();
        }
        let fits = self.used_bytes() <= self.limit_bytes;
        self.refused |= !fits;
        fits
    }

    const fn used_bytes(&self) -> usize {
        let beside = self.tables_bytes.saturating_add(self.held_bytes);
        self.linear_bytes.saturating_add(beside.saturating_sub(HELD_ALLOWANCE_BYTES))
    }

    fn count(&self) {
        match &self.scratch {
            Some(scratch) => scratch.linear_is(self.used_bytes()),
            None => self.call.count_memory(self.used_bytes()),
        }
    }

    /// Takes more of one kind of memory if all together stays within the limit.
    fn grow(&mut self, kind: fn(&mut Self) -> &mut usize, more_bytes: usize) -> bool {
        let before = *kind(self);
        *kind(self) = before.saturating_add(more_bytes);
        if self.used_bytes() > self.limit_bytes {
            *kind(self) = before;
            self.refused = true;
            return false;
        }
        self.count();
        true
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(|memory| &mut memory.linear_bytes, desired.saturating_sub(current)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more_bytes = desired.saturating_sub(current).saturating_mul(TABLE_ELEMENT_BYTES);
        Ok(desired <= TABLE_ELEMENTS_MAX && self.grow(|memory| &mut memory.tables_bytes, more_bytes))
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
}

/// What the node holds for a guest by its handles.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// Fields of requests and answers; such that share their text count each.
    pub(crate) bytes: usize,
    /// Bodies that the guest may write to, or that wait in a request or an answer that was not sent.
    pub(crate) bodies: usize,
}

impl Held {
    pub(crate) fn weigh(table: &mut ResourceTable) -> Self {
        let mut held = Self::default();
        table.iter_mut().for_each(|entry| held.add(entry));
        held
    }

    fn add(&mut self, entry: &(dyn Any + Send)) {
        if let Some(fields) = entry.downcast_ref::<FieldMap>() {
            self.bytes += fields_bytes(fields);
        } else if entry.is::<HostOutgoingBody>() {
            self.bodies += 1;
        } else if let Some(request) = entry.downcast_ref::<HostOutgoingRequest>() {
            let target = request.path_with_query.as_ref().map_or(0, String::len) + request.authority.as_ref().map_or(0, String::len);
            self.bytes += target + fields_bytes(&request.headers);
            self.bodies += usize::from(request.body.is_some());
        } else if let Some(answer) = entry.downcast_ref::<HostOutgoingResponse>() {
            self.bytes += fields_bytes(&answer.headers);
            self.bodies += usize::from(answer.body.is_some());
        } else if let Some(answer) = entry.downcast_ref::<HostIncomingResponse>() {
            self.bytes += fields_bytes(&answer.headers);
        } else if let Some(HostFutureIncomingResponse::Ready(Ok((answer, _)))) = entry.downcast_ref() {
            self.bytes += fields_bytes(answer.headers());
        } else if let Some(request) = entry.downcast_ref::<p3::Request>() {
            let target = request.path_with_query.as_ref().map_or(0, |target| target.as_str().len());
            self.bytes += target + fields_bytes(&request.headers);
        } else if let Some(answer) = entry.downcast_ref::<p3::Response>() {
            self.bytes += fields_bytes(&answer.headers);
        }
    }
}

fn fields_bytes(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| FIELD_BYTES + name.as_str().len() + value.len()).sum()
}

/// How much of a new body may wait to be read while so many others are open: chunks, and bytes of each. The first, which as a rule is the
/// answer, gets most; all that one instance can have together stay within 2 MiB.
pub(crate) const fn queue(open: usize) -> (usize, usize) {
    match open {
        0 => (BODY_CHUNKS_WAITING, BODY_CHUNK_BYTES_MAX),
        1..8 => (1, BODY_CHUNK_BYTES_MAX / 4),
        _ => (1, BODY_CHUNK_BYTES_MAX / 64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::HANDLES_MAX;

    /// What a queue takes of itself, measured generously.
    const QUEUE_BYTES: usize = 2 * 1024;

    #[test]
    fn all_bodies_of_an_instance_together_are_bounded() {
        // One chunk more than may wait is in the making. An answer that was not sent is one handle, and its body another.
        let all: usize = (0..HANDLES_MAX / 2).map(queue).map(|(chunks, bytes)| (chunks + 1) * bytes + QUEUE_BYTES).sum();
        assert!(all <= 2 * 1024 * 1024, "{all}");
    }
}
