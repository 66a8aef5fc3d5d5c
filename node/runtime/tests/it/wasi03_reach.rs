//! What components of WASI 0.3 import: what the manifest grants is there, what it does not is refused with the line to add.

use crate::server::Server;
use crate::support::{Bench, ask};
use sedge_runtime::{Function, LogLevel, LogStream};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

const STATE: &str = "keyvalue = [\"default\"]\npublish = [\"probe/#\"]\n";

fn probe(bench: &Bench, access: &str) -> Function {
    bench.guest("probe-03", &format!("[limits]\nmemory_mb = 32\ntimeout_ms = 5000\n[settings]\nunit = \"K\"\n[access]\n{STATE}{access}"))
}

async fn reach(function: &Function, what: &str) -> (u16, String) {
    let (status, text, _) = ask(function, &format!("/probe-03/{what}"), "").await;
    (status, text)
}

#[tokio::test]
async fn the_interfaces_of_02_are_there_too() {
    let bench = Bench::new();
    let probe = probe(&bench, "");
    for (what, expected) in
        [("config?unit", "K"), ("count?runs", "1"), ("count?runs", "2"), ("publish?probe/a", "sent"), ("line?careful", "logged")]
    {
        assert_eq!(reach(&probe, what).await, (200, expected.to_owned()), "{what}");
    }
    assert_eq!(bench.host.value("default", "runs").as_deref(), Some("2"));
    let messages = bench.host.messages.lock().unwrap();
    assert_eq!((messages[0].0.as_str(), &messages[0].1[..]), ("probe/a", &b"from 0.3"[..]));
    let lines = bench.host.lines.lock().unwrap();
    assert!(lines.iter().any(|line| line.stream == LogStream::Logging(LogLevel::Warn) && line.text == "probe: careful"));
}

#[tokio::test]
async fn output_goes_to_the_log() {
    let bench = Bench::new();
    let (status, _) = reach(&probe(&bench, ""), "log").await;
    let lines = bench.host.lines.lock().unwrap();
    let said = |stream, text: &str| lines.iter().any(|line| line.stream == stream && line.text == text);
    assert!(status == 200 && said(LogStream::Stdout, "on standard output") && said(LogStream::Stderr, "on standard error"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_out_through_the_same_list_and_pool() {
    let (bench, server) = (Bench::new(), Server::plain().await);
    let origin = format!("http://{}", server.address);
    let probe = probe(&bench, &format!("outgoing = [\"{origin}\", \"http://average.sedge.internal\"]\n"));
    for _ in 0..5 {
        assert_eq!(reach(&probe, &format!("fetch?{origin}/echo")).await, (200, "200 asked".to_owned()));
    }
    assert_eq!(server.accepted(), 1, "five instances of one function share a connection");
    let inside = reach(&probe, "fetch?http://average.sedge.internal/a").await;
    assert_eq!(inside, (200, "200 probe calls average/a: asked".to_owned()));
    let (status, text) = reach(&probe, "fetch?https://example.org/").await;
    assert_eq!((status, text.as_str()), (500, "ErrorCode::HttpRequestDenied"));
    assert!(
        bench
            .host
            .logged(&["wasi:http/client: a request to https://example.org was refused", "add `outgoing = [\"https://example.org\"]`"]),
        "{:?}",
        bench.host.log()
    );
    let (_, _, ending) = ask(&probe, &format!("/probe-03/fetch?{origin}/echo"), "").await;
    assert_eq!((ending.usage.bytes_in, ending.usage.bytes_out), (5, 5 + 9), "asked goes out and comes back, and its answer follows");
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_connect_to_what_the_manifest_names_and_to_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"pong").await.unwrap();
    });
    let bench = Bench::new();
    let without = probe(&bench, "");
    for (what, line) in [
        (format!("tcp?{address}"), "wasi:sockets/tcp: a tcp socket was refused; add `sockets = [\"tcp://host:port\"]`"),
        ("udp".to_owned(), "wasi:sockets/udp: a udp socket was refused; add `sockets = [\"udp://host:port\"]`"),
        ("look-up?localhost".to_owned(), "wasi:sockets/ip-name-lookup: the name `localhost` was refused"),
    ] {
        let (status, text) = reach(&without, &what).await;
        assert_eq!((status, text.contains("AccessDenied")), (500, true), "{what}: {text}");
        assert!(bench.host.logged(&[line]), "{:?}", bench.host.log());
    }
    let granted = probe(&bench, &format!("sockets = [\"tcp://{address}\", \"tcp://localhost:1\"]\n"));
    assert_eq!(reach(&granted, &format!("tcp?{address}")).await, (200, "pong".to_owned()));
    let (status, text) = reach(&granted, &format!("tcp?127.0.0.1:{}", address.port() ^ 1)).await;
    assert_eq!((status, text.contains("AccessDenied")), (500, true), "{text}");
    let (status, text) = reach(&granted, "look-up?localhost").await;
    assert!(status == 200 && text.contains("Ipv4((127, 0, 0, 1))"), "{text}");
    server.await.unwrap();
}

#[tokio::test]
async fn there_is_no_file_system() {
    let bench = Bench::new();
    let (status, _) = reach(&probe(&bench, ""), "read?/etc/passwd").await;
    assert_eq!(status, 500);
}

#[test]
fn what_the_manifest_did_not_ask_for_is_refused_before_it_runs() {
    let bench = Bench::new();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests/probe-03.wasm");
    let bytes = std::fs::read(path).expect("run cargo xtask guests first");
    let refused = bench.try_bytes(&bytes, "[access]\npublish = [\"probe/#\"]\n").unwrap_err().to_string();
    assert!(refused.contains("imports `wasi:keyvalue/") && refused.contains("add `keyvalue = [\"default\"]`"), "{refused}");
}
