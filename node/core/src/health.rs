//! How often a function has failed within the last hour, in a bounded memory.

use crate::Mono;
use std::collections::VecDeque;

const MINUTE_MS: u64 = 60_000;
/// Minutes that are remembered.
const MINUTES: u64 = 60;

/// Failures of one function by the minute. What is older than an hour is forgotten, to the minute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failures {
    /// Minute and number of failures in it, oldest first.
    minutes: VecDeque<(u64, u32)>,
}

impl Failures {
    /// Counts one.
    pub fn note(&mut self, now: Mono) {
        let minute = now.0 / MINUTE_MS;
        self.forget(minute);
        match self.minutes.back_mut() {
            Some((last, count)) if *last == minute => *count = count.saturating_add(1),
            Some(_) | None => self.minutes.push_back((minute, 1)),
        }
    }

    /// How many there were within the last hour.
    #[must_use]
    pub fn last_hour(&self, now: Mono) -> u32 {
        let oldest = oldest(now.0 / MINUTE_MS);
        self.minutes.iter().filter(|(minute, _)| *minute >= oldest).fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    fn forget(&mut self, minute: u64) {
        while self.minutes.front().is_some_and(|(first, _)| *first < oldest(minute)) {
            self.minutes.pop_front();
        }
    }
}

/// The first minute of the hour that ends with `minute`.
fn oldest(minute: u64) -> u64 {
    (minute + 1).saturating_sub(MINUTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_forgotten_after_an_hour() {
        let mut failures = Failures::default();
        assert_eq!(failures.last_hour(Mono(0)), 0);
        failures.note(Mono(0));
        failures.note(Mono(59_999));
        failures.note(Mono(60_000));
        assert_eq!(failures.last_hour(Mono(60_000)), 3);
        assert_eq!(failures.last_hour(Mono(59 * MINUTE_MS)), 3);
        assert_eq!(failures.last_hour(Mono(60 * MINUTE_MS)), 1);
        assert_eq!(failures.last_hour(Mono(61 * MINUTE_MS)), 0);
    }

    #[test]
    fn memory_is_bounded_however_long_it_fails() {
        let mut failures = Failures::default();
        (0..1000).for_each(|minute| failures.note(Mono(minute * MINUTE_MS)));
        assert_eq!((failures.minutes.len() as u64, failures.last_hour(Mono(999 * MINUTE_MS))), (MINUTES, 60));
    }
}
