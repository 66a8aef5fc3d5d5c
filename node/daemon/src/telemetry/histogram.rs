//! A histogram of atomics: observing is two additions.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Durations, microseconds: the bounds that the semantic conventions advise, and three below them, where most functions are.
pub(crate) const DURATION_US: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000, 1_000_000, 2_500_000, 5_000_000,
    7_500_000, 10_000_000,
];

/// From the bus to the end of an invocation, microseconds: finer below, where an event that need not wait is.
pub(crate) const EVENT_US: &[u64] = &[
    50, 100, 150, 200, 250, 300, 400, 500, 750, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// Memory, bytes: one page of WebAssembly up to the largest limits, in powers of four.
pub(crate) const MEMORY_BYTES: &[u64] = &[1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28, 1 << 30];

/// Counts values between bounds.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [u64],
    /// One for each bound, and one for what is above all.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What a histogram held at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Distribution {
    pub(crate) bounds: &'static [u64],
    pub(crate) buckets: Vec<u64>,
    pub(crate) sum: u64,
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    /// Counts one value. A bound belongs to the bucket below it.
    pub(crate) fn observe(&self, value: u64) {
        self.buckets[self.bounds.partition_point(|bound| *bound < value)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    pub(crate) fn read(&self) -> Distribution {
        let buckets = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        Distribution { bounds: self.bounds, buckets, sum: self.sum.load(Relaxed) }
    }
}

impl Distribution {
    /// How many values there are.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let histogram = Histogram::new(&[10, 20]);
        for value in [0, 10, 11, 20, 21, 1_000] {
            histogram.observe(value);
        }
        let read = histogram.read();
        assert_eq!((read.buckets.as_slice(), read.sum, read.count()), ([2, 2, 2].as_slice(), 1_062, 6));
    }
}
