//! After a start: what the store has kept, back in line.

use super::record::{Kept, Record};
use super::{Calls, Live, lane, wall};
use crate::limits::RECORDS_PAGE;
use crate::{chunks, clock};
use sedge_node_core::asynchronous::{End, Key, Life, resume};
use sedge_node_core::queue::Item;
use sedge_protocol::Digest;
use sedge_protocol::invocation::{Call, CallbackState, InvocationId};
use sedge_store::{Batch, ItemId, Pending, Tree};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Calls {
    /// Takes what is the calls' out of `pending`, and answers what is not. Reads the disk.
    pub(super) fn recover(&mut self, pending: Vec<Pending>) -> anyhow::Result<Vec<Pending>> {
        let mut records = self.read_records()?;
        let (mut events, mut lost) = (Vec::new(), Batch::new());
        for item in pending {
            match Kept::decode(&item.bytes) {
                None => events.push(item),
                Some(Ok(Kept::Call { function, call })) => {
                    let record = records.remove(&call.id.number).unwrap_or_else(|| self.unknown(function, &call));
                    self.recover_call(&item, call, record);
                }
                Some(Ok(Kept::Callback { function, id })) => match records.remove(&id.number) {
                    Some(record) if record.life.is_over() => self.recover_callback(item.id, id, record),
                    Some(_) | None => {
                        log::warn!(function:% = function, invocation:% = id; "a callback is dropped: nothing is known of its call any more");
                        lost.finish(item.id);
                    }
                },
                Some(Err(reason)) => {
                    log::error!(item = item.id.0, reason; "a kept call cannot be read and is dropped");
                    lost.finish(item.id);
                }
            }
        }
        for mut record in records.into_values().filter(|record| !record.life.is_over()) {
            log::error!(invocation:% = record.id; "the request of a call is damaged: it has failed");
            record.end(End::Failed, Some("its request was damaged on the node's disk".to_owned()), wall(), self.now());
            record.put(&mut lost);
            self.shelf.put(record.id.number, self.now(), 0);
        }
        if !lost.is_empty() {
            self.write(lost);
        }
        Ok(events)
    }

    /// All records but those that are over for good, which go on the shelf.
    fn read_records(&mut self) -> anyhow::Result<BTreeMap<u64, Record>> {
        let (mut found, mut after, mut over) = (BTreeMap::new(), None::<Vec<u8>>, Vec::new());
        loop {
            let page = self.parts.store.scan(Tree::Invocation, b"", after.as_deref(), RECORDS_PAGE)?;
            for (key, bytes) in &page {
                match (Record::decode(bytes), chunks::number(key)) {
                    (Ok(record), Some(number)) => {
                        self.since.0 = self.since.0.max(record.newest());
                        if let Some(text) = &record.key {
                            self.keys.hold(Key::of(&record.function, text), record.id, record.request, record.since);
                        }
                        if let Life::Over { at, .. } = record.life {
                            over.push((number, at, record.answer_bytes()));
                        }
                        let told = record.callback.as_ref().is_none_or(|callback| callback.state != CallbackState::Waiting);
                        if !(record.life.is_over() && told) {
                            found.insert(number, record);
                        }
                    }
                    (Err(reason), _) => log::error!(reason; "the record of a call cannot be read"),
                    (Ok(_), None) => log::error!("the record of a call has no number"),
                }
            }
            match page.into_iter().next_back() {
                Some((key, _)) => after = Some(key),
                None => break,
            }
        }
        for (number, at, bytes) in over {
            self.shelf.put(number, at, bytes);
        }
        Ok(found)
    }

    fn recover_call(&mut self, item: &Pending, call: Arc<Call>, mut record: Record) {
        let Some(resume) = resume(&record.life, record.failed, clock::moment()) else {
            let mut batch = Batch::new();
            batch.finish(item.id);
            return self.write(batch);
        };
        if matches!(record.life, Life::Running { .. }) {
            let reason = "the daemon or the node ended during the run";
            log::info!(function:% = record.function, invocation:% = record.id, after:? = resume.after; "a call was cut off and waits for the end of its lease");
            record.again(resume.failed, reason.to_owned());
        }
        let live = Live { record, bytes: item.bytes.len() };
        self.line_up(item.id.0, call, live, clock::mono().after(resume.after));
    }

    fn recover_callback(&mut self, item: ItemId, id: InvocationId, record: Record) {
        let function = record.function.clone();
        let attempts = record.callback.as_ref().map_or(0, |callback| callback.attempts);
        self.telling.insert(id.number, record);
        let table = self.parts.functions.table();
        self.open_callbacks(&function, &table);
        self.callbacks.push(Item { id: item.0, function, topic: lane(id.number), attempts, kept: true, payload: id });
    }

    /// A call whose record is damaged: it runs, and has no key any more.
    pub(super) fn unknown(&self, function: sedge_protocol::FunctionName, call: &Call) -> Record {
        log::error!(invocation:% = call.id; "the record of a call is damaged: it begins anew");
        Record::new(call.id, function, Digest::of(b""), (wall(), self.now()))
    }
}
