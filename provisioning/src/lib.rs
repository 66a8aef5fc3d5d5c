//! How a box becomes a node, and proves ever after that it is one. Shared by node and fleet.
//!
//! ```text
//!        node                                                        fleet
//!  key ─▶ csr ─▶ client::enrol ──── HTTPS, CA pinned ────▶ claim ─▶ issuer::Authority ─▶ certificate of days
//!  Enrolment (pure): Unclaimed → Claimed → Enrolled ⇄ Renewing → Revoked
//!  Identity ─▶ tls::client_config ── QUIC, mutual TLS 1.3 ──▶ tls::server_config ─▶ identity::node_of
//! ```
//!
//! Invariants: a node's key never leaves the node; a certificate takes nothing from a request but its key; who has only the
//! pin trusts only a server whose chain ends in exactly that authority; a clock that is wrong never keeps a box from enrolling.
//! Absent on purpose: files, retries, threads, revocation lists (the fleet refuses an unknown or removed node by itself).

pub mod bundle;
pub mod claim_file;
pub mod client;
pub mod clock;
pub mod enrolment;
pub mod identity;
pub mod issuer;
pub mod node_file;
mod pinned;
pub mod ssh_key;
pub mod tls;

pub use claim_file::{ClaimFile, Membership};
pub use client::{EnrolError, come_back, enrol};
pub use enrolment::Enrolment;
pub use identity::{Identity, KeyPem, csr, new_key};
pub use issuer::Authority;
pub use ssh_key::SshKey;
