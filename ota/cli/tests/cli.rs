//! The real binary against servers that speak the documented APIs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod server;

use sedge_protocol::api::{NewRevision, Revision, Status};
use sedge_protocol::artifact::Kind;
use sedge_protocol::local::{CallCounts, FleetLink, LocalRevision, LocalStatus};
use sedge_protocol::message::{FunctionReport, FunctionState, Health, Vitals};
use sedge_protocol::usage::Counters;
use sedge_protocol::{Digest, RevisionId};
use serde_json::{Value, json};
use server::{Asked, Reply, tcp, tls, unix};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// A home directory and the binary in it, with nothing of the environment that could matter.
struct Home(TempDir);

/// What a command left behind.
#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sedge"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"SEDGE")) {
            command.env_remove(name);
        }
        command.args(arguments).current_dir(self.0.path()).env("HOME", self.0.path()).env_remove("XDG_CONFIG_HOME");
        command.stdin(Stdio::null());
        command
    }

    fn sedge(&self, arguments: &[&str]) -> Ended {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Like `sedge`, with the fleet at `url`.
    fn at(&self, url: &str, arguments: &[&str]) -> Ended {
        self.sedge(&[arguments, &["--fleet", url, "--token", "secret"]].concat())
    }
}

fn module(start: &str) -> Vec<u8> {
    wat::parse_str(format!(r#"(module (func (export "_start")) (func (export "{start}")))"#)).unwrap()
}

fn not_found(asked: &Asked) -> Reply {
    (404, json!({ "error": format!("nothing at {}", asked.line()) }).to_string())
}

/// A revision from the body of a `POST /api/v1/revisions`.
fn created(body: &[u8]) -> String {
    let new: NewRevision = serde_json::from_slice(body).unwrap();
    let id = RevisionId::of(&new.artifact, &new.manifest);
    let (function, artifact) = (new.manifest.name.clone(), new.artifact);
    let revision = Revision { id, function, artifact, size: 1, kind: Kind::CoreCommand, created_ms: 0, manifest: new.manifest };
    serde_json::to_string(&revision).unwrap()
}

#[test]
fn wrong_usage_is_64_and_help_is_a_result() {
    let home = Home::new();
    for wrong in [&["fly"][..], &[], &["ls", "--colour"], &["rollout", "Bad Name"], &["invoke"], &["claim", "create", "--uses", "0"]] {
        let ended = home.sedge(wrong);
        assert_eq!((ended.code, ended.out.as_str()), (64, ""), "{wrong:?} {ended:?}");
    }
    for asked in [&["--help"][..], &["--version"], &["rollout", "--help"], &["claim", "create", "--help"]] {
        let ended = home.sedge(asked);
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{asked:?}");
    }
    assert!(home.sedge(&["--help"]).out.contains("sedge rollout hello --nodes site=berlin --wait"));
}

#[test]
fn without_a_fleet_the_error_says_how_to_name_one() {
    let ended = Home::new().sedge(&["ls"]);
    assert_eq!(ended.code, 78);
    assert!(ended.err.starts_with("error: no fleet is named\n  next: `sedge login"), "{}", ended.err);
}

#[test]
fn a_fleet_that_is_not_there_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let ended = Home::new().at(&url, &["status"]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains(&format!("no answer from the fleet at {url}")) && ended.err.contains("next: "), "{}", ended.err);
}

#[test]
fn a_refusal_shows_reason_and_advice_of_the_fleet() {
    let (url, server) = tcp(|_, _| (403, json!({ "error": "not you", "hint": "ask her" }).to_string()));
    let ended = Home::new().at(&url, &["node", "ls"]);
    assert_eq!((ended.code, ended.err.as_str()), (1, "error: not you\n  next: ask her\n"));
    assert_eq!(server.asked()[0].token.as_deref(), Some("Bearer secret"));
    let (url, _server) = tcp(|_, _| (401, String::new()));
    assert!(Home::new().at(&url, &["node", "ls"]).err.contains("sign in again"));
}

#[test]
fn machines_get_the_body_of_the_api_and_people_a_table() {
    let (url, _server) = tcp(|_, _| (200, serde_json::to_string(&Status { nodes: 3, online: 3, ..Status::default() }).unwrap()));
    let home = Home::new();
    let status: Status = serde_json::from_str(&home.at(&url, &["status", "--json"]).out).unwrap();
    assert_eq!(status.nodes, 3);
    let ended = home.at(&url, &["status"]);
    assert!(ended.out.contains("nodes      3 of 3 online") && !ended.out.contains('\u{1b}'), "{}", ended.out);
}

#[test]
fn a_published_artifact_arrives_whole_and_becomes_a_revision() {
    let (url, server) = tcp(|asked, _| match asked.line() {
        line if line.starts_with("PUT /api/v1/artifacts/sha256:") => (201, String::new()),
        line if line == "POST /api/v1/revisions" => (201, created(&asked.body)),
        _ => not_found(asked),
    });
    let home = Home::new();
    let wasm = module("x");
    home.write("a.wasm", &wasm);
    home.write("f.toml", "name = 'hello'");
    let ended = home.at(&url, &["publish", "a.wasm", "--manifest", "f.toml"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let asked = server.asked();
    assert_eq!(asked[0].path, format!("/api/v1/artifacts/{}", Digest::of(&wasm)));
    assert_eq!((&asked[0].body, asked[0].length.as_deref()), (&wasm, Some(wasm.len().to_string().as_str())));
    assert!(ended.out.trim().parse::<RevisionId>().is_ok(), "{}", ended.out);
}

#[test]
fn what_may_not_run_is_refused_before_the_fleet_hears_of_it() {
    let (url, server) = tcp(|asked, _| not_found(asked));
    let home = Home::new();
    home.write("function.toml", "name = 'hello'");
    home.write("a.wasm", wat::parse_str(r#"(module (import "env" "steal" (func)) (func (export "_start")))"#).unwrap());
    let ended = home.at(&url, &["publish", "a.wasm"]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("imports `env.steal`, which is not granted"), "{}", ended.err);
    home.write("function.toml", "name = 'Hello'\n[limit]\nmemory_mb = 1\n");
    let ended = home.at(&url, &["publish", "a.wasm"]);
    assert_eq!(ended.code, 78);
    assert!(ended.err.contains("function.toml:1:") && ended.err.contains("did you mean `limits`"), "{}", ended.err);
    assert!(server.asked().is_empty());
}

/// A fleet whose rollout moves one node on each look; the last of three ends as `last` says.
fn rolling(last: &'static str) -> (String, server::Server) {
    let revision = "ab".repeat(32);
    let rollout = move |done: usize| {
        let failed = usize::from(done == 3 && last == "failed");
        json!({ "id": "r1", "function": "hello", "revision": revision, "filter": "site=a", "created_ms": 0,
                "nodes": 3, "done": done - failed, "failed": failed, "waiting": 3 - done })
    };
    tcp(move |asked, before| {
        let looks = before.iter().filter(|asked| asked.line() == "GET /api/v1/rollouts").count();
        match asked.line().as_str() {
            "POST /api/v1/rollouts" => (201, rollout(0).to_string()),
            "GET /api/v1/rollouts" => (200, json!([rollout((looks + 2).min(3))]).to_string()),
            "GET /api/v1/functions" => {
                let waiting = json!([{ "node": "gw-3", "assigned": "ab".repeat(32), "reason": "fetching" }]);
                let running = json!([{ "revision": "ab".repeat(32), "nodes": ["gw-1", "gw-2"] }]);
                let function = json!({ "name": "hello", "newest": "ab".repeat(32), "revisions": 1, "running": running,
                                       "waiting": waiting, "usage": {} });
                (200, json!([function]).to_string())
            }
            _ => not_found(asked),
        }
    })
}

#[test]
fn waiting_for_a_rollout_shows_each_node_once() {
    let (url, server) = rolling("done");
    let ended = Home::new().at(&url, &["rollout", "hello", "--nodes", "site=a", "--wait"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    for said in ["gw-1 runs it", "gw-2 runs it", "gw-3 fetching"] {
        assert_eq!(ended.err.matches(said).count(), 1, "{}", ended.err);
    }
    let body: Value = serde_json::from_slice(&server.asked()[0].body).unwrap();
    assert_eq!(body, json!({ "function": "hello", "revision": null, "filter": "site=a" }));
}

#[test]
fn a_node_that_refuses_fails_the_rollout() {
    let (url, _server) = rolling("failed");
    let ended = Home::new().at(&url, &["rollout", "hello", "--wait", "--json"]);
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert_eq!(serde_json::from_str::<Value>(&ended.out).unwrap()["failed"], 1);
}

#[test]
fn nothing_is_removed_without_a_yes() {
    let (url, server) = tcp(|_, _| (204, String::new()));
    let home = Home::new();
    let ended = home.at(&url, &["rm", "hello"]);
    assert_eq!(ended.code, 64);
    assert!(ended.err.contains("add --yes") && server.asked().is_empty(), "{}", ended.err);
    assert_eq!(home.at(&url, &["rm", "hello", "--yes"]).code, 0);
    assert_eq!(server.lines(), ["DELETE /api/v1/functions/hello"]);
}

#[test]
fn a_claim_is_asked_for_with_labels_and_time() {
    let (url, server) = tcp(|_, _| {
        let claim = json!({ "id": "c1", "uses": 5, "used": 0, "expires_ms": 0, "labels": {} });
        let created = json!({ "claim": claim, "token": "t", "fleet": "https://f:1", "ca_pin": Digest::of(b"ca") });
        (201, created.to_string())
    });
    let arguments = ["claim", "create", "--uses", "5", "--ttl", "2h", "--label", "site=a", "--label", "line=1"];
    let ended = Home::new().at(&url, &arguments);
    let expected = format!("[fleet]\nurl = \"https://f:1\"\nca_pin = \"{}\"\nclaim = \"t\"\n", Digest::of(b"ca"));
    assert!(ended.out.ends_with(&expected), "{}", ended.out);
    let body: Value = serde_json::from_slice(&server.asked()[0].body).unwrap();
    assert_eq!(body, json!({ "uses": 5, "ttl_s": 7200, "labels": { "line": "1", "site": "a" }, "approval": false, "replaces": null }));
    // This fleet is older and has read no more than it knows: its claim would do less than was asked for.
    for more in [&["--approve"][..], &["--replaces", "gate-7"]] {
        let ended = Home::new().at(&url, &[&["claim", "create"], more].concat());
        assert!(ended.code == 1 && ended.err.contains("older"), "{}", ended.err);
        assert!(!ended.out.contains("claim = "), "{}", ended.out);
    }
}

#[test]
fn decisions_about_nodes_reach_the_fleet() {
    let (url, server) = tcp(|_, _| (200, "{}".to_owned()));
    let home = Home::new();
    for words in [&["node", "rm", "gate-7"][..], &["node", "revoke", "gate-7", "gate-8"]] {
        let ended = home.at(&url, words);
        assert!(ended.code == 64 && ended.err.contains("add --yes"), "{}", ended.err);
    }
    assert!(server.asked().is_empty());
    assert_eq!(home.at(&url, &["node", "rm", "gate-7", "gate-8", "-y"]).code, 0);
    assert_eq!(home.at(&url, &["claim", "revoke", "a/b"]).code, 0);
    let (looked, done) =
        (["GET /api/v1/nodes/gate-7", "GET /api/v1/nodes/gate-8"], ["DELETE /api/v1/nodes/gate-7", "DELETE /api/v1/nodes/gate-8"]);
    assert_eq!(server.lines(), [&looked[..], &done, &["DELETE /api/v1/claims/a%2Fb"]].concat());
    assert_eq!(home.at(&url, &["node", "quarantine", "--nodes", ""]).code, 64);
    let (url, server) = tcp(|_, _| (200, "[]".to_owned()));
    let ended = home.at(&url, &["node", "approve", "--nodes", "site=x"]);
    assert!(ended.code == 64 && ended.err.contains("no node matches"), "{}", ended.err);
    assert_eq!(server.lines(), ["GET /api/v1/nodes?filter=site%3Dx"]);
}

#[test]
fn filters_of_usage_reach_the_fleet() {
    let (url, server) = tcp(|_, _| (200, "[]".to_owned()));
    let arguments = ["usage", "--function", "hello", "--node", "gw-1", "--since", "1970-01-01T00:00:01Z"];
    let ended = Home::new().at(&url, &arguments);
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    assert!(ended.err.contains("there is no node `gw-1`"), "{}", ended.err);
    assert_eq!(server.lines(), ["GET /api/v1/usage?function=hello&node=gw-1&since_ms=1000", "GET /api/v1/nodes"]);
    let ended = Home::new().at(&url, &["usage", "--function", "hello"]);
    assert_eq!((ended.code, ended.out.as_str()), (0, "no usage\n"));
}

#[test]
fn a_login_is_remembered_for_its_owner_alone() {
    let (url, server) = tcp(|_, _| (200, serde_json::to_string(&Status::default()).unwrap()));
    let home = Home::new();
    home.write("token", "secret\n");
    assert_eq!(home.sedge(&["login", "--fleet", &url, "--token-file", "token"]).code, 0);
    let kept = home.path(".config/sedge/config.toml");
    assert_eq!(fs::metadata(kept).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(home.sedge(&["status"]).code, 0);
    assert_eq!(server.asked()[1].token.as_deref(), Some("Bearer secret"));
    // Another fleet does not get the token of this one.
    let ended = home.sedge(&["status", "--fleet", "http://127.0.0.1:1"]);
    assert_eq!(ended.code, 78);
    assert!(ended.err.contains("no token for the fleet at http://127.0.0.1:1"), "{}", ended.err);
}

#[test]
fn a_login_that_fails_changes_nothing() {
    let (url, _server) = tcp(|_, _| (401, json!({ "error": "wrong token" }).to_string()));
    let home = Home::new();
    assert_eq!(home.at(&url, &["login"]).code, 1);
    assert!(!home.path(".config").exists());
}

#[test]
fn only_the_pinned_fleet_is_believed() {
    let fleet = tls(|_, _| (200, serde_json::to_string(&Status { nodes: 7, ..Status::default() }).unwrap()));
    let home = Home::new();
    let good = home.at(&fleet.url, &["status", "--ca-pin", &fleet.pin.to_string()]);
    assert_eq!(good.code, 0, "{}", good.err);
    let wrong = home.at(&fleet.url, &["status", "--ca-pin", &Digest::of(b"another").to_string()]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.err.contains("does not come from the pinned CA"), "{}", wrong.err);
    assert_eq!(home.at(&fleet.url, &["status"]).code, 78);
    assert_eq!(fleet.server.asked().len(), 1, "the token went only where it belongs");
}

#[test]
fn the_data_directory_of_a_fleet_says_all_that_is_needed() {
    let fleet = tls(|_, _| (200, serde_json::to_string(&Status::default()).unwrap()));
    let home = Home::new();
    let address = fleet.url.trim_start_matches("https://");
    for https in [&fleet.url, address] {
        home.write("data/addresses.json", json!({ "https": https, "sync": "x", "console": "y" }).to_string());
        home.write("data/admin-token", "secret\n");
        home.write("data/ca.pem", &fleet.ca_pem);
        let ended = home.sedge(&["status", "--fleet-data", "data"]);
        assert_eq!(ended.code, 0, "{}", ended.err);
    }
    assert_eq!(fleet.server.asked()[0].token.as_deref(), Some("Bearer secret"));
}

#[test]
fn a_node_answers_over_its_socket() {
    let home = Home::new();
    let socket = home.path("s");
    let entry = |text: &str| json!({ "time_ms": 0, "level": "info", "function": "hello", "revision": "ab".repeat(32), "invocation": "1", "text": text });
    let logs = format!("{}\n{}\n", entry("one"), entry("two"));
    let server = unix(&socket, move |asked, _| match asked.path.as_str() {
        "/v1/logs?function=hello&lines=5" => (200, logs.clone()),
        "/v1/functions" => (200, "[]".to_owned()),
        "/v1/functions/hello/invoke?method=GET&path=%2Fhello%3Fa" => (200, "hi".to_owned()),
        "/v1/functions/hello/invoke" => (500, "broken".to_owned()),
        "/v1/functions/hello/invoke?topic=a%2Fb" => {
            (200, json!({ "ok": false, "output": "too hot", "wall_us": 1500, "cpu_us": 900 }).to_string())
        }
        _ => not_found(asked),
    });
    let socket = socket.to_str().unwrap();
    let ended = home.sedge(&["logs", "hello", "-n", "5", "--node", socket]);
    assert_eq!(ended.out, "00:00:00.000 info   hello  one\n00:00:00.000 info   hello  two\n", "{}", ended.err);
    assert_eq!(home.sedge(&["ls", "--node", socket]).out, "no functions\n");
    let ended = home.sedge(&["invoke", "hello", "--path", "/hello?a", "--node", socket]);
    assert_eq!((ended.code, ended.out.as_str()), (0, "hi"), "{}", ended.err);
    let ended = home.sedge(&["invoke", "hello", "--data", "x", "--node", socket]);
    assert_eq!((ended.code, ended.out.as_str()), (1, "broken"));
    let ended = home.sedge(&["invoke", "hello", "--topic", "a/b", "--node", socket]);
    assert_eq!((ended.code, ended.err.as_str()), (1, "failed after 1.50 ms, of which 900 µs on the processor: too hot\n"));
    let ended = home.sedge(&["invoke", "gone", "--node", socket]);
    assert_eq!((ended.code, ended.err.as_str()), (1, "error: nothing at POST /v1/functions/gone/invoke\n"));
    assert_eq!(server.asked().iter().find(|asked| asked.path.ends_with("/hello/invoke")).unwrap().body, b"x");
}

#[test]
fn a_node_that_is_not_there_is_named() {
    let ended = Home::new().sedge(&["logs", "--node", "/nowhere/sedged.sock"]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.err.contains("no answer from the node at /nowhere/sedged.sock") && ended.err.contains("see that `sedged` runs"),
        "{}",
        ended.err
    );
}

#[test]
fn a_new_project_is_never_written_over_another() {
    let home = Home::new();
    assert_eq!(home.sedge(&["new", "my-fn", "--template", "rust-command"]).code, 0);
    assert!(fs::read_to_string(home.path("my-fn/Cargo.toml")).unwrap().contains("name = \"my-fn\""));
    let ended = home.sedge(&["new", "my-fn"]);
    assert_eq!(ended.code, 64);
    assert!(ended.err.contains("name another directory with --path"), "{}", ended.err);
}

#[test]
fn completions_know_the_commands() {
    let ended = Home::new().sedge(&["completions", "bash"]);
    assert!(ended.code == 0 && ended.out.contains("dead-letters") && ended.out.contains("--fleet-data"));
}

/// A node that runs whatever it is given, and keeps no promise beyond that.
fn obedient_node(asked: &Asked, before: &[Asked]) -> Reply {
    let given = before.iter().rev().find(|asked| asked.line() == "PUT /v1/functions/hello");
    let given = given.map(|asked| serde_json::from_slice::<LocalRevision>(&asked.body).unwrap());
    let report = given.map(|given| {
        let revision = Some(RevisionId::of(&given.artifact, &given.manifest));
        let function = given.manifest.name;
        FunctionReport {
            function,
            running: revision,
            assigned: revision,
            state: FunctionState::Running,
            missing_secrets: Vec::new(),
            totals: Counters::default(),
            health: Health::default(),
        }
    });
    let status = LocalStatus {
        version: "0".to_owned(),
        node: None,
        fleet: FleetLink::None,
        fleet_note: None,
        http: Some("127.0.0.1:9".to_owned()),
        mqtt: Some("127.0.0.1:8".to_owned()),
        metrics: None,
        desired_epoch: 0,
        functions: report.into_iter().collect(),
        vitals: Vitals::default(),
        admission: sedge_protocol::local::Admission::default(),
        usage_unsent: 0,
        store_bytes_written: 0,
        calls: CallCounts::default(),
        devices: Vec::new(),
    };
    match asked.line() {
        line if line == "GET /v1/status" => (200, serde_json::to_string(&status).unwrap()),
        line if line.starts_with("PUT ") || line.starts_with("GET /v1/invocations/stream") => (200, String::new()),
        _ => not_found(asked),
    }
}

/// Waits for a file to be there.
fn await_file(path: &Path) -> String {
    loop {
        match fs::read_to_string(path) {
            Ok(text) => return text,
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

#[test]
fn a_function_runs_locally_and_is_swapped_when_its_source_changes() {
    let home = Home::new();
    home.write(
        "hello/function.toml",
        // A build that settles on something new each time, among the sources, as cargo does the first time.
        "name = 'hello'\n[build]\nartifact = 'target/a.wasm'\n\
         command = 'mkdir -p target && cp source target/a.wasm && date +%N > Cargo.lock && echo built >> ../builds'\n\
         [[trigger]]\nhttp = '/hello'\n[[trigger]]\nmqtt = 'a/+'\n",
    );
    let (first, second) = (module("first"), module("second"));
    home.write("hello/source", &first);
    // A daemon that only says which configuration it got; the node behind its socket is in this process.
    let daemon = home.write("sedged", "#!/bin/sh\ncp \"$2\" \"$HOME/got\" && mv \"$HOME/got\" \"$HOME/config\"\nexec sleep 1000\n");
    fs::set_permissions(&daemon, fs::Permissions::from_mode(0o755)).unwrap();
    let mut sedge = home.command(&["run", "hello", "--json", "--sedged", daemon.to_str().unwrap()]);
    let mut sedge = sedge.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();

    let config: toml::Table = await_file(&home.path("config")).parse().unwrap();
    let socket = PathBuf::from(config["local"]["socket"].as_str().unwrap());
    let server = unix(&socket, obedient_node);
    let mut lines = BufReader::new(sedge.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let started: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!((&started["http"][0], &started["topics"][0]), (&json!("http://127.0.0.1:9/hello"), &json!("a/+")));

    home.write("hello/source", "not wasm");
    let mut talk = BufReader::new(sedge.stderr.take().unwrap()).lines().map(|line| line.unwrap());
    assert!(talk.any(|line| line.contains("not valid WebAssembly")));
    home.write("hello/source", &second);
    let swapped: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_ne!(started["revision"], swapped["revision"]);

    let pid = rustix::process::Pid::from_raw(i32::try_from(sedge.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(talk.any(|line| line == "stopped hello"));
    assert_eq!(sedge.wait().unwrap().code(), Some(0));
    assert!(!socket.exists(), "the node's directory goes with it");
    let uploads: Vec<Vec<u8>> =
        server.asked().into_iter().filter(|asked| asked.path.starts_with("/v1/artifacts/")).map(|asked| asked.body).collect();
    assert_eq!(uploads, [first, second]);
    // So many steps and no more: what a build writes does not start another, and a change is one upload and one revision.
    assert_eq!(fs::read_to_string(home.path("builds")).unwrap().lines().count(), 3);
    let given = server.lines().iter().filter(|line| *line == "PUT /v1/functions/hello").count();
    assert_eq!(given, 2);
    assert!(swapped["rebuilt"]["total_ms"].as_u64() >= swapped["rebuilt"]["compiler_ms"].as_u64() && started["rebuilt"].is_null());
}

#[test]
fn a_node_that_does_not_start_is_shown_with_its_log() {
    let home = Home::new();
    home.write("function.toml", "name = 'hello'\n[build]\ncommand = 'true'\nartifact = 'a.wasm'\n");
    home.write("a.wasm", module("x"));
    let daemon = home.write("sedged", "#!/bin/sh\necho the port is taken >&2\nexit 78\n");
    fs::set_permissions(&daemon, fs::Permissions::from_mode(0o755)).unwrap();
    let ended = home.sedge(&["run", "--sedged", daemon.to_str().unwrap()]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("the port is taken"), "{}", ended.err);
    let ended = home.sedge(&["run", "--sedged", "/nowhere/sedged"]);
    assert_eq!(ended.code, 78);
    assert!(ended.err.contains("name it with --sedged"), "{}", ended.err);
}
