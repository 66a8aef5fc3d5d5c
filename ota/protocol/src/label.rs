//! Labels of a node: what a rollout's filter looks at.

use crate::limits::{LABEL_BYTES_MAX, LABELS_MAX};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Why a text is not a label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// No `=` in it.
    #[error("`{0}` is not a label: write `key=value`")]
    Form(String),
    /// A character or a length that is not allowed.
    #[error("`{0}` is not a label {1}: use 1 to {LABEL_BYTES_MAX} of letters, digits, `-`, `_`, `.` and `/`")]
    Word(String, &'static str),
    /// More than [`LABELS_MAX`].
    #[error("more than {LABELS_MAX} labels")]
    TooMany,
}

/// A checked map of labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Adds or replaces a label.
    ///
    /// # Errors
    /// When key or value breaks the rules, or there are too many.
    pub fn insert(&mut self, key: &str, value: &str) -> Result<(), LabelError> {
        check(key, "key")?;
        check(value, "value")?;
        self.0.insert(key.to_owned(), value.to_owned());
        if self.0.len() > LABELS_MAX { Err(LabelError::TooMany) } else { Ok(()) }
    }

    /// Takes a label away.
    pub fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// The value of `key`.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All labels in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds all of `other`; what both have, `other` decides.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(other.0.iter().map(|(key, value)| (key.clone(), value.clone())));
        while self.0.len() > LABELS_MAX {
            self.0.pop_last();
        }
    }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = LabelError;

    fn try_from(map: BTreeMap<String, String>) -> Result<Self, LabelError> {
        let mut labels = Self::default();
        for (key, value) in &map {
            labels.insert(key, value)?;
        }
        Ok(labels)
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

/// One label as written on a command line: `key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let (key, value) = text.split_once('=').ok_or_else(|| LabelError::Form(text.to_owned()))?;
        check(key, "key")?;
        check(value, "value")?;
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (key, value)) in self.iter().enumerate() {
            write!(f, "{}{key}={value}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

fn check(word: &str, role: &'static str) -> Result<(), LabelError> {
    let fits = (1..=LABEL_BYTES_MAX).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    if fits { Ok(()) } else { Err(LabelError::Word(word.chars().take(80).collect(), role)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_key_and_value() {
        assert_eq!("site=berlin/2".parse(), Ok(Label { key: "site".into(), value: "berlin/2".into() }));
        for bad in ["", "site", "=x", "a b=c", "a=b c", "a="] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
    }

    #[test]
    fn one_label_too_many_is_refused() {
        let mut labels = Labels::default();
        for i in 0..LABELS_MAX {
            labels.insert(&format!("k{i}"), "v").unwrap();
        }
        assert_eq!(labels.insert("more", "v"), Err(LabelError::TooMany));
    }
}
