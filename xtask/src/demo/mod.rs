//! `cargo xtask demo`: the whole thing on one machine, from the sensor to the console.
//!
//! ```text
//! sensors, caller ─▶ three sedged ─ QUIC ─▶ sedge-fleet ◀─ sedge publish, rollout
//!                        │                      │
//!                        └── local API ──▶ View ◀── REST ──▶ table (each second), verdict (at the end)
//! ```
//!
//! Everything it does to the product, a person could do with `sedge` and two configuration files; it has no other way in.

mod check;
mod directory;
mod play;
mod table;
mod traffic;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use sedge_protocol::schedule::Interval;
use tokio::signal::unix::{SignalKind, signal};

use crate::binaries::{self, Profile};
use crate::{guests, workspace};
use directory::Directory;
use play::Play;

/// What the demonstration rolls out, in this order.
const FUNCTIONS: [&str; 4] = ["hello", "average", "convert", "beat"];
/// The artifact of `average`'s second revision.
const SECOND: &str = "average-v2";

/// How to show it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// End by itself after this time, such as 30s, and exit with 1 if any link of the chain did not do its part
    #[arg(long = "for", value_name = "TIME")]
    duration: Option<Interval>,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// Go on where the run before ended: identities, functions and state stay
    #[arg(long)]
    keep: bool,
    /// Where everything is kept [default: target/demo]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Events a second that the sensors of each node send
    #[arg(long, default_value_t = 10.0, value_parser = rate)]
    rate: f64,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.1..=10_000.0).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err("write a number from 0.1 to 10000".to_owned()),
    }
}

/// Builds what is missing, shows it, stops it.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    guests::run(&guests::Options::of(&[FUNCTIONS.as_slice(), &[SECOND]].concat()))?;
    let binaries = binaries::build(Profile::Dev)?;
    let path = options.dir.clone().unwrap_or_else(|| workspace::target().join("demo"));
    let directory = Directory::take(&path, options.keep)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
        let mut play = Play::new(options.clone(), directory, binaries);
        let cut = tokio::select! {
            played = play.run() => {
                play.fail_with(played);
                false
            }
            _ = terminate.recv() => true,
            _ = interrupt.recv() => true,
        };
        play.end(cut)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_that_makes_sense() {
        assert_eq!(rate("2.5"), Ok(2.5));
        for wrong in ["0", "-1", "nan", "inf", "x", "1e9"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
