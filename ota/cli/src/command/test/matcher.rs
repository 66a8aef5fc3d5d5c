//! When bytes are what is expected: exactly, as JSON that holds at least this, or as text that a pattern matches.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use regex_lite::Regex;
use sedge_protocol::local::Payload;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

/// Lines of a difference that are shown.
const LINES_MAX: usize = 60;

/// One expectation.
#[derive(Debug, Clone)]
pub(super) enum Matcher {
    /// These bytes.
    Exact(Vec<u8>),
    /// JSON in which everything of this is found.
    Json(Value),
    /// Text that matches somewhere.
    Regex(Regex),
}

impl Matcher {
    /// A text is exact; a table has one of `exact`, `json`, `regex` and `base64`.
    pub(super) fn of(value: &toml::Value) -> Result<Self, String> {
        let toml::Value::Table(table) = value else { return Ok(Self::Exact(plain(value)?.into_bytes())) };
        let (Some((key, value)), 1) = (table.iter().next(), table.len()) else {
            return Err("a table has exactly one of `exact`, `json`, `regex` and `base64`".to_owned());
        };
        match (key.as_str(), value) {
            ("json", value) => Ok(Self::Json(serde_json::to_value(value).map_err(|cause| cause.to_string())?)),
            ("regex", toml::Value::String(pattern)) => {
                Regex::new(pattern).map(Self::Regex).map_err(|cause| format!("`{pattern}`: {cause}"))
            }
            ("exact", value) => Ok(Self::Exact(plain(value)?.into_bytes())),
            ("base64", toml::Value::String(text)) => BASE64_STANDARD.decode(text).map(Self::Exact).map_err(|cause| cause.to_string()),
            (other, _) => Err(format!("`{other}`: a table has exactly one of `exact`, `json`, `regex` and `base64`, each but json a text")),
        }
    }

    /// What differs, or nothing.
    pub(super) fn differs(&self, found: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(found);
        match self {
            Self::Exact(expected) if expected == found => None,
            Self::Exact(expected) => Some(match (tree(expected), tree(found)) {
                // What differs in nothing but its spaces is shown as it is written.
                (Some(expected), Some(found)) if expected != found => lines(&expected, &found),
                _ => lines(&String::from_utf8_lossy(expected), &text),
            }),
            Self::Regex(pattern) if pattern.is_match(&text) => None,
            Self::Regex(pattern) => Some(format!("- matches {}\n{}", pattern.as_str(), prefixed('+', &text))),
            Self::Json(expected) => match serde_json::from_slice::<Value>(found) {
                Err(cause) => Some(format!("- JSON\n{}\n({cause})", prefixed('+', &text))),
                Ok(value) => {
                    let mut faults = Vec::new();
                    subset(expected, &value, "", &mut faults);
                    (!faults.is_empty()).then(|| faults.join("\n"))
                }
            },
        }
    }
}

/// A value that stands for text: as it is, or as it would be written.
pub(super) fn plain(value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => Ok(value.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => Err("write a text or a number".to_owned()),
    }
}

/// Bytes that go in: text, `{ base64 = "…" }`, or any other table or list as JSON.
pub(super) fn payload(value: &toml::Value) -> Result<Payload, String> {
    let json = |value: &toml::Value| serde_json::to_string(value).map(Payload::Text).map_err(|cause| cause.to_string());
    match value {
        toml::Value::Table(table) if table.len() == 1 && table.contains_key("base64") => {
            let payload = Payload::Base64(plain(&table["base64"])?);
            payload.decode()?;
            Ok(payload)
        }
        toml::Value::Table(_) | toml::Value::Array(_) => json(value),
        other => plain(other).map(Payload::Text),
    }
}

/// Collects where `found` lacks what `expected` has.
fn subset(expected: &Value, found: &Value, at: &str, faults: &mut Vec<String>) {
    let here = || if at.is_empty() { "the whole" } else { at };
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (key, value) in expected {
                let at = format!("{at}.{key}");
                match found.get(key) {
                    Some(found) => subset(value, found, &at, faults),
                    None => faults.push(format!("{at}:\n{}\n+ nothing", prefixed('-', &pretty(value)))),
                }
            }
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            for (number, (expected, found)) in expected.iter().zip(found).enumerate() {
                subset(expected, found, &format!("{at}[{number}]"), faults);
            }
        }
        (Value::Number(one), Value::Number(other)) if one.as_f64() == other.as_f64() => {}
        (expected, found) if expected == found => {}
        (expected, found) => faults.push(format!("{}:\n{}", here(), lines(&pretty(expected), &pretty(found)))),
    }
}

/// JSON as people read it; what is no object or list is one line.
fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// The same of bytes that are an object or a list.
fn tree(bytes: &[u8]) -> Option<String> {
    serde_json::from_slice::<Value>(bytes).ok().filter(|value| value.is_object() || value.is_array()).map(|value| pretty(&value))
}

/// The lines that differ, `-` expected and `+` found, with those around them.
fn lines(expected: &str, found: &str) -> String {
    let diff = TextDiff::from_lines(expected, found);
    let mut shown = Vec::new();
    for change in diff.grouped_ops(2).iter().flatten().flat_map(|op| diff.iter_changes(op)) {
        let sign = match change.tag() {
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
            ChangeTag::Equal => ' ',
        };
        let line = change.value();
        let end = if line.ends_with('\n') { "" } else { " (without an end of line)" };
        shown.push(format!("{sign} {}{end}", line.trim_end_matches('\n')));
    }
    bounded(shown)
}

fn prefixed(sign: char, text: &str) -> String {
    bounded(text.lines().map(|line| format!("{sign} {line}")).collect())
}

fn bounded(mut lines: Vec<String>) -> String {
    let more = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    if more > 0 {
        lines.push(format!("… and {more} lines more"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differs(expected: &str, found: &str) -> Option<String> {
        let table: toml::Table = format!("m = {expected}").parse().unwrap();
        Matcher::of(&table["m"]).unwrap().differs(found.as_bytes())
    }

    #[test]
    fn text_is_compared_exactly_and_the_lines_that_differ_are_shown() {
        assert_eq!(differs("'a'", "a"), None);
        assert_eq!(differs("21.5", "21.5"), None);
        assert_eq!(differs("{ base64 = 'YQ==' }", "a"), None);
        assert_eq!(differs("{ exact = \"a\\nb\\nc\\n\" }", "a\nx\nc\n").unwrap(), "  a\n- b\n+ x\n  c");
        assert_eq!(differs("'a'", "a\n").unwrap(), "- a (without an end of line)\n+ a");
    }

    #[test]
    fn json_in_one_line_is_compared_line_by_line_all_the_same() {
        let differs = |expected: &str, found: &str| differs(&format!("'{expected}'"), found).unwrap();
        let shown = "  {\n    \"count\": 3,\n-   \"mean\": 21.5\n+   \"mean\": 22.0\n  }";
        assert_eq!(differs(r#"{"count":3,"mean":21.5}"#, r#"{"count":3,"mean":22.0}"#), shown);
        assert_eq!(differs(r#"{"a":1}"#, r#"{"a": 1}"#), "- {\"a\":1} (without an end of line)\n+ {\"a\": 1} (without an end of line)");
    }

    #[test]
    fn json_may_hold_more_than_is_expected_but_nothing_else() {
        let found = r#"{"mean":21.5,"count":3,"of":{"a":[1,2]},"unit":"C"}"#;
        assert_eq!(differs("{ json = { mean = 21.5, of = { a = [1, 2.0] } } }", found), None);
        let wrong = differs("{ json = { mean = 22, of = { a = [1], b = 1 } } }", found).unwrap();
        assert_eq!(wrong, ".mean:\n- 22\n+ 21.5\n.of.a:\n  [\n-   1\n+   1,\n+   2\n  ]\n.of.b:\n- 1\n+ nothing");
        assert!(differs("{ json = 1 }", "no json").unwrap().starts_with("- JSON\n+ no json\n("));
        assert_eq!(differs("{ json = 1 }", "2").unwrap(), "the whole:\n- 1\n+ 2");
    }

    #[test]
    fn a_pattern_matches_anywhere() {
        assert_eq!(differs("{ regex = '^\\d+ bytes' }", "14 bytes of data\n"), None);
        assert_eq!(differs("{ regex = '^x' }", "a\nb").unwrap(), "- matches ^x\n+ a\n+ b");
    }

    #[test]
    fn a_long_difference_is_cut() {
        let long = "x\n".repeat(LINES_MAX + 5);
        assert!(differs("{ regex = 'y' }", &long).unwrap().ends_with("… and 5 lines more"));
    }
}
