//! Bodies of the fleet's REST API, JSON. The command line and the console use nothing else.
//!
//! ```text
//! GET  /api/v1/status                       Status          PUT  /api/v1/artifacts/{digest}   raw Wasm ─▶ ArtifactStored
//! GET  /api/v1/nodes?filter=                [Node]          POST /api/v1/revisions            NewRevision ─▶ Revision
//! GET  /api/v1/nodes/{id}                   Node            GET  /api/v1/functions/{name}/revisions  [Revision]
//! PUT  /api/v1/nodes/{id}/standing  Standing ─▶ Node        DELETE /api/v1/nodes/{id}         forgets the node
//! PATCH /api/v1/nodes/{id}/labels  LabelChange ─▶ Node      DELETE /api/v1/claims/{id}        nobody joins with it any more
//! GET  /api/v1/functions                    [Function]      DELETE /api/v1/functions/{name}   takes it off every node
//! POST /api/v1/claims  NewClaim ─▶ CreatedClaim             GET  /api/v1/claims               [Claim]
//! POST /api/v1/claims/bundle  NewClaim ─▶ a file            (see `sedge_provisioning::bundle`)
//! POST /api/v1/rollouts  NewRollout ─▶ Rollout              GET  /api/v1/rollouts             [Rollout]
//! GET  /api/v1/usage?function=&node=&since_ms=  [UsageRow]  GET  /api/v1/errors               [NodeError]
//! PUT  /api/v1/images/{digest}  bundle ─▶ Image             GET  /api/v1/images               [Image]
//! POST /api/v1/image-rollouts  NewImageRollout ─▶ ImageRollout  GET  /api/v1/image-rollouts   [ImageRollout]
//! GET  /api/v1/events                       server-sent: one Status a second
//! ```
//! Every request carries `Authorization: Bearer <admin token>`; every refusal is [`Problem`].

use crate::artifact::Kind;
use crate::image::{ImageVersion, OsReport, Restart};
use crate::message::{FunctionReport, Health, Vitals};
use crate::usage::Counters;
use crate::{Digest, FunctionName, Labels, Manifest, NodeId, RevisionId, Standing};
use serde::{Deserialize, Serialize};

/// A refusal: what was wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// One sentence for people.
    pub error: String,
    /// What to do next, when there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The whole fleet in a few numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Version of `sedge-fleet`.
    pub version: String,
    /// The fleet's clock, milliseconds since 1970.
    pub time_ms: u64,
    /// Nodes that ever enrolled.
    pub nodes: u64,
    /// Nodes connected now.
    pub online: u64,
    /// Functions with at least one revision.
    pub functions: u64,
    /// Invocations of the last seconds, per second, in thousandths.
    pub calls_per_second_milli: u64,
    /// Sum of the ledger.
    pub usage: Counters,
    /// Sum per function, in the order of the names.
    pub by_function: Vec<FunctionUsage>,
}

/// Sum of the ledger for one function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FunctionUsage {
    /// Function.
    pub function: FunctionName,
    /// Sum.
    pub usage: Counters,
    /// Invocations of the last seconds, per second, in thousandths.
    pub calls_per_second_milli: u64,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Connected.
    Online,
    /// Enrolled, not connected.
    Offline,
}

/// One gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Whether it is connected.
    pub state: NodeState,
    /// Labels that the fleet gave it, that of its claim and of its own configuration.
    pub labels: Labels,
    /// How it stands with the fleet.
    #[serde(default)]
    pub standing: Standing,
    /// Since when, milliseconds since 1970.
    #[serde(default)]
    pub standing_ms: u64,
    /// Version of its daemon.
    pub daemon: String,
    /// Processor architecture.
    pub architecture: String,
    /// When it enrolled, milliseconds since 1970.
    pub enrolled_ms: u64,
    /// When it was last heard, milliseconds since 1970.
    pub seen_ms: Option<u64>,
    /// When its certificate ends, milliseconds since 1970.
    pub certificate_until_ms: u64,
    /// What it is told to run.
    pub desired_epoch: u64,
    /// What it has answered for.
    pub reported_epoch: u64,
    /// What it runs, as it last said.
    pub functions: Vec<FunctionReport>,
    /// How it is, as it last said.
    pub vitals: Vitals,
    /// How its operating system stands, as it last said; none where the node does not keep it.
    #[serde(default)]
    pub os: Option<OsReport>,
}

/// Asks for other labels of a node, those that the fleet gives it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelChange {
    /// Labels to give or to change.
    pub set: Labels,
    /// Keys of labels to take away. Labels of the claim and of the node's own configuration stay.
    pub remove: Vec<String>,
}

/// One function and who runs what of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Function {
    /// Its name.
    pub name: FunctionName,
    /// Its newest revision.
    pub newest: RevisionId,
    /// Number of revisions.
    pub revisions: u64,
    /// Who runs which revision, most nodes first.
    pub running: Vec<Running>,
    /// Nodes that are assigned a revision they do not run yet.
    pub waiting: Vec<Waiting>,
    /// Sum of the ledger.
    pub usage: Counters,
    /// How it has been doing, all nodes together, as far as they have told since they started.
    #[serde(default, skip_serializing_if = "Health::is_good")]
    pub health: Health,
}

/// The nodes that run one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Revision.
    pub revision: RevisionId,
    /// Nodes, in the order of their ids.
    pub nodes: Vec<NodeId>,
}

/// A node that does not run what it is assigned, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Node.
    pub node: NodeId,
    /// Assigned revision; none where the function is to go.
    pub assigned: Option<RevisionId>,
    /// Why it waits, one line.
    pub reason: String,
}

/// Answer to an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactStored {
    /// Its digest.
    pub digest: Digest,
    /// Its size, bytes.
    pub size: u64,
    /// What it is.
    pub kind: Kind,
}

/// Asks for a revision from an uploaded artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewRevision {
    /// The uploaded artifact.
    pub artifact: Digest,
    /// Its manifest.
    pub manifest: Manifest,
}

/// One immutable version of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its id.
    pub id: RevisionId,
    /// Its function.
    pub function: FunctionName,
    /// The Wasm.
    pub artifact: Digest,
    /// Size of the Wasm, bytes.
    pub size: u64,
    /// What it is.
    pub kind: Kind,
    /// When it was published, milliseconds since 1970.
    pub created_ms: u64,
    /// Manifest.
    pub manifest: Manifest,
}

/// Asks for the right to join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewClaim {
    /// How many nodes may use it.
    pub uses: u32,
    /// How long it is good for, seconds.
    pub ttl_s: u64,
    /// Labels that nodes get which use it.
    pub labels: Labels,
    /// Whether nodes that use it get nothing until somebody approves of them.
    pub approval: bool,
    /// The node whose entry the box takes over that uses it, with id, labels and what it is to run; its former key is let in no more.
    pub replaces: Option<NodeId>,
}

impl Default for NewClaim {
    fn default() -> Self {
        Self { uses: 1, ttl_s: 24 * 3600, labels: Labels::default(), approval: false, replaces: None }
    }
}

/// Header of the answer to `POST /api/v1/claims/bundle`: the claim's public id.
pub const CLAIM_HEADER: &str = "sedge-claim";

/// A claim and its secret. The secret is shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedClaim {
    /// The claim without its secret.
    pub claim: Claim,
    /// What a node presents.
    pub token: String,
    /// Where a node enrols, `https://host:port`.
    pub fleet: String,
    /// Pin of the fleet's CA: digest of its certificate.
    pub ca_pin: Digest,
}

impl std::fmt::Debug for CreatedClaim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedClaim").field("claim", &self.claim).field("fleet", &self.fleet).finish_non_exhaustive()
    }
}

/// A right to join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its public id.
    pub id: String,
    /// How many nodes may use it.
    pub uses: u32,
    /// How many have.
    pub used: u32,
    /// When it ends, milliseconds since 1970.
    pub expires_ms: u64,
    /// Labels that nodes get which use it.
    pub labels: Labels,
    /// Whether nodes that use it wait for somebody's approval.
    #[serde(default)]
    pub approval: bool,
    /// The node whose entry is taken over by who uses it.
    #[serde(default)]
    pub replaces: Option<NodeId>,
    /// Whether it was revoked.
    #[serde(default)]
    pub revoked: bool,
}

/// Asks to move nodes to a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewRollout {
    /// Function.
    pub function: FunctionName,
    /// Revision; the newest when absent.
    #[serde(default)]
    pub revision: Option<RevisionId>,
    /// Which nodes: a label filter such as `site=berlin,line!=2`; all when empty.
    #[serde(default)]
    pub filter: String,
}

/// A rollout and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its id.
    pub id: String,
    /// Function.
    pub function: FunctionName,
    /// Revision.
    pub revision: RevisionId,
    /// Which nodes.
    pub filter: String,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
    /// Nodes it moves.
    pub nodes: u64,
    /// Nodes that run its revision.
    pub done: u64,
    /// Nodes that refused it.
    pub failed: u64,
    /// Nodes that have not answered yet.
    pub waiting: u64,
}

/// Usage of one function and revision on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRow {
    /// Node.
    pub node: NodeId,
    /// Function.
    pub function: FunctionName,
    /// Revision.
    pub revision: RevisionId,
    /// Begin of the first window, milliseconds since 1970.
    pub from_ms: u64,
    /// Sum.
    pub usage: Counters,
}

/// One error of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeError {
    /// Node.
    pub node: NodeId,
    /// When, milliseconds since 1970.
    pub time_ms: u64,
    /// Function.
    pub function: FunctionName,
    /// Revision.
    pub revision: Option<RevisionId>,
    /// One line.
    pub reason: String,
}

/// A version of the operating system that nodes of one board can boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What it is for, such as `gateway-x86-64`.
    pub board: String,
    /// Its version.
    pub version: ImageVersion,
    /// The bundle.
    pub artifact: Digest,
    /// Its size, bytes.
    pub size: u64,
    /// Size of its head, bytes.
    pub head: u64,
    /// Keys that have signed it, as it says; nodes check it against those they trust.
    pub signers: Vec<Digest>,
    /// When it was published, milliseconds since 1970.
    pub created_ms: u64,
}

/// Asks to move nodes to an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewImageRollout {
    /// Which version.
    pub version: ImageVersion,
    /// For which board; the only one that has this version when absent.
    #[serde(default)]
    pub board: Option<String>,
    /// Which nodes: a label filter such as `site=berlin,line!=2`; all when empty.
    #[serde(default)]
    pub filter: String,
    /// When they may restart.
    #[serde(default)]
    pub restart: Restart,
    /// Whether they keep it although they did not reach the fleet from it.
    #[serde(default)]
    pub offline: bool,
}

/// Whether a rollout of an image still moves nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageRolloutState {
    /// It does, or will when a node comes that matches.
    #[default]
    Active,
    /// Every node that matches is told by a newer one.
    Superseded,
    /// Somebody has stopped it.
    Stopped,
}

/// A rollout of an image and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRollout {
    /// Its id.
    pub id: String,
    /// For which board.
    pub board: String,
    /// Version.
    pub version: ImageVersion,
    /// Which nodes.
    pub filter: String,
    /// When they may restart.
    pub restart: Restart,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
    /// Whether it still moves nodes.
    #[serde(default)]
    pub state: ImageRolloutState,
    /// Nodes it moves, and how far each is.
    pub nodes: Vec<ImageStep>,
    /// Nodes that keep it.
    pub done: u64,
    /// Nodes that refused it, or went back.
    pub failed: u64,
    /// Nodes that are not there yet.
    pub waiting: u64,
}

/// How far one node is with an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageStep {
    /// The node.
    pub node: NodeId,
    /// `done`, `failed` or `waiting`.
    pub step: String,
    /// Why it failed, or for what it waits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}
