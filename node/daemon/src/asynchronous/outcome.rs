//! What becomes of a call after a run: over with its answer, tried again, or buried as a dead letter.

use super::record::{Answered, Kept, Record};
use super::run::Ran;
use super::{Calls, lane, wall};
use crate::fault::clip;
use crate::limits::{CALL_REFUSED_PAUSE, REWRITE_PAUSE};
use crate::{chunks, clock, dead_letters};
use sedge_node_core::asynchronous::{End, Judgement, Life, judge};
use sedge_node_core::queue::{self, Item};
use sedge_protocol::invocation::{Call, CallbackState};
use sedge_protocol::local::{DeadLetter, Letter};
use sedge_store::{Batch, CommitError, Durability, ItemId, Tree};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A call that is over, as it goes to disk.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) item: u64,
    pub(super) record: Record,
    /// The body of its answer.
    body: Vec<u8>,
    letter: Option<DeadLetter>,
}

/// How a call ends.
struct Ending {
    end: End,
    reason: Option<String>,
    answer: Option<Answer>,
    letter: Option<DeadLetter>,
}

/// An answer and its body.
type Answer = (Answered, Vec<u8>);

impl Calls {
    pub(super) fn handle_ran(&mut self, item: &Item<Arc<Call>>, ran: Ran) {
        match ran {
            Ran::NotBegun(reason) => {
                log::debug!(function:% = item.function, invocation:% = item.payload.id, reason; "an asynchronous call did not begin");
                if let Some(live) = self.live.get_mut(&item.payload.id.number) {
                    live.record.not_begun();
                    let mut batch = Batch::new();
                    live.record.put(&mut batch);
                    self.write(batch);
                }
                self.queue.handle_refused(&item.function, &item.topic, clock::mono().after(CALL_REFUSED_PAUSE));
            }
            Ran::Failed(reason) => self.fail(item, &reason, None),
            Ran::Answered { head, body } => match judge(head.status) {
                Judgement::Over(end) => self.succeed(item, end, (head, body)),
                Judgement::Again => {
                    let said = String::from_utf8_lossy(&body);
                    let reason = format!("status {}: {}", head.status, said.lines().next().unwrap_or_default());
                    self.fail(item, reason.trim_end_matches(": "), Some((head, body)));
                }
            },
        }
    }

    fn succeed(&mut self, item: &Item<Arc<Call>>, end: End, answer: Answer) {
        // The function was removed meanwhile and its calls were buried.
        if self.queue.handle_done(&item.function, &item.topic).is_some() {
            let reason = (end == End::Failed).then(|| format!("the function answered with status {}", answer.0.status));
            self.end(item, Ending { end, reason, answer: Some(answer), letter: None });
        }
    }

    fn fail(&mut self, item: &Item<Arc<Call>>, reason: &str, answer: Option<Answer>) {
        match self.queue.handle_failed(&item.function, &item.topic, clock::mono()) {
            queue::Failed::Again { attempts } => {
                let Some(live) = self.live.get_mut(&item.payload.id.number) else { return };
                live.record.again(attempts, clip(reason));
                let mut batch = Batch::new();
                live.record.put(&mut batch);
                self.write(batch);
            }
            queue::Failed::DeadLetter(item) => self.bury(&item, reason, answer),
            queue::Failed::Gone => {}
        }
    }

    /// Moves a call among the dead letters, in one batch.
    pub(super) fn bury(&mut self, item: &Item<Arc<Call>>, reason: &str, answer: Option<Answer>) {
        let attempts = self.live.get(&item.payload.id.number).map_or(0, |live| live.record.attempts);
        log::warn!(function:% = item.function, invocation:% = item.payload.id, attempts, reason; "an asynchronous call is given up");
        self.parts.errors.note(&item.function, None, &format!("asynchronous call given up after {attempts} attempts: {reason}"));
        let call = Letter::Call(Call::clone(&item.payload));
        let letter = dead_letters::letter(item.payload.id.number, &item.function, attempts, reason, call);
        self.end(item, Ending { end: End::Dead, reason: Some(clip(reason)), answer, letter: Some(letter) });
    }

    fn end(&mut self, item: &Item<Arc<Call>>, ending: Ending) {
        let Ending { end, reason, answer, letter } = ending;
        let Some(live) = self.live.get(&item.payload.id.number) else { return };
        let mut record = live.record.clone();
        record.end(end, reason, wall(), self.now());
        let (head, body) = answer.map_or((None, Vec::new()), |(head, body)| (Some(head), body));
        record.answer = head;
        let ended = Ended { item: item.id, record, body, letter };
        if let Err(ended) = self.write_end(ended) {
            self.unwritten.push_back(*ended);
            self.rewrite_at.get_or_insert(clock::mono().after(REWRITE_PAUSE));
        }
    }

    /// Takes a call out of line together with everything that its end leaves behind; gives it back when the disk does not take it.
    pub(super) fn write_end(&mut self, mut ended: Ended) -> Result<(), Box<Ended>> {
        let callback = ended.record.callback.as_ref().is_some_and(|callback| callback.state == CallbackState::Waiting);
        let callback = callback.then(|| self.parts.store.next_item_id());
        let mut written = self.commit_end(&ended, callback);
        if let Err(error) = &written
            && let Some(answer) = &mut ended.record.answer
            && !ended.body.is_empty()
        {
            answer.dropped = Some(format!("there was no room for it: {error}"));
            ended.body.clear();
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            written = self.commit_end(&ended, callback);
        }
        if let Err(error) = written {
            log::warn!(invocation:% = ended.record.id, reason:% = error; "the end of a call waits for the disk");
            return Err(Box::new(ended));
        }
        let record = ended.record;
        self.drop_live(record.id.number);
        if let Life::Over { at, .. } = record.life {
            self.shelf.put(record.id.number, at, record.answer_bytes());
        }
        if let Some(item) = callback {
            let (function, id) = (record.function.clone(), record.id);
            self.telling.insert(id.number, record);
            let table = self.parts.functions.table();
            self.open_callbacks(&function, &table);
            self.callbacks.push(Item { id: item.0, function, topic: lane(id.number), attempts: 0, kept: true, payload: id });
        }
        Ok(())
    }

    fn commit_end(&self, ended: &Ended, callback: Option<ItemId>) -> Result<(), CommitError> {
        let record = &ended.record;
        let mut batch = Batch::new();
        batch.finish(ItemId(ended.item));
        record.put(&mut batch);
        if !ended.body.is_empty() {
            chunks::set(&mut batch, Tree::Answer, record.id.number, &ended.body);
        }
        if let Some(item) = callback {
            batch.accept(item, Kept::Callback { function: record.function.clone(), id: record.id }.encode());
        }
        let commit = match &ended.letter {
            Some(letter) => self.parts.letters.bury(batch, letter)?,
            None => self.parts.store.commit(batch, Durability::Grouped)?,
        };
        drop(commit);
        Ok(())
    }
}
