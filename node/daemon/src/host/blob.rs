//! What happens to the files of functions is an event: `$blob/<function>/<container>/<name>`.

use crate::bus::{BusHandle, Publication};
use crate::clock;
use sedge_protocol::{Event, FunctionName, Topic};
use sedge_runtime::{BlobChange, CallInfo, HostError};

/// Publishes what happened.
pub(super) fn publish(bus: &BusHandle, call: &CallInfo, number: u64, change: &BlobChange) -> Result<(), HostError> {
    let function = &call.revision.function;
    let mut data = serde_json::json!({ "function": function, "container": change.container, "name": change.name });
    if let Some(size) = change.size {
        data["size"] = size.into();
    }
    let event = Event {
        id: format!("{}-{number}", call.invocation),
        source: format!("/function/{function}"),
        kind: if change.size.is_some() { "sedge.blob.created" } else { "sedge.blob.deleted" }.to_owned(),
        time_ms: Some(clock::wall().0),
        topic: topic(function, change)?,
        content_type: Some("application/json".to_owned()),
        extensions: super::extensions(call),
        data: data.to_string().into_bytes(),
    };
    let publication = Publication { event, kept: true, fan_out: true, only: None, answer: None, letter: None };
    bus.publish(publication).map_err(|refusal| HostError::Full(refusal.to_string()))
}

/// The name is part of the topic as it is, except for what no topic may hold. One that is too deep becomes one level.
fn topic(function: &FunctionName, change: &BlobChange) -> Result<Topic, HostError> {
    let plain = change.name.replace('%', "%25").replace('+', "%2B").replace('#', "%23");
    let of = |name: &str| format!("$blob/{function}/{}/{name}", change.container).parse();
    of(&plain)
        .or_else(|_| of(&plain.replace('/', "%2F")))
        .map_err(|fault: sedge_protocol::topic::TopicError| HostError::Failed(fault.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_levels_of_a_topic_that_a_filter_can_match() {
        let of = |name: &str| {
            let change = BlobChange { container: "images".to_owned(), name: name.to_owned(), size: None };
            topic(&"camera".parse().unwrap(), &change).unwrap().as_str().to_owned()
        };
        assert_eq!(of("front/1.jpg"), "$blob/camera/images/front/1.jpg");
        assert_eq!(of("50%+#"), "$blob/camera/images/50%25%2B%23");
        let deep = "a/".repeat(100);
        assert_eq!(of(&deep), format!("$blob/camera/images/{}", deep.replace('/', "%2F")));
        let filter: sedge_protocol::TopicFilter = "$blob/camera/#".parse().unwrap();
        assert!(filter.matches(&of("front/1.jpg").parse().unwrap()));
    }
}
