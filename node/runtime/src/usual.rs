//! What an invocation of a function usually computes, which decides where the next one begins.

use crate::limits::LONG_US;
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

    /// Whether the next one had better begin where long guests take turns: on the thread that took its request it would hold up others,
    /// and leave it all the same.
    pub(crate) fn is_long(&self) -> bool {
        self.0.load(Relaxed) > LONG_US
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_long_by_what_it_does_most() {
        let usual = Usual::default();
        usual.note(5 * LONG_US);
        assert!(!usual.is_long(), "once is not usual");
        (0..20).for_each(|_| usual.note(5 * LONG_US));
        assert!(usual.is_long());
        (0..40).for_each(|_| usual.note(LONG_US / 10));
        assert!(!usual.is_long());
        usual.note(u64::MAX);
    }
}
