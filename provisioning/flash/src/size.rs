//! Sizes as people write and read them.

use std::fmt;
use std::str::FromStr;

/// Units and their letters.
const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];

/// A number of bytes, `4GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the size of a disk: write a whole number and KiB, MiB, GiB or TiB, as in 4GiB")]
pub struct SizeError(String);

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let parsed = UNITS.iter().find_map(|(unit, name)| {
            let number: u64 = text.strip_suffix(name)?.trim_end().parse().ok()?;
            number.checked_mul(*unit).filter(|bytes| *bytes > 0)
        });
        parsed.map(Self).ok_or_else(|| SizeError(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Size {
    /// With one digit behind the point, rounded down: `7.4 GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.into_iter().find(|(unit, _)| self.0 >= *unit) {
            Some((unit, name)) if self.0.is_multiple_of(unit) => write!(f, "{} {name}", self.0 / unit),
            Some((unit, name)) => write!(f, "{}.{} {name}", self.0 / unit, u128::from(self.0 % unit) * 10 / u128::from(unit)),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_with_their_unit() {
        for (text, bytes) in [("4GiB", 4 << 30), ("834 MiB", 834 << 20), ("1KiB", 1024), ("2TiB", 2 << 40)] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "4", "4G", "4GB", "-1GiB", "0GiB", "1.5GiB", "GiB", "99999999999TiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_with_one_digit_behind_the_point() {
        for (bytes, text) in [(0, "0 bytes"), (512, "512 bytes"), (834 << 20, "834 MiB"), (7_990_000_000, "7.4 GiB"), (4 << 30, "4 GiB")] {
            assert_eq!(Size(bytes).to_string(), text);
        }
        assert_eq!(Size(u64::MAX).to_string(), "16777215.9 TiB");
    }
}
