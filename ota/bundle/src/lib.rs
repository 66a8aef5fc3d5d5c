//! The bundle that brings a new version of the operating system to nodes.
//!
//! ```text
//!  kernel image ─┐                       ┌─ head ─ magic, manifest, signatures
//!  root image  ──┴─▶ write ─▶ *.sedge-os ┤
//!   (chunks where their content says)    └─ chunks, each packed by itself, each once
//!
//!  head ─▶ Head ─ verify(trust) ─▶ Manifest ─▶ Index of what a node has ─▶ Missing: ranges to fetch ─▶ unpack ─▶ check
//! ```
//!
//! Cut by content, most of a new version is found in the slots that a node has, wherever it has moved to; a node that has nothing of it fetches
//! all ranges, which is the whole file. Invariants: nothing of a manifest is read before its signature holds ([`Head::verify`], the one
//! place that trusts); a chunk is what its digest says or it is refused; every length has a bound.
//! Absent on purpose: sockets, disks of nodes, the decision whether a version may be installed (`sedge-node-core`, `update`).

mod chunk;
mod head;
mod missing;
mod trust;
mod write;

pub use chunk::{CHUNK_BYTES_MAX, ChunkFault, Index, cut, digest, unpack};
pub use head::{Chunk, HEAD_BYTES_MAX, Head, HeadError, Manifest, Part, Unproven};
pub use missing::{Missing, missing};
pub use trust::{KeyFault, KeyId, SigningKey, Trust, TrustError, VerifyError};
pub use write::{About, WriteError, Written, write};
