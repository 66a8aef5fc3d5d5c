//! Moves the limit of invocations at a time: down when they slow each other or the box suffers, up when it is used and all is calm.

/// Slots for each processor at most.
const SLOTS_PER_CORE: u32 = 16;
/// Runnable time over processor time above which invocations slow each other.
const STRETCH_HIGH: f64 = 1.5;
/// Below this they do not.
const STRETCH_CALM: f64 = 1.2;
/// Share of the interval in which something waited for memory above which the box is short of it.
const MEMORY_PRESSURE_HIGH: f64 = 0.10;
/// Share of the interval in which other programs waited for a processor above which we make way.
const CPU_PRESSURE_HIGH: f64 = 0.40;

/// How an interval went.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// Time that guests could have run, over the processor time they got; 1 is undisturbed. `None` when none ran.
    pub stretch: Option<f64>,
    /// Share of the interval in which somebody on the box waited for memory (0 to 1).
    pub memory_pressure: f64,
    /// Share of the interval in which somebody outside this daemon waited for a processor (0 to 1).
    pub cpu_pressure: f64,
}

/// Why the limit moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Guests wait for each other.
    Stretch,
    /// The box is short of memory.
    MemoryPressure,
    /// Other programs want the processors.
    CpuPressure,
    /// All slots were used and nothing suffered.
    Used,
}

impl Reason {
    /// The reason as a word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stretch => "stretch",
            Self::MemoryPressure => "memory_pressure",
            Self::CpuPressure => "cpu_pressure",
            Self::Used => "used",
        }
    }
}

/// A move of the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The limit before.
    pub from: u32,
    /// The limit now.
    pub to: u32,
    /// Why.
    pub reason: Reason,
}

/// The limit and what moves it.
#[derive(Debug)]
pub struct Tuner {
    limit: u32,
    least: u32,
    most: u32,
    /// Most slots that were used since the last sample.
    peak: u32,
}

impl Tuner {
    pub(super) fn new(cores: u32, slots_max: u32) -> Self {
        let least = cores.max(1);
        let most = least.saturating_mul(SLOTS_PER_CORE).min(slots_max).max(least);
        Self { limit: (least * 4).min(most), least, most, peak: 0 }
    }

    /// The limit as it is.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// What the limit can grow to.
    pub(super) fn most(&self) -> u32 {
        self.most
    }

    pub(super) fn used(&mut self, slots: u32) {
        self.peak = self.peak.max(slots);
    }

    pub(super) fn tune(&mut self, sample: Sample, in_use: u32) -> Option<Change> {
        let peak = std::mem::replace(&mut self.peak, in_use);
        let stretch = sample.stretch.unwrap_or(1.0);
        let (to, reason) = if sample.memory_pressure > MEMORY_PRESSURE_HIGH {
            (self.limit / 2, Reason::MemoryPressure)
        } else if stretch > STRETCH_HIGH {
            (self.limit - self.limit.div_ceil(5), Reason::Stretch)
        } else if sample.cpu_pressure > CPU_PRESSURE_HIGH && stretch > STRETCH_CALM {
            (self.limit - self.limit.div_ceil(5), Reason::CpuPressure)
        } else if peak >= self.limit && stretch < STRETCH_CALM {
            (self.limit + (self.limit / 4).max(1), Reason::Used)
        } else {
            return None;
        };
        let (from, to) = (self.limit, to.clamp(self.least, self.most));
        self.limit = to;
        (from != to).then_some(Change { from, to, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_moves_for_its_reasons_and_stays_in_its_bounds() {
        let mut tuner = Tuner::new(2, 1000);
        assert_eq!(tuner.limit(), 8);
        assert_eq!(tuner.tune(Sample::default(), 0), None, "calm and not used: it stays");
        for _ in 0..20 {
            tuner.used(tuner.limit());
            tuner.tune(Sample::default(), 0);
        }
        assert_eq!(tuner.limit(), 32);
        let slow = Sample { stretch: Some(3.0), ..Sample::default() };
        assert_eq!(tuner.tune(slow, 32).map(|change| (change.to, change.reason)), Some((25, Reason::Stretch)));
        let short = Sample { memory_pressure: 0.5, ..Sample::default() };
        assert_eq!(tuner.tune(short, 0).map(|change| (change.to, change.reason)), Some((12, Reason::MemoryPressure)));
        for _ in 0..20 {
            tuner.tune(slow, 32);
        }
        assert_eq!(tuner.limit(), 2);
    }
}
