//! What is expected of an invocation, and where the one that was made differs.

use super::matcher::Matcher;
use sedge_protocol::local::{Payload, State, Trace};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Everything that a case says about its outcome. What it does not mention is not looked at, but that it succeeds.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// It fails for a reason like this.
    pub(super) failure: Option<Matcher>,
    pub(super) reply: Option<Matcher>,
    pub(super) status: Option<u16>,
    /// By their names in lower case.
    pub(super) headers: BTreeMap<String, Matcher>,
    pub(super) body: Option<Matcher>,
    /// All that its stores hold afterwards.
    pub(super) state: Option<BTreeMap<(String, String), Matcher>>,
    /// All that it publishes, in order.
    pub(super) publications: Option<Vec<Published>>,
    /// One of its lines is like this.
    pub(super) log: Option<Matcher>,
}

/// A message that is expected.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) topic: Matcher,
    pub(super) data: Option<Matcher>,
}

/// Something that is not as expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Mismatch {
    /// Which part of the outcome.
    pub(super) what: String,
    /// `-` is what was expected, `+` what was found.
    pub(super) difference: String,
}

impl Expected {
    /// All differences between what is expected and `trace`, which began with `state`.
    pub(super) fn check(&self, state: &State, trace: &Trace) -> Vec<Mismatch> {
        let mut found = Mismatches::default();
        self.check_end(trace, &mut found);
        if let Some(expected) = &self.reply {
            found.compare("reply", expected, trace.reply.as_ref().map(|reply| &reply.data));
        }
        self.check_response(trace, &mut found);
        if let Some(expected) = &self.state {
            check_state(expected, state, trace, &mut found);
        }
        if let Some(expected) = &self.publications {
            check_publications(expected, trace, &mut found);
        }
        if let Some(expected) = &self.log
            && !trace.log.iter().any(|entry| expected.differs(entry.text.as_bytes()).is_none())
        {
            let lines: Vec<&str> = trace.log.iter().map(|entry| entry.text.as_str()).collect();
            let difference = expected.differs(lines.join("\n").as_bytes());
            found.add("log", difference.unwrap_or_else(|| "no single line of the log is like this".to_owned()));
        }
        found.0
    }

    fn check_end(&self, trace: &Trace, found: &mut Mismatches) {
        match (&self.failure, &trace.failure) {
            (None, None) => {}
            (None, Some(_)) if self.status.is_some_and(|status| status >= 500) => {}
            (None, Some(reason)) => found.add("failure", format!("- none\n+ {reason}")),
            (Some(_), None) => found.add("failure", "- it fails\n+ it succeeded".to_owned()),
            (Some(expected), Some(reason)) => found.compare("failure", expected, Some(&Payload::Text(reason.clone()))),
        }
    }

    fn check_response(&self, trace: &Trace, found: &mut Mismatches) {
        let response = trace.response.as_ref();
        if let Some(expected) = self.status
            && response.map(|response| response.status) != Some(expected)
        {
            let status = response.map_or_else(|| "none: an event has no status".to_owned(), |response| response.status.to_string());
            found.add("status", format!("- {expected}\n+ {status}"));
        }
        for (name, expected) in &self.headers {
            let headers = response.into_iter().flat_map(|response| &response.headers);
            let value = headers.filter(|(other, _)| other == name).map(|(_, value)| Payload::Text(value.clone())).next();
            found.compare(&format!("header {name}"), expected, value.as_ref());
        }
        if let Some(expected) = &self.body {
            found.compare("body", expected, response.map(|response| &response.body));
        }
    }
}

fn check_state(expected: &BTreeMap<(String, String), Matcher>, before: &State, trace: &Trace, found: &mut Mismatches) {
    let Some(changes) = &trace.changes else {
        return found.add("state", "+ the stores hold too much to be compared".to_owned());
    };
    let pairs = before.iter().flat_map(|(store, pairs)| pairs.iter().map(move |(key, value)| ((store.clone(), key.clone()), value)));
    let mut after: BTreeMap<(String, String), &Payload> = pairs.collect();
    for change in changes {
        let place = (change.store.clone(), change.key.clone());
        match &change.after {
            Some(value) => after.insert(place, value),
            None => after.remove(&place),
        };
    }
    for ((store, key), matcher) in expected {
        let value = after.remove(&(store.clone(), key.clone()));
        found.compare(&format!("state {store} {key}"), matcher, value);
    }
    for ((store, key), value) in after {
        found.add(&format!("state {store} {key}"), format!("- nothing\n+ {}", crate::trace_view::value(value)));
    }
}

fn check_publications(expected: &[Published], trace: &Trace, found: &mut Mismatches) {
    for (number, expected) in expected.iter().enumerate() {
        let what = format!("publication {}", number + 1);
        let Some(published) = trace.publications.get(number) else {
            found.add(&what, "- a message\n+ nothing".to_owned());
            continue;
        };
        found.compare(&format!("{what}, topic"), &expected.topic, Some(&Payload::Text(published.topic.to_string())));
        if let Some(data) = &expected.data {
            found.compare(&format!("{what}, data"), data, Some(&published.data));
        }
    }
    for published in trace.publications.iter().skip(expected.len()) {
        found.add("publication too many", format!("+ {}  {}", published.topic, crate::trace_view::value(&published.data)));
    }
}

#[derive(Default)]
struct Mismatches(Vec<Mismatch>);

impl Mismatches {
    fn add(&mut self, what: &str, difference: String) {
        self.0.push(Mismatch { what: what.to_owned(), difference });
    }

    fn compare(&mut self, what: &str, expected: &Matcher, found: Option<&Payload>) {
        let Some(payload) = found else {
            let difference = expected.differs(b"").unwrap_or_default();
            return self
                .add(what, if difference.is_empty() { "- empty\n+ nothing".to_owned() } else { format!("{difference}\n+ nothing") });
        };
        // The node makes these itself; what it cannot have made is shown as it came.
        let bytes = payload.decode().unwrap_or_else(|broken| Cow::Owned(broken.into_bytes()));
        if let Some(difference) = expected.differs(&bytes) {
            self.add(what, difference);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::local::{Change, Replied, Responded};
    use serde_json::json;

    fn matcher(text: &str) -> Matcher {
        Matcher::of(&toml::Value::String(text.to_owned())).unwrap()
    }

    fn trace() -> Trace {
        Trace {
            ended: None,
            failure: None,
            reply: None,
            response: None,
            publications: Vec::new(),
            changes: Some(Vec::new()),
            log: Vec::new(),
            missing: 0,
        }
    }

    fn whats(expected: &Expected, state: &State, trace: &Trace) -> Vec<String> {
        expected.check(state, trace).into_iter().map(|mismatch| mismatch.what).collect()
    }

    #[test]
    fn success_is_expected_unless_a_failure_or_its_status_is() {
        let failed = Trace { failure: Some("trap: unreachable".to_owned()), ..trace() };
        assert_eq!(whats(&Expected::default(), &State::new(), &trace()), [""; 0]);
        assert_eq!(whats(&Expected::default(), &State::new(), &failed), ["failure"]);
        let expected = Expected { failure: Some(matcher("trap: unreachable")), ..Expected::default() };
        assert_eq!(whats(&expected, &State::new(), &failed), [""; 0]);
        assert_eq!(expected.check(&State::new(), &trace())[0].difference, "- it fails\n+ it succeeded");
        let response = Some(Responded { status: 504, headers: Vec::new(), body: Payload::Text(String::new()) });
        let expected = Expected { status: Some(504), ..Expected::default() };
        assert_eq!(whats(&expected, &State::new(), &Trace { response, ..failed }), [""; 0]);
    }

    #[test]
    fn answers_are_compared_part_by_part() {
        let headers = vec![("content-type".to_owned(), "text/plain".to_owned())];
        let response = Some(Responded { status: 404, headers, body: Payload::Text("no".to_owned()) });
        let reply = Some(Replied { content_type: None, data: Payload::Text("21".to_owned()) });
        let trace = Trace { response, reply, ..trace() };
        let expected = Expected {
            status: Some(200),
            headers: [("content-type".to_owned(), matcher("text/plain")), ("etag".to_owned(), matcher("x"))].into(),
            body: Some(matcher("yes")),
            reply: Some(matcher("21")),
            ..Expected::default()
        };
        assert_eq!(whats(&expected, &State::new(), &trace), ["status", "header etag", "body"]);
    }

    #[test]
    fn the_whole_state_is_compared_with_what_it_began_with_and_what_changed() {
        let text = |text: &str| Payload::Text(text.to_owned());
        let before: State = serde_json::from_value(json!({ "default": { "kept": { "text": "1" }, "gone": { "text": "1" } } })).unwrap();
        let change = |key: &str, after: Option<Payload>| Change { store: "default".to_owned(), key: key.to_owned(), before: None, after };
        let trace =
            Trace { changes: Some(vec![change("gone", None), change("new", Some(text("2"))), change("more", Some(text("3")))]), ..trace() };
        let place = |key: &str| ("default".to_owned(), key.to_owned());
        let state = [(place("kept"), matcher("1")), (place("gone"), matcher("1")), (place("new"), matcher("9"))].into();
        let expected = Expected { state: Some(state), ..Expected::default() };
        assert_eq!(whats(&expected, &before, &trace), ["state default gone", "state default new", "state default more"]);
    }

    #[test]
    fn publications_are_all_of_them_and_in_order() {
        let published =
            |topic: &str, data: &str| json!({ "time_ms": 0, "function": "f", "invocation": "1", "topic": topic, "data": { "text": data } });
        let list = |list: serde_json::Value| serde_json::from_value(list).unwrap();
        let trace = Trace { publications: list(json!([published("a", "1"), published("b", "2")])), ..trace() };
        let of = |topic: &str, data: Option<&str>| Published { topic: matcher(topic), data: data.map(matcher) };
        let check = |publications| whats(&Expected { publications: Some(publications), ..Expected::default() }, &State::new(), &trace);
        assert_eq!(check(vec![of("a", Some("1")), of("b", None)]), [""; 0]);
        assert_eq!(check(vec![of("b", None)]), ["publication 1, topic", "publication too many"]);
        assert_eq!(check(vec![of("a", Some("7")), of("b", None), of("c", None)]), ["publication 1, data", "publication 3"]);
    }
}
