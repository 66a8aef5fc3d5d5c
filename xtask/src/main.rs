//! `cargo xtask …`: what a person does with this repository, one command each.
//!
//! ```text
//! main (clap) ─▶ guests ─▶ sedge-build ─▶ target/guests/<name>.wasm
//!                  │
//!       progress (terminal) + log files under target/xtask
//! ```
//!
//! Nothing here is part of the product: it builds, starts and measures the product's own binaries.

mod guests;
mod progress;
mod tool;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Tasks of the Sedge repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build the example functions to target/guests, those whose sources changed
    Guests(guests::Options),
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            progress::failure(&error);
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    match Arguments::parse().task {
        Task::Guests(options) => guests::run(&options),
    }
}
