//! Time for certificates, on boxes whose clock may stand at 1970 or ten years ahead.
//!
//! A box does not ask its own clock whether a certificate is good: it verifies the fleet's at a time that has certainly passed, the later of
//! the build of this program and the begin of the pinned authority. A server's certificate begins when its authority did, so that is late
//! enough. Whether a node's own certificate has expired is decided by the fleet, which verifies it by its clock. When to renew follows the time
//! that the fleet has told ([`FleetTime`]). So no clock of a box, whatever it shows, keeps it from its fleet; and a fleet whose clock was wrong
//! for a while has told no box anything that outlives the mistake.

use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time that has certainly passed: of the build when `SOURCE_DATE_EPOCH` was set, else the begin of the year 2026.
pub const BUILT_MS: u64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(seconds) => digits(seconds) * 1000,
    None => 1_767_225_600_000,
};

/// The box's clock, milliseconds since 1970; 0 when it stands before.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A time that has certainly passed, and stands still.
#[derive(Debug, Clone, Copy)]
pub struct Floor {
    ms: u64,
}

impl Floor {
    /// The later of [`BUILT_MS`] and `trusted_ms`.
    #[must_use]
    pub fn new(trusted_ms: u64) -> Self {
        Self { ms: trusted_ms.max(BUILT_MS) }
    }

    /// As certificates are verified at it.
    #[must_use]
    pub fn time(self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_millis(self.ms))
    }
}

impl TimeProvider for Floor {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.time())
    }
}

/// The fleet's time as far as a box knows it: what it was told last, and what has passed since by a clock that never jumps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FleetTime {
    told: Option<(u64, u64)>,
}

impl FleetTime {
    /// The fleet's clock shows `fleet_ms` while the box's monotonic one shows `mono_ms`. The newest word holds, also when it is an earlier time.
    pub fn told(&mut self, fleet_ms: u64, mono_ms: u64) {
        self.told = Some((fleet_ms, mono_ms));
    }

    /// What the fleet's clock shows now; zero before anything was told.
    #[must_use]
    pub fn at(&self, mono_ms: u64) -> u64 {
        self.told.map_or(0, |(fleet_ms, then_ms)| fleet_ms.saturating_add(mono_ms.saturating_sub(then_ms)))
    }
}

const fn digits(text: &str) -> u64 {
    let (bytes, mut number, mut i) = (text.as_bytes(), 0_u64, 0);
    while i < bytes.len() {
        assert!(bytes[i].is_ascii_digit(), "SOURCE_DATE_EPOCH is a number of seconds");
        number = number * 10 + (bytes[i] - b'0') as u64;
        i += 1;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_later_of_build_and_what_is_trusted() {
        let at = |ms| UnixTime::since_unix_epoch(Duration::from_millis(ms));
        assert_eq!(Floor::new(0).time(), at(BUILT_MS));
        assert_eq!(Floor::new(BUILT_MS + 9000).time(), at(BUILT_MS + 9000));
        assert_eq!(digits("1767225600"), 1_767_225_600);
    }

    #[test]
    fn what_the_fleet_told_last_goes_on_by_the_monotonic_clock() {
        let mut time = FleetTime::default();
        assert_eq!(time.at(5), 0);
        time.told(1_000_000, 10);
        assert_eq!((time.at(10), time.at(25)), (1_000_000, 1_000_015));
        time.told(500, 20);
        assert_eq!(time.at(21), 501, "a fleet whose clock was put right is believed");
    }
}
