//! Items that wait for a turn on a processor, in fair order over their keys.
//!
//! ```text
//! push(key, item) ─▶ line of the key ─▶ pop ─▶ runs for a while ─▶ charge(key, µs)
//! ```
//! Invariants: every item that was pushed is popped once, in order within its key.

use crate::round::Round;
use std::collections::{BTreeMap, VecDeque};

/// Lines of items, one for each key; the [`Round`] says whose turn it is.
#[derive(Debug)]
pub struct Fair<K, T> {
    round: Round<K>,
    lines: BTreeMap<K, VecDeque<T>>,
    len: usize,
}

impl<K, T> Default for Fair<K, T> {
    fn default() -> Self {
        Self { round: Round::default(), lines: BTreeMap::new(), len: 0 }
    }
}

impl<K: Ord + Clone, T> Fair<K, T> {
    /// Puts an item at the end of its key's line. What wants to go on after its turn is pushed before the turn is charged.
    pub fn push(&mut self, key: &K, item: T) {
        self.lines.entry(key.clone()).or_default().push_back(item);
        self.round.enter(key);
        self.len += 1;
    }

    /// The next item; tell afterwards what its turn cost with [`charge`](Self::charge).
    pub fn pop(&mut self) -> Option<(K, T)> {
        let key = self.round.next(|_| true)?;
        let line = self.lines.get_mut(&key)?;
        let item = line.pop_front()?;
        let more = !line.is_empty();
        if !more {
            self.lines.remove(&key);
        }
        self.round.take(&key, more);
        self.len -= 1;
        Some((key, item))
    }

    /// The turn of an item of `key` is over and took so much processor time.
    pub fn charge(&mut self, key: &K, cost_us: u64) {
        self.round.charge(key, cost_us);
    }

    /// Items that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs `turns` turns of items that come again for ever; answers the time that each key got.
    fn serve(items: &[(u8, u64)], turns: usize) -> BTreeMap<u8, u64> {
        let mut fair = Fair::default();
        for (key, cost) in items {
            fair.push(key, *cost);
        }
        let mut got = BTreeMap::new();
        for _ in 0..turns {
            let (key, cost) = fair.pop().unwrap();
            *got.entry(key).or_default() += cost;
            fair.push(&key, cost);
            fair.charge(&key, cost);
        }
        got
    }

    #[test]
    fn many_invocations_of_one_function_get_no_more_than_the_one_of_another() {
        let mut items = vec![(1, 5_000)];
        items.extend([(2, 5_000); 50]);
        let got = serve(&items, 1_000);
        assert!(got[&1].abs_diff(got[&2]) <= 50_000, "{got:?}");
    }

    #[test]
    fn short_turns_get_as_much_time_as_long_ones() {
        let got = serve(&[(1, 200), (2, 5_000), (3, 30_000)], 20_000);
        let (least, most) = (got.values().min().unwrap(), got.values().max().unwrap());
        assert!(most - least <= 200_000, "{got:?}");
    }

    proptest! {
        /// Whatever comes and goes: nothing is lost, nothing comes twice, and each key is in order.
        #[test]
        fn every_item_comes_once_and_in_order(steps in proptest::collection::vec((0_u8..4, 0_u64..100_000, any::<bool>()), 1..300)) {
            let mut fair = Fair::default();
            let (mut next, mut pushed, mut popped) = (0_u32, BTreeMap::<u8, Vec<u32>>::new(), BTreeMap::<u8, Vec<u32>>::new());
            for (key, cost, push) in steps {
                if push {
                    fair.push(&key, next);
                    pushed.entry(key).or_default().push(next);
                    next += 1;
                } else if let Some((key, item)) = fair.pop() {
                    popped.entry(key).or_default().push(item);
                    fair.charge(&key, cost);
                }
            }
            while let Some((key, item)) = fair.pop() {
                popped.entry(key).or_default().push(item);
            }
            prop_assert!(fair.is_empty());
            prop_assert_eq!(pushed, popped);
        }
    }
}
