//! When a failed event is tried again.

use sedge_protocol::manifest::Retry;
use std::time::Duration;

/// Longest delay between two attempts.
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// What becomes of an event whose attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Try again after this delay.
    Again(Duration),
    /// Every attempt is used up.
    DeadLetter,
}

/// Decides after `attempts` failed attempts (at least 1). The delay doubles from `backoff_ms` and is capped at [`BACKOFF_MAX`].
#[must_use]
pub fn verdict(retry: &Retry, attempts: u32) -> Verdict {
    if attempts >= retry.attempts {
        return Verdict::DeadLetter;
    }
    let doublings = attempts.saturating_sub(1).min(32);
    let delay = Duration::from_millis(retry.backoff_ms.saturating_mul(1 << doublings));
    Verdict::Again(delay.min(BACKOFF_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_cap_and_then_the_event_is_dead() {
        let retry = Retry { attempts: 12, backoff_ms: 1000 };
        let delays: Vec<u64> = (1..12)
            .map(|attempts| match verdict(&retry, attempts) {
                Verdict::Again(delay) => delay.as_secs(),
                Verdict::DeadLetter => panic!("too early"),
            })
            .collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(verdict(&retry, 12), Verdict::DeadLetter);
        assert_eq!(verdict(&Retry { attempts: 1, backoff_ms: 0 }, 1), Verdict::DeadLetter);
    }
}
