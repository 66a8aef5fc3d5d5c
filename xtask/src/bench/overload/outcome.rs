//! What came of a load, in the figures that the proof is about.

use std::time::Duration;

use serde::Serialize;

use super::load::{End, Load, Sample};

/// Share of answers in time with which all goes well.
const WELL: f64 = 0.95;

/// One phase of one way to limit concurrency.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Outcome {
    /// Processor time of what was answered in time, as a share of what the box can do.
    pub(super) useful: f64,
    /// Of what was answered in time, milliseconds.
    pub(super) p99_ms: f64,
    /// Share of all that came.
    pub(super) refused: f64,
    /// How soon the refusals came, milliseconds.
    pub(super) refused_p99_ms: f64,
    /// Share of the victim's requests that were answered in time.
    pub(super) victim: f64,
}

impl Outcome {
    /// Of what came after `from`.
    #[expect(clippy::cast_precision_loss, reason = "ratios")]
    pub(super) fn of(samples: &[Sample], loads: &[Load], (from, to): (Duration, Duration), cores: f64) -> Self {
        let counted: Vec<&Sample> = samples.iter().filter(|sample| sample.at >= from && sample.at < to).collect();
        let of = |end: End| counted.iter().filter(move |sample| sample.end == end);
        let useful_us: u64 = of(End::Good).map(|sample| loads[sample.load].cpu_us).sum();
        let victims = |all: Vec<&&Sample>| all.iter().filter(|sample| loads[sample.load].name == super::VICTIM).count() as f64;
        Self {
            useful: useful_us as f64 / ((to - from).as_micros() as f64 * cores),
            p99_ms: p99_ms(of(End::Good).map(|sample| sample.took)),
            refused: of(End::Refused).count() as f64 / counted.len().max(1) as f64,
            refused_p99_ms: p99_ms(of(End::Refused).map(|sample| sample.took)),
            victim: victims(of(End::Good).collect()) / victims(counted.iter().collect()).max(1.0),
        }
    }
}

fn p99_ms(times: impl Iterator<Item = Duration>) -> f64 {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times.get(times.len().saturating_sub(1) * 99 / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

/// For each second, the share of what came in it that was answered in time.
#[expect(clippy::cast_precision_loss, reason = "ratios")]
pub(super) fn good_by_second(samples: &[Sample], seconds: u64) -> Vec<f64> {
    let share = |second: u64| {
        let within: Vec<&Sample> = samples.iter().filter(|sample| sample.at.as_secs() == second).collect();
        within.iter().filter(|sample| sample.end == End::Good).count() as f64 / within.len().max(1) as f64
    };
    (0..seconds).map(share).collect()
}

/// Seconds until all goes well again, and stays so: from then on 19 of 20 are answered in time in each second.
#[expect(clippy::cast_precision_loss, reason = "a time for people")]
pub(super) fn recovered_s(good_by_second: &[f64]) -> f64 {
    good_by_second.iter().rposition(|share| *share < WELL).map_or(0, |last| last + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(load: usize, at_s: u64, took_ms: u64, end: End) -> Sample {
        Sample { load, at: Duration::from_secs(at_s), took: Duration::from_millis(took_ms), end }
    }

    #[test]
    fn figures_count_what_was_answered_in_time() {
        let load = |name, cpu_us| Load { name, path: String::new(), cpu_us, patience: Duration::ZERO, share: 0.0 };
        let loads = [load("short", 500_000), load(super::super::VICTIM, 100_000)];
        let samples = [
            sample(0, 0, 1, End::Good),
            sample(0, 1, 50, End::Good),
            sample(0, 1, 3, End::Refused),
            sample(1, 1, 80, End::Good),
            sample(1, 1, 200, End::Lost),
        ];
        let outcome = Outcome::of(&samples, &loads, (Duration::from_secs(1), Duration::from_secs(2)), 2.0);
        assert!((outcome.useful - 0.3).abs() < 1e-9 && (outcome.victim - 0.5).abs() < 1e-9 && (outcome.refused - 0.25).abs() < 1e-9);
        assert!((outcome.refused_p99_ms - 3.0).abs() < 1e-9);
    }

    #[test]
    fn recovery_counts_from_the_last_bad_second() {
        let mut samples: Vec<Sample> = (0..5).flat_map(|second| vec![sample(0, second, 1, End::Good); 40]).collect();
        assert!(recovered_s(&good_by_second(&samples, 5)).abs() < 1e-9);
        samples.extend(vec![sample(0, 2, 1, End::Refused); 3]);
        assert!((recovered_s(&good_by_second(&samples, 5)) - 3.0).abs() < 1e-9);
        samples.extend(vec![sample(0, 4, 1, End::Lost); 3]);
        assert!((recovered_s(&good_by_second(&samples, 5)) - 5.0).abs() < 1e-9);
    }
}
