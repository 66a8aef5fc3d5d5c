//! One key in two live boxes: told from a box that comes back.
//!
//! ```text
//!  a box that restarts:   A A A B B C          each start of a daemon draws a number, and a number that has gone is not seen again
//!  a box and its copy:    A B A B …            who was followed by another comes back: both live
//! ```
//! One return is forgiven: a greeting may have been long on its way. Roaming, a connection that hangs, and restarts make none.
//! Memory is bounded: the newest [`INSTANCES_MAX`] numbers of each node.

use std::collections::VecDeque;

/// Most starts of a node's daemon that are remembered.
pub const INSTANCES_MAX: usize = 8;
/// How many times somebody has to come back after another.
pub const RETURNS_MAX: u32 = 2;
/// How long a greeting is remembered, milliseconds: a week.
pub const WINDOW_MS: u64 = 7 * 24 * 3_600_000;

/// The greetings of one node lately, the newest last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Greetings {
    seen: VecDeque<Seen>,
    returns: u32,
}

/// The last greeting of one start of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    instance: u64,
    from: String,
    at_ms: u64,
}

/// Two boxes that live at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Twins {
    /// Where each was heard last.
    pub from: [String; 2],
}

impl Greetings {
    /// Takes a greeting and says whether two boxes live with one key. Zero is a daemon that draws no number: nothing follows from it.
    pub fn greeted(&mut self, instance: u64, from: &str, now_ms: u64) -> Option<Twins> {
        if instance == 0 {
            return None;
        }
        self.seen.retain(|seen| now_ms.saturating_sub(seen.at_ms) <= WINDOW_MS);
        if self.seen.is_empty() {
            self.returns = 0;
        }
        let before = self.seen.iter().position(|seen| seen.instance == instance);
        let latest = self.seen.back().filter(|latest| latest.instance != instance).map(|latest| latest.from.clone());
        if let Some(at) = before {
            self.seen.remove(at);
        }
        self.seen.push_back(Seen { instance, from: from.to_owned(), at_ms: now_ms });
        while self.seen.len() > INSTANCES_MAX {
            self.seen.pop_front();
        }
        let (Some(_), Some(other)) = (before, latest) else { return None };
        self.returns = self.returns.saturating_add(1);
        (self.returns >= RETURNS_MAX).then(|| Twins { from: [other, from.to_owned()] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of the greeting that gave them away, from 1.
    fn told(instances: &[u64]) -> Option<usize> {
        let mut greetings = Greetings::default();
        instances.iter().enumerate().find_map(|(at, i)| greetings.greeted(*i, &format!("10.0.0.{i}"), at as u64).map(|_| at + 1))
    }

    #[test]
    fn who_restarts_or_roams_is_one_box() {
        for one in
            [&[1][..], &[1, 1, 1, 1], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], &[1, 1, 2, 2, 3], &[1, 2, 1], &[0, 0, 0], &[1, 0, 1, 0, 1]]
        {
            assert_eq!(told(one), None, "{one:?}");
        }
    }

    #[test]
    fn who_comes_back_after_another_twice_is_two() {
        assert_eq!(told(&[1, 2, 1, 2]), Some(4));
        assert_eq!(told(&[1, 2, 3, 1, 2, 3]), Some(5), "three boxes");
        assert_eq!(told(&[1, 2, 1, 3, 1]), Some(5), "one that is switched on now and then");
        let mut greetings = Greetings::default();
        let twins = [(1, "a"), (2, "b"), (1, "a"), (2, "c")].into_iter().find_map(|(i, from)| greetings.greeted(i, from, 0));
        assert_eq!(twins, Some(Twins { from: ["a".to_owned(), "c".to_owned()] }));
    }

    #[test]
    fn what_is_long_ago_is_forgotten_and_memory_is_bounded() {
        let mut greetings = Greetings::default();
        for round in 0..5 {
            for instance in [1, 2] {
                assert_eq!(greetings.greeted(instance, "a", (2 * round + instance) * (WINDOW_MS + 1)), None);
            }
        }
        for instance in 1..1000 {
            assert_eq!(greetings.greeted(instance, "a", 0), None);
        }
        assert_eq!(greetings.seen.len(), INSTANCES_MAX);
    }
}
