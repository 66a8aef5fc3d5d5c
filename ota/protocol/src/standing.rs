//! What a fleet thinks of a node.
//!
//! ```text
//!  enrolled with a claim that asks for it ─▶ Pending ─┐ approve
//!  enrolled ────────────────────────────────────────▶ Active ◀── approve ── Quarantined ◀── quarantine, or two boxes with one key
//!                                                       └── revoke ──▶ Revoked      (from each of the others as well)
//! ```

use crate::limits::STANDING_REASON_CHARS_MAX;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a node stands with its fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Standing {
    /// It gets what matches it.
    #[default]
    Active,
    /// Connects and reports, and gets nothing until somebody approves of it.
    Pending,
    /// Connects, reports and goes on with what it has; gets nothing new.
    Quarantined {
        /// Why.
        reason: String,
    },
    /// Is refused wherever it comes, and gets no certificate.
    Revoked {
        /// Why.
        reason: String,
    },
}

/// Why a reason is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a reason is one line of 1 to {STANDING_REASON_CHARS_MAX} characters")]
pub struct ReasonError;

impl Standing {
    /// Its name.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pending => "pending",
            Self::Quarantined { .. } => "quarantined",
            Self::Revoked { .. } => "revoked",
        }
    }

    /// Why it is so, where somebody had to say.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Active | Self::Pending => None,
            Self::Quarantined { reason } | Self::Revoked { reason } => Some(reason),
        }
    }

    /// Whether the node is refused.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        matches!(self, Self::Revoked { .. })
    }

    /// Whether the reason is one line that fits into the notice with which a connection is closed.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self) -> Result<(), ReasonError> {
        let good = |reason: &str| {
            (1..=STANDING_REASON_CHARS_MAX).contains(&reason.chars().count())
                && !reason.chars().any(char::is_control)
                && !reason.trim().is_empty()
        };
        if self.reason().is_none_or(good) { Ok(()) } else { Err(ReasonError) }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            Some(reason) => write!(f, "{}: {reason}", self.word()),
            None => f.write_str(self.word()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_short_line() {
        let of = |reason: &str| Standing::Revoked { reason: reason.to_owned() }.check().is_ok();
        assert!(of("stolen") && of(&"ü".repeat(STANDING_REASON_CHARS_MAX)));
        for bad in ["", " ", "a\nb", "\u{7}", &"x".repeat(STANDING_REASON_CHARS_MAX + 1)] {
            assert!(!of(bad), "{bad}");
        }
        assert!(Standing::Active.check().is_ok());
    }

    #[test]
    fn a_standing_is_read_as_it_was_written() {
        for standing in [Standing::Active, Standing::Pending, Standing::Quarantined { reason: "two".into() }] {
            let text = serde_json::to_string(&standing).unwrap();
            assert_eq!(serde_json::from_str::<Standing>(&text).unwrap(), standing, "{text}");
        }
        assert_eq!(Standing::Revoked { reason: "stolen".into() }.to_string(), "revoked: stolen");
    }
}
