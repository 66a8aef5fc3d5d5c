//! Components of WASI 0.3: requests, streams, time, memory and faults, as those of 0.2.

use crate::support::{Bench, ask, ending, get, handle};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use sedge_runtime::{Failure, Function, Invocation};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

const ACCESS: &str = "[access]\nkeyvalue = [\"default\"]\npublish = [\"probe/#\"]\n";

fn probe(bench: &Bench, limits: &str) -> Function {
    bench.guest("probe-03", &format!("[limits]\nmemory_mb = 32\n{limits}\n{ACCESS}"))
}

#[tokio::test]
async fn hello_greets_with_its_setting() {
    let bench = Bench::new();
    let hello = bench.guest("hello-03", "[settings]\ngreeting = \"good morning\"\n");
    for round in 0..3 {
        let (response, ending) = get(&hello, "/hello-03").await;
        let response = response.unwrap();
        assert_eq!((response.status().as_u16(), response.headers()["content-type"].to_str().unwrap()), (200, "text/plain; charset=utf-8"));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "good morning");
        let ending = ending.await.unwrap();
        assert_eq!(ending.result, Ok(()));
        assert_eq!((ending.usage.bytes_in, ending.usage.bytes_out, ending.usage.cold), (0, 12, round == 0));
        assert!(ending.usage.cpu_us > 0 && ending.usage.memory_peak_bytes > 0, "{:?}", ending.usage);
    }
}

#[tokio::test]
async fn a_handler_is_told_where_the_request_was_sent() {
    let bench = Bench::new();
    let (status, text, _) = ask(&probe(&bench, ""), "/probe-03/where", "").await;
    assert_eq!((status, text.as_str()), (200, "Some(Scheme::Http) Some(\"node.local\")"));
}

#[tokio::test]
async fn an_event_is_handled_and_answered() {
    let bench = Bench::new();
    let (reply, ending) = handle(&probe(&bench, ""), b"twenty-one").await;
    assert_eq!(reply.unwrap().data, "TWENTY-ONE");
    assert_eq!((ending.result, ending.usage.bytes_in), (Ok(()), 10));
    let (reply, _) = handle(&bench.guest("template-rust-http-03", ""), b"12345").await;
    assert_eq!(reply.unwrap().data, "5 bytes of data\n");
}

#[tokio::test]
async fn faults_fail_alone_and_the_function_goes_on() {
    let bench = Bench::new();
    let probe = probe(&bench, "timeout_ms = 300");
    for (wish, expected) in [
        ("loop", "not done after 300 ms"),
        ("slow", "not done after 300 ms"),
        ("allocate", "needs more memory than its limit of 33554432 bytes"),
        ("error", "the handler answered with the error ErrorCode::InternalError"),
        ("trap", "trap: wasm `unreachable` instruction executed (panicked at src/lib.rs:"),
    ] {
        let (response, ending) = get(&probe, &format!("/probe-03/{wish}")).await;
        let failure = response.expect_err(wish);
        assert!(failure.to_string().starts_with(expected), "{wish}: {failure}");
        assert_eq!(ending.await.unwrap().result, Err(failure));
        assert_eq!(ask(&probe, "/probe-03/ok", "").await.1, "ok");
    }
    let log = bench.host.log().join("\n");
    assert!(log.contains("probe_03") && log.contains("src/lib.rs:"), "the backtrace has names, files and lines: {log}");
}

#[tokio::test(flavor = "current_thread")]
async fn an_endless_loop_delays_nobody() {
    let bench = Bench::new();
    let (spin, quick) = (probe(&bench, "timeout_ms = 300"), bench.guest("hello-03", ""));
    let stopped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stopped);
    let spinning = tokio::spawn(async move {
        let result = get(&spin, "/probe-03/loop").await.0;
        flag.store(true, SeqCst);
        result.map(|_| ())
    });
    let mut meanwhile = 0;
    while !stopped.load(SeqCst) {
        assert_eq!(ask(&quick, "/hello-03", "").await.0, 200);
        meanwhile += 1;
        tokio::task::yield_now().await;
    }
    assert!(meanwhile >= 10, "only {meanwhile} calls got through on the one worker beside a spinning guest");
    assert_eq!(spinning.await.unwrap(), Err(Failure::Timeout { limit_ms: 300 }));
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once_with_trailers() {
    let bench = Bench::new();
    let probe = probe(&bench, "timeout_ms = 5000");
    let (sender, mut receiver) = mpsc::channel::<Frame<Bytes>>(1);
    let frames = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx).map(|frame| frame.map(Ok::<_, Infallible>)));
    let (ended, ending) = ending();
    let request = http::Request::post("/probe-03/echo").header("host", "node.local").body(StreamBody::new(frames)).unwrap();
    let response = probe.http(request, Invocation::new("i-1", (), ended)).await.unwrap();
    let mut body = response.into_body();
    for word in ["one", "two", "three"] {
        // The next is sent only after the one before came back.
        sender.send(Frame::data(word.into())).await.unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), word);
    }
    let trailers = http::HeaderMap::from_iter([("checksum".parse().unwrap(), "7".parse().unwrap())]);
    sender.send(Frame::trailers(trailers)).await.unwrap();
    drop(sender);
    assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap()["checksum"], "7");
    assert!(body.frame().await.is_none());
    drop(body);
    let ending = ending.await.unwrap();
    assert_eq!((ending.result, ending.usage.bytes_in, ending.usage.bytes_out), (Ok(()), 11, 11));
}

#[tokio::test]
async fn a_large_body_streams_whole_without_being_held() {
    let bench = Bench::new();
    let (status, text, ending) = ask(&probe(&bench, ""), "/probe-03/big", "").await;
    assert_eq!((status, text.len()), (200, 8 << 20));
    assert_eq!((ending.result, ending.usage.bytes_out), (Ok(()), 8 << 20));
    assert!(ending.usage.memory_peak_bytes < 4 << 20, "{:?}", ending.usage);
}

#[tokio::test]
async fn sizes_of_bodies_are_limited() {
    let bench = Bench::new();
    let probe = probe(&bench, "response_mb = 1\nrequest_mb = 1");
    let (_, text, ending) = ask(&probe, "/probe-03/endless", "").await;
    assert_eq!((text.as_str(), ending.result.is_err()), ("the output is larger than 1048576 bytes", true));
    let (status, text, _) = ask(&probe, "/probe-03/", vec![b'x'; (1 << 20) + 1]).await;
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("ErrorCode::HttpRequestBodySize"), "{text}");
    assert_eq!(ask(&probe, "/probe-03/", vec![b'x'; 1 << 20]).await.0, 200);
}

#[tokio::test]
async fn a_client_that_goes_away_stops_the_guest() {
    let bench = Bench::new();
    let (response, ending) = get(&probe(&bench, "timeout_ms = 60000"), "/probe-03/endless").await;
    let mut body = response.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(ending.await.unwrap().result, Err(Failure::Cancelled));
}

#[tokio::test]
async fn the_deadline_holds_when_the_client_does_not_read() {
    let bench = Bench::new();
    let probe = probe(&bench, "timeout_ms = 200");
    let (hold, released) = oneshot::channel::<()>();
    let (ended, ending) = ending();
    let request = http::Request::get("/probe-03/endless").body(Full::new(Bytes::new())).unwrap();
    let response = probe.http(request, Invocation::new("i-1", hold, ended)).await.unwrap();
    assert!(released.await.is_err(), "the permit is dropped although nobody reads the body");
    let cut = response.into_body().collect().await.expect_err("a cut body does not look whole");
    assert_eq!(cut, Failure::Timeout { limit_ms: 200 });
    assert_eq!(ending.await.unwrap().result, Err(cut));
}

#[tokio::test]
async fn a_body_that_was_cut_never_looks_whole() {
    let bench = Bench::new();
    let probe = probe(&bench, "timeout_ms = 5000");
    // The smaller ones may trap before anything has left, the larger ones do it while the client reads.
    for bytes in [64 << 10, 256 << 10, 4 << 20, 8 << 20] {
        let (status, text, ending) = ask(&probe, &format!("/probe-03/half?{bytes}"), "").await;
        assert!(status == 200 || (status == 0 && bytes < 1 << 20), "{bytes}: {status}");
        assert!(text.starts_with("trap: wasm `unreachable` instruction executed (panicked at src/lib.rs:"), "{text}");
        assert!(matches!(ending.result, Err(Failure::Trap { .. })), "{ending:?}");
    }
    let (_, text, ending) = ask(&probe, "/probe-03/short", "").await;
    assert_eq!((text.as_str(), ending.result), ("the response body was not finished", Err(Failure::Incomplete)));
}

#[tokio::test]
async fn what_a_guest_does_after_its_answer_belongs_to_the_invocation() {
    let bench = Bench::new();
    let probe = probe(&bench, "timeout_ms = 300");
    let (status, text, ending) = ask(&probe, "/probe-03/after", "").await;
    assert_eq!((status, text.as_str(), ending.result), (200, "answered", Ok(())));
    assert!(bench.host.logged(&["after the answer"]));
    let (response, ending) = get(&probe, "/probe-03/after?forever").await;
    let begin = Instant::now();
    let body = response.unwrap().into_body();
    let (read, ended) = tokio::join!(body.collect(), ending);
    assert_eq!(read.unwrap().to_bytes(), "answered", "the client has it all");
    assert_eq!(ended.unwrap().result, Err(Failure::Timeout { limit_ms: 300 }), "and the guest ends at the deadline");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_guest_waits_for_several_things_at_a_time() {
    let bench = Bench::new();
    let begin = Instant::now();
    let (status, _, ending) = ask(&probe(&bench, "timeout_ms = 5000"), "/probe-03/together", "").await;
    assert_eq!(status, 200);
    assert!(ending.usage.cpu_us < ending.usage.wall_us / 2, "waiting is not computing: {:?}", ending.usage);
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(100), "{took:?}");
}

#[tokio::test]
async fn what_the_host_has_to_remember_is_bounded() {
    let bench = Bench::new();
    let probe = probe(&bench, "timeout_ms = 2000");
    for what in ["streams", "waits", "fields"] {
        let (status, text, ending) = ask(&probe, &format!("/probe-03/hoard?{what}"), "").await;
        assert_eq!(status, 0, "{what}: {text}");
        assert!(ending.result.is_err(), "{what}");
        assert_eq!(ask(&probe, "/probe-03/ok", "").await.1, "ok");
    }
}

#[tokio::test]
async fn an_instance_serves_again_where_the_manifest_says_so() {
    let bench = Bench::new();
    let function = bench.guest("hello-03", "[limits]\ntimeout_ms = 1000\n[reuse]\ncount = 3\n");
    for _ in 0..7 {
        let (ended, ending) = ending();
        let invocation = Invocation::new("i-1", (), ended);
        let invocation = match function.warm() {
            Some(warm) => invocation.in_warm(warm),
            None => invocation,
        };
        let request = http::Request::get("http://node/hello-03").body(Full::new(Bytes::new())).unwrap();
        let response = function.http(request, invocation).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(ending.await.unwrap().result, Ok(()));
        while function.waiting() != 1 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_command_reads_and_writes_streams() {
    let bench = Bench::new();
    let command = bench.guest("command-03", "[limits]\ntimeout_ms = 300\nmemory_mb = 32\n");
    let (reply, ending) = handle(&command, b"quiet please").await;
    assert_eq!(reply.unwrap().data, "QUIET PLEASE");
    assert_eq!((ending.result, ending.usage.bytes_in, ending.usage.bytes_out), (Ok(()), 12, 12));
    assert!(bench.host.logged(&["an event on plant/a/temperature"]));
    let (status, text, _) = ask(&command, "/", "loud").await;
    assert_eq!((status, text.as_str()), (200, "LOUD"));
    for (data, expected) in [
        (&b"fail"[..], Failure::Exit { code: 1 }),
        (b"wait", Failure::Timeout { limit_ms: 300 }),
        (b"fill", Failure::OutputTooLarge { limit_bytes: sedge_runtime::limits::REPLY_BYTES_MAX as u64 }),
    ] {
        assert_eq!(handle(&command, data).await.0, Err(expected));
    }
    assert!(matches!(handle(&command, b"trap").await.0, Err(Failure::Trap { .. })));
}
