//! How often a device may speak: one that is broken must not take the bus from all others.

use crate::Mono;

/// Events of one device that may come at once.
pub const BURST_MAX: u64 = 200;
/// Events of one device in a second, over time: one a millisecond.
pub const EVENTS_PER_SECOND_MAX: u64 = 1000;
const MS_PER_EVENT: u64 = 1000 / EVENTS_PER_SECOND_MAX;

/// What a device may still say: full at the beginning, and it fills with time.
#[derive(Debug, Clone)]
pub struct Allowance {
    left: u64,
    /// Up to here time has been turned into events.
    counted: Mono,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { left: BURST_MAX, counted: Mono(0) }
    }
}

impl Allowance {
    /// Takes one event out of it, if there is one.
    pub fn take(&mut self, now: Mono) -> bool {
        let events = now.0.saturating_sub(self.counted.0) / MS_PER_EVENT;
        if events > 0 {
            self.left = self.left.saturating_add(events).min(BURST_MAX);
            self.counted = now;
        }
        let taken = self.left > 0;
        self.left = self.left.saturating_sub(1);
        taken
    }

    /// When there is one again, once [`Allowance::take`] has found none.
    #[must_use]
    pub fn next(&self) -> Mono {
        Mono(self.counted.0.saturating_add(MS_PER_EVENT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_more_than_may_come_at_once_waits_for_its_millisecond() {
        let mut allowance = Allowance::default();
        let now = Mono(5);
        assert!((0..BURST_MAX).all(|_| allowance.take(now)));
        assert!(!allowance.take(now));
        assert_eq!(allowance.next(), Mono(6));
        assert!(allowance.take(Mono(6)) && !allowance.take(Mono(6)));
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_one_a_millisecond(steps in prop::collection::vec(0_u64..40, 1..2000)) {
            let (mut allowance, mut now, mut taken) = (Allowance::default(), 0, 0_u64);
            for step in steps {
                now += step / 8;
                taken += u64::from(allowance.take(Mono(now)));
                prop_assert!(taken <= BURST_MAX + now / MS_PER_EVENT);
            }
        }
    }
}
