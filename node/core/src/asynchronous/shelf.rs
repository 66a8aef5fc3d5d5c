//! What ended, and how long it is kept: a day, and never more than the node can bear.

use super::Steady;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long the end of a call and its answer are kept.
pub const RETENTION: Duration = Duration::from_secs(24 * 3600);
/// Calls that are over and still known.
pub const OVER_MAX: usize = 10_000;
/// Answers that are kept, bytes together.
pub const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Whose.
    pub number: u64,
    /// Bytes of the answer that is still kept.
    pub bytes: u64,
    /// Why.
    pub cause: Cause,
}

/// Why something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The answer alone, for want of room; that the call ended stays known.
    Answer,
    /// Everything about the call, for want of room.
    Call,
    /// Everything about the call: its time is over.
    Expired,
}

#[derive(Debug, Clone, Copy)]
struct Over {
    at: Steady,
    bytes: u64,
}

/// Calls that are over, oldest end first. Drain [`Shelf::poll_dropped`] after every [`Shelf::put`], and now and then.
#[derive(Debug)]
pub struct Shelf {
    calls: BTreeMap<u64, Over>,
    order: BTreeSet<(Steady, u64)>,
    answers: BTreeSet<(Steady, u64)>,
    bytes: u64,
    calls_max: usize,
    bytes_max: u64,
}

impl Default for Shelf {
    fn default() -> Self {
        Self::new(OVER_MAX, ANSWER_BYTES_MAX)
    }
}

impl Shelf {
    /// An empty shelf for so many calls and bytes of answers.
    #[must_use]
    pub fn new(calls_max: usize, bytes_max: u64) -> Self {
        Self { calls: BTreeMap::new(), order: BTreeSet::new(), answers: BTreeSet::new(), bytes: 0, calls_max, bytes_max }
    }

    /// Call `number` ended at `at` with an answer of so many bytes.
    pub fn put(&mut self, number: u64, at: Steady, bytes: u64) {
        self.remove(number);
        self.calls.insert(number, Over { at, bytes });
        self.order.insert((at, number));
        if bytes > 0 {
            self.answers.insert((at, number));
        }
        self.bytes += bytes;
    }

    /// Call `number` is not over any more, or is gone.
    pub fn remove(&mut self, number: u64) {
        let Some(over) = self.calls.remove(&number) else { return };
        self.order.remove(&(over.at, number));
        self.answers.remove(&(over.at, number));
        self.bytes -= over.bytes;
    }

    /// What has to go now, one at a time.
    pub fn poll_dropped(&mut self, now: Steady) -> Option<Dropped> {
        let (at, number) = *self.order.first()?;
        let expired = now.since(at) >= RETENTION;
        if expired || self.calls.len() > self.calls_max {
            let bytes = self.calls.get(&number).map_or(0, |over| over.bytes);
            self.remove(number);
            return Some(Dropped { number, bytes, cause: if expired { Cause::Expired } else { Cause::Call } });
        }
        if self.bytes <= self.bytes_max {
            return None;
        }
        let (at, number) = self.answers.pop_first()?;
        let bytes = self.calls.insert(number, Over { at, bytes: 0 }).map_or(0, |over| over.bytes);
        self.bytes -= bytes;
        Some(Dropped { number, bytes, cause: Cause::Answer })
    }

    /// Whether the call is on it.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        self.calls.contains_key(&number)
    }

    /// Calls on it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether nothing is on it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Bytes of answers on it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_go_before_the_calls_and_the_oldest_first() {
        let mut shelf = Shelf::new(2, 100);
        shelf.put(1, Steady(1), 60);
        shelf.put(2, Steady(2), 60);
        let dropped = |number, bytes, cause| Some(Dropped { number, bytes, cause });
        assert_eq!(shelf.poll_dropped(Steady(2)), dropped(1, 60, Cause::Answer));
        assert_eq!(shelf.poll_dropped(Steady(2)), None);
        shelf.put(3, Steady(3), 0);
        assert_eq!(shelf.poll_dropped(Steady(3)), dropped(1, 0, Cause::Call));
        let day = u64::try_from(RETENTION.as_millis()).unwrap();
        assert_eq!(shelf.poll_dropped(Steady(1 + day)), None);
        assert_eq!(shelf.poll_dropped(Steady(2 + day)), dropped(2, 60, Cause::Expired));
        assert_eq!((shelf.len(), shelf.bytes()), (1, 0));
    }

    proptest! {
        #[test]
        fn the_shelf_never_holds_more_than_it_may(ends in prop::collection::vec((0_u64..30, 0_u64..50, 0_u64..10_000_000), 1..200)) {
            let (mut shelf, mut now, mut known) = (Shelf::new(10, 200), Steady(0), BTreeSet::new());
            for (number, bytes, pause) in ends {
                now = Steady(now.0 + pause);
                shelf.put(number, now, bytes);
                known.insert(number);
                while let Some(dropped) = shelf.poll_dropped(now) {
                    if dropped.cause != Cause::Answer {
                        prop_assert!(known.remove(&dropped.number), "dropped once");
                    }
                }
                prop_assert!(shelf.len() <= 10 && shelf.bytes() <= 200);
                prop_assert_eq!(shelf.len(), known.len());
                prop_assert_eq!(shelf.bytes(), shelf.calls.values().map(|over| over.bytes).sum::<u64>());
                prop_assert!(shelf.calls.contains_key(&number), "the newest stays");
            }
        }
    }
}
