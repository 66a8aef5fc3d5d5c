//! A fleet in this process, spoken to as `sedge` and `sedged` do: over real HTTPS and QUIC on loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod api;
mod console;
mod enrolment;
mod identity;
mod postgres;
mod start;
mod storage;
mod support;
mod sync;
