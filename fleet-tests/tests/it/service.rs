//! As services of systemd: what the daemons tell their service manager, over its own socket.

use crate::support::directory;
use anyhow::{Context as _, Result};
use fleet_tests::process::{Process, binary};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What systemd sets for `WatchdogSec=`; small, so that the test need not wait.
const WATCHDOG: Duration = Duration::from_millis(600);
/// Longest wait for one notice.
const NOTICE_MAX: Duration = Duration::from_secs(60);

/// Starts `program` as systemd would, and follows what it says until it has ended.
fn run_as_service(program: &str, directory: &Path, config: &str) -> Result<()> {
    let socket = directory.join("notify");
    let manager = UnixDatagram::bind(&socket)?;
    manager.set_read_timeout(Some(NOTICE_MAX))?;
    let file = directory.join("config.toml");
    fs::write(&file, config)?;
    let mut command = Command::new(binary(program)?);
    command.arg("--config").arg(&file).env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    let mut process = Process::start(program, &mut command, &directory.join("log"))?;

    assert_eq!(notices(&manager)?, ["READY=1".to_owned()].into(), "the first thing that is said");
    for _ in 0..3 {
        assert_eq!(notices(&manager)?, ["WATCHDOG=1".to_owned()].into());
    }
    process.terminate()?;
    let ended = process.ended()?;
    assert!(ended.success(), "{program} ended with {ended}");
    loop {
        let said = notices(&manager)?;
        if said == ["STOPPING=1".to_owned()].into() {
            return Ok(());
        }
        assert_eq!(said, ["WATCHDOG=1".to_owned()].into(), "nothing else is said before the end");
    }
}

/// The next message, line by line.
fn notices(manager: &UnixDatagram) -> Result<BTreeSet<String>> {
    let mut buffer = [0; 512];
    let length = manager.recv(&mut buffer).context("the daemon says nothing")?;
    Ok(String::from_utf8_lossy(&buffer[..length]).lines().map(ToOwned::to_owned).collect())
}

#[test]
fn a_node_says_that_it_is_ready_alive_and_stopping() -> Result<()> {
    let directory = directory()?;
    let path = directory.path().display();
    let config = format!("data_dir = '{path}/data'\n[http]\nlisten = '127.0.0.1:0'\n[local]\nsocket = '{path}/socket'\n");
    run_as_service("sedged", directory.path(), &config)
}

#[test]
fn a_fleet_says_that_it_is_ready_alive_and_stopping() -> Result<()> {
    let directory = directory()?;
    let path = directory.path().display();
    let config = format!("data_dir = '{path}/data'\n[https]\nlisten = '127.0.0.1:0'\n[sync]\nlisten = '127.0.0.1:0'\n");
    run_as_service("sedge-fleet", directory.path(), &config)
}
