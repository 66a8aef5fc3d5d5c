//! What failed every attempt, of events and of asynchronous calls alike: listed, read, replayed, purged, through `sedge`.

use crate::support::{directory, function};
use anyhow::{Context as _, Result};
use fleet_tests::cli::Done;
use fleet_tests::process::{binary, run};
use fleet_tests::{Load, Node, artifact, cli, until};
use sedge_protocol::invocation::{Accepted, Invocation, InvocationState};
use sedge_protocol::local::{DeadLetter, DeadLetterHead, DeadLettersDone};
use serde::de::DeserializeOwned;
use std::process::Command;
use std::time::Duration;

fn sedge(node: &Node, arguments: &[&str]) -> Result<Done> {
    let mut command = Command::new(binary("sedge")?);
    Ok(cli::done(&run(command.args(arguments).arg("--node").arg(node.socket()))?))
}

fn asked<T: DeserializeOwned>(node: &Node, arguments: &[&str]) -> Result<T> {
    let done = sedge(node, &[arguments, &["--json"]].concat())?;
    serde_json::from_str(&done.stdout).with_context(|| format!("{arguments:?}: {done:?}"))
}

fn letters(node: &Node) -> Result<Vec<DeadLetterHead>> {
    asked(node, &["dead-letters"])
}

/// The same function, cured: `beat` answers everything.
fn cure(node: &Node) -> Result<()> {
    let mut manifest = artifact::manifest("faulty")?;
    manifest.retry.attempts = 2;
    node.give(&manifest, &artifact::guest("beat")?)?;
    Ok(())
}

#[test]
fn letters_of_events_and_calls_are_listed_read_replayed_and_purged() -> Result<()> {
    let directory = directory()?;
    let mut node = Node::start(directory.path(), "node-1", None)?;
    node.give(&artifact::manifest("faulty")?, &artifact::guest("faulty")?)?;
    let load = Load::start(node.mqtt(), Duration::from_millis(100), |_| ("test/faulty".to_owned(), "trap".to_owned()));
    until("two events are acknowledged", || Ok((load.acknowledged() >= 2).then_some(())))?;
    let events = load.stop()?.len();
    let calls = [node.call("/faulty/trap", &[], "payload of the call")?, node.call("/faulty/status", &[], "")?];
    until("all are given up", || Ok((letters(&node)?.len() == events + 2).then_some(())))?;
    // What is said of an end is on disk, and so is all that came before it.
    for call in calls {
        assert_eq!(node.over(call)?.state, InvocationState::Dead);
    }
    let found = letters(&node)?;
    let of_call = found.iter().find(|letter| letter.invocation == Some(calls[0])).context("the call is among them")?;
    assert_eq!((of_call.subject.as_str(), of_call.attempts), ("POST /faulty/trap", 3));
    let whole: DeadLetter = asked(&node, &["dead-letters", "show", &of_call.id.to_string()])?;
    assert_eq!(whole.letter.payload(), b"payload of the call");
    assert!(sedge(&node, &["dead-letters", "show", &of_call.id.to_string()])?.stdout.ends_with("payload of the call"));

    node.kill9()?;
    node.restart()?;
    assert_eq!(letters(&node)?, found, "they survive a kill");
    cure(&node)?;
    let one: DeadLettersDone = asked(&node, &["dead-letters", "replay", &of_call.id.to_string()])?;
    assert_eq!(one.done, 1);
    assert_eq!(node.over(calls[0])?.state, InvocationState::Succeeded, "under its old id");
    let rest: DeadLettersDone = asked(&node, &["dead-letters", "replay", "--function", "faulty"])?;
    assert_eq!((rest.done, rest.left.len()), (events as u64 + 1, 0));
    assert_eq!(node.over(calls[1])?.state, InvocationState::Succeeded);
    until("every event has run", || Ok((node.totals(&function("faulty"))?.calls_ok >= events as u64 + 2).then_some(())))?;
    assert_eq!(letters(&node)?, []);
    Ok(())
}

#[test]
fn purging_asks_first_and_what_was_purged_has_failed() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    node.give(&artifact::manifest("faulty")?, &artifact::guest("faulty")?)?;
    node.give(&artifact::manifest("average")?, &artifact::guest("average")?)?;
    let accepted: Accepted = asked(&node, &["invoke", "faulty", "--async", "--path", "/faulty/trap", "--method", "POST", "--key", "a"])?;
    let again: Accepted = asked(&node, &["invoke", "faulty", "--async", "--path", "/faulty/trap", "--method", "POST", "--key", "a"])?;
    assert_eq!(accepted.id, again.id);
    let shown = sedge(&node, &["invocation", "show", &accepted.id.to_string(), "--wait"])?;
    assert!(shown.code == Some(1) && shown.stdout.contains("dead"), "{shown:?}");
    assert_eq!(letters(&node)?.len(), 1);
    let asks = sedge(&node, &["dead-letters", "purge"])?;
    assert!(asks.code == Some(64) && asks.stderr.contains("--yes"), "{asks:?}");
    let other: DeadLettersDone = asked(&node, &["dead-letters", "purge", "--function", "average", "--yes"])?;
    assert_eq!((other.done, letters(&node)?.len()), (0, 1));
    let done: DeadLettersDone = asked(&node, &["dead-letters", "purge", "--yes"])?;
    assert_eq!((done.done, letters(&node)?), (1, vec![]));
    let purged: Invocation = asked(&node, &["invocation", "show", &accepted.id.to_string()])?;
    assert_eq!(purged.state, InvocationState::Failed);
    let gone = sedge(&node, &["dead-letters", "replay", "7"])?;
    assert!(gone.code == Some(1) && gone.stderr.contains("no dead letter 7"), "{gone:?}");

    let queued: Accepted = asked(&node, &["invoke", "faulty", "--async", "--path", "/faulty/ok", "--method", "POST"])?;
    let over: Invocation = asked(&node, &["invocation", "show", &queued.id.to_string(), "--wait"])?;
    assert_eq!(over.state, InvocationState::Succeeded);
    assert_eq!(sedge(&node, &["invocation", "result", &queued.id.to_string()])?.stdout, "ok");
    Ok(())
}
