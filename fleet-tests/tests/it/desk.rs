//! The life cycle of a function on a desk: `sedge run`, `test`, `invoke`, `logs` and `rm`, against real nodes.

mod newcomer;

use crate::support::{directory, function};
use anyhow::Result;
use fleet_tests::cli::{Done, sedge};
use fleet_tests::{Node, artifact, until};
use http::Method;
use sedge_protocol::local::{Change, Kept, LogEntry, Trace};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A reading that is too high.
const HOT: &str = r#"{ "topic": "plant/boiler/temperature", "datacontenttype": "application/json", "data": { "value": 95 } }"#;

/// A project whose build only takes the guest `name` as it is; nothing of it needs a compiler.
fn project(directory: &Path, name: &str, more: &str) -> Result<()> {
    fs::create_dir_all(directory.join("tests"))?;
    fs::copy(artifact::guest_path(name)?, directory.join("source"))?;
    let manifest = fs::read_to_string(artifact::manifest_path(name))?;
    let build = "\n[build]\ncommand = 'mkdir -p target && cp source target/a.wasm'\nartifact = 'target/a.wasm'\n";
    fs::write(directory.join("function.toml"), format!("{manifest}{build}{more}"))?;
    Ok(fs::write(directory.join("hot.json"), HOT)?)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn trace_of(done: Done) -> Result<Trace> {
    let line = done.stdout.lines().last().unwrap_or_default().to_owned();
    serde_json::from_str(&line).map_err(|error| anyhow::anyhow!("{error}: {done:?}"))
}

#[test]
fn an_event_in_a_file_is_run_once_and_everything_it_did_is_shown() -> Result<()> {
    let directory = directory()?;
    let dir = directory.path().join("average");
    project(&dir, "average", "")?;
    let (dir, event) = (text(&dir), text(&dir.join("hot.json")));
    let done = sedge(None, &["run", &dir, "--event", &event])?;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains(r#""sensor":"boiler""#), "the reply is the result: {done:?}");
    for said in ["publish alarm/boiler  {", "state default count/boiler: nothing → 1", "done in "] {
        assert!(done.stderr.contains(said), "{said}: {done:?}");
    }
    let trace = trace_of(sedge(None, &["run", &dir, "--event", &event, "--json"])?)?;
    assert_eq!((trace.publications.len(), trace.publications[0].topic.as_str()), (1, "alarm/boiler"));
    let keys: Vec<&str> = trace.changes.iter().flatten().map(|change: &Change| change.key.as_str()).collect();
    assert_eq!(keys, ["count/boiler", "statistics/boiler"]);
    let done = sedge(None, &["run", &dir, "--event", &format!("{dir}/source")])?;
    assert_eq!(done.code, Some(78), "what is no event is said before anything is built: {done:?}");
    Ok(())
}

#[test]
fn an_event_that_traps_ends_with_one_says_why_and_leaves_its_core_dump() -> Result<()> {
    let directory = directory()?;
    let dir = directory.path().join("faulty");
    project(&dir, "faulty", "[debug]\ncore_dump = true\n")?;
    fs::write(dir.join("hot.json"), r#"{ "topic": "test/faulty", "data": "panic" }"#)?;
    let done = sedge(None, &["run", &text(&dir), "--event", &text(&dir.join("hot.json"))])?;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("(panicked at src/lib.rs:") && done.stderr.contains(": as you wished)"), "{done:?}");
    assert!(done.stderr.contains("faulty::Faulty") && done.stderr.contains("src/lib.rs:"), "names, files and lines: {done:?}");
    let dumps: Vec<_> = fs::read_dir(dir.join(".sedge/core-dumps"))?.collect::<Result<_, _>>()?;
    assert!(dumps.len() == 1 && fs::read(dumps[0].path())?.starts_with(b"\0asm"), "{dumps:?}");
    Ok(())
}

#[test]
fn the_cases_of_a_project_pass_each_from_the_state_it_names() -> Result<()> {
    let directory = directory()?;
    let dir = directory.path().join("average");
    project(&dir, "average", "")?;
    let cases = artifact::manifest_path("average").with_file_name("tests").join("statistics.toml");
    fs::copy(cases, dir.join("tests/statistics.toml"))?;
    let done = sedge(None, &["test", &text(&dir)])?;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stderr.contains("4 passed, 0 failed"), "{done:?}");
    let report: Value = sedge(None, &["test", &text(&dir), "--filter", "setting", "--json"])?.json()?;
    assert_eq!((&report["passed"], &report["cases"][0]["name"]), (&1.into(), &"statistics: a setting moves the alarm".into()));
    let done = sedge(None, &["test", &text(&dir), "--filter", "nothing"])?;
    assert!(done.code == Some(64) && done.stderr.contains("there are: statistics: the first"), "{done:?}");
    Ok(())
}

#[test]
fn a_case_that_fails_shows_the_difference_and_ends_with_one() -> Result<()> {
    let directory = directory()?;
    let dir = directory.path().join("average");
    project(&dir, "average", "")?;
    let case = "event = 'hot.json'\n[expect]\nreply = { json = { count = 7 } }\npublications = []\nstate = {}\n";
    fs::write(dir.join("tests/wrong.toml"), case)?;
    let done = sedge(None, &["test", &text(&dir)])?;
    assert_eq!(done.code, Some(1), "{done:?}");
    for shown in ["FAILED wrong", ".count:\n    - 7\n    + 1", "publication too many\n    + alarm/boiler", "state default count/boiler"] {
        assert!(done.stdout.contains(shown), "{shown}: {done:?}");
    }
    let done = sedge(None, &["test", &text(&dir), "--json"])?;
    let report: Value = serde_json::from_str(&done.stdout)?;
    assert_eq!((done.code, &report["failed"], &report["cases"][0]["mismatches"][0]["what"]), (Some(1), &1.into(), &"reply".into()));
    fs::write(dir.join("tests/wrong.toml"), "evnt = 'hot.json'\n")?;
    let done = sedge(None, &["test", &text(&dir)])?;
    assert!(done.code == Some(78) && done.stderr.contains("unknown field `evnt`"), "{done:?}");
    Ok(())
}

/// A node of its own with `average` and `faulty`, and its socket.
fn node(directory: &Path) -> Result<(Node, String)> {
    let node = Node::start(directory, "node-1", None)?;
    node.give(&artifact::manifest("average")?, &artifact::guest("average")?)?;
    let mut manifest = artifact::manifest("faulty")?;
    manifest.debug.core_dump = true;
    node.give(&manifest, &artifact::guest("faulty")?)?;
    Ok((node, text(&directory.join("node-1/socket"))))
}

#[test]
fn a_function_goes_with_its_state_only_when_told_to_and_after_asking() -> Result<()> {
    let directory = directory()?;
    let (node, socket) = node(directory.path())?;
    let trace = trace_of(sedge(None, &["invoke", "average", "--event", &event(directory.path())?, "--node", &socket, "--json"])?)?;
    assert_eq!(trace.changes.map(|changes| changes.len()), Some(2));
    let kept = || -> Result<Kept> { Ok(serde_json::from_slice(&node.ask(Method::GET, "/v1/functions/average/state", "")?.body)?) };
    assert_eq!(kept()?.keys, 2);
    let done = sedge(None, &["rm", "average", "--state", "--node", &socket])?;
    assert_eq!(done.code, Some(64), "nobody is there to ask: {done:?}");
    assert!(done.stderr.contains("with its state (2 keys of ") && done.stderr.contains("add --yes"), "{done:?}");
    let refused = node.ask(Method::DELETE, "/v1/functions/average/state", "")?;
    assert_eq!(refused.status.as_u16(), 409, "it still runs: {}", refused.text());

    sedge(None, &["rm", "average", "--yes", "--node", &socket])?.success()?;
    until("it is gone", || Ok(node.running(&function("average"))?.is_none().then_some(())))?;
    assert_eq!(kept()?.keys, 2, "state stays");
    let done = sedge(None, &["rm", "average", "--yes", "--node", &socket])?;
    assert!(done.code == Some(1) && done.stderr.contains("its state is: add --state"), "{done:?}");
    let done = sedge(None, &["rm", "average", "--yes", "--state", "--node", &socket])?;
    assert!(done.code == Some(0) && done.stderr.contains("removed average and 2 keys of "), "{done:?}");
    assert!(kept()?.is_nothing());
    let done = sedge(None, &["rm", "average", "--yes", "--state"])?;
    assert!(done.code == Some(64) && done.stderr.contains("state lies on the nodes"), "{done:?}");
    Ok(())
}

/// A file with the reading that is too high.
fn event(directory: &Path) -> Result<String> {
    let path = directory.join("hot.json");
    fs::write(&path, HOT)?;
    Ok(text(&path))
}

#[test]
fn dead_letters_and_waiting_events_go_with_the_state() -> Result<()> {
    let directory = directory()?;
    let (node, socket) = node(directory.path())?;
    let load =
        fleet_tests::Load::start(node.mqtt(), std::time::Duration::from_millis(5), |_| ("test/faulty".to_owned(), "trap".to_owned()));
    until("an event is given up", || Ok((node.status()?.vitals.dead_letters > 0).then_some(())))?;
    load.stop()?;
    sedge(None, &["rm", "faulty", "--yes", "--state", "--node", &socket])?.success()?;
    let vitals = node.status()?.vitals;
    assert_eq!((vitals.dead_letters, vitals.events_waiting), (0, 0));
    let letters = node.ask(Method::GET, "/v1/dead-letters", "")?;
    assert_eq!(letters.text(), "[]");
    let kept: Kept = serde_json::from_slice(&node.ask(Method::GET, "/v1/functions/faulty/state", "")?.body)?;
    assert!(kept.is_nothing(), "{kept:?}");
    Ok(())
}

#[test]
fn asynchronous_calls_and_their_keys_go_with_the_state() -> Result<()> {
    let directory = directory()?;
    let (node, socket) = node(directory.path())?;
    let call = |path: &str| -> Result<String> {
        let arguments = ["invoke", "faulty", "--async", "--path", path, "--key", path, "--node", &socket];
        Ok(sedge(None, &arguments)?.success()?.trim().to_owned())
    };
    let (over, dead) = (call("/faulty/ok")?, call("/faulty/trap")?);
    for id in [&over, &dead] {
        sedge(None, &["invocation", "show", id, "--wait", "--node", &socket])?;
    }
    let kept = || -> Result<Kept> { Ok(serde_json::from_slice(&node.ask(Method::GET, "/v1/functions/faulty/state", "")?.body)?) };
    let before = kept()?;
    assert_eq!((before.calls, before.dead_letters), (2, 1));
    let done = sedge(None, &["rm", "faulty", "--yes", "--state", "--node", &socket])?;
    assert!(done.code == Some(0) && done.stderr.contains("2 asynchronous calls"), "{done:?}");
    assert!(kept()?.is_nothing());
    assert_eq!(node.ask(Method::GET, &format!("/v1/invocations/{over}"), "")?.status.as_u16(), 404);
    node.give(&artifact::manifest("faulty")?, &artifact::guest("faulty")?)?;
    until("it runs again", || node.running(&function("faulty")))?;
    assert_ne!(call("/faulty/ok")?, over, "the key is free again");
    Ok(())
}

#[test]
fn a_trap_shows_in_log_health_and_core_dump() -> Result<()> {
    let directory = directory()?;
    let (node, socket) = node(directory.path())?;
    assert_eq!(node.fetch("/faulty/panic")?.status.as_u16(), 500);
    let dumped = until("the log says where the core dump lies", || {
        let log = node.logs(&function("faulty"))?;
        Ok(log.iter().find_map(|entry| entry.text.strip_prefix("core dump: ")?.split(" (").next().map(str::to_owned)))
    })?;
    let dump = fs::read(&dumped)?;
    assert!(dump.starts_with(b"\0asm") && Path::new(&dumped).starts_with(node.data().join("core-dumps")), "{dumped}");
    let log: Vec<String> = node.logs(&function("faulty"))?.into_iter().map(|entry| entry.text).collect();
    assert!(log.iter().any(|line| line.contains("Faulty")) && log.iter().any(|line| line.contains("src/lib.rs:")), "{log:#?}");
    let report = node.status()?.functions.into_iter().find(|report| report.function == function("faulty"));
    let health = report.map(|report| report.health).unwrap_or_default();
    let reason = health.last_failure.map(|last| last.reason).unwrap_or_default();
    assert!(health.failed_hour == 1 && reason.contains("panicked at src/lib.rs:") && reason.contains("as you wished"), "{reason}");
    for command in ["ls", "status"] {
        let shown = sedge(None, &[command, "--node", &socket])?.success()?;
        assert!(shown.contains("1 failed in the last hour; ") && shown.contains("as you wished"), "{shown}");
    }
    Ok(())
}

#[test]
fn the_log_of_a_function_has_levels_and_says_what_was_dropped() -> Result<()> {
    let directory = directory()?;
    let (node, socket) = node(directory.path())?;
    let done = sedge(None, &["logs", "avrage", "--node", &socket])?;
    assert!(
        done.code == Some(1) && done.stderr.contains("no function called `avrage`") && done.stderr.contains("did you mean `average`?"),
        "{done:?}"
    );
    assert_eq!(node.fetch("/faulty/print-a-lot")?.status.as_u16(), 200);
    // On a slow machine it loses lines in several seconds, each with a line of its own; the last loss is told when it has fallen silent.
    until("every line was kept or counted", || {
        let out = sedge(None, &["logs", "faulty", "-n", "5000", "--level", "warn", "--json", "--node", &socket])?.success()?;
        let told: Vec<LogEntry> = out.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        assert!(told.iter().all(|entry| entry.level == "warn"), "{told:?}");
        let kept = node.logs(&function("faulty"))?.iter().filter(|entry| entry.level == "stdout").count() as u64;
        let lines = kept + told.iter().map(|entry| entry.dropped).sum::<u64>();
        assert!(lines <= 10_000, "{lines} are more than there were");
        Ok((lines == 10_000).then_some(()))
    })?;
    let done = sedge(None, &["logs", "--level", "loud", "--node", &socket])?;
    assert!(done.code == Some(64) && done.stderr.contains("`loud` is no level"), "{done:?}");
    Ok(())
}

#[test]
fn who_watches_a_node_sees_each_invocation_with_its_lines() -> Result<()> {
    let directory = directory()?;
    let dir = directory.path().join("average");
    project(&dir, "average", "[[trigger]]\nhttp = '/average/*'\n")?;
    let mut command = std::process::Command::new(fleet_tests::process::binary("sedge")?);
    let log = directory.path().join("log");
    let mut sedge = fleet_tests::process::Process::start(
        "sedge run",
        command.args(["run", &text(&dir), "--event", &event(directory.path())?, "--watch"]),
        &log,
    )?;
    sedge.printed("done in ")?;
    let shown = sedge.log()?;
    let url = shown.lines().find_map(|line| line.split_whitespace().find(|word| word.starts_with("http://"))).map(str::to_owned);
    let url = url.ok_or_else(|| anyhow::anyhow!("no address in {shown}"))?;
    let address = url.trim_start_matches("http://").split('/').next().unwrap_or_default().parse()?;
    let target = fleet_tests::http::Target::Tcp(address);
    fleet_tests::http::exchange(&target, Method::GET, "/average/nothing", "")?;
    sedge.printed("GET /average/nothing  4")?;
    // The second build is shown with how long it took, and its event is sent again.
    fs::copy(artifact::guest_path("average-v2")?, dir.join("source"))?;
    sedge.printed("rebuilt ")?;
    until("the event was sent again", || Ok((sedge.log()?.matches("done in ").count() == 2).then_some(())))?;
    sedge.terminate()?;
    assert!(sedge.ended()?.success());
    Ok(())
}

#[test]
fn a_node_without_a_fleet_is_given_functions_by_publish() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    let socket = text(&directory.path().join("node-1/socket"));
    let project = directory.path().join("hello");
    fs::create_dir(&project)?;
    fs::write(project.join("hello.wasm"), artifact::guest("hello")?)?;
    fs::write(project.join("function.toml"), "name = 'hello'\n[[trigger]]\nhttp = '/hello'\n")?;
    let wasm = text(&project.join("hello.wasm"));
    let done = sedge(None, &["publish", &wasm, "--node", &socket, "--json"])?.success()?;
    let report: Value = serde_json::from_str(&done)?;
    assert_eq!((report["function"].as_str(), report["running"].is_string()), (Some("hello"), true), "{done}");
    assert!(node.running(&function("hello"))?.is_some());
    fs::write(project.join("function.toml"), "name = 'hello'\n[[trigger]]\nhttp = '/.sedge/hello'\nhttp2 = 1\n")?;
    let done = sedge(None, &["publish", &wasm, "--node", &socket])?;
    assert!(done.code == Some(78) && done.stderr.contains("which the node answers itself"), "{done:?}");
    let done = sedge(None, &["publish", &wasm, "--node", &text(&directory.path().join("nobody"))])?;
    assert!(done.code == Some(1) && done.stderr.contains("no answer from the node at"), "{done:?}");
    Ok(())
}
