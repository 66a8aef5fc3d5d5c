//! What node and fleet say on the streams of one QUIC connection. Unknown fields are ignored; unknown kinds are an error of that stream.
//!
//! ```text
//! control   node ─ Hello ─▶ fleet ─ Welcome ─▶ node;  then Desired ◀─ fleet at each change, Report ─▶ at each change and every heartbeat
//! artifact  node ─ Fetch{digest, offset} ─▶ fleet ─ Head ─▶ then raw bytes from `offset` to the end
//! usage     node ─ Usage batch ─▶ fleet ─ UsageApplied{through} ─▶ …
//! renewal   node ─ Renew{csr} ─▶ fleet ─ Renewed{certificate}
//! ```
//! The node opens every stream; the first frame says which kind it is.

use crate::image::{ImageAssignment, OsReport};
use crate::manifest::{Route, SecretName};
use crate::usage::{Counters, LedgerEpoch, UsageRecord};
use crate::{Digest, FunctionName, Labels, Manifest, RevisionId, Standing};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The protocol's name in the TLS handshake.
pub const ALPN: &[u8] = b"sedge/1";

/// Code with which the fleet closes the connection of a node that it does not know: removed, or the fleet lost its database.
pub const CLOSE_UNKNOWN: u32 = 1;

/// Code with which the fleet closes the connection of a node for which another connection of the same node has come.
pub const CLOSE_REPLACED: u32 = 3;

/// Code with which the fleet closes the connection of a node that it does not want any more. The reason stands beside it.
pub const CLOSE_REVOKED: u32 = 4;

/// Version of the messages; grows when a change needs to be noticed by the other side.
pub const VERSION: u32 = 1;

/// First and later frames from a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, on its way into a frame or out of one")]
pub enum FromNode {
    /// Opens the control stream.
    Hello(Hello),
    /// On the control stream: what the node runs now. Also the heartbeat.
    Report(Report),
    /// Opens an artifact stream.
    Fetch {
        /// Which artifact.
        digest: Digest,
        /// From which byte on.
        offset: u64,
    },
    /// Opens an artifact stream for parts of an artifact, at most [`crate::limits::RANGES_MAX`].
    FetchRanges {
        /// Which artifact.
        digest: Digest,
        /// Begin and length of each, bytes; they come in this order, one after the other.
        ranges: Vec<(u64, u64)>,
    },
    /// On a usage stream, one batch at a time.
    Usage(UsageBatch),
    /// Opens a renewal stream: asks for a fresh certificate for the same node.
    Renew {
        /// Certificate signing request, PEM.
        csr: String,
    },
}

/// Frames from the fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FromFleet {
    /// Answers [`FromNode::Hello`].
    Welcome(Welcome),
    /// On the control stream: the node's one desired state.
    Desired(Desired),
    /// On the control stream: an operator has decided about the node.
    Standing {
        /// How it stands from now on.
        standing: Standing,
    },
    /// Answers [`FromNode::Fetch`]; raw bytes follow.
    Head {
        /// Size of the whole artifact, bytes.
        size: u64,
    },
    /// Answers [`FromNode::Usage`].
    UsageApplied {
        /// The ledger.
        epoch: LedgerEpoch,
        /// Every record up to this number is applied and durable.
        through: u64,
    },
    /// Answers [`FromNode::Usage`] when the fleet cannot go on with the ledger: it was begun under another identity of this box, or
    /// the fleet was restored from an older copy. The stream ends; the node begins a new ledger with what it has beyond `through`.
    UsageBeginAnew {
        /// Highest number of the ledger that is applied, under whatever identity.
        through: u64,
    },
    /// Answers [`FromNode::Renew`].
    Renewed {
        /// The certificate, PEM.
        certificate: String,
    },
    /// The request cannot be served; the stream ends.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Who the node is. Its id is in its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the node.
    pub version: u32,
    /// Version of `sedged`.
    pub daemon: String,
    /// The desired state it has accepted.
    pub desired_epoch: u64,
    /// Processor architecture, such as `x86_64`.
    #[serde(default)]
    pub architecture: String,
    /// What images of the operating system it takes; none where it does not keep one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub board: Option<String>,
    /// Labels of the node's own configuration.
    #[serde(default)]
    pub labels: Labels,
    /// Drawn at each start of the daemon: tells a box that comes back from two that have one key. Zero from nodes that draw none.
    #[serde(default)]
    pub instance: u64,
}

/// The fleet's greeting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`VERSION`] of the fleet.
    pub version: u32,
    /// The fleet's clock, milliseconds since 1970.
    pub time_ms: u64,
    /// How often to report when nothing changed, milliseconds.
    pub heartbeat_ms: u64,
    /// How the node stands with the fleet.
    #[serde(default)]
    pub standing: Standing,
}

/// What one node is told to run. A larger epoch replaces a smaller one as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// Grows with every change.
    pub epoch: u64,
    /// At most one per function name.
    pub assignments: Vec<Assignment>,
    /// The image of the operating system; whatever runs when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageAssignment>,
}

/// One function on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The revision; its function is `manifest.name`.
    pub revision: RevisionId,
    /// The Wasm.
    pub artifact: Digest,
    /// Its size, bytes.
    pub size: u64,
    /// Manifest.
    pub manifest: Manifest,
}

impl Assignment {
    /// The function's name.
    #[must_use]
    pub fn function(&self) -> &FunctionName {
        &self.manifest.name
    }

    /// Whether the id is that of this artifact and manifest, and the manifest keeps its rules.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self) -> Result<(), String> {
        if RevisionId::of(&self.artifact, &self.manifest) != self.revision {
            return Err("the revision's id is not that of its artifact and manifest".to_owned());
        }
        if self.size > crate::limits::ARTIFACT_BYTES_MAX {
            return Err(format!("the artifact has {} bytes", self.size));
        }
        self.manifest.check()
    }
}

/// What a node runs, as an answer to [`Desired`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The desired state this speaks of.
    pub desired_epoch: u64,
    /// One per function that is assigned or running.
    pub functions: Vec<FunctionReport>,
    /// The newest errors since the last report.
    #[serde(default)]
    pub errors: Vec<ErrorReport>,
    /// How the box is.
    #[serde(default)]
    pub vitals: Vitals,
    /// How its operating system stands, where the node keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<OsReport>,
}

/// One function on one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FunctionReport {
    /// Its name.
    pub function: FunctionName,
    /// The revision that takes invocations now, if any.
    pub running: Option<RevisionId>,
    /// How far the assigned revision is.
    pub state: FunctionState,
    /// The assigned revision.
    pub assigned: Option<RevisionId>,
    /// Secrets that its manifest names and that are not on the node; the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_secrets: Vec<SecretName>,
    /// Totals since the daemon started: what live tables show. Billing uses the ledger alone.
    #[serde(default)]
    pub totals: Counters,
    /// How it has been doing.
    #[serde(default, skip_serializing_if = "Health::is_good")]
    pub health: Health,
}

/// How a function has been doing since the daemon started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Invocations that failed by its own fault within the last hour.
    pub failed_hour: u32,
    /// The newest of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
    /// Routes of its manifest that another function of the node serves; the first few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost_routes: Vec<LostRoute>,
}

/// A route that two functions of a node have and that is not served by this one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LostRoute {
    /// The route, as both manifests have it.
    pub route: Route,
    /// Who serves it.
    pub served_by: FunctionName,
}

impl fmt::Display for LostRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` serves the route {}", self.served_by, self.route)
    }
}

impl Health {
    /// Adds how the function has been doing elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.failed_hour = self.failed_hour.saturating_add(other.failed_hour);
        let newest = |failure: &&LastFailure| self.last_failure.as_ref().is_none_or(|ours| ours.time_ms < failure.time_ms);
        if let Some(newer) = other.last_failure.as_ref().filter(newest) {
            self.last_failure = Some(newer.clone());
        }
        self.lost_routes.extend(other.lost_routes.iter().cloned());
        self.lost_routes.sort();
        self.lost_routes.dedup();
    }

    /// Whether nothing has failed and nothing is lost.
    #[must_use]
    pub fn is_good(&self) -> bool {
        *self == Self::default()
    }
}

/// An invocation that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFailure {
    /// When, milliseconds since 1970.
    pub time_ms: u64,
    /// Why, one line.
    pub reason: String,
}

/// How far an assigned revision is on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum FunctionState {
    /// Its artifact is on the way.
    Fetching {
        /// Bytes here.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Being compiled.
    Preparing,
    /// Takes invocations.
    Running,
    /// Refused by the node; the revision before goes on.
    Failed {
        /// Why.
        reason: String,
    },
}

/// One error, for the fleet's page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// Counts the node's errors since its daemon started; the fleet uses it to drop repeats.
    pub number: u64,
    /// When, milliseconds since 1970.
    pub time_ms: u64,
    /// Function.
    pub function: FunctionName,
    /// Revision.
    pub revision: Option<RevisionId>,
    /// What went wrong, one line.
    pub reason: String,
}

/// How the box is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Vitals {
    /// Time since the daemon started, milliseconds; tells one run from the next together with `started_ms`.
    pub uptime_ms: u64,
    /// When the daemon started, milliseconds since 1970.
    pub started_ms: u64,
    /// Memory of the box in use, bytes.
    pub memory_used: u64,
    /// Memory of the box, bytes.
    pub memory_total: u64,
    /// Processors.
    pub cores: u32,
    /// Load average of one minute, in hundredths.
    pub load_centi: u32,
    /// Events that came in since the daemon started.
    pub events_in: u64,
    /// Events given up for want of room (QoS 0), since the daemon started.
    pub events_dropped: u64,
    /// Events of QoS ≥ 1 that wait.
    pub events_waiting: u64,
    /// Events that failed every attempt and are kept as dead letters.
    pub dead_letters: u64,
    /// Why events and state are refused, while they are: a full disk, a disk that does not write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_trouble: Option<String>,
    /// Why a device of the node is away, while one is: it is not there, it may not be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_trouble: Option<String>,
}

/// Some records of one ledger, ascending and without gaps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageBatch {
    /// The ledger.
    pub epoch: LedgerEpoch,
    /// At most [`crate::limits::USAGE_BATCH_MAX`].
    pub records: Vec<UsageRecord>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{decode_body, encode};

    #[test]
    fn a_newer_peer_may_add_fields() {
        #[derive(Serialize)]
        struct Newer<'a> {
            kind: &'a str,
            version: u32,
            daemon: &'a str,
            desired_epoch: u64,
            colour: &'a str,
        }
        let frame = encode(&Newer { kind: "hello", version: 9, daemon: "9.0", desired_epoch: 3, colour: "green" }).unwrap();
        let FromNode::Hello(hello) = decode_body(&frame[4..]).unwrap() else { panic!("not a hello") };
        assert_eq!((hello.version, hello.desired_epoch), (9, 3));
    }

    #[test]
    fn a_changed_manifest_is_noticed() {
        let manifest: Manifest = Manifest::from_toml("f", "name = 'a'").unwrap().0;
        let artifact = Digest::of(b"wasm");
        let mut assignment = Assignment { revision: RevisionId::of(&artifact, &manifest), artifact, size: 4, manifest };
        assert_eq!(assignment.check(), Ok(()));
        let frame = encode(&FromFleet::Desired(Desired { epoch: 1, assignments: vec![assignment.clone()], image: None })).unwrap();
        let FromFleet::Desired(desired) = decode_body(&frame[4..]).unwrap() else { panic!("not a desired state") };
        assert_eq!(desired.assignments[0], assignment);
        assignment.manifest.limits.memory_mb += 1;
        assert!(assignment.check().is_err());
    }
}
