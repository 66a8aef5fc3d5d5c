//! What is kept of a call: its request in the store's queue until it is over, its record and its answer for a day.

use sedge_node_core::asynchronous::{End, Input, Lease, Life, Steady};
use sedge_node_core::{Mono, Wall};
use sedge_protocol::invocation::{AnswerHead, Call, Callback, HeaderBytes, Invocation, InvocationId, InvocationState};
use sedge_protocol::{Digest, FunctionName};
use sedge_store::{Batch, Tree};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Events in the store's queue are CBOR maps; what belongs to calls stands behind this byte, which begins no map.
const MARK: u8 = 0;

/// What calls keep in the store's queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kept {
    /// A call that is not over.
    Call {
        /// Who is called.
        function: FunctionName,
        /// The request.
        call: Arc<Call>,
    },
    /// Somebody who has to be told that a call is over.
    Callback {
        /// Who was called.
        function: FunctionName,
        /// Which call.
        id: InvocationId,
    },
}

impl Kept {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![MARK];
        ciborium::into_writer(self, &mut bytes).expect("writing to memory does not fail");
        bytes
    }

    /// `None` for what is not ours.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Result<Self, String>> {
        let (mark, bytes) = bytes.split_first()?;
        (*mark == MARK).then(|| ciborium::from_reader(bytes).map_err(|cause| cause.to_string()))
    }
}

/// The head of an answer as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, HeaderBytes)>,
    /// Size of the body as the function sent it.
    pub(crate) bytes: u64,
    /// Why it is not kept.
    pub(crate) dropped: Option<String>,
}

/// Everything about a call but its request and the body of its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: InvocationId,
    pub(crate) function: FunctionName,
    pub(crate) key: Option<String>,
    /// What a duplicate has to have in common.
    pub(crate) request: Digest,
    pub(crate) callback: Option<Callback>,
    /// Calls and events of functions that led to it.
    #[serde(default)]
    pub(crate) depth: u32,
    pub(crate) accepted: Wall,
    pub(crate) since: Steady,
    pub(crate) began: Option<Wall>,
    /// Attempts begun.
    pub(crate) attempts: u32,
    /// Attempts failed since it was accepted or replayed.
    pub(crate) failed: u32,
    pub(crate) life: Life,
    pub(crate) answer: Option<Answered>,
}

impl Record {
    /// A call that has not begun, without key and callback.
    pub(crate) fn new(id: InvocationId, function: FunctionName, request: Digest, (accepted, since): (Wall, Steady)) -> Self {
        Self {
            id,
            function,
            key: None,
            request,
            callback: None,
            depth: 0,
            accepted,
            since,
            began: None,
            attempts: 0,
            failed: 0,
            life: Life::new(),
            answer: None,
        }
    }

    /// A run begins.
    pub(crate) fn begin(&mut self, lease: Lease, now: Wall) {
        self.step(Input::Leased(lease));
        self.attempts += 1;
        self.began = Some(now);
    }

    /// The run that was let go did not start.
    pub(crate) fn not_begun(&mut self) {
        self.step(Input::Back(None));
        self.attempts = self.attempts.saturating_sub(1);
    }

    /// The attempt failed and there will be another.
    pub(crate) fn again(&mut self, failed: u32, reason: String) {
        self.step(Input::Back(Some(reason)));
        self.failed = failed;
    }

    /// It ended.
    pub(crate) fn end(&mut self, end: End, reason: Option<String>, wall: Wall, at: Steady) {
        self.step(Input::Ended { end, reason, wall, at });
    }

    /// Somebody wants it tried again.
    pub(crate) fn replay(&mut self) {
        self.step(Input::Replayed);
        self.failed = 0;
        self.answer = None;
    }

    fn step(&mut self, input: Input) {
        self.life = std::mem::take(&mut self.life).on(input);
    }

    /// Bytes of the answer that are on disk.
    pub(crate) fn answer_bytes(&self) -> u64 {
        self.answer.as_ref().filter(|answer| answer.dropped.is_none()).map_or(0, |answer| answer.bytes)
    }

    pub(crate) fn put(&self, batch: &mut Batch) {
        let mut bytes = Vec::with_capacity(256);
        ciborium::into_writer(self, &mut bytes).expect("writing to memory does not fail");
        batch.set(Tree::Invocation, self.id.number.to_be_bytes(), bytes);
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        ciborium::from_reader(bytes).map_err(|cause| cause.to_string())
    }

    /// As its caller sees it. `letter`: whether its dead letter is still there.
    pub(crate) fn view(&self, letter: bool) -> Invocation {
        let (state, reason, ended) = match &self.life {
            Life::Waiting { reason } => (InvocationState::Queued, reason.clone(), None),
            Life::Running { .. } => (InvocationState::Running, None, None),
            Life::Over { end, reason, ended, .. } => (state_of(*end, letter), reason.clone(), Some(ended.0)),
        };
        Invocation {
            id: self.id,
            function: self.function.clone(),
            state,
            attempts: self.attempts,
            accepted_ms: self.accepted.0,
            began_ms: self.began.map(|began| began.0),
            ended_ms: ended,
            reason,
            answer: self.answer.as_ref().map(|answer| AnswerHead {
                status: answer.status,
                bytes: answer.bytes,
                dropped: answer.dropped.clone(),
            }),
            callback: self.callback.clone(),
        }
    }

    /// The moment of the newest thing that is known of it.
    pub(crate) fn newest(&self) -> Steady {
        match &self.life {
            Life::Over { at, .. } => self.since.max(*at),
            Life::Waiting { .. } | Life::Running { .. } => self.since,
        }
    }
}

fn state_of(end: End, letter: bool) -> InvocationState {
    match end {
        End::Succeeded => InvocationState::Succeeded,
        End::Dead if letter => InvocationState::Dead,
        End::Failed | End::Dead => InvocationState::Failed,
        End::Cancelled => InvocationState::Cancelled,
    }
}

/// The daemon's time over all its lives.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Since(pub(crate) Steady);

impl Since {
    pub(crate) fn now(self, mono: Mono) -> Steady {
        self.0.at(mono)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(number: u64) -> Record {
        Record {
            id: InvocationId { number, secret: 3 },
            function: "f".parse().unwrap(),
            key: Some("order 7".to_owned()),
            request: Digest::of(b""),
            callback: None,
            depth: 0,
            accepted: Wall(5),
            since: Steady(4),
            began: None,
            attempts: 0,
            failed: 0,
            life: Life::new(),
            answer: None,
        }
    }

    #[test]
    fn what_is_kept_reads_back_and_events_are_left_to_the_bus() {
        let kept = Kept::Callback { function: "f".parse().unwrap(), id: InvocationId { number: 1, secret: 2 } };
        assert_eq!(Kept::decode(&kept.encode()), Some(Ok(kept)));
        let mut event = Vec::new();
        ciborium::into_writer(&std::collections::BTreeMap::from([("function", "f")]), &mut event).unwrap();
        assert_eq!(Kept::decode(&event), None);
        assert!(matches!(Kept::decode(&[MARK, 255]), Some(Err(_))));
    }

    #[test]
    fn a_dead_call_whose_letter_was_removed_has_failed() {
        let mut record = record(1);
        record.end(End::Dead, Some("trap".to_owned()), Wall(9), Steady(9));
        assert_eq!([true, false].map(|letter| record.view(letter).state), [InvocationState::Dead, InvocationState::Failed]);
        record.replay();
        assert_eq!(record.view(false).state, InvocationState::Queued);
    }
}
