//! `sedge-fleet`: enrolment, revisions, rollouts, usage, in one process.
//!
//! ```text
//!  sedge, browser ── HTTPS ──▶ http ──┐                          ┌──▶ artifacts (files)
//!  new box ── HTTPS /enrol ──▶ http ──┼──▶ store (SQLite or PostgreSQL) ──▶ desired states that changed
//!  node ── QUIC, mutual TLS ─▶ sync ──┤                                        │
//!               ▲                     └──▶ hub: who is connected, what it said ◀┘
//!               └── Desired ◀── watch ────────┘      │
//!                                                    └──▶ view: what API and console show
//! ```
//!
//! Invariants: what is answered is durable; a node's desired epoch only grows; usage is applied exactly once; the console can
//! do nothing that the API cannot; a connection that misbehaves harms itself alone.
//! Absent on purpose: decisions (they are in `sedge-fleet-core`), signatures of revisions and price plans (issues of their own).

mod artifacts;
pub mod config;
mod durable;
mod farewell;
mod fleet;
mod http;
mod hub;
mod keys;
mod limits;
mod rate;
pub mod store;
mod supervisor;
mod sync;
mod view;

pub use config::{Certificates, Config};
pub use fleet::{Addresses, Fleet, ListenFault, Running, StartError};
