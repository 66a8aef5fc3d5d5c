//! Real guests, built by `cargo xtask guests`.

use crate::support::{Bench, ending, get, handle};
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use sedge_runtime::{Failure, Invocation};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

const FAULTY: &str = "[limits]\ntimeout_ms = 2000\nmemory_mb = 32\n";

#[tokio::test]
async fn hello_greets_with_its_setting() {
    let bench = Bench::new();
    let hello = bench.guest("hello", "[settings]\ngreeting = \"good morning\"\n");
    let mut whole = 0;
    for round in 0..20 {
        let (response, ending) = get(&hello, "/hello").await;
        let response = response.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        // On a busy machine the first turn may be over before the guest is done.
        whole += u32::from(response.body().size_hint().exact() == Some(12));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "good morning");
        let ending = ending.await.unwrap();
        assert_eq!(ending.result, Ok(()));
        assert_eq!((ending.usage.bytes_in, ending.usage.bytes_out, ending.usage.cold), (0, 12, round == 0));
    }
    assert!(whole > 0, "a guest that is done costs no task and no chunking");
}

#[tokio::test]
async fn faults_fail_alone_and_the_function_goes_on() {
    let bench = Bench::new();
    let faulty = bench.guest("faulty", "[limits]\ntimeout_ms = 300\nmemory_mb = 32\n");
    for (path, expected) in [
        ("/faulty/trap", "trap: wasm `unreachable` instruction executed"),
        ("/faulty/loop", "not done after 300 ms"),
        ("/faulty/slow", "not done after 300 ms"),
        ("/faulty/allocate", "needs more memory than its limit of 33554432 bytes"),
        ("/faulty/nothing", "the handler returned without a response"),
    ] {
        let (response, ending) = get(&faulty, path).await;
        let failure = response.expect_err(path);
        assert_eq!(failure.to_string(), expected, "{path}");
        assert_eq!(ending.await.unwrap().result, Err(failure));
        let (response, _) = get(&faulty, "/faulty/ok").await;
        assert_eq!(response.unwrap().into_body().collect().await.unwrap().to_bytes(), "ok");
    }
}

#[tokio::test]
async fn a_large_body_streams_whole() {
    let bench = Bench::new();
    let faulty = bench.guest("faulty", FAULTY);
    let (response, ending) = get(&faulty, "/faulty/big").await;
    let body = response.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body.len(), 8 * 1024 * 1024);
    let ending = ending.await.unwrap();
    assert_eq!((ending.result, ending.usage.bytes_out), (Ok(()), 8 * 1024 * 1024));
}

#[tokio::test]
async fn a_client_that_goes_away_stops_the_guest() {
    let bench = Bench::new();
    let faulty = bench.guest("faulty", FAULTY);
    let (response, ending) = get(&faulty, "/faulty/big").await;
    let mut body = response.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(ending.await.unwrap().result, Err(Failure::Cancelled));
}

#[tokio::test]
async fn the_deadline_holds_when_the_client_does_not_read() {
    let bench = Bench::new();
    let faulty = bench.guest("faulty", "[limits]\ntimeout_ms = 200\nmemory_mb = 32\n");
    let (hold, released) = oneshot::channel::<()>();
    let (ended, ending) = ending();
    let request = http::Request::get("/faulty/big").body(Full::new(Bytes::new())).unwrap();
    let begin = Instant::now();
    let response = faulty.http(request, Invocation::new("i-1", hold, ended)).await.unwrap();
    assert!(released.await.is_err(), "the permit is dropped although nobody reads the body");
    let gone = Instant::now();
    // A client that takes its time.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let cut = response.into_body().collect().await.expect_err("a cut body does not look whole");
    assert_eq!(cut, Failure::Timeout { limit_ms: 200 });
    let ending = ending.await.unwrap();
    assert_eq!(ending.result, Err(cut));
    assert!(Duration::from_micros(ending.usage.wall_us) <= gone - begin, "the time that the client took is not charged");
}

#[tokio::test]
async fn a_large_reply_to_an_event_is_refused() {
    let bench = Bench::new();
    let faulty = bench.guest("faulty", FAULTY);
    let (reply, ending) = handle(&faulty, b"big").await;
    assert!(matches!(reply, Err(Failure::OutputTooLarge { .. })), "{reply:?}");
    assert_eq!(ending.result, Err(reply.unwrap_err()));
}

#[tokio::test]
async fn a_status_that_is_not_2xx_fails_an_event() {
    let bench = Bench::new();
    let faulty = bench.guest("faulty", FAULTY);
    assert_eq!(handle(&faulty, b"status").await.0, Err(Failure::Status { code: 500, said: "as you wished".into() }));
    assert_eq!(handle(&faulty, b"ok").await.0.unwrap().data, "ok");
}

#[tokio::test]
async fn a_request_to_somewhere_else_is_denied() {
    let bench = Bench::new();
    let faulty = bench.guest("faulty", FAULTY);
    let reply = handle(&faulty, b"fetch").await.0.unwrap();
    assert_eq!(reply.data, "ErrorCode::HttpRequestDenied");
}

#[tokio::test]
async fn every_line_reaches_the_log() {
    let bench = Bench::new();
    let faulty = bench.guest("faulty", FAULTY);
    let (response, _) = get(&faulty, "/faulty/print-a-lot").await;
    response.unwrap();
    let log = bench.host.log();
    assert_eq!((log.len(), log[9_999].as_str()), (10_000, "line 9999 of 10000"));
}

#[tokio::test]
async fn average_counts_replies_and_raises_the_alarm() {
    let bench = Bench::new();
    let manifest = "[settings]\nalarm_above = \"80\"\n[access]\nkeyvalue = [\"default\"]\npublish = [\"alarm/#\"]\n";
    let average = bench.guest("average", manifest);
    for value in ["20", "90"] {
        let (reply, _) = handle(&average, format!("{{\"value\":{value}}}").as_bytes()).await;
        assert!(reply.unwrap().content_type.is_some_and(|media| media.contains("json")));
    }
    assert_eq!(bench.host.value("default", "count/a").as_deref(), Some("2"));
    let messages = bench.host.messages.lock().unwrap();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].0.as_str(), "alarm/a");
}

#[tokio::test]
async fn commands_of_the_standard_library_run() {
    let bench = Bench::new();
    let faulty = bench.guest("faulty-command", "[limits]\ntimeout_ms = 300\nmemory_mb = 16\n");
    assert_eq!(handle(&faulty, b"ok").await.0.unwrap().data, "ok\n");
    // A component of WASI 0.2 can only say that it failed; core modules keep their code.
    assert_eq!(handle(&faulty, b"exit3").await.0, Err(Failure::Exit { code: 1 }));
    assert!(matches!(handle(&faulty, b"trap").await.0, Err(Failure::Trap { .. })));
    assert!(matches!(handle(&faulty, b"allocate").await.0, Err(Failure::OutOfMemory { .. })));
    assert!(matches!(handle(&faulty, b"loop").await.0, Err(Failure::Timeout { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_keep_apart() {
    let bench = Bench::new();
    let hello = Arc::new(bench.guest("hello", "[settings]\ngreeting = \"hi\"\n[limits]\nmemory_mb = 4\n"));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let hello = Arc::clone(&hello);
        calls.spawn(async move {
            for _ in 0..20 {
                let (response, ending) = get(&hello, "/").await;
                assert_eq!(response.unwrap().into_body().collect().await.unwrap().to_bytes(), "hi");
                assert_eq!(ending.await.unwrap().result, Ok(()));
            }
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
}
