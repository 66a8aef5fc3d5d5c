//! `sedge-fleet`: parses the command line, starts the fleet, ends it on SIGTERM or SIGINT.

use anyhow::Context;
use clap::{Parser, Subcommand};
use sedge_fleet::{Config, Fleet, Running, StartError};
use sedge_protocol::strict::Faults;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Configuration that cannot be used.
const EXIT_CONFIGURATION: u8 = 78;
/// A command line that cannot be used.
const EXIT_USAGE: u8 = 64;

/// The fleet registry: enrols gateways, rolls functions out to them, keeps their usage.
#[derive(Debug, Parser)]
#[command(name = "sedge-fleet", version, max_term_width = 100)]
struct Arguments {
    /// Where everything is kept; goes before the configuration's `data_dir`
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// The configuration, TOML; without one every key has its default
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say everything that is wrong in the configuration, and start nothing
    CheckConfig,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(fault) => {
            let failed = fault.use_stderr();
            drop(fault.print());
            return if failed { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    run(&arguments).unwrap_or_else(|fault| {
        say_error(&format!("sedge-fleet: {fault:#}"));
        let misconfigured = fault.is::<Faults>() || matches!(fault.downcast_ref(), Some(StartError::Listen(_)));
        ExitCode::from(if misconfigured { EXIT_CONFIGURATION } else { 1 })
    })
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = configuration(arguments)?;
    if matches!(arguments.command, Some(Command::CheckConfig)) {
        say("the configuration is good");
        return Ok(ExitCode::SUCCESS);
    }
    start_log()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(serve(config))
}

fn configuration(arguments: &Arguments) -> anyhow::Result<Config> {
    let mut config = match &arguments.config {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            Config::from_toml(&path.display().to_string(), &text)?
        }
        None => Config::default(),
    };
    if let Some(data) = &arguments.data {
        config.data_dir.clone_from(data);
    }
    Ok(config)
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let running = Fleet::start(config).await.context("start the fleet")?;
    introduce(&running);
    notify(sd_notify::NotifyState::Ready);
    let watchdog = sd_notify::watchdog_enabled().map(|period| period / 3);
    let well = loop {
        tokio::select! {
            _ = terminate.recv() => break true,
            _ = interrupt.recv() => break true,
            () = running.failed() => break false,
            () = tokio::time::sleep(watchdog.unwrap_or_default()), if watchdog.is_some() => notify(sd_notify::NotifyState::Watchdog),
        }
    };
    notify(sd_notify::NotifyState::Stopping);
    let ended_well = running.shutdown().await;
    Ok(if well && ended_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn introduce(running: &Running) {
    let addresses = running.addresses();
    let first = if running.is_new() { "first start: made the certificate authority and the admin token\n" } else { "" };
    say(&format!(
        "{first}console and API  {}\nnodes connect to {}\nCA pin           {}\nadmin token      {}",
        addresses.console,
        addresses.sync,
        addresses.ca_pin,
        addresses.admin_token_file.display()
    ));
}

/// Under systemd the journal gets every field; elsewhere people read stderr.
fn start_log() -> anyhow::Result<()> {
    if systemd_journal_logger::connected_to_journal() {
        systemd_journal_logger::JournalLog::new().context("open the journal")?.install().context("install the log")?;
        log::set_max_level(log::LevelFilter::Info);
    } else {
        let environment = env_logger::Env::default().default_filter_or("info,sqlx=warn,quinn=warn");
        env_logger::Builder::from_env(environment).try_init().context("install the log")?;
    }
    Ok(())
}

/// Tells systemd, where there is one.
fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(cause) = sd_notify::notify(&[state]) {
        log::debug!(cause:err; "systemd not told");
    }
}

#[expect(clippy::print_stdout, reason = "what was asked for goes to stdout")]
fn say(text: &str) {
    println!("{text}");
}

fn say_error(text: &str) {
    eprintln!("{text}");
}
