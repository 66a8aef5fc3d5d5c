//! `sedge`: the command line of Sedge, from a new function to a rollout, and what became of it.
//!
//! ```text
//!                    ┌─ sedge-build ──▶ artifact ─ inspect ─┐
//!  function.toml ────┤                                      ├─ HTTPS, CA pinned ──▶ fleet   publish, rollout, usage, …
//!                    └─ manifest ───────────────────────────┤
//!                                                           └─ Unix socket ───────▶ node    run, logs, invoke, …
//! ```
//!
//! Invariants: output for people and machines goes to stdout, talk to stderr; `--json` prints the API's own bodies; text that comes
//! from elsewhere is cleaned of control characters before a terminal sees it; a token is sent only to the fleet it belongs to.
//! Exit codes: 0 done, 1 failed, 64 usage, 78 configuration. Only [`output`] prints.
//! Absent on purpose: decisions. The fleet and the node check everything again.

mod arguments;
mod client;
mod command;
mod connection;
mod event_file;
mod failure;
mod output;
mod project;
mod signal;
mod style;
mod table;
#[cfg(test)]
mod test;
mod text;
mod trace_view;
mod unix;

use arguments::Arguments;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(refusal) => return output::usage(&refusal),
    };
    match arguments.run() {
        Ok(code) => code,
        Err(error) => output::failure(&error),
    }
}
