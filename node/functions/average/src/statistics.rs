//! Count, mean, least and greatest of a sequence, without keeping the sequence.

use serde::{Deserialize, Serialize};

/// What is known of a sensor.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub struct Statistics {
    /// Readings so far.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// The least of them.
    pub min: f64,
    /// The greatest of them.
    pub max: f64,
}

impl Statistics {
    /// The same with one reading more (Welford's update of the mean).
    pub fn with(self, value: f64) -> Self {
        if self.count == 0 {
            return Self { count: 1, mean: value, min: value, max: value };
        }
        let count = self.count + 1;
        Self {
            count,
            mean: self.mean + (value - self.mean) / count as f64,
            min: self.min.min(value),
            max: self.max.max(value),
        }
    }

    /// Where `value` lies against what came before it.
    #[cfg(feature = "v2")]
    pub fn trend(self, value: f64) -> Trend {
        /// Share of the mean that counts as no change.
        const BAND: f64 = 0.02;
        let band = self.mean.abs() * BAND;
        match value - self.mean {
            _ if self.count == 0 => Trend::Steady,
            change if change > band => Trend::Rising,
            change if change < -band => Trend::Falling,
            _ => Trend::Steady,
        }
    }
}

/// Where a sensor is heading.
#[cfg(feature = "v2")]
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trend {
    Rising,
    Steady,
    Falling,
}
