//! What somebody meets who is new: two functions that want the same, names that are wrong, a node that comes and goes.

use super::{event, node, project, text};
use crate::support::{directory, fleet_with_node, function};
use anyhow::{Context as _, Result};
use fleet_tests::cli::sedge;
use fleet_tests::process::{Process, binary};
use fleet_tests::{Node, artifact, until};
use http::Method;
use sedge_protocol::local::LogEntry;
use sedge_protocol::message::{FunctionReport, LostRoute};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A function like `hello` with a route.
fn hello(directory: &Path, name: &str) -> Result<String> {
    let directory = directory.join(name);
    fs::create_dir(&directory)?;
    fs::write(directory.join("a.wasm"), artifact::guest("hello")?)?;
    fs::write(directory.join("function.toml"), format!("name = '{name}'\n[[trigger]]\nhttp = '/shared/*'\n"))?;
    Ok(text(&directory.join("a.wasm")))
}

fn lost(reports: &[FunctionReport], name: &str) -> Result<Vec<LostRoute>> {
    let report = reports.iter().find(|report| report.function == function(name)).context("it is there")?;
    Ok(report.health.lost_routes.clone())
}

#[test]
fn of_two_functions_with_one_route_the_later_name_serves_it_and_both_are_told() -> Result<()> {
    const SAID: &str = "`alpha` and `beta` have the same route /shared/*: `beta` serves it, `alpha` does not";
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    let socket = text(&node.socket());
    let [alpha, beta] = [hello(directory.path(), "alpha")?, hello(directory.path(), "beta")?];
    let publish = |wasm: &str| sedge(None, &["publish", wasm, "--node", &socket]);
    let first = publish(&beta)?;
    assert!(first.code == Some(0) && !first.stderr.contains("conflict"), "{first:?}");
    for wasm in [&alpha, &beta] {
        let done = publish(wasm)?;
        assert!(done.code == Some(0) && (done.stderr.contains(SAID) || wasm == &beta), "{done:?}");
    }
    assert_eq!(node.fetch("/shared/x")?.status.as_u16(), 200);
    let calls = |name: &str| Ok::<_, anyhow::Error>(node.totals(&function(name))?.calls());
    until("it is counted", || Ok((calls("alpha")? + calls("beta")? == 1).then_some(())))?;
    assert_eq!(calls("beta")?, 1);
    let reports = node.status()?.functions;
    assert_eq!(lost(&reports, "alpha")?, [LostRoute { route: "/shared/*".parse()?, served_by: function("beta") }]);
    assert_eq!(lost(&reports, "beta")?, []);
    for command in ["ls", "status"] {
        let shown = sedge(None, &[command, "--node", &socket])?.success()?;
        assert!(shown.contains("`beta` serves the route /shared/*"), "{shown}");
    }
    let log = node.process().log()?;
    let told = |line: &str| ["two functions have the same route", "alpha", "beta", "/shared/*"].iter().all(|word| line.contains(word));
    assert!(log.lines().any(told), "{log}");
    sedge(None, &["rm", "beta", "--yes", "--node", &socket])?.success()?;
    until("the route is alpha's", || Ok(lost(&node.status()?.functions, "alpha")?.is_empty().then_some(())))?;
    assert_eq!(node.fetch("/shared/x")?.status.as_u16(), 200);
    until("it is counted", || Ok((calls("alpha")? == 1).then_some(())))?;
    Ok(())
}

#[test]
fn a_rollout_that_takes_a_route_from_another_function_says_so() -> Result<()> {
    let directory = directory()?;
    let (fleet, _node) = fleet_with_node(&directory)?;
    for (name, expected) in [("beta", None), ("alpha", Some("`alpha` and `beta` have the same route /shared/*"))] {
        sedge(Some(&fleet.data()), &["publish", &hello(directory.path(), name)?])?.success()?;
        let done = sedge(Some(&fleet.data()), &["rollout", name, "--wait"])?;
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(done.stderr.contains("conflict"), expected.is_some(), "{done:?}");
        assert!(done.stderr.contains(expected.unwrap_or_default()), "{done:?}");
    }
    let shown = sedge(Some(&fleet.data()), &["ls"])?.success()?;
    assert!(shown.contains("`beta` serves the route /shared/*"), "{shown}");
    Ok(())
}

#[test]
fn a_build_names_every_grant_that_is_missing_with_its_line() -> Result<()> {
    let directory = directory()?;
    let dir = directory.path().join("reach");
    project(&dir, "reach", "")?;
    fs::write(dir.join("function.toml"), "name = 'reach'\n[build]\ncommand = 'true'\nartifact = 'source'\n")?;
    let done = sedge(None, &["build", &text(&dir)])?;
    assert_eq!(done.code, Some(1), "{done:?}");
    for line in ["keyvalue = [\"default\"]", "blobstore = [\"files\"]"] {
        assert!(done.stderr.contains(&format!("add `{line}` under [access] in function.toml")), "{line}: {done:?}");
    }
    Ok(())
}

#[test]
fn dead_letters_are_shown_to_machines_as_event_files_and_wrong_names_are_errors() -> Result<()> {
    let directory = directory()?;
    let (node, socket) = node(directory.path())?;
    let load =
        fleet_tests::Load::start(node.mqtt(), std::time::Duration::from_millis(5), |_| ("test/faulty".to_owned(), "trap".to_owned()));
    until("an event is given up", || Ok((node.status()?.vitals.dead_letters > 0).then_some(())))?;
    load.stop()?;
    let letters: Value = sedge(None, &["dead-letters", "--node", &socket, "--json"])?.json()?;
    let id = letters[0]["id"].to_string();
    let letter: Value = sedge(None, &["dead-letters", "show", &id, "--node", &socket, "--json"])?.json()?;
    assert_eq!((&letter["event"]["data"], &letter["event"]["topic"]), (&"trap".into(), &"test/faulty".into()), "{letter}");
    let file = directory.path().join("again.json");
    fs::write(&file, letter["event"].to_string())?;
    let again = sedge(None, &["invoke", "faulty", "--event", &text(&file), "--node", &socket])?;
    assert!(again.code == Some(1) && again.stderr.contains("unreachable"), "it traps as before: {again:?}");
    for command in [&["replay"][..], &["purge", "--yes"]] {
        let of = |name: &str| sedge(None, &[&["dead-letters"], command, &["--function", name, "--node", &socket]].concat());
        let done = of("falty")?;
        assert!(done.code == Some(1) && done.stderr.contains("no function called `falty` is on this node"), "{done:?}");
        assert!(done.stderr.contains("did you mean `faulty`?"), "{done:?}");
        assert_eq!(of("average")?.code, Some(0), "it has none, and that is no error");
    }
    node.ask(Method::DELETE, "/v1/functions/faulty", "")?;
    until("it is gone", || Ok(node.running(&function("faulty"))?.is_none().then_some(())))?;
    let done = sedge(None, &["dead-letters", "purge", "--yes", "--function", "faulty", "--node", &socket])?;
    assert!(done.code == Some(0) && !done.stderr.contains("removed 0 "), "those of a function that is gone count: {done:?}");
    Ok(())
}

#[test]
fn cases_give_secrets_and_one_without_a_value_is_told() -> Result<()> {
    const FILE: &str = "tests/.secrets.toml";
    let directory = directory()?;
    let dir = directory.path().join("reach");
    project(&dir, "reach", "")?;
    let case = |name: &str, more: &str, status: u16, body: &str| {
        let expect = format!("expect = {{ status = {status}, body = {{ regex = '{body}' }} }}");
        format!("[[case]]\nname = '{name}'\nrequest = {{ path = '/reach/config?token' }}\n{more}\n{expect}\n")
    };
    fs::write(dir.join("tests/a.toml"), case("without", "", 500, "is not on this node yet"))?;
    let done = sedge(None, &["test", &text(&dir)])?;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stderr.contains("no value for the secret token") && done.stderr.contains(FILE), "{done:?}");
    fs::write(dir.join(FILE), "token = 'of-the-file'\n")?;
    let cases = [case("own", "secrets = { token = 'of-the-case' }", 200, "^of-the-case$"), case("file", "", 200, "^of-the-file$")];
    fs::write(dir.join("tests/a.toml"), cases.concat())?;
    let done = sedge(None, &["test", &text(&dir)])?;
    assert!(done.code == Some(0) && !done.stderr.contains("no value"), "{done:?}");
    fs::write(dir.join("tests/a.toml"), case("wrong", "secrets = { tokn = 'hush' }", 200, "x"))?;
    let done = sedge(None, &["test", &text(&dir)])?;
    assert!(done.code == Some(78) && done.stderr.contains("the secret `tokn`, which the manifest does not name"), "{done:?}");
    Ok(())
}

#[test]
fn core_dumps_go_with_the_state() -> Result<()> {
    let directory = directory()?;
    let (node, socket) = node(directory.path())?;
    let dumps = node.data().join("core-dumps");
    assert_eq!(node.fetch("/faulty/panic")?.status.as_u16(), 500);
    let count = || {
        fs::read_dir(&dumps).map(|files| files.flatten().filter(|file| file.path().extension().is_some_and(|it| it == "wasm-core")).count())
    };
    until("there is a core dump", || Ok((dumps.is_dir() && count()? == 1).then_some(())))?;
    let other = dumps.join("faulty-2-1700000000000-0a1b2c3d-7.wasm-core");
    fs::write(&other, "of another function")?;
    let done = sedge(None, &["rm", "faulty", "--yes", "--state", "--node", &socket])?;
    assert!(done.code == Some(0) && done.stderr.contains("1 core dump"), "{done:?}");
    assert!(count()? == 1 && other.exists());
    Ok(())
}

#[test]
fn who_follows_the_log_loses_and_repeats_nothing_when_the_node_is_started_anew() -> Result<()> {
    let directory = directory()?;
    let (mut node, socket) = node(directory.path())?;
    let log = directory.path().join("log");
    let mut command = std::process::Command::new(binary("sedge")?);
    let mut sedge = Process::start("sedge logs", command.args(["logs", "faulty", "-f", "--node", &socket, "--json"]), &log)?;
    let lines =
        || -> Result<Vec<LogEntry>> { Ok(fs::read_to_string(&log)?.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()) };
    let traced = |node: &Node, times: usize| -> Result<()> {
        until("it runs", || node.running(&function("faulty")))?;
        assert_eq!(node.fetch("/faulty/trace")?.status.as_u16(), 200);
        until("the line is shown", || Ok((lines()?.len() == times).then_some(())))
    };
    traced(&node, 1)?;
    node.kill9()?;
    sedge.printed("the node has ended; going on when it is back")?;
    node.restart()?;
    // Written before anybody follows again, or after: it is shown once.
    traced(&node, 2)?;
    sedge.printed("the node answers again")?;
    assert_eq!(node.fetch("/faulty/trace")?.status.as_u16(), 200);
    node.stop()?;
    until("what was written before the end is shown", || Ok((lines()?.len() == 3).then_some(())))?;
    node.restart()?;
    traced(&node, 4)?;
    let mut invocations: Vec<String> = lines()?.into_iter().map(|entry| entry.invocation).collect();
    invocations.dedup();
    assert_eq!(invocations.len(), 4, "each once");
    assert!(sedge.status()?.is_none(), "it goes on");
    Ok(())
}

#[test]
fn a_path_that_is_no_socket_is_told_from_a_node_that_is_gone() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    let wasm = hello(directory.path(), "alpha")?;
    let empty = directory.path().join("alpha");
    for (path, what, hint) in [
        (empty, "is a directory: --node and SEDGE_NODE take the Unix socket of a node", "`sedge publish DIR --node`".to_owned()),
        (directory.path().join("node-1"), "is a directory: ", format!("did you mean {}?", node.socket().display())),
        (wasm.clone().into(), "is no socket: ", "`sedge publish DIR --node`".to_owned()),
    ] {
        let done = sedge(None, &["publish", &wasm, "--node", &text(&path)])?;
        assert!(done.code == Some(64) && done.stderr.contains(what) && done.stderr.contains(&hint), "{done:?}");
    }
    let done = sedge(None, &["invoke", "alpha", "--event", &event(directory.path())?, "--node", &text(directory.path())])?;
    assert_eq!(done.code, Some(64), "{done:?}");
    Ok(())
}
