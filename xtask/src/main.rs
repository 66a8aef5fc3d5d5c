//! `cargo xtask …`: what a person does with this repository, one command each.
//!
//! ```text
//! main (clap) ─▶ guests ─▶ sedge-build ─▶ target/guests/<name>.wasm      demo  ─┐
//!                  │                                                     bench ─┴▶ stage: fleet, nodes, their APIs
//!       progress (terminal) + log files under target/xtask               test, ci ─▶ cargo, tidy
//! ```
//!
//! Nothing here is part of the product: it builds, starts and measures the product's own binaries.

mod bench;
mod binaries;
mod ci;
mod compiler;
mod demo;
mod guests;
mod image;
mod install;
mod progress;
mod stage;
mod test;
mod tidy;
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
    /// Show the whole thing: a fleet, nodes, sensors, rollouts, usage
    Demo(demo::Options),
    /// Run every test, those with real processes included; installs what they lack
    Test(test::Options),
    /// The whole check: format, lints, documentation, tests, tidiness, the other processor, fuzz targets
    Ci(ci::Options),
    /// Check what no compiler checks: length of files, words, nothing postponed
    Tidy,
    /// Make the disk image of a node, from the recipe below image/
    Image(image::Options),
    /// Measure one node on this machine: requests, events, latency, memory, wear of the disk
    Bench(bench::Options),
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
        Task::Demo(options) => demo::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Ci(options) => ci::run(&options),
        Task::Tidy => tidy::run(),
        Task::Image(options) => image::run(&options),
        Task::Bench(options) => bench::run(&options),
    }
}
