//! Turns by processor time: deficit round robin over functions.
//!
//! ```text
//! push(key, item) ─▶ line of the key ─▶ pop ─▶ runs for a while ─▶ charge(key, µs) ─▶ its credit shrinks
//! ```
//! What a turn will cost is known only after it, so it is charged afterwards: a function goes on while it has credit, and gets a
//! quantum each time the round comes to it. Over time all functions that have something to run get the same processor time, whatever
//! the number of their invocations and however long each turn takes.
//!
//! Invariants: every item that was pushed is popped once, in order within its key; a key without items has no debt to others and
//! keeps no credit.

use std::collections::{BTreeMap, VecDeque};

/// Processor time that a function gets each time the round comes to it, microseconds.
pub const QUANTUM_US: i64 = 5_000;
/// Most debt that is remembered, microseconds: one long turn must not shut a function out for seconds.
const DEBT_US_MAX: i64 = 20 * QUANTUM_US;

#[derive(Debug)]
struct Line<T> {
    items: VecDeque<T>,
    credit_us: i64,
    /// Whether it has got its quantum since the round came to it.
    visited: bool,
    /// Taken out and not yet charged.
    running: u32,
}

/// Items that wait for their turn, in fair order over their keys.
#[derive(Debug)]
pub struct Fair<K, T> {
    lines: BTreeMap<K, Line<T>>,
    /// Keys that have items, in the order of the round; the first is being served.
    round: VecDeque<K>,
    len: usize,
}

impl<K, T> Default for Fair<K, T> {
    fn default() -> Self {
        Self { lines: BTreeMap::new(), round: VecDeque::new(), len: 0 }
    }
}

impl<K: Ord + Clone, T> Fair<K, T> {
    /// Puts an item at the end of its key's line. What wants to go on after its turn is pushed before the turn is charged: then its
    /// key goes on with the credit it has.
    pub fn push(&mut self, key: &K, item: T) {
        let new = || Line { items: VecDeque::new(), credit_us: 0, visited: false, running: 0 };
        let line = self.lines.entry(key.clone()).or_insert_with(new);
        if line.items.is_empty() {
            if line.running == 0 {
                line.credit_us = line.credit_us.min(0);
                line.visited = false;
            }
            if line.visited {
                self.round.push_front(key.clone());
            } else {
                self.round.push_back(key.clone());
            }
        }
        line.items.push_back(item);
        self.len += 1;
    }

    /// The next item; tell afterwards what its turn cost with [`charge`](Self::charge).
    pub fn pop(&mut self) -> Option<(K, T)> {
        // Each visit adds a quantum, and debts are bounded: the loop ends.
        loop {
            let key = self.round.front()?.clone();
            let line = self.lines.get_mut(&key).expect("a key of the round has a line");
            if !line.visited {
                line.visited = true;
                line.credit_us += QUANTUM_US;
            }
            if line.credit_us <= 0 {
                line.visited = false;
                self.round.rotate_left(1);
                continue;
            }
            let item = line.items.pop_front().expect("a key of the round has items");
            line.running += 1;
            self.len -= 1;
            if line.items.is_empty() {
                self.round.pop_front();
            }
            return Some((key, item));
        }
    }

    /// The turn of an item of `key` is over and took so much processor time.
    pub fn charge(&mut self, key: &K, cost_us: u64) {
        let Some(line) = self.lines.get_mut(key) else { return };
        let cost_us = i64::try_from(cost_us).unwrap_or(DEBT_US_MAX);
        line.credit_us = (line.credit_us - cost_us).max(-DEBT_US_MAX);
        line.running = line.running.saturating_sub(1);
        if self.round.is_empty() {
            // Nobody waits, so nobody is owed anything.
            self.lines.retain(|_, line| line.running > 0);
        }
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
