//! Whose turn it is: deficit round robin by processor time.
//!
//! What a turn will cost is known only after it, so it is charged afterwards: a key goes on while it has credit, and gets a quantum
//! each time the round comes to it. Over time all keys that have something to run get the same processor time, whatever the number of
//! their turns and however long each takes.
//!
//! Invariants: a key that has nothing to run has no credit saved up; its debt is bounded.

use std::collections::{BTreeMap, VecDeque};

/// Processor time that a key gets each time the round comes to it, microseconds.
pub const QUANTUM_US: i64 = 5_000;
/// Most debt that is remembered, microseconds: one long turn must not shut a key out for seconds.
const DEBT_US_MAX: i64 = 20 * QUANTUM_US;

#[derive(Debug, Default)]
struct Account {
    credit_us: i64,
    /// Whether it has got its quantum since the round came to it.
    visited: bool,
    /// Whether it is in the round.
    waiting: bool,
    /// Turns taken and not yet charged.
    running: u32,
}

/// The keys that have something to run, in fair order.
#[derive(Debug)]
pub struct Round<K> {
    accounts: BTreeMap<K, Account>,
    /// The first is being served.
    order: VecDeque<K>,
}

impl<K> Default for Round<K> {
    fn default() -> Self {
        Self { accounts: BTreeMap::new(), order: VecDeque::new() }
    }
}

impl<K: Ord + Clone> Round<K> {
    /// `key` has something to run. What wants to go on after its turn enters before the turn is charged: then it goes on with the
    /// credit it has.
    pub fn enter(&mut self, key: &K) {
        let account = self.accounts.entry(key.clone()).or_default();
        if account.waiting {
            return;
        }
        account.waiting = true;
        if account.running == 0 {
            account.credit_us = account.credit_us.min(0);
            account.visited = false;
        }
        if account.visited {
            self.order.push_front(key.clone());
        } else {
            self.order.push_back(key.clone());
        }
    }

    /// `key` has nothing to run any more.
    pub fn leave(&mut self, key: &K) {
        if let Some(account) = self.accounts.get_mut(key).filter(|account| account.waiting) {
            account.waiting = false;
            self.order.retain(|other| other != key);
        }
    }

    /// Whose turn it is among those that may run now. The caller then [takes](Self::take) it.
    pub fn next(&mut self, may_run: impl Fn(&K) -> bool) -> Option<K> {
        if !self.order.iter().any(&may_run) {
            return None;
        }
        // Each visit adds a quantum to one that may run, and debts are bounded: the loop ends.
        loop {
            let key = self.order.front()?;
            let account = self.accounts.get_mut(key)?;
            let runs = may_run(key);
            if runs && !account.visited {
                account.visited = true;
                account.credit_us += QUANTUM_US;
            }
            if runs && account.credit_us > 0 {
                return Some(key.clone());
            }
            account.visited = false;
            self.order.rotate_left(1);
        }
    }

    /// `key` takes a turn; `more`: it has something to run besides. Tell what the turn cost with [`charge`](Self::charge).
    pub fn take(&mut self, key: &K, more: bool) {
        if let Some(account) = self.accounts.get_mut(key) {
            account.running += 1;
        }
        if !more {
            self.leave(key);
        }
    }

    /// A turn of `key` is over and took so much processor time.
    pub fn charge(&mut self, key: &K, cost_us: u64) {
        let Some(account) = self.accounts.get_mut(key) else { return };
        let cost_us = i64::try_from(cost_us).unwrap_or(DEBT_US_MAX);
        account.credit_us = (account.credit_us - cost_us).max(-DEBT_US_MAX);
        account.running = account.running.saturating_sub(1);
        if self.order.is_empty() {
            // Nobody waits, so nobody is owed anything.
            self.accounts.retain(|_, account| account.running > 0);
        }
    }

    /// The keys that have something to run, in no order that matters.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.order.iter()
    }

    /// How many keys have something to run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether no key has anything to run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_may_not_run_is_passed_over_and_saves_nothing_up() {
        let mut round = Round::default();
        round.enter(&1);
        round.enter(&2);
        for _ in 0..100 {
            assert_eq!(round.next(|key| *key == 2), Some(2));
            round.take(&2, true);
            round.charge(&2, 5_000);
        }
        assert_eq!(round.next(|_| false), None);
        let mut turns = BTreeMap::from([(1, 0), (2, 0)]);
        for _ in 0..100 {
            let key = round.next(|_| true).unwrap();
            round.take(&key, true);
            round.charge(&key, 5_000);
            *turns.get_mut(&key).unwrap() += 1;
        }
        assert!((48..=52).contains(&turns[&1]), "{turns:?}");
    }
}
