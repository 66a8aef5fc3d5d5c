//! Topics and topic filters under MQTT's rules.

use crate::limits::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Why a text is not a topic or a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Empty.
    #[error("a topic must not be empty")]
    Empty,
    /// Too long or too deep.
    #[error("a topic has at most {TOPIC_BYTES_MAX} bytes and {TOPIC_LEVELS_MAX} levels")]
    TooLong,
    /// A zero or control character.
    #[error("a topic must not hold control characters")]
    Control,
    /// A wildcard in a topic.
    #[error("`{0}`: a topic must not hold the wildcards `+` and `#`; only a filter may")]
    Wildcard(String),
    /// A wildcard that does not fill its level, or `#` before the end.
    #[error("`{0}`: `+` must fill a whole level and `#` must be the whole last level, as in `plant/+/temp` and `plant/#`")]
    MisplacedWildcard(String),
}

/// Where an event was published: levels separated by `/`, no wildcards.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Topic(String);

/// A set of topics: `+` stands for one level, a last `#` for the parent and everything below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicFilter(String);

impl Topic {
    /// The topic as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its levels, first to last.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl TopicFilter {
    /// The filter as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its levels, first to last.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Whether `topic` is in the set. A leading wildcard does not match topics that begin with `$`.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        if topic.0.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.levels();
        for pattern in self.levels() {
            if pattern == "#" {
                return true;
            }
            match levels.next() {
                Some(level) if pattern == "+" || pattern == level => {}
                Some(_) | None => return false,
            }
        }
        levels.next().is_none() || self.0.ends_with("/#")
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        check(text)?;
        if text.contains(['+', '#']) {
            return Err(TopicError::Wildcard(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for TopicFilter {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        check(text)?;
        let count = text.split('/').count();
        let placed = text.split('/').enumerate().all(|(i, level)| match level {
            "+" => true,
            "#" => i + 1 == count,
            other => !other.contains(['+', '#']),
        });
        if placed { Ok(Self(text.to_owned())) } else { Err(TopicError::MisplacedWildcard(text.to_owned())) }
    }
}

fn check(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > TOPIC_BYTES_MAX || text.split('/').count() > TOPIC_LEVELS_MAX {
        return Err(TopicError::TooLong);
    }
    if text.chars().any(char::is_control) { Err(TopicError::Control) } else { Ok(()) }
}

impl TryFrom<String> for Topic {
    type Error = TopicError;

    fn try_from(text: String) -> Result<Self, TopicError> {
        text.parse()
    }
}

impl TryFrom<String> for TopicFilter {
    type Error = TopicError;

    fn try_from(text: String) -> Result<Self, TopicError> {
        text.parse()
    }
}

impl From<Topic> for String {
    fn from(topic: Topic) -> Self {
        topic.0
    }
}

impl From<TopicFilter> for String {
    fn from(filter: TopicFilter) -> Self {
        filter.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_match(filter: &str, topic: &str, expected: bool) {
        let filter: TopicFilter = filter.parse().unwrap();
        assert_eq!(filter.matches(&topic.parse().unwrap()), expected, "{filter} {topic}");
    }

    #[test]
    fn filters_match_as_mqtt_says() {
        for (filter, topic, expected) in [
            ("plant/+/temp", "plant/a/temp", true),
            ("plant/+/temp", "plant/a/b/temp", false),
            ("plant/+/temp", "plant//temp", true),
            ("plant/#", "plant", true),
            ("plant/#", "plant/a/b", true),
            ("plant/#", "plants", false),
            ("#", "a/b", true),
            ("+", "a", true),
            ("+", "a/b", false),
            ("+/+", "/a", true),
            ("/+", "/a", true),
            ("#", "$SYS/up", false),
            ("+/up", "$SYS/up", false),
            ("$SYS/#", "$SYS/up", true),
            ("a/b", "a/b", true),
            ("a/b", "a", false),
            ("a", "a/b", false),
        ] {
            check_match(filter, topic, expected);
        }
    }

    #[test]
    fn misplaced_wildcards_are_refused() {
        for bad in ["", "a/#/b", "a#", "a/b+", "#/a", "a\0b"] {
            assert!(bad.parse::<TopicFilter>().is_err(), "{bad:?}");
        }
        assert!("a/+".parse::<Topic>().is_err());
        assert!("a/".repeat(TOPIC_LEVELS_MAX).parse::<Topic>().is_err());
    }
}
