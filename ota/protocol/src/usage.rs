//! Usage: counters per function, revision and hour, as a ledger of numbered records.
//!
//! A **window** is (function, revision, hour). Its counters only grow. A **record** carries the window's counters so far under a
//! number without gaps; the fleet keeps for each window the largest of each counter and for each node the highest number it has
//! applied. Applying a record twice, or an old one late, changes nothing.

use crate::{FunctionName, RevisionId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Length of a window, milliseconds.
pub const WINDOW_MS: u64 = 3_600_000;

/// Identifies one ledger: drawn at random when a node's store is created, so that a new store never continues an old numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LedgerEpoch(pub u64);

/// What a window counts for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Window {
    /// Function.
    pub function: FunctionName,
    /// Revision.
    pub revision: RevisionId,
    /// Begin of the hour, milliseconds since 1970 by the node's clock.
    pub start_ms: u64,
}

/// Sums since the window began. All grow only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Invocations that succeeded.
    pub calls_ok: u64,
    /// Invocations that the function failed (trap, deadline, memory, error status, exit code).
    pub calls_failed: u64,
    /// Invocations that the node failed; free of charge.
    pub calls_platform: u64,
    /// Invocations refused for overload; free of charge.
    pub calls_shed: u64,
    /// Instances started with code that had to be loaded.
    pub cold_starts: u64,
    /// CPU time, microseconds.
    pub cpu_us: u64,
    /// Time from start to end, milliseconds.
    pub wall_ms: u64,
    /// Memory held over time: mebibytes × milliseconds; divide by 1024 for GiB·ms.
    pub memory_mib_ms: u64,
    /// Bytes received by the function.
    pub bytes_in: u64,
    /// Bytes sent by the function.
    pub bytes_out: u64,
    /// Key-value operations.
    pub kv_ops: u64,
}

impl Counters {
    /// Adds `other` to each counter.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, u64::saturating_add);
    }

    /// Keeps the larger of each counter: commutative, associative and idempotent.
    pub fn max(&mut self, other: &Self) {
        self.combine(other, u64::max);
    }

    /// What each counter has grown since it was `before`.
    #[must_use]
    pub fn since(mut self, before: &Self) -> Self {
        self.combine(before, u64::saturating_sub);
        self
    }

    /// Invocations of any outcome that ran.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls_ok.saturating_add(self.calls_failed).saturating_add(self.calls_platform)
    }

    fn combine(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64) {
        for (mine, theirs) in [
            (&mut self.calls_ok, other.calls_ok),
            (&mut self.calls_failed, other.calls_failed),
            (&mut self.calls_platform, other.calls_platform),
            (&mut self.calls_shed, other.calls_shed),
            (&mut self.cold_starts, other.cold_starts),
            (&mut self.cpu_us, other.cpu_us),
            (&mut self.wall_ms, other.wall_ms),
            (&mut self.memory_mib_ms, other.memory_mib_ms),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.kv_ops, other.kv_ops),
        ] {
            *mine = with(*mine, theirs);
        }
    }
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// Number in this ledger, from 1, without gaps.
    pub seq: u64,
    /// What it counts for.
    pub window: Window,
    /// The window's sums so far.
    pub counters: Counters,
}

impl fmt::Display for LedgerEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for LedgerEpoch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match u64::from_str_radix(text, 16) {
            Ok(epoch) if text.len() == 16 => Ok(Self(epoch)),
            Ok(_) | Err(_) => Err("a ledger epoch is 16 hexadecimal digits".to_owned()),
        }
    }
}

impl TryFrom<String> for LedgerEpoch {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<LedgerEpoch> for String {
    fn from(epoch: LedgerEpoch) -> Self {
        epoch.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counters() -> impl Strategy<Value = Counters> {
        (0_u64..9, 0_u64..9, 0_u64..9).prop_map(|(calls_ok, cpu_us, bytes_in)| Counters {
            calls_ok,
            cpu_us,
            bytes_in,
            ..Counters::default()
        })
    }

    proptest! {
        #[test]
        fn max_commutes_and_repeats_without_effect(a in counters(), b in counters()) {
            let (mut ab, mut ba) = (a, b);
            ab.max(&b);
            ba.max(&a);
            prop_assert_eq!(ab, ba);
            ba.max(&b);
            prop_assert_eq!(ab, ba);
        }
    }
}
