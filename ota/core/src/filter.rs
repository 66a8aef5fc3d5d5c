//! The language that says which nodes: `site=berlin,line!=2,role in (a,b),canary,!spare`.
//!
//! ```text
//! filter = [ term { "," term } ]                 every term must hold; an empty filter matches all nodes
//! term   = key | "!" key                         the node has, or has not, the label
//!        | key "=" value | key "!=" value        != also holds where the label is absent
//!        | key "in" "(" value { "," value } ")"
//! ```
//! Spaces between words do not matter. The key `node` stands for the node's id.

use sedge_protocol::limits::LABEL_BYTES_MAX;
use sedge_protocol::{Labels, NodeId};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Longest filter.
pub const FILTER_BYTES_MAX: usize = 4096;
/// The key that means the node's id.
const NODE_KEY: &str = "node";

/// Why a text is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Something else should stand there.
    #[error("filter, character {position}: expected {expected}, found {found}")]
    Expected {
        /// Character, from 1.
        position: usize,
        /// What should stand there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// Longer than [`FILTER_BYTES_MAX`].
    #[error("the filter has {0} bytes, {FILTER_BYTES_MAX} are allowed")]
    TooLong(usize),
}

/// A parsed filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    Has(String),
    HasNot(String),
    Is(String, String),
    IsNot(String, String),
    In(String, BTreeSet<String>),
}

impl Filter {
    /// Whether it matches a node.
    #[must_use]
    pub fn matches(&self, node: &NodeId, labels: &Labels) -> bool {
        let value = |key: &str| if key == NODE_KEY { Some(node.as_str()) } else { labels.value(key) };
        self.terms.iter().all(|term| match term {
            Term::Has(key) => value(key).is_some(),
            Term::HasNot(key) => value(key).is_none(),
            Term::Is(key, wanted) => value(key) == Some(wanted),
            Term::IsNot(key, unwanted) => value(key) != Some(unwanted),
            Term::In(key, wanted) => value(key).is_some_and(|value| wanted.contains(value)),
        })
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        if text.len() > FILTER_BYTES_MAX {
            return Err(FilterError::TooLong(text.len()));
        }
        let mut words = Words { text, at: 0 };
        let mut terms = Vec::new();
        words.skip_space();
        while !words.is_done() {
            terms.push(words.term()?);
            if words.is_done() {
                break;
            }
            words.symbol(",", "`,` or the end")?;
            if words.is_done() {
                return Err(words.expected("a label after `,`"));
            }
        }
        Ok(Self { terms })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "," })?;
            match term {
                Term::Has(key) => write!(f, "{key}")?,
                Term::HasNot(key) => write!(f, "!{key}")?,
                Term::Is(key, value) => write!(f, "{key}={value}")?,
                Term::IsNot(key, value) => write!(f, "{key}!={value}")?,
                Term::In(key, values) => {
                    let values: Vec<&str> = values.iter().map(String::as_str).collect();
                    write!(f, "{key} in ({})", values.join(","))?;
                }
            }
        }
        Ok(())
    }
}

/// The rest of a filter that is being read.
struct Words<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    fn term(&mut self) -> Result<Term, FilterError> {
        if self.take("!") {
            return Ok(Term::HasNot(self.word("a label key after `!`")?));
        }
        let key = self.word("a label key")?;
        if self.take("!=") {
            return Ok(Term::IsNot(key, self.word("a label value after `!=`")?));
        }
        if self.take("=") {
            return Ok(Term::Is(key, self.word("a label value after `=`")?));
        }
        if self.is_done() || self.rest().starts_with(',') {
            return Ok(Term::Has(key));
        }
        if !self.rest().starts_with("in") || self.rest()[2..].starts_with(is_word) {
            return Err(self.expected("`=`, `!=`, `in (…)`, `,` or the end"));
        }
        self.take("in");
        self.values().map(|values| Term::In(key, values))
    }

    fn values(&mut self) -> Result<BTreeSet<String>, FilterError> {
        self.symbol("(", "`(` after `in`")?;
        let mut values = BTreeSet::new();
        loop {
            values.insert(self.word("a label value")?);
            if self.take(")") {
                return Ok(values);
            }
            self.symbol(",", "`,` or `)`")?;
        }
    }

    fn word(&mut self, expected: &'static str) -> Result<String, FilterError> {
        let rest = self.rest();
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if length == 0 || length > LABEL_BYTES_MAX {
            return Err(self.expected(expected));
        }
        self.at += length;
        self.skip_space();
        Ok(rest[..length].to_owned())
    }

    fn symbol(&mut self, symbol: &str, expected: &'static str) -> Result<(), FilterError> {
        if self.take(symbol) { Ok(()) } else { Err(self.expected(expected)) }
    }

    fn take(&mut self, symbol: &str) -> bool {
        let there = self.rest().starts_with(symbol);
        if there {
            self.at += symbol.len();
            self.skip_space();
        }
        there
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn is_done(&self) -> bool {
        self.at == self.text.len()
    }

    fn expected(&self, expected: &'static str) -> FilterError {
        let position = self.text[..self.at].chars().count() + 1;
        let found: String = self.rest().chars().take(12).map(|c| if c.is_control() { '�' } else { c }).collect();
        let found = if found.is_empty() { "the end".to_owned() } else { format!("`{found}`") };
        FilterError::Expected { position, expected, found }
    }
}

/// What labels are made of.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(text: &str) -> Labels {
        let mut labels = Labels::default();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap();
            labels.insert(key, value).unwrap();
        }
        labels
    }

    #[test]
    fn every_term_must_hold() {
        let node: NodeId = "gate-1".parse().unwrap();
        let labels = labels("site=berlin,line=3,canary=yes");
        for (filter, expected) in [
            ("", true),
            ("  ", true),
            ("site=berlin", true),
            ("site = berlin , line != 2", true),
            ("site=berlin,line=2", false),
            ("absent!=2", true),
            ("site in (berlin, paris)", true),
            ("site in (paris)", false),
            ("absent in (a)", false),
            ("canary", true),
            ("!canary", false),
            ("! spare", true),
            ("node=gate-1", true),
            ("node in (gate-2,gate-3)", false),
            ("in in (in)", false),
        ] {
            assert_eq!(filter.parse::<Filter>().unwrap().matches(&node, &labels), expected, "{filter}");
        }
    }

    #[test]
    fn a_fault_names_its_place_and_what_belongs_there() {
        for (filter, fault) in [
            ("site=", "filter, character 6: expected a label value after `=`, found the end"),
            ("site==a", "filter, character 6: expected a label value after `=`, found `=a`"),
            ("a,", "filter, character 3: expected a label after `,`, found the end"),
            (",a", "filter, character 1: expected a label key, found `,a`"),
            ("a b", "filter, character 3: expected `=`, `!=`, `in (…)`, `,` or the end, found `b`"),
            ("a inside", "filter, character 3: expected `=`, `!=`, `in (…)`, `,` or the end, found `inside`"),
            ("a in b", "filter, character 6: expected `(` after `in`, found `b`"),
            ("a in (b", "filter, character 8: expected `,` or `)`, found the end"),
            ("ä=1", "filter, character 1: expected a label key, found `ä=1`"),
        ] {
            assert_eq!(filter.parse::<Filter>().unwrap_err().to_string(), fault, "{filter}");
        }
    }

    #[test]
    fn a_filter_one_byte_too_long_is_refused() {
        assert_eq!(" ".repeat(FILTER_BYTES_MAX).parse::<Filter>(), Ok(Filter::default()));
        assert_eq!(" ".repeat(FILTER_BYTES_MAX + 1).parse::<Filter>(), Err(FilterError::TooLong(FILTER_BYTES_MAX + 1)));
    }

    fn word() -> impl Strategy<Value = String> {
        "[a-zA-Z0-9_./-]{1,8}"
    }

    fn term() -> impl Strategy<Value = Term> {
        prop_oneof![
            word().prop_map(Term::Has),
            word().prop_map(Term::HasNot),
            (word(), word()).prop_map(|(key, value)| Term::Is(key, value)),
            (word(), word()).prop_map(|(key, value)| Term::IsNot(key, value)),
            (word(), proptest::collection::btree_set(word(), 1..4)).prop_map(|(key, values)| Term::In(key, values)),
        ]
    }

    proptest! {
        #[test]
        fn a_filter_reads_back_what_it_prints(terms in proptest::collection::vec(term(), 0..5)) {
            let filter = Filter { terms };
            prop_assert_eq!(filter.to_string().parse::<Filter>(), Ok(filter));
        }

        #[test]
        fn hostile_text_never_panics(text in ".{0,60}", marks in "[a-c=!,() in]{0,40}") {
            drop(text.parse::<Filter>());
            drop(marks.parse::<Filter>());
        }

        #[test]
        fn a_term_and_its_opposite_never_agree(key in word(), value in word(), has in proptest::option::of(word())) {
            let node: NodeId = "n".parse().unwrap();
            let mut labels = Labels::default();
            if let Some(has) = has {
                labels.insert(&key, &has).unwrap();
            }
            let matches = |term| Filter { terms: vec![term] }.matches(&node, &labels);
            prop_assert_ne!(matches(Term::Has(key.clone())), matches(Term::HasNot(key.clone())));
            prop_assert_ne!(matches(Term::Is(key.clone(), value.clone())), matches(Term::IsNot(key, value)));
        }
    }
}
