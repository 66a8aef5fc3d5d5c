//! How much a function may have waiting, how its publishers are slowed, and where a chain of events ends.

use super::{Answer, Bus};
use crate::functions::Match;
use crate::limits::EVENT_OVERHEAD_BYTES;
use crate::{clock, depth};
use sedge_mqtt::Refusal;
use sedge_node_core::brake::Bound;
use sedge_node_core::queue::Item;
use sedge_protocol::{Event, FunctionName};
use sedge_runtime::limits::CALL_DEPTH_MAX;
use sedge_store::Commit;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A function may have this part of what the store keeps: no function takes the room of all others.
const SHARE: usize = 4;

/// An acknowledgement on its way: it leaves once the commit is durable.
#[derive(Debug)]
pub(super) struct Ack {
    pub(super) commit: Option<Commit>,
    pub(super) answer: Answer,
}

/// What may wait for one function, of what the store keeps in all.
pub(crate) fn bound(items: usize, bytes: usize) -> Bound {
    Bound { items: (items / SHARE).max(1), bytes: (bytes / SHARE).max(EVENT_OVERHEAD_BYTES + sedge_protocol::limits::EVENT_BYTES_MAX) }
}

/// What an event weighs in the queue of its function.
pub(super) fn weight(event: &Event) -> usize {
    event.data.len() + EVENT_OVERHEAD_BYTES
}

impl Bus {
    /// The functions of `matches` that may be woken by `event`: none when too many functions woke each other before it.
    pub(super) fn within_depth(&self, event: &Event, matches: Vec<Match>) -> Vec<Match> {
        if !depth::is_too_deep(depth::of_event(event)) {
            return matches;
        }
        for found in &matches {
            let reason = format!(
                "an event on {} is not taken: more than {CALL_DEPTH_MAX} calls and events of functions in a row led to it; it comes from {}",
                event.topic, event.source
            );
            log::warn!(function:% = found.function, topic:% = event.topic, source = event.source; "a chain of events ends: it is too long");
            self.parts.errors.note(&found.function, None, &reason);
            self.stats.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Vec::new()
    }

    /// The first function among `matches` whose queue has no room for the event.
    pub(super) fn full<'a>(&mut self, event: &Event, matches: &'a [Match]) -> Option<&'a FunctionName> {
        let bytes = weight(event);
        let full = matches.iter().filter(|found| found.qos > 0).find(|found| self.brake.is_full(&found.function, bytes))?;
        if self.brake.handle_refused(&full.function) {
            log::warn!(function:% = full.function, topic:% = event.topic; "events are refused: as many wait for the function as may");
            self.parts.errors.note(
                &full.function,
                None,
                "events are refused: as many wait as may; the function is slower than its publishers",
            );
        }
        Some(&full.function)
    }

    /// Refuses an event for want of room. Who does not ask does not hear of it: it is counted.
    pub(super) fn refuse(&self, answer: Option<Answer>) {
        match answer {
            Some(answer) => {
                let _unheard = answer.send(Err(Refusal::QuotaExceeded));
            }
            None => {
                self.stats.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Acknowledges, or holds the acknowledgement for the fullest of `functions`.
    pub(super) fn acknowledge_in_pace(&mut self, functions: &[FunctionName], ack: Ack) {
        let ack = if self.stopping { Some(ack) } else { self.brake.handle_ack(functions.iter(), ack, clock::mono()) };
        if let Some(ack) = ack {
            self.acknowledge(ack);
        }
    }

    /// Lets acknowledgements go whose time has come.
    pub(super) fn release(&mut self) {
        while let Some(ack) = self.brake.poll_release(clock::mono()) {
            self.acknowledge(ack);
        }
    }

    /// Nothing is worked off any more: who waits hears what is durable.
    pub(super) fn stop_holding(&mut self) {
        self.stopping = true;
        for ack in self.brake.release_all() {
            self.acknowledge(ack);
        }
    }

    /// An event is out of its queue.
    pub(super) fn left(&mut self, item: &Item<Arc<super::Queued>>) {
        if item.kept {
            self.brake.leave(&item.function, weight(&item.payload.event), clock::mono());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_queue_takes_the_largest_event() {
        assert_eq!(bound(20_000, 8 << 20), Bound { items: 5_000, bytes: 2 << 20 });
        let least = bound(1, 1);
        assert!(least.items == 1 && least.bytes >= sedge_protocol::limits::EVENT_BYTES_MAX);
    }
}
