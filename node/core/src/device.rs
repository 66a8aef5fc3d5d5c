//! Decisions about devices: which bytes of a serial line are one frame, which edges of a GPIO line are told, how often a device may speak, and
//! when one that is away is tried again.
//!
//! ```text
//! bytes ─▶ Framer ─▶ frame ─┐                      Away ─ opened ─▶ Ready ─ gone, failed ─▶ Away, a pause by Patience
//! edge ──▶ Edges ─▶ reading ┴─ Allowance ─▶ event
//! ```
//! Invariants: memory is bounded whatever a device sends; nothing that is left out is left uncounted; the newest edge is always told in the
//! end. Absent on purpose: opening, reading and writing.

mod allowance;
mod edge;
mod framing;
mod patience;

pub use allowance::{Allowance, BURST_MAX, EVENTS_PER_SECOND_MAX};
pub use edge::{Direction, Edge, Edges, Reading, wall_of};
pub use framing::{Framer, Framing, LENGTH_GAP};
pub use patience::{PAUSE_MAX, PAUSE_MIN, Patience};

use sedge_protocol::Topic;
use std::fmt;
use std::str::FromStr;

/// Longest name of a device.
pub const NAME_BYTES_MAX: usize = 63;

/// The name of a device on its node: one level of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceName(String);

/// A text is no name of a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a name of a device has 1 to {NAME_BYTES_MAX} lower-case letters, digits, `-` and `_`, such as `door-2`")]
pub struct NameError;

impl DeviceName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where its events are published.
    #[must_use]
    pub fn topic(&self) -> Topic {
        topic(&format!("device/{self}"))
    }

    /// Where to publish what is to be written to it.
    #[must_use]
    pub fn set_topic(&self) -> Topic {
        topic(&format!("device/{self}/set"))
    }
}

fn topic(text: &str) -> Topic {
    text.parse().expect("a name of a device is a topic level")
}

impl FromStr for DeviceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(known) { Ok(Self(text.to_owned())) } else { Err(NameError) }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_level_of_a_topic() {
        let door: DeviceName = "door-2".parse().unwrap();
        assert_eq!((door.topic().as_str(), door.set_topic().as_str()), ("device/door-2", "device/door-2/set"));
        for wrong in ["", "a/b", "+", "Door", "ü", "a b", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert_eq!(wrong.parse::<DeviceName>(), Err(NameError), "{wrong}");
        }
        assert!("x".repeat(NAME_BYTES_MAX).parse::<DeviceName>().is_ok());
    }
}
