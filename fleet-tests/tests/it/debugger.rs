//! A native debugger stops inside a function, at a line of its source.

use crate::support::directory;
use anyhow::{Context as _, Result};
use fleet_tests::cli::sedge;
use fleet_tests::process::{Process, binary};
use fleet_tests::until;
use serde_json::Value;
use std::fs;
use std::process::Command;

/// The first statement of the template.
const STATEMENT: &str = "let topic = ";

#[test]
#[ignore = "needs gdb, and compiles a guest without optimisation: minutes; `cargo xtask test --all`"]
fn gdb_stops_at_a_line_of_a_function_in_rust() -> Result<()> {
    let directory = directory()?;
    let dir = directory.path().join("sample");
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    sedge(None, &["new", "sample", "--template", "rust-command", "--path", &path(&dir)])?.success()?;
    let manifest = fs::read_to_string(dir.join("function.toml"))?;
    // The time of the function goes on while somebody looks.
    fs::write(dir.join("function.toml"), manifest.replace("timeout_ms = 1000", "timeout_ms = 60000"))?;
    let source = dir.join("src/main.rs");
    let text = fs::read_to_string(&source)?;
    let line = 1 + text.lines().position(|line| line.contains(STATEMENT)).context("the template has that line")?;

    let mut command = Command::new(binary("sedge")?);
    let mut run = Process::start("sedge run", command.args(["run", &path(&dir), "--debug", "--json"]), &directory.path().join("run"))?;
    let started: Value = until("it runs", || {
        anyhow::ensure!(run.status()?.is_none(), "it ended: {}", run.log()?);
        Ok(run.log()?.lines().find(|line| line.starts_with('{')).map(serde_json::from_str).transpose()?)
    })?;
    let (attach, socket) = (started["debug"].as_str().context("the command")?, started["socket"].as_str().context("the socket")?);
    assert!(attach.contains(&format!("break {}:LINE", fs::canonicalize(&source)?.display())), "{attach}");

    let commands = attach.replace("LINE", &line.to_string()).replacen("gdb ", "exec gdb -batch ", 1) + " -ex backtrace -ex detach";
    let mut gdb = Process::start("gdb", Command::new("sh").args(["-c", &commands]), &directory.path().join("gdb"))?;
    until("gdb waits for the breakpoint", || {
        anyhow::ensure!(gdb.status()?.is_none(), "gdb ended: {}", gdb.log()?);
        Ok(gdb.log()?.contains("Breakpoint 1").then_some(()))
    })?;
    let invoked = sedge(None, &["invoke", "sample", "--topic", "sample/a", "--data", "hello", "--node", socket])?;
    gdb.ended()?;
    let said = gdb.log()?;
    assert!(said.contains(&format!("main.rs:{line}")) && said.contains(STATEMENT), "{said}");
    assert!(invoked.stdout.contains("5 bytes from sample/a"), "it goes on to its end: {invoked:?}");
    run.terminate()?;
    assert!(run.ended()?.success());
    Ok(())
}
