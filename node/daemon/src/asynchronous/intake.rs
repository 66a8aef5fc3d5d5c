//! What callers ask of the task: keep a call, take it back, try it again.

use super::record::{Kept, Record};
use super::{Calls, Live, Refused, Submission, lane, wall};
use crate::clock;
use crate::dead_letters::ExchangeError;
use crate::limits::CALLS_SHARE;
use sedge_node_core::asynchronous::{End, Join, Key};
use sedge_protocol::Digest;
use sedge_protocol::FunctionName;
use sedge_protocol::invocation::{Call, Callback, CallbackState, InvocationId};
use sedge_protocol::local::DeadLetter;
use sedge_store::{Batch, Commit, CommitError, Durability, ItemId};
use std::sync::Arc;
use tokio::sync::oneshot;

impl Calls {
    pub(super) fn submit(&mut self, submission: Submission, answer: oneshot::Sender<Result<InvocationId, Refused>>) {
        let request = fingerprint(&submission.call);
        let result = match self.join(&submission, request) {
            Join::New => self.keep(submission, request),
            Join::Same(id) => self.again(id).map(|commit| (commit, id)),
            Join::Other(id) => Err(Refused::OtherRequest(id)),
        };
        match result {
            Ok((commit, id)) => self.acknowledge(commit, id, answer),
            Err(refused) => {
                let _unheard = answer.send(Err(refused));
            }
        }
    }

    fn join(&mut self, submission: &Submission, request: Digest) -> Join {
        let Some(text) = &submission.key else { return Join::New };
        let now = self.now();
        let join = self.keys.join(Key::of(&submission.function, text), request, now);
        match join {
            // What was dropped for want of room is not known any more.
            Join::Same(id) | Join::Other(id) if !self.live.contains_key(&id.number) && !self.shelf.contains(id.number) => Join::New,
            Join::Same(_) | Join::Other(_) | Join::New => join,
        }
    }

    fn keep(&mut self, submission: Submission, request: Digest) -> Result<(Commit, InvocationId), Refused> {
        let Submission { function, key, callback, depth, mut call } = submission;
        let item = self.parts.store.next_item_id();
        call.id.number = item.0;
        let id = call.id;
        let kept = Kept::Call { function: function.clone(), call: Arc::new(call) };
        let bytes = kept.encode();
        self.has_room(&function, bytes.len())?;
        let Kept::Call { call, .. } = kept else { unreachable!("it was made above") };
        let waiting = |url| Callback { url, state: CallbackState::Waiting, attempts: 0, reason: None };
        let callback = callback.map(waiting);
        let record = Record { key, callback, depth, ..Record::new(id, function, request, (wall(), self.now())) };
        let mut batch = Batch::new();
        let length = bytes.len();
        batch.accept(item, bytes);
        record.put(&mut batch);
        let commit = self.parts.store.commit(batch, Durability::Grouped).map_err(refused)?;
        if let Some(text) = &record.key {
            self.keys.hold(Key::of(&record.function, text), id, request, record.since);
        }
        self.line_up(item.0, call, Live { record, bytes: length }, clock::mono());
        Ok((commit, id))
    }

    fn has_room(&self, function: &FunctionName, bytes: usize) -> Result<(), Refused> {
        let own = self.queue.kept(function);
        if own >= (self.parts.waiting_max / CALLS_SHARE).max(1) {
            return Err(Refused::Full(format!("{own} asynchronous calls of the function `{function}` wait already")));
        }
        let (waiting, kept) = (self.live.len(), self.live_bytes);
        if waiting < self.parts.waiting_max && kept + bytes <= self.parts.waiting_bytes_max {
            return Ok(());
        }
        Err(Refused::Full(format!("{waiting} asynchronous calls of {kept} bytes wait already")))
    }

    /// A duplicate is told the id only when the first is durable: its record, written once more, comes after it.
    fn again(&self, id: InvocationId) -> Result<Commit, Refused> {
        let mut batch = Batch::new();
        if let Some(live) = self.live.get(&id.number) {
            live.record.put(&mut batch);
        }
        self.parts.store.commit(batch, Durability::Grouped).map_err(refused)
    }

    fn acknowledge<T: Send + 'static>(&self, commit: Commit, value: T, answer: oneshot::Sender<Result<T, Refused>>) {
        self.parts.supervisor.work(async move {
            let result = commit.durable().await.map(|()| value).map_err(|lost| Refused::Unavailable(lost.to_string()));
            let _unheard = answer.send(result);
        });
    }

    pub(super) fn cancel(&mut self, id: InvocationId) -> Result<(), Refused> {
        let live = self.live.get(&id.number).filter(|live| live.record.id == id).ok_or(Refused::Begun)?;
        let (function, topic) = (live.record.function.clone(), lane(id.number));
        let mut record = live.record.clone();
        let item = self.queue.withdraw(&function, &topic).ok_or(Refused::Begun)?;
        let at = self.now();
        record.end(End::Cancelled, None, wall(), at);
        record.callback = None;
        let mut batch = Batch::new();
        batch.finish(ItemId(item.id));
        record.put(&mut batch);
        match self.parts.store.commit(batch, Durability::Grouped) {
            Ok(commit) => drop(commit),
            Err(error) => {
                self.queue.push(item);
                return Err(refused(error));
            }
        }
        self.drop_live(id.number);
        self.shelf.put(id.number, at, 0);
        Ok(())
    }

    /// Puts a call back in line in the batch that takes its letter away.
    pub(super) fn replay(&mut self, letter: &DeadLetter, call: Call, record: Option<Record>, answer: oneshot::Sender<Result<(), Refused>>) {
        match self.put_back(letter, call, record) {
            Ok(commit) => self.acknowledge(commit, (), answer),
            Err(refused) => {
                let _unheard = answer.send(Err(refused));
            }
        }
    }

    fn put_back(&mut self, letter: &DeadLetter, call: Call, record: Option<Record>) -> Result<Commit, Refused> {
        let number = call.id.number;
        if self.live.contains_key(&number) {
            return Err(Refused::Begun);
        }
        let mut record = record.unwrap_or_else(|| self.unknown(letter.function.clone(), &call));
        let answer_bytes = record.answer_bytes();
        record.replay();
        if let Some(callback) = &mut record.callback {
            *callback = Callback { url: callback.url.clone(), state: CallbackState::Waiting, attempts: 0, reason: None };
        }
        let item = self.parts.store.next_item_id();
        let kept = Kept::Call { function: letter.function.clone(), call: Arc::new(call) };
        let bytes = kept.encode();
        self.has_room(&letter.function, bytes.len())?;
        let Kept::Call { call, .. } = kept else { unreachable!("it was made above") };
        let mut batch = Batch::new();
        let length = bytes.len();
        batch.accept(item, bytes);
        record.put(&mut batch);
        if answer_bytes > 0 {
            crate::chunks::delete(&mut batch, sedge_store::Tree::Answer, number, usize::try_from(answer_bytes).unwrap_or(usize::MAX));
        }
        let commit = self.parts.letters.exchange(batch, letter.id).map_err(exchanged)?;
        self.shelf.remove(number);
        self.line_up(item.0, call, Live { record, bytes: length }, clock::mono());
        Ok(commit)
    }
}

/// What two requests under one key have to have in common.
fn fingerprint(call: &Call) -> Digest {
    let length = (call.target.len() as u64).to_be_bytes();
    Digest::of(&[call.method.as_bytes(), b"\0", &length, call.target.as_bytes(), &call.body].concat())
}

fn exchanged(error: ExchangeError) -> Refused {
    match error {
        ExchangeError::Gone { .. } => Refused::Begun,
        ExchangeError::Commit(error) => refused(error),
    }
}

/// What the caller is told when the store does not take a call.
pub(super) fn refused(error: CommitError) -> Refused {
    let text = format!("the call cannot be kept: {error}");
    match error {
        CommitError::DiskFull { .. } | CommitError::DatabaseFull { .. } | CommitError::FunctionsFull { .. } => Refused::NoRoom(text),
        CommitError::Full { .. } | CommitError::QueueFull { .. } => Refused::Full(text),
        CommitError::Degraded { .. }
        | CommitError::KeyTooLong { .. }
        | CommitError::ValueTooLong { .. }
        | CommitError::ItemTooLong { .. }
        | CommitError::BatchTooBig { .. }
        | CommitError::Closed => Refused::Unavailable(text),
    }
}
