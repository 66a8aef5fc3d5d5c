//! The rules of topics and filters: what is valid, and what matches what.  Pure.

use crate::limits::{TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX};

/// Why a topic or filter is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Nothing at all.
    #[error("topic is empty")]
    Empty,
    /// More than [`TOPIC_BYTES_MAX`] bytes.
    #[error("topic is longer than {TOPIC_BYTES_MAX} bytes")]
    TooLong,
    /// More than [`TOPIC_LEVELS_MAX`] levels.
    #[error("topic has more than {TOPIC_LEVELS_MAX} levels")]
    TooDeep,
    /// A wildcard in a topic, or in a filter where the rules do not allow one.
    #[error("wildcard at a place where none may stand")]
    Wildcard,
    /// The character NUL.
    #[error("topic contains the character NUL")]
    Nul,
    /// `$share/` without a group or without a filter.
    #[error("shared subscription needs $share/group/filter")]
    Share,
}

/// Checks a topic to publish on.
///
/// # Errors
/// Says which rule it breaks.
pub fn check_topic(topic: &str) -> Result<(), TopicError> {
    check_shape(topic)?;
    if topic.contains(['+', '#']) { Err(TopicError::Wildcard) } else { Ok(()) }
}

/// Checks a filter to subscribe with, `$share/` not included.
///
/// # Errors
/// Says which rule it breaks.
pub fn check_filter(filter: &str) -> Result<(), TopicError> {
    check_shape(filter)?;
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let last = levels.peek().is_none();
        let plain = !level.contains(['+', '#']);
        if !(plain || level == "+" || (level == "#" && last)) {
            return Err(TopicError::Wildcard);
        }
    }
    Ok(())
}

fn check_shape(text: &str) -> Result<(), TopicError> {
    match text {
        "" => Err(TopicError::Empty),
        _ if text.len() > TOPIC_BYTES_MAX => Err(TopicError::TooLong),
        _ if text.split('/').count() > TOPIC_LEVELS_MAX => Err(TopicError::TooDeep),
        _ if text.contains('\0') => Err(TopicError::Nul),
        _ => Ok(()),
    }
}

/// Whether `filter` matches `topic`; both must be valid.  A leading wildcard does not match topics that start with `$`.
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            (_, Some(_) | None) => return false,
        }
    }
    levels.next().is_none()
}

/// What a client asks for in SUBSCRIBE: a filter, and a group when it is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted<'a> {
    pub(crate) group: Option<&'a str>,
    pub(crate) filter: &'a str,
}

impl<'a> Wanted<'a> {
    /// Takes `$share/group/filter` apart and checks the filter.
    pub(crate) fn parse(text: &'a str) -> Result<Self, TopicError> {
        let Some(shared) = text.strip_prefix("$share/") else {
            check_filter(text)?;
            return Ok(Self { group: None, filter: text });
        };
        let (group, filter) = shared.split_once('/').ok_or(TopicError::Share)?;
        if group.is_empty() || filter.is_empty() || group.contains(['+', '#']) {
            return Err(TopicError::Share);
        }
        check_filter(filter)?;
        Ok(Self { group: Some(group), filter })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_follow_the_rules() {
        for good in ["a", "/", "a//b", "$SYS/x", "ä/ö", &"a/".repeat(15)] {
            assert_eq!(check_topic(good), Ok(()), "{good}");
        }
        let cases = [("", TopicError::Empty), ("a/+", TopicError::Wildcard), ("a#", TopicError::Wildcard), ("a\0", TopicError::Nul)];
        for (bad, why) in cases {
            assert_eq!(check_topic(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn one_above_each_limit_is_refused() {
        assert_eq!(check_topic(&"a/".repeat(TOPIC_LEVELS_MAX)), Err(TopicError::TooDeep));
        assert_eq!(check_topic(&"a".repeat(TOPIC_BYTES_MAX + 1)), Err(TopicError::TooLong));
        assert_eq!(check_topic(&"a".repeat(TOPIC_BYTES_MAX)), Ok(()));
    }

    #[test]
    fn filters_follow_the_rules() {
        for good in ["#", "+", "a/#", "+/+", "/+/", "a/+/b/#"] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for bad in ["a#", "#/a", "a/b+", "++", "a/#/b"] {
            assert_eq!(check_filter(bad), Err(TopicError::Wildcard), "{bad}");
        }
    }

    #[test]
    fn filters_match_as_the_standard_says() {
        let yes = [("a/#", "a"), ("a/#", "a/b/c"), ("+/b", "a/b"), ("/+", "/a"), ("+/+", "/a"), ("#", "a"), ("$SYS/#", "$SYS/x")];
        let no = [("a/+", "a"), ("+", "/a"), ("a", "a/b"), ("#", "$SYS/x"), ("+/x", "$SYS/x"), ("a/b", "a")];
        yes.iter().for_each(|(filter, topic)| assert!(matches(filter, topic), "{filter} {topic}"));
        no.iter().for_each(|(filter, topic)| assert!(!matches(filter, topic), "{filter} {topic}"));
    }

    #[test]
    fn shared_filters_are_taken_apart() {
        assert_eq!(Wanted::parse("$share/g/a/+"), Ok(Wanted { group: Some("g"), filter: "a/+" }));
        assert_eq!(Wanted::parse("a/+"), Ok(Wanted { group: None, filter: "a/+" }));
        for bad in ["$share/", "$share/g", "$share//a", "$share/g/", "$share/+/a"] {
            assert_eq!(Wanted::parse(bad), Err(TopicError::Share), "{bad}");
        }
    }
}
