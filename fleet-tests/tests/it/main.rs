//! What must happen, with real processes: the main path, and every row of the table of bad input and faults.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(clippy::print_stdout, reason = "seeds and counts belong to the result of a test")]

mod artifact;
mod asynchronous;
mod bomb;
mod callback;
mod chain;
mod claim;
mod config;
mod damage;
mod dead_letters;
mod debugger;
mod desk;
mod device;
mod device_booted;
mod examples;
mod fault;
mod flash;
mod flash_disk;
mod full_disk;
mod group;
mod hostile;
mod identity;
mod image;
mod ledger;
mod main_path;
mod offline;
mod pace;
mod places;
mod power_cut;
mod reach;
mod refusal;
mod rollout;
mod scratch;
mod service;
mod support;
mod systemd;
mod telemetry;
mod templates;
mod update;
mod update_booted;
mod warnings;
