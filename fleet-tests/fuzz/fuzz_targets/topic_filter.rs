//! Topics and filters: no panic, text and value are one, and the universal filter takes every topic that is not the system's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sedge_protocol::{Topic, TopicFilter};

fuzz_target!(|input: (&str, &str)| {
    let (topic, filter) = (input.0.parse::<Topic>(), input.1.parse::<TopicFilter>());
    if let Ok(filter) = &filter {
        assert_eq!(filter.as_str(), input.1);
    }
    let Ok(topic) = topic else { return };
    assert_eq!(topic.as_str(), input.0);
    let all: TopicFilter = "#".parse().expect("a filter");
    assert_eq!(all.matches(&topic), !input.0.starts_with('$'));
    if let Ok(filter) = filter {
        let itself = filter.as_str() == topic.as_str();
        assert!(!itself || filter.matches(&topic));
    }
});
