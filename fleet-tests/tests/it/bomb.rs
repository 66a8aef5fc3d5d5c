//! Artifacts that are there to hurt whoever takes them in: refused by their size, or stopped while they are compiled.

use crate::support::{directory, function};
use anyhow::Result;
use fleet_tests::{Node, artifact, until};
use http::Method;
use sedge_protocol::limits::FUNCTION_BODY_BYTES_MAX;
use sedge_protocol::local::LocalRevision;
use sedge_protocol::message::FunctionState;
use sedge_protocol::{Digest, Manifest};
use std::path::Path;
use std::process::Command;

/// Gives a node a function and does not wait.
fn offer(node: &Node, manifest: &Manifest, wasm: &[u8]) -> Result<()> {
    let artifact = Digest::of(wasm);
    let answer = node.ask(Method::PUT, &format!("/v1/artifacts/{artifact}"), wasm.to_vec())?;
    anyhow::ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.text());
    let body = serde_json::to_vec(&LocalRevision { artifact, manifest: manifest.clone() })?;
    let answer = node.ask(Method::PUT, &format!("/v1/functions/{}", manifest.name), body)?;
    anyhow::ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.text());
    Ok(())
}

/// Why the node does not run the function; meanwhile another one is asked again and again.
fn refused(node: &Node, name: &str) -> Result<String> {
    until(&format!("{name} is refused"), || {
        anyhow::ensure!(node.fetch("/hello")?.status.as_u16() == 200, "the other function answers");
        let report = node.status()?.functions.into_iter().find(|report| report.function.as_str() == name);
        Ok(match report.map(|report| report.state) {
            Some(FunctionState::Failed { reason }) => Some(reason),
            _ => None,
        })
    })
}

/// Compiling processes of this node.
fn compilers(node: &Node) -> Result<usize> {
    let parent = node.process().id().to_string();
    let listed = Command::new("ps").args(["--ppid", &parent, "-o", "args="]).output()?;
    Ok(String::from_utf8_lossy(&listed.stdout).lines().filter(|line| line.contains(" compile ")).count())
}

fn bomb(name: &str) -> Result<(Manifest, Vec<u8>)> {
    let body = usize::try_from(FUNCTION_BODY_BYTES_MAX)? - 64;
    Ok((artifact::manifest_of(&format!("name = '{name}'\n"))?, artifact::laborious(40, body)))
}

/// A node that runs `hello`, compiled before its bounds of compilation became narrow.
fn narrow(directory: &Path, bound: &str) -> Result<Node> {
    let mut node = Node::start(directory, "node-1", None)?;
    let revision = node.give(&artifact::manifest("hello")?, &artifact::guest("hello")?)?;
    assert_eq!(node.stop()?.code(), Some(0));
    node.configure(&format!("machine = {{ {bound} }}\n"))?;
    node.restart()?;
    node.runs(&function("hello"), revision)?;
    Ok(node)
}

#[test]
fn a_compilation_that_takes_too_long_is_stopped_and_holds_nobody_up() -> Result<()> {
    let directory = directory()?;
    let node = narrow(directory.path(), "compile_s = 2")?;
    let (manifest, wasm) = bomb("long")?;
    offer(&node, &manifest, &wasm)?;
    until("a process compiles it", || Ok((compilers(&node)? == 1).then_some(())))?;
    let reason = refused(&node, "long")?;
    assert!(reason.contains("compiling took longer than 2 s") && reason.contains("machine.compile_s"), "{reason}");
    assert_eq!(compilers(&node)?, 0, "nothing of it goes on");
    Ok(())
}

#[test]
fn a_compilation_that_needs_too_much_memory_ends_alone() -> Result<()> {
    let directory = directory()?;
    let node = narrow(directory.path(), "compile_mb = 320")?;
    let (manifest, wasm) = bomb("large")?;
    offer(&node, &manifest, &wasm)?;
    let reason = refused(&node, "large")?;
    assert!(reason.contains("needed more than 320 MiB of memory") && reason.contains("machine.compile_mb"), "{reason}");
    Ok(())
}

#[test]
fn a_compiling_process_goes_with_its_daemon() -> Result<()> {
    let directory = directory()?;
    let mut node = Node::start(directory.path(), "node-1", None)?;
    let (manifest, wasm) = bomb("orphan")?;
    offer(&node, &manifest, &wasm)?;
    let mark = Digest::of(&wasm).to_string();
    let running = || -> Result<bool> {
        let listed = Command::new("ps").args(["-e", "-o", "args="]).output()?;
        Ok(String::from_utf8_lossy(&listed.stdout).lines().any(|line| line.contains(" compile ") && line.contains(&mark)))
    };
    until("a process compiles it", || Ok(running()?.then_some(())))?;
    node.kill9()?;
    node.ended()?;
    until("it is gone", || Ok((!running()?).then_some(())))
}
