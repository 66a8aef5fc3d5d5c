//! What an invocation of a function usually computes, which decides where the next one begins.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A moving average of processor time, microseconds.
// Two that end at the same moment may lose one of their values: it is an average.
#[derive(Debug, Default)]
pub(crate) struct Usual(AtomicU64);

impl Usual {
    /// One ended after so much processor time, microseconds.
    pub(crate) fn note(&self, cpu_us: u64) {
        let before = self.0.load(Relaxed);
        self.0.store((before.saturating_mul(7)).saturating_add(cpu_us) / 8, Relaxed);
    }

    /// Whether it is above `long_us`: then the next one had better begin where long guests take turns. On the thread that took its request
    /// it would hold up others, and leave it all the same.
    pub(crate) fn is_long(&self, long_us: u64) -> bool {
        self.0.load(Relaxed) > long_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LONG_US;

    #[test]
    fn a_function_is_long_by_what_it_does_most() {
        let usual = Usual::default();
        usual.note(5 * LONG_US);
        assert!(!usual.is_long(LONG_US), "once is not usual");
        (0..20).for_each(|_| usual.note(5 * LONG_US));
        assert!(usual.is_long(LONG_US));
        (0..40).for_each(|_| usual.note(LONG_US / 10));
        assert!(!usual.is_long(LONG_US));
        usual.note(u64::MAX);
    }
}
