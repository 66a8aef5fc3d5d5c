//! When a timer fires: a fixed interval or a cron expression.

use crate::limits::{INTERVAL_MS_MAX, INTERVAL_MS_MIN};
use croner::Cron;
use croner::parser::{CronParser, Seconds};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Why a text is not a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not an interval.
    #[error("`{0}` is not an interval: write a whole number and ms, s, m, h or d, as in `5s`")]
    Interval(String),
    /// An interval out of range.
    #[error("`{0}` is too short or too long: an interval is 100ms to 366d")]
    Range(String),
    /// Not a cron expression.
    #[error("`{text}` is not a cron expression: {reason}; write `minute hour day month weekday`, with seconds in front if wanted")]
    Cron {
        /// What was written.
        text: String,
        /// What the parser says.
        reason: String,
    },
}

/// A fixed interval, `100ms` to `366d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Interval {
    ms: u64,
}

impl Interval {
    /// Its length in milliseconds.
    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.ms
    }
}

impl FromStr for Interval {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let wrong = || ScheduleError::Interval(text.chars().take(80).collect());
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let count: u64 = text[..digits].parse().map_err(|_| wrong())?;
        let unit = match &text[digits..] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let ms = count.saturating_mul(unit);
        if (INTERVAL_MS_MIN..=INTERVAL_MS_MAX).contains(&ms) { Ok(Self { ms }) } else { Err(ScheduleError::Range(text.to_owned())) }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")] {
            if self.ms.is_multiple_of(unit) {
                return write!(f, "{}{name}", self.ms / unit);
            }
        }
        write!(f, "{}ms", self.ms)
    }
}

/// A checked cron expression in UTC, with optional seconds in front.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CronExpression {
    text: String,
    cron: Box<Cron>,
}

impl CronExpression {
    /// The parsed expression, to ask for its next time.
    #[must_use]
    pub fn cron(&self) -> &Cron {
        &self.cron
    }
}

impl FromStr for CronExpression {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let fault = |reason: String| ScheduleError::Cron { text: text.chars().take(80).collect(), reason };
        if text.len() > 256 {
            return Err(fault("longer than 256 bytes".to_owned()));
        }
        let cron = CronParser::builder().seconds(Seconds::Optional).build().parse(text).map_err(|cause| fault(cause.to_string()))?;
        Ok(Self { text: text.to_owned(), cron: Box::new(cron) })
    }
}

impl fmt::Display for CronExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Interval {
    type Error = ScheduleError;

    fn try_from(text: String) -> Result<Self, ScheduleError> {
        text.parse()
    }
}

impl TryFrom<String> for CronExpression {
    type Error = ScheduleError;

    fn try_from(text: String) -> Result<Self, ScheduleError> {
        text.parse()
    }
}

impl From<Interval> for String {
    fn from(interval: Interval) -> Self {
        interval.to_string()
    }
}

impl From<CronExpression> for String {
    fn from(cron: CronExpression) -> Self {
        cron.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_read_back_what_they_print() {
        for text in ["100ms", "5s", "90s", "2h", "1d"] {
            assert_eq!(text.parse::<Interval>().unwrap().to_string(), text);
        }
        for bad in ["", "5", "s", "99ms", "367d", "5 s", "-1s", "99999999999999999999s"] {
            assert!(bad.parse::<Interval>().is_err(), "{bad}");
        }
    }

    #[test]
    fn cron_takes_five_or_six_fields() {
        for good in ["*/5 * * * *", "0 */5 * * * *", "0 6 * * MON-FRI"] {
            assert!(good.parse::<CronExpression>().is_ok(), "{good}");
        }
        for bad in ["", "* * *", "61 * * * *", "every day"] {
            assert!(bad.parse::<CronExpression>().is_err(), "{bad}");
        }
    }
}
