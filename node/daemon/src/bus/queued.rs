//! An event on its way to one function, as it is kept on disk.

use sedge_protocol::{Event, FunctionName, Topic};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;

/// An event for one function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Queued {
    pub(crate) function: FunctionName,
    pub(crate) event: Arc<Event>,
    pub(crate) reply: Option<Topic>,
    /// When the bus took it, in this run of the daemon.
    #[serde(skip)]
    pub(crate) taken: Option<Instant>,
}

impl Queued {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.event.data.len() + 256);
        ciborium::into_writer(self, &mut bytes).expect("writing to memory does not fail");
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        ciborium::from_reader(bytes).map_err(|cause| cause.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_reads_back() {
        let event = Event {
            id: "1".into(),
            source: "/mqtt/s".into(),
            kind: "sedge.mqtt.message".into(),
            time_ms: Some(5),
            topic: "a/b".parse().unwrap(),
            content_type: None,
            extensions: std::collections::BTreeMap::default(),
            data: vec![0, 159, 146, 150],
        };
        let queued = Queued { function: "f".parse().unwrap(), event: Arc::new(event), reply: Some("r".parse().unwrap()), taken: None };
        assert_eq!(Queued::decode(&queued.encode()), Ok(queued));
        assert!(Queued::decode(b"\xff\xff").is_err());
    }
}
