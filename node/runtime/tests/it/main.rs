//! The runtime from outside: artifacts go in, results and usage come out.

#![expect(clippy::unwrap_used, reason = "a test may fail by panic, its helpers too")]

mod cache;
mod command;
mod component;
mod files;
mod guests;
mod instructions;
mod languages;
mod limits;
mod outgoing;
mod reuse;
mod scratch;
mod server;
mod sockets;
mod support;
mod trap;
mod wasi03;
mod wasi03_reach;
