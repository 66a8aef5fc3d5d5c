//! Wall time for certificates, on boxes whose clock may stand at 1970.
//!
//! A certificate is verified at the latest of: the box's clock, the time this program was built, the begin of what is already
//! trusted. A server's certificate begins when its authority did, so the pinned authority's begin is late enough.

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

/// A clock that never shows less than its floor.
#[derive(Debug, Clone, Copy)]
pub struct Floor {
    ms: u64,
}

impl Floor {
    /// Never less than [`BUILT_MS`] and `trusted_ms`.
    #[must_use]
    pub fn new(trusted_ms: u64) -> Self {
        Self { ms: trusted_ms.max(BUILT_MS) }
    }

    /// `time`, or the floor where that is later.
    #[must_use]
    pub fn lift(self, time: UnixTime) -> UnixTime {
        time.max(UnixTime::since_unix_epoch(Duration::from_millis(self.ms)))
    }
}

impl TimeProvider for Floor {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.lift(UnixTime::since_unix_epoch(Duration::from_millis(now_ms()))))
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
    fn the_floor_lifts_a_clock_that_stands_at_1970() {
        let floor = Floor::new(0);
        let at = |ms| UnixTime::since_unix_epoch(Duration::from_millis(ms));
        assert_eq!(floor.lift(at(5)), at(BUILT_MS));
        assert_eq!(floor.lift(at(BUILT_MS + 5000)), at(BUILT_MS + 5000));
        assert_eq!(Floor::new(BUILT_MS + 9000).lift(at(5)), at(BUILT_MS + 9000));
        assert_eq!(digits("1767225600"), 1_767_225_600);
    }
}
