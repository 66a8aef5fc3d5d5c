//! Images of the operating system: their versions, what the fleet tells a node of them, and what the node says of its own.

use crate::{Digest, limits};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Parts of a version at most.
const PARTS_MAX: usize = 4;

/// Version of an image: up to four numbers. The larger is the newer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageVersion(Vec<u32>);

/// Why a text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a version of an image: one to four numbers with dots between them, such as 1.4.0")]
pub struct VersionError(String);

impl FromStr for ImageVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let parts: Option<Vec<u32>> = text.split('.').map(number).collect();
        parts.filter(|parts| parts.len() <= PARTS_MAX).map(Self).ok_or_else(|| VersionError(text.to_owned()))
    }
}

/// A number as it is printed: without sign and without a zero before it, so that a version has one name.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

impl fmt::Display for ImageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&parts.join("."))
    }
}

impl TryFrom<String> for ImageVersion {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
    }
}

impl From<ImageVersion> for String {
    fn from(version: ImageVersion) -> Self {
        version.to_string()
    }
}

/// What the fleet tells a node to boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageAssignment {
    /// Number of the rollout: the same version again under another number is another try.
    pub rollout: u64,
    /// Its version.
    pub version: ImageVersion,
    /// The bundle.
    pub artifact: Digest,
    /// Its size, bytes.
    pub size: u64,
    /// Size of its head, bytes.
    pub head: u64,
    /// When the node may restart into it.
    #[serde(default)]
    pub restart: Restart,
    /// Whether it is kept although the fleet was not reached from it.
    #[serde(default)]
    pub offline: bool,
}

/// When a node may restart into a new version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Restart {
    /// As soon as nothing runs.
    #[default]
    Idle,
    /// At once; what runs gets the time to end that every stop gives.
    Now,
    /// At once between two times of the day, minutes after midnight in UTC; the second may be of the next day.
    Window {
        /// Begin.
        from: u16,
        /// End.
        to: u16,
    },
}

/// Why a text is not a time to restart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time to restart: write `idle`, `now`, or a time of the day in UTC such as 02:00-04:30")]
pub struct RestartError(String);

const DAY_MINUTES: u16 = 24 * 60;

impl Restart {
    /// Whether a node may restart at `now_ms` after 1970 while `running` invocations run.
    #[must_use]
    pub fn allows(self, now_ms: u64, running: u64) -> bool {
        match self {
            Self::Idle => running == 0,
            Self::Now => true,
            Self::Window { from, to } => {
                let minute = u16::try_from(now_ms / 60_000 % u64::from(DAY_MINUTES)).unwrap_or_default();
                if from <= to { (from..to).contains(&minute) } else { minute >= from || minute < to }
            }
        }
    }
}

impl FromStr for Restart {
    type Err = RestartError;

    fn from_str(text: &str) -> Result<Self, RestartError> {
        let wrong = || RestartError(text.chars().take(40).collect());
        let minute = |text: &str| {
            let (hour, minute) = text.split_once(':')?;
            let digits = |text: &str| {
                (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse::<u16>().ok()).flatten()
            };
            let (hour, minute) = (digits(hour)?, digits(minute)?);
            (hour < 24 && minute < 60).then_some(hour * 60 + minute)
        };
        match text {
            "idle" => Ok(Self::Idle),
            "now" => Ok(Self::Now),
            window => {
                let (from, to) = window.split_once('-').ok_or_else(wrong)?;
                let (from, to) = (minute(from).ok_or_else(wrong)?, minute(to).ok_or_else(wrong)?);
                if from == to { Err(wrong()) } else { Ok(Self::Window { from, to }) }
            }
        }
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("idle"),
            Self::Now => f.write_str("now"),
            Self::Window { from, to } => write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60),
        }
    }
}

impl TryFrom<String> for Restart {
    type Error = RestartError;

    fn try_from(text: String) -> Result<Self, RestartError> {
        text.parse()
    }
}

impl From<Restart> for String {
    fn from(restart: Restart) -> Self {
        restart.to_string()
    }
}

/// How the operating system of a node stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsReport {
    /// What images it takes, such as `gateway-x86-64`.
    pub board: String,
    /// The slot that runs: `a` or `b`.
    pub slot: String,
    /// The version that runs.
    pub version: ImageVersion,
    /// How far an update is.
    pub phase: OsPhase,
    /// What keeps an update from going on, while it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The last changes of the slot that runs, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<SlotChange>,
}

/// How far an update is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum OsPhase {
    /// Nothing is under way.
    Idle,
    /// The bundle is on the way.
    Fetching {
        /// Of which version.
        version: ImageVersion,
        /// Bytes there.
        bytes: u64,
        /// Bytes that have to travel; less than the bundle where the node has parts of it.
        total: u64,
    },
    /// It is in the other slot, verified.
    Staged {
        /// Which version.
        version: ImageVersion,
        /// Why the node has not restarted yet.
        waits: String,
    },
    /// The version that runs is being tried.
    Trial {
        /// What it has not shown yet.
        waits: String,
    },
    /// The version that runs is good and kept.
    Confirmed,
    /// A version was tried and the one before runs again.
    RolledBack {
        /// Which version was tried.
        version: ImageVersion,
        /// Why it was given up.
        reason: String,
    },
    /// A version was not taken.
    Refused {
        /// Which.
        version: ImageVersion,
        /// Why.
        reason: String,
    },
}

impl fmt::Display for OsPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("idle"),
            Self::Fetching { version, bytes, total } => write!(f, "fetching {version}, {bytes} of {total} bytes"),
            Self::Staged { version, waits } => write!(f, "{version} is staged: {waits}"),
            Self::Trial { waits } => write!(f, "on trial: {waits}"),
            Self::Confirmed => f.write_str("confirmed"),
            Self::RolledBack { version, reason } => write!(f, "rolled back from {version}: {reason}"),
            Self::Refused { version, reason } => write!(f, "{version} refused: {reason}"),
        }
    }
}

/// Another version began to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotChange {
    /// When, milliseconds since 1970 by the node's clock.
    pub time_ms: u64,
    /// What ran before.
    pub from: ImageVersion,
    /// What runs since.
    pub to: ImageVersion,
    /// Its slot: `a` or `b`.
    pub slot: String,
    /// Why.
    pub reason: String,
}

impl ImageAssignment {
    /// Whether it can be what a fleet says.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self) -> Result<(), String> {
        if self.head == 0 || self.head > self.size || self.size > limits::BUNDLE_BYTES_MAX {
            return Err(format!("a bundle of {} bytes with a head of {}", self.size, self.head));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        let version = |text: &str| text.parse::<ImageVersion>().unwrap();
        assert!(version("1.10.0") > version("1.9.9") && version("2") > version("1.9") && version("1.0.1") > version("1.0"));
        for text in ["", "1.", "-1", "1.x", "01", "+1", "4294967296"] {
            assert!(text.parse::<ImageVersion>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_to_restart_reads_back_and_allows_what_it_says() {
        let at = |hour: u64, minute: u64| (20_000 * 24 * 60 + hour * 60 + minute) * 60_000;
        for (text, now_ms, running, allowed) in [
            ("idle", 0, 0, true),
            ("idle", 0, 1, false),
            ("now", 0, 9, true),
            ("02:00-04:30", at(2, 0), 0, true),
            ("02:00-04:30", at(2, 0), 1, true),
            ("02:00-04:30", at(4, 30), 0, false),
            ("22:00-01:00", at(23, 59), 0, true),
            ("22:00-01:00", at(0, 59), 0, true),
            ("22:00-01:00", at(12, 0), 0, false),
        ] {
            let restart: Restart = text.parse().unwrap();
            assert_eq!(restart.to_string(), text);
            assert_eq!(restart.allows(now_ms, running), allowed, "{text}");
        }
        for text in ["", "2:00-4:00", "02:00", "24:00-01:00", "02:60-03:00", "02:00-02:00", "later", "+1:00-02:00"] {
            assert!(text.parse::<Restart>().is_err(), "{text}");
        }
    }
}
