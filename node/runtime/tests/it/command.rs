//! WASI commands: core modules and components.

use crate::support::{Bench, ending, handle};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use sedge_runtime::{Failure, Fault, Invocation};

/// Copies standard input to standard output.
const ECHO: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $more
      (i32.store (i32.const 0) (i32.const 1024))
      (i32.store (i32.const 4) (i32.const 4096))
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (if (i32.load (i32.const 8)) (then
        (i32.store (i32.const 4) (i32.load (i32.const 8)))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
        (br $more))))))"#;

/// Writes its environment, entries separated by zero bytes, on the given descriptor.
fn environment_to(descriptor: u32) -> String {
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (drop (call $sizes (i32.const 0) (i32.const 4)))
    (drop (call $get (i32.const 64) (i32.const 4096)))
    (i32.store (i32.const 16) (i32.const 4096))
    (i32.store (i32.const 20) (i32.load (i32.const 4)))
    (drop (call $write (i32.const {descriptor}) (i32.const 16) (i32.const 1) (i32.const 24)))))"#
    )
}

/// Ends by `proc_exit`.
fn exit_with(code: i32) -> String {
    format!(
        r#"(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start") (call $exit (i32.const {code}))))"#
    )
}

#[tokio::test]
async fn data_arrives_on_stdin_and_stdout_is_the_reply() {
    let bench = Bench::new();
    let echo = bench.wat(ECHO, "");
    let data = vec![b'x'; 10_000];
    let (reply, ending) = handle(&echo, &data).await;
    assert_eq!(reply.unwrap().data, data);
    assert_eq!(ending.result, Ok(()));
    assert_eq!((ending.usage.bytes_in, ending.usage.bytes_out), (10_000, 10_000));
    assert_eq!(ending.usage.memory_peak_bytes, 65_536);
    assert!(ending.usage.cpu_us > 0 && ending.usage.wall_us >= ending.usage.cpu_us);
    assert!(bench.host.log().is_empty(), "a reply is not logged");
    assert!(ending.usage.cold && !handle(&echo, b"").await.1.usage.cold, "only the first call is cold");
}

#[tokio::test]
async fn attributes_arrive_as_environment_and_nothing_else_does() {
    let bench = Bench::new();
    let (reply, _) = handle(&bench.wat(&environment_to(1), ""), b"").await;
    let text = String::from_utf8(reply.unwrap().data.to_vec()).unwrap();
    let mut entries: Vec<&str> = text.split_terminator('\0').collect();
    entries.sort_unstable();
    let expected = ["CE_ID=e-1", "CE_SOURCE=/test", "CE_SPECVERSION=1.0", "CE_TOPIC=plant/a/temperature", "CE_TYPE=sedge.test"];
    assert_eq!(entries, expected);
}

#[tokio::test]
async fn stderr_goes_to_the_log() {
    let bench = Bench::new();
    let (reply, _) = handle(&bench.wat(&environment_to(2), ""), b"").await;
    assert!(reply.unwrap().data.is_empty());
    assert!(bench.host.log()[0].contains("CE_ID=e-1"), "{:?}", bench.host.log());
}

#[tokio::test]
async fn an_exit_code_is_a_failure_unless_it_is_zero() {
    let bench = Bench::new();
    let (result, ending) = handle(&bench.wat(&exit_with(3), ""), b"").await;
    assert_eq!(result, Err(Failure::Exit { code: 3 }));
    assert_eq!(ending.result, Err(Failure::Exit { code: 3 }));
    assert_eq!(Failure::Exit { code: 3 }.fault(), Fault::Function);
    assert!(handle(&bench.wat(&exit_with(0), ""), b"").await.0.is_ok());
}

#[tokio::test]
async fn a_trap_is_a_failure_with_its_place_in_the_log() {
    let bench = Bench::new();
    let trap = bench.wat(r#"(module (func $deep unreachable) (func (export "_start") call $deep))"#, "");
    let (result, _) = handle(&trap, b"").await;
    let Err(Failure::Trap { message }) = result else { panic!("{result:?}") };
    assert!(message.contains("unreachable"), "{message}");
    assert!(bench.host.log().iter().any(|line| line.contains("deep")), "{:?}", bench.host.log());
}

#[tokio::test]
async fn a_command_answers_http() {
    let bench = Bench::new();
    let (ended, ending) = ending();
    let request = http::Request::post("/a?b=c").body(Full::new(Bytes::from_static(b"21.5"))).unwrap();
    let response = bench.wat(ECHO, "").http(request, Invocation::new("i-1", (), ended)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "21.5");
    assert_eq!(ending.await.unwrap().usage.bytes_in, 4);
}

#[tokio::test]
async fn a_command_sees_the_request_line() {
    let bench = Bench::new();
    let request = http::Request::put("/a/b?c=d").body(Full::new(Bytes::new())).unwrap();
    let response = bench.wat(&environment_to(1), "").http(request, Invocation::new("i-1", (), drop)).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    for entry in ["CE_TYPE=http.request", "HTTP_METHOD=PUT", "HTTP_PATH=/a/b", "HTTP_QUERY=c=d"] {
        assert!(text.contains(entry), "{text:?}");
    }
}

#[tokio::test]
async fn output_is_bounded() {
    let bench = Bench::new();
    let flood = bench.wat(
        r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 4) (i32.const 32768))
    (loop $more (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br $more))))"#,
        "",
    );
    let (result, _) = handle(&flood, b"").await;
    assert!(matches!(result, Err(Failure::OutputTooLarge { .. })), "{result:?}");
}
