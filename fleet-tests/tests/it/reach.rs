//! What a function reaches on a node: other functions, stores that are shared, files and their events, secrets; with real processes.

use crate::support::{directory, function};
use anyhow::{Context as _, Result};
use fleet_tests::http::{Target, exchange, exchange_with};
use fleet_tests::{Node, artifact, until};
use http::Method;
use sedge_protocol::Digest;
use sedge_protocol::local::LocalRevision;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

const SECRET: &str = "correct-horse-battery-staple";

/// The function `name`, made of the guest `reach`, with more lines under `[access]` and behind.
fn give(node: &Node, name: &str, limits: &str, access: &str) -> Result<()> {
    let text = format!(
        "name = '{name}'\n[[trigger]]\nhttp = '/{name}/*'\n[[trigger]]\nmqtt = '$blob/{name}/#'\nqos = 1\nreply = 'seen/{name}'\n\
         [limits]\nmemory_mb = 16\ntimeout_ms = 5000\n{limits}\n[access]\nkeyvalue = ['own']\nkeyvalue_shared = ['plant']\n\
         blobstore = ['files']\n{access}\n"
    );
    node.give(&artifact::manifest_of(&text)?, &artifact::guest("reach")?)?;
    Ok(())
}

fn get(node: &Node, path: &str) -> Result<(u16, String)> {
    let answer = node.fetch(path)?;
    Ok((answer.status.as_u16(), answer.text()))
}

fn post(node: &Node, path: &str, body: impl Into<bytes::Bytes>) -> Result<(u16, String)> {
    let answer = exchange(&node.http(), Method::POST, path, body)?;
    Ok((answer.status.as_u16(), answer.text()))
}

fn said(status: u16, text: &str) -> (u16, String) {
    (status, text.to_owned())
}

#[test]
fn functions_call_each_other_and_each_is_metered_as_itself() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    give(&node, "front", "", "outgoing = ['http://back.sedge.internal', 'http://nobody.sedge.internal']")?;
    assert_eq!(get(&node, "/front/fetch?http://back.sedge.internal/back/ok")?, said(404, "no function of this node is called `back`\n"));
    give(&node, "back", "", "")?;
    assert_eq!(get(&node, "/front/fetch?http://back.sedge.internal/back/ok")?, said(200, "ok"));
    let totals = |name: &str| node.totals(&function(name));
    until("both are counted", || Ok((totals("front")?.calls_ok == 2 && totals("back")?.calls_ok == 1).then_some(())))?;
    assert_eq!(totals("back")?.bytes_out, 2);
    Ok(())
}

#[test]
fn a_circle_of_calls_ends_with_508_and_nobody_waits_for_itself() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    // The query of each fetch names the next, and each says that it is the first (`sedge-depth: 0`), which nobody believes. So `ring` calls itself as often as the depth allows.
    give(&node, "ring", "concurrency = 20", "outgoing = ['http://ring.sedge.internal']")?;
    give(&node, "one", "concurrency = 1", "outgoing = ['http://one.sedge.internal', 'http://two.sedge.internal']")?;
    give(&node, "two", "", "outgoing = ['http://one.sedge.internal']")?;
    let calls = |count: usize| format!("/ring/{}ok", "fetch?http://ring.sedge.internal/ring/".repeat(count));
    assert_eq!(get(&node, &calls(8))?, said(200, "ok"));
    let (status, text) = get(&node, &calls(9))?;
    assert!(status == 508 && text.contains("ring → ring") && text.contains("more than 8 calls in a row"), "{status} {text}");
    for path in
        ["/one/fetch?http://one.sedge.internal/one/ok", "/one/fetch?http://two.sedge.internal/two/fetch?http://one.sedge.internal/one/ok"]
    {
        let (status, text) = get(&node, path)?;
        assert!(status == 508 && text.contains("it would wait for itself"), "{status} {text}");
    }
    Ok(())
}

#[test]
fn a_function_reads_in_headers_of_the_node_what_the_node_wrote_and_nobody_else() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    let Target::Tcp(address) = node.http() else { anyhow::bail!("the listener is TCP") };
    give(&node, "back", "", "")?;
    give(&node, "front", "", &format!("outgoing = ['http://back.sedge.internal', 'http://{address}']"))?;
    let forged = [
        ("sedge-depth", "1"),
        ("sedge-invocation", "forged"),
        ("Sedge-Callback", "http://nobody/"),
        ("sedge-anything", "forged"),
        ("x", "y"),
    ];
    let own = |text: &str| text.lines().filter(|line| line.starts_with("sedge-")).map(str::to_owned).collect::<Vec<_>>();
    // From outside; from a function, which forges the same, inside the node and through its listener; over the local API.
    for path in
        ["/back/headers", "/front/fetch?http://back.sedge.internal/back/headers", &format!("/front/fetch?http://{address}/back/headers")]
    {
        let answer = exchange_with(&node.http(), Method::GET, path, &forged, "")?;
        assert!(answer.status.as_u16() == 200 && answer.text().contains("x"), "{answer:?}");
        assert_eq!(own(&answer.text()), [""; 0], "{path}");
    }
    let local = Target::Unix(node.socket());
    let answer = exchange_with(&local, Method::POST, "/v1/functions/back/invoke?path=/back/headers", &forged, "")?;
    assert!(answer.text().contains("x: y") && own(&answer.text()).is_empty(), "{answer:?}");
    // An asynchronous call has its id, whatever its caller wrote there.
    let id = node.call("/back/headers", &[("sedge-invocation", "forged"), ("sedge-depth", "1")], "")?;
    node.over(id)?;
    assert_eq!(own(&node.result(id)?.text()), [format!("sedge-invocation: {id}")]);
    Ok(())
}

#[test]
fn a_function_that_finds_no_room_for_its_call_hears_when_to_come_again() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    give(&node, "front", "", "outgoing = ['http://faulty.sedge.internal']")?;
    let mut manifest = artifact::manifest("faulty")?;
    (manifest.limits.concurrency, manifest.limits.timeout_ms) = (1, 10_000);
    node.give(&manifest, &artifact::guest("faulty")?)?;
    std::thread::scope(|scope| {
        // Each takes two seconds, one after the other.
        let held: Vec<_> = (0..3).map(|_| scope.spawn(|| get(&node, "/faulty/slow"))).collect();
        until("all but one wait", || Ok((node.status()?.admission.waiting == 2).then_some(())))?;
        let answer = node.fetch("/front/fetch?http://faulty.sedge.internal/faulty/ok")?;
        let after = answer.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        assert!(answer.status.as_u16() == 429 && after.is_some_and(|seconds| seconds > 0), "{answer:?}");
        for held in held {
            assert_eq!(held.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??, said(200, "slow"));
        }
        Ok(())
    })
}

#[test]
fn callers_that_hold_every_turn_get_their_callees() -> Result<()> {
    let directory = directory()?;
    let node = Node::start_with(directory.path(), "node-1", None, "machine = { invocations = 2 }\n")?;
    give(&node, "front", "", "outgoing = ['http://back.sedge.internal']")?;
    give(&node, "back", "", "")?;
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (0..10).map(|_| get(&node, "/front/fetch?http://back.sedge.internal/back/ok")).collect()))
            .collect();
        for asked in asked {
            let answers: Result<Vec<_>> = asked.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
            assert!(answers?.iter().all(|answer| *answer == said(200, "ok")));
        }
        Ok(())
    })
}

#[test]
fn a_guest_that_fills_its_stores_is_stopped_by_its_quota_also_after_a_restart() -> Result<()> {
    let directory = directory()?;
    let mut node = Node::start_with(directory.path(), "node-1", None, "functions = { keyvalue_shared_mb = 1 }\n")?;
    give(&node, "filler", "", "[quota]\nkeyvalue_mb = 1\nblobstore_mb = 1")?;
    give(&node, "other", "", "")?;
    for (path, what) in [("/filler/kv-fill?own", "of this function"), ("/filler/kv-fill?plant", "shared")] {
        let (status, text) = get(&node, path)?;
        // Values of 990 bytes under keys of 10.
        assert!(status == 200 && text.starts_with("1048: ") && text.contains("quota of 1048576 bytes") && text.contains(what), "{text}");
    }
    assert_eq!(post(&node, "/other/kv-set?own&k", "goes on")?, said(200, "set"));
    assert_eq!(post(&node, "/filler/kv-set?own&key-000001", "smaller")?, said(200, "set"));
    assert_eq!(node.stop()?.code(), Some(0));
    node.restart()?;
    node.runs(&function("filler"), node.running(&function("filler"))?.context("it runs")?)?;
    let (_, text) = get(&node, "/filler/kv-fill?own")?;
    assert!(text.starts_with("1048: "), "what is used is known to the byte: {text}");
    let (status, text) = post(&node, "/other/kv-set?plant&k", "x".repeat(600))?;
    assert!(status == 500 && text.contains("shared key-value stores of this node"), "{text}");
    Ok(())
}

#[test]
fn objects_survive_kill_9_and_are_events() -> Result<()> {
    let directory = directory()?;
    let mut node = Node::start(directory.path(), "node-1", None)?;
    give(&node, "camera", "", "")?;
    let seen = fleet_tests::Subscriber::start(node.mqtt(), "seen/camera")?;
    assert_eq!(post(&node, "/camera/blob-put?files&front/1.jpg", "picture")?, said(200, "7"));
    assert_eq!(get(&node, "/camera/blob-delete?files&front/1.jpg")?, said(200, "deleted"));
    let events = until("both events were seen", || {
        let events = seen.received();
        Ok((events.len() >= 2).then_some(events))
    })?;
    let text = format!("{events:?}");
    assert!(text.contains("sedge.blob.created $blob/camera/files/front/1.jpg") && text.contains("sedge.blob.deleted"), "{text}");
    assert_eq!(post(&node, "/camera/blob-put?files&kept", "picture")?, said(200, "7"));
    node.kill9()?;
    node.ended()?;
    node.restart()?;
    assert_eq!(
        until("it runs again", || Ok(get(&node, "/camera/blob-get?files&kept").ok().filter(|(status, _)| *status == 200)))?.1,
        "picture"
    );
    Ok(())
}

#[test]
fn a_secret_is_set_by_hand_read_by_its_function_and_shown_nowhere() -> Result<()> {
    let directory = directory()?;
    let mut node = Node::start(directory.path(), "node-1", None)?;
    give(&node, "vault", "", "secrets = ['token']")?;
    let state = || Ok::<_, anyhow::Error>(node.status()?.functions.into_iter().next().context("a function")?.missing_secrets);
    assert_eq!(state()?.iter().map(ToString::to_string).collect::<Vec<_>>(), ["token"]);
    let listed = command(&node, &["ls", "--node"], "")?;
    assert!(listed.contains("lacks the secret token: sedge secret set token"), "{listed}");
    let (status, text) = get(&node, "/vault/config?token")?;
    assert!(status == 500 && text.contains("`token` is not on this node yet"), "{text}");

    command(&node, &["secret", "set", "token", "--node"], &format!("{SECRET}\n"))?;
    assert_eq!(get(&node, "/vault/config?token")?, said(200, SECRET));
    assert!(state()?.is_empty());
    let names = command(&node, &["secret", "ls", "--node"], "")?;
    assert!(names.contains("token") && !names.contains(SECRET), "{names}");
    let answer = node.ask(Method::GET, "/v1/secrets/token", "")?;
    assert_eq!(answer.status.as_u16(), 404, "{answer:?}");
    assert_eq!(node.stop()?.code(), Some(0));
    let log = std::fs::read_to_string(directory.path().join("node-1/log"))?;
    assert!(log.contains("secret set") && !log.contains(SECRET));
    search(&node.data(), SECRET.as_bytes())?;
    node.restart()?;
    assert_eq!(until("it runs again", || Ok(get(&node, "/vault/config?token").ok().filter(|(status, _)| *status == 200)))?.1, SECRET);
    command(&node, &["secret", "rm", "token", "--node"], "")?;
    assert_eq!(get(&node, "/vault/config?token")?.0, 500);
    Ok(())
}

/// Runs `sedge …  SOCKET` with something on its standard input; answers what it printed.
fn command(node: &Node, arguments: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(fleet_tests::process::binary("sedge")?);
    command.args(arguments).arg(node.socket()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("its input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(output.status.success(), "{arguments:?}: {text}");
    Ok(text)
}

/// Fails if a file below `directory` holds `bytes`.
fn search(directory: &Path, bytes: &[u8]) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            search(&path, bytes)?;
        } else {
            let content = std::fs::read(&path)?;
            anyhow::ensure!(!content.windows(bytes.len()).any(|part| part == bytes), "{} holds it", path.display());
        }
    }
    Ok(())
}

/// Asks the node for one thing after the other, and at the same time for the others.
fn race(node: &Node, asks: &[(Target, Method, String, Vec<u8>)], rounds: usize) -> Result<Vec<(u16, String)>> {
    std::thread::scope(|scope| {
        let racing = |(target, method, path, body): &(Target, Method, String, Vec<u8>)| -> Result<Vec<(u16, String)>> {
            let ask = |_| {
                let answer = exchange(target, method.clone(), path, body.clone())?;
                Ok((answer.status.as_u16(), format!("{method} {path}: {}", answer.text())))
            };
            (0..rounds).map(ask).collect()
        };
        let racing: Vec<_> = asks.iter().map(|ask| scope.spawn(move || racing(ask))).collect();
        let mut answers = Vec::new();
        for racer in racing {
            answers.extend(racer.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??);
        }
        assert_eq!(node.ask(Method::GET, "/v1/status", "")?.status.as_u16(), 200);
        Ok(answers)
    })
}

#[test]
fn uploads_and_deletions_of_one_thing_that_race_come_one_after_the_other() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    give(&node, "camera", "", "")?;
    let ask = |target: &Target, method: Method, path: &str, body: &[u8]| (target.clone(), method, path.to_owned(), body.to_vec());
    let object: Vec<_> = ["blob-put?files&x", "blob-put?files&x", "blob-delete?files&x", "blob-delete?files&x"]
        .map(|verb| ask(&node.http(), Method::POST, &format!("/camera/{verb}"), b"picture"))
        .into();
    for (status, text) in race(&node, &object, 20)? {
        assert_eq!(status, 200, "{text}");
    }
    // The artifact goes with the function that ran it, while others upload it anew.
    let (wasm, manifest) = (artifact::guest("hello")?, artifact::manifest("hello")?);
    let digest = Digest::of(&wasm);
    let revision = serde_json::to_vec(&LocalRevision { artifact: digest, manifest })?;
    let local = Target::Unix(node.socket());
    let (put, function) = (format!("/v1/artifacts/{digest}"), "/v1/functions/hello");
    let asks = [
        ask(&local, Method::PUT, &put, &wasm),
        ask(&local, Method::PUT, &put, &wasm),
        ask(&local, Method::PUT, function, &revision),
        ask(&local, Method::DELETE, function, b""),
    ];
    for (status, text) in race(&node, &asks, 20)? {
        let absent = status == 409 && text.contains("is not here") || status == 404 && text.contains("no function is called");
        assert!(status == 200 || absent, "{status} {text}");
    }
    Ok(())
}
