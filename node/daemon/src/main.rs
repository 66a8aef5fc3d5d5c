//! `sedged`: the node daemon.
//!
//! ```text
//!  MQTT clients ─▶ broker ─┐                                      ┌─▶ invoke ─▶ runtime (Wasm) ─▶ host ─▶ store, bus, log
//!  timers ─────────────────┼─▶ bus (queue, subscriptions) ────────┤       │
//!  functions' messages ────┘                                      │       └─▶ meter ─▶ ledger ─┐
//!  HTTP requests ───────┬─────────────────────────────────────────┤                            ▼
//!                       └─▶ asynchronous (keys, leases, answers) ─┘                            │
//!  desired state ◀─ session (QUIC) ─▶ assigner ─▶ functions      session ◀─ reports, usage ── fleet
//! ```
//!
//! Invariants: an event of QoS ≥ 1 is acknowledged only after it is durable or done; a revision takes invocations only after its
//! artifact's digest, its rules and its code were checked; every task is spawned by the supervisor and a task that panics ends the process.
//! Absent on purpose: decisions (node/core), formats (ota/protocol), disk layout (node/store).

mod assigner;
mod asynchronous;
mod bundle;
mod bundle_fetch;
mod bus;
mod chunks;
mod clock;
mod compile;
mod config;
mod daemon;
mod dead_letters;
mod depth;
mod device;
mod dumps;
mod enrol;
mod executor;
mod fault;
mod fetch;
mod functions;
mod gate;
mod holding;
mod host;
mod http;
mod invoke;
mod limits;
mod local;
mod log_setup;
mod logs;
mod member;
mod meter;
mod os;
mod secrets;
mod serve;
mod session;
mod state;
mod supervisor;
mod telemetry;
mod timers;
mod usage_sync;
mod vault;
mod vitals;
mod warm;
mod watch;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for a configuration that cannot be used.
const EXIT_CONFIG: u8 = 78;
/// Exit code for a command line that cannot be used.
const EXIT_USAGE: u8 = 64;

/// The Sedge node daemon: runs functions next to the sensors.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// Configuration file.
    #[arg(long, short, env = "SEDGED_CONFIG", default_value = "/etc/sedge/sedged.toml", global = true)]
    config: PathBuf,
    /// Configuration whose keys go before those of the other file, as an operator's do in the image. The daemon goes on without it when it
    /// is not there or cannot be used.
    #[arg(long, value_name = "FILE", global = true)]
    over: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the daemon in the foreground (the default).
    Run,
    /// Checks the configuration and lists every fault, without starting anything.
    CheckConfig,
    /// Compiles one artifact under limits; the daemon starts it by itself.
    #[command(hide = true)]
    Compile(compile::Arguments),
    /// Keeps the operating system of an image: its own process, with the rights that the daemon lacks; systemd starts it.
    #[command(hide = true)]
    Os(os::Arguments),
    /// Brings a bundle from a USB stick to where the daemon finds it; udev has systemd start it.
    #[command(hide = true)]
    Stick(os::StickArguments),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
            let _printed = error.print();
            return code;
        }
    };
    let command = arguments.command.unwrap_or(Command::Run);
    let command = match command {
        Command::Compile(arguments) => return compile::run(arguments),
        Command::Os(keeper) => return os::run(keeper, arguments.config),
        Command::Stick(stick) => return os::run_stick(&stick),
        command @ (Command::Run | Command::CheckConfig) => command,
    };
    // Before the configuration is read, which may have something to say.
    log_setup::init();
    if matches!(command, Command::CheckConfig) {
        return check(&arguments.config, arguments.over.as_deref());
    }
    // What the keeper has put there it has checked. A file that went bad since is no reason to leave the box without its node.
    let over = arguments.over.filter(|over| over.exists());
    let laid_over = over.and_then(|over| {
        let refused = |faults| log::error!(reason:% = faults; "the configuration goes on without the file that is laid over it");
        config::load(&arguments.config, Some(&over)).map_err(refused).ok()
    });
    match laid_over.map_or_else(|| config::load(&arguments.config, None), Ok) {
        Ok(config) => run(config),
        Err(faults) => refuse(&faults.to_string()),
    }
}

fn check(config: &Path, over: Option<&Path>) -> ExitCode {
    match config::load(config, over) {
        Ok(_) => {
            say(&format!("{}: no faults", over.unwrap_or(config).display()));
            ExitCode::SUCCESS
        }
        Err(faults) => refuse(&faults.to_string()),
    }
}

fn run(config: config::Config) -> ExitCode {
    match daemon::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(daemon::StartError::Config(faults)) => refuse(&faults.join("\n")),
        Err(daemon::StartError::Failed(error)) => {
            log::error!(error:% = format!("{error:#}"); "the daemon failed");
            ExitCode::FAILURE
        }
    }
}

fn refuse(faults: &str) -> ExitCode {
    #[expect(clippy::print_stderr, reason = "the list of faults is what the operator reads")]
    {
        eprintln!("{faults}");
    }
    ExitCode::from(EXIT_CONFIG)
}

fn say(text: &str) {
    #[expect(clippy::print_stdout, reason = "the answer to check-config")]
    {
        println!("{text}");
    }
}
