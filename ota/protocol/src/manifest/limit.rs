//! What one invocation may use, how often an instance is used, and how failures are tried again.

use crate::limits::{
    ATTEMPTS_MAX, BACKOFF_MS_MAX, BODY_MB_MAX, CONCURRENCY_MAX, MEMORY_MB_MAX, REUSE_COUNT_MAX, REUSE_IDLE_S_MAX, TIMEOUT_MS_MAX,
};
use crate::strict::Section;
use serde::{Deserialize, Serialize};

/// What one invocation may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Linear memory, MiB.
    pub memory_mb: u32,
    /// Everything from start to the end of the answer, milliseconds.
    pub timeout_ms: u64,
    /// Invocations at the same time on one node, at most.
    pub concurrency: u32,
    /// Invocations at the same time for which room is always kept.
    #[serde(skip_serializing_if = "is_no_reserve")]
    pub reserved: u32,
    /// Largest body of a request, MiB.
    #[serde(skip_serializing_if = "is_request_default")]
    pub request_mb: u32,
    /// Largest body of an answer, MiB.
    #[serde(skip_serializing_if = "is_response_default")]
    pub response_mb: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_mb: 64, timeout_ms: 10_000, concurrency: 32, reserved: 0, request_mb: 8, response_mb: 64 }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this form")]
fn is_no_reserve(number: &u32) -> bool {
    *number == Limits::default().reserved
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this form")]
fn is_request_default(number: &u32) -> bool {
    *number == Limits::default().request_mb
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this form")]
fn is_response_default(number: &u32) -> bool {
    *number == Limits::default().response_mb
}

/// Whether an instance serves several invocations, one after the other. Off by default: then each has a fresh one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reuse {
    /// Invocations that one instance serves; 1 is off.
    pub count: u32,
    /// How long an idle instance is kept, seconds.
    pub idle_s: u32,
}

impl Default for Reuse {
    fn default() -> Self {
        Self { count: 1, idle_s: 60 }
    }
}

/// How failed events are tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// Attempts in all, the first included; then the event is a dead letter.
    pub attempts: u32,
    /// Delay before the second attempt; doubles each time, capped at five minutes.
    pub backoff_ms: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 5, backoff_ms: 1000 }
    }
}

/// The first rule of the list that does not hold.
fn first_broken<const N: usize>(rules: [(bool, &str); N]) -> Result<(), String> {
    match rules.into_iter().find(|(holds, _)| !holds) {
        Some((_, broken)) => Err(broken.to_owned()),
        None => Ok(()),
    }
}

impl Limits {
    pub(super) fn read(section: Section<'_>) -> Self {
        let default = Self::default();
        let limits = Self {
            memory_mb: section.number("memory_mb", 1..=MEMORY_MB_MAX).unwrap_or(default.memory_mb),
            timeout_ms: section.integer("timeout_ms", 1..=TIMEOUT_MS_MAX).unwrap_or(default.timeout_ms),
            concurrency: section.number("concurrency", 1..=CONCURRENCY_MAX).unwrap_or(default.concurrency),
            reserved: section.number("reserved", 0..=CONCURRENCY_MAX).unwrap_or(default.reserved),
            request_mb: section.number("request_mb", 1..=BODY_MB_MAX).unwrap_or(default.request_mb),
            response_mb: section.number("response_mb", 1..=BODY_MB_MAX).unwrap_or(default.response_mb),
        };
        section.finish();
        limits
    }

    /// The first rule that is broken.
    pub(super) fn check(&self) -> Result<(), String> {
        first_broken([
            ((1..=MEMORY_MB_MAX).contains(&self.memory_mb), "limits.memory_mb out of range"),
            ((1..=TIMEOUT_MS_MAX).contains(&self.timeout_ms), "limits.timeout_ms out of range"),
            ((1..=CONCURRENCY_MAX).contains(&self.concurrency), "limits.concurrency out of range"),
            (self.reserved <= self.concurrency, "limits.reserved is more than limits.concurrency"),
            ((1..=BODY_MB_MAX).contains(&self.request_mb), "limits.request_mb out of range"),
            ((1..=BODY_MB_MAX).contains(&self.response_mb), "limits.response_mb out of range"),
        ])
    }
}

impl Reuse {
    /// Whether each invocation has an instance of its own.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.count <= 1
    }

    pub(super) fn read(section: Section<'_>) -> Self {
        let default = Self::default();
        let reuse = Self {
            count: section.number("count", 1..=REUSE_COUNT_MAX).unwrap_or(default.count),
            idle_s: section.number("idle_s", 1..=REUSE_IDLE_S_MAX).unwrap_or(default.idle_s),
        };
        section.finish();
        reuse
    }

    /// The first rule that is broken.
    pub(super) fn check(&self) -> Result<(), String> {
        first_broken([
            ((1..=REUSE_COUNT_MAX).contains(&self.count), "reuse.count out of range"),
            ((1..=REUSE_IDLE_S_MAX).contains(&self.idle_s), "reuse.idle_s out of range"),
        ])
    }
}

impl Retry {
    pub(super) fn read(section: Section<'_>) -> Self {
        let default = Self::default();
        let retry = Self {
            attempts: section.number("attempts", 1..=ATTEMPTS_MAX).unwrap_or(default.attempts),
            backoff_ms: section.integer("backoff_ms", 0..=BACKOFF_MS_MAX).unwrap_or(default.backoff_ms),
        };
        section.finish();
        retry
    }

    /// The first rule that is broken.
    pub(super) fn check(&self) -> Result<(), String> {
        first_broken([
            ((1..=ATTEMPTS_MAX).contains(&self.attempts), "retry.attempts out of range"),
            (self.backoff_ms <= BACKOFF_MS_MAX, "retry.backoff_ms out of range"),
        ])
    }
}
