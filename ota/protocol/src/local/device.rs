//! Devices of a node, as others see them.

use serde::{Deserialize, Serialize};

/// How a device of the node is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceReport {
    /// Its name; its events are on the topic `device/<name>`.
    pub name: String,
    /// Line or port, for people.
    pub what: String,
    /// Why it is away; absent while it is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Events since the daemon started.
    pub events: u64,
    /// Edges and frames that became no event.
    pub lost: u64,
    /// Events that were written to it.
    pub written: u64,
    /// Events that were to be written and were not: it was away, or slower than they came.
    pub unwritten: u64,
}
