//! When a device that is away, or fails, is tried again.

use std::time::Duration;

/// First pause.
pub const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause: so long after it is plugged in again a device is missed at most. One that worked for this long has failed for the first time.
pub const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How often a device has failed since it last worked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Patience {
    failures: u32,
}

impl Patience {
    /// A device has failed, or was not there; `worked` is for how long it was ready before. Answers the pause until it is tried again: it
    /// doubles with each failure.
    pub fn handle_end(&mut self, worked: Duration) -> Duration {
        if worked >= PAUSE_MAX {
            self.failures = 0;
        }
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        pause.min(PAUSE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_the_longest_and_begin_anew_after_what_worked() {
        let mut patience = Patience::default();
        let pauses: Vec<u128> = (0..8).map(|_| patience.handle_end(Duration::ZERO).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        // A device that comes and goes is no reason for haste.
        assert_eq!(patience.handle_end(Duration::from_secs(9)), PAUSE_MAX);
        assert_eq!(patience.handle_end(Duration::from_secs(10)), PAUSE_MIN);
        assert_eq!(patience.handle_end(Duration::ZERO), PAUSE_MIN * 2);
    }
}
