//! The words that node, fleet and command line say to each other: parse and validate, nothing else.
//!
//! ```text
//!  function.toml ──▶ Manifest ─┐                                    ┌─▶ Assignment ─▶ node
//!  *.wasm ─▶ inspect ─▶ Kind ──┴─▶ Revision ─▶ fleet ─▶ message ─▶ frame
//!  node ─▶ Report, UsageRecord ─▶ message ─▶ frame ─────────────────▶ fleet
//! ```
//!
//! Invariants: an identifier exists only in its parsed form; every decoder has a bound (`limits`) and never panics on
//! hostile bytes; on the wire unknown fields are ignored, in files written by people they are errors.
//! Absent on purpose: sockets, files, clocks, decisions.

pub mod api;
pub mod artifact;
pub mod assets;
pub mod enrol;
pub mod event;
pub mod frame;
pub mod id;
pub mod image;
pub mod invocation;
pub mod label;
pub mod limits;
pub mod local;
pub mod manifest;
pub mod message;
pub mod nearest;
pub mod schedule;
pub mod standing;
pub mod strict;
pub mod topic;
pub mod usage;

pub use event::Event;
pub use id::{Digest, FunctionName, NodeId, RevisionId};
pub use label::Labels;
pub use manifest::Manifest;
pub use standing::Standing;
pub use topic::{Topic, TopicFilter};
