//! Pressure stall information of the kernel: for how much of the time somebody waited for memory or for a processor.

use std::fs;
use std::time::Instant;

/// The sums of the kernel at the last look.
#[derive(Debug)]
pub(super) struct Pressure {
    at: Instant,
    memory_us: u64,
    cpu_us: u64,
}

impl Pressure {
    pub(super) fn open() -> Self {
        Self { at: Instant::now(), memory_us: total("memory"), cpu_us: total("cpu") }
    }

    /// Shares of the time since the last sample, for memory and for processors (0 to 1). A kernel without the files has no pressure.
    pub(super) fn sample(&mut self) -> (f64, f64) {
        let before = std::mem::replace(self, Self::open());
        let elapsed_us = u64::try_from((self.at - before.at).as_micros()).unwrap_or(u64::MAX);
        (share(before.memory_us, self.memory_us, elapsed_us), share(before.cpu_us, self.cpu_us, elapsed_us))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio")]
fn share(before_us: u64, now_us: u64, elapsed_us: u64) -> f64 {
    (now_us.saturating_sub(before_us) as f64 / elapsed_us.max(1) as f64).min(1.0)
}

fn total(kind: &str) -> u64 {
    fs::read_to_string(format!("/proc/pressure/{kind}")).map_or(0, |text| parse(&text))
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=12345`
fn parse(text: &str) -> u64 {
    let some = text.lines().find(|line| line.starts_with("some"));
    some.and_then(|line| line.rsplit_once("total=")?.1.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_some_is_read_and_a_share_stays_a_share() {
        assert_eq!(parse("some avg10=0.00 avg60=0.00 avg300=0.00 total=12345\nfull avg10=0.00 total=9\n"), 12_345);
        assert_eq!(parse(""), 0);
        assert!((share(0, 250, 1_000) - 0.25).abs() < 1e-9);
        assert!((share(0, 9_000, 1_000) - 1.0).abs() < 1e-9);
    }
}
