//! Components, written by hand down to the canonical ABI.

use crate::support::{Bench, get, handle};
use sedge_runtime::{Failure, LogLevel, LogLine, LogStream};

/// A handler with this body and nothing else.
fn handler(body: &str) -> String {
    format!(
        r#"(component
  (import "wasi:http/types@0.2.0" (instance $types
    (export "incoming-request" (type (sub resource)))
    (export "response-outparam" (type (sub resource)))))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $outparam))
  (core module $code
    (memory (export "memory") 1)
    (func (export "handle") (param i32 i32) {body}))
  (core instance $guest (instantiate $code))
  (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
    (canon lift (core func $guest "handle")))
  (instance $exports (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.0" (instance $exports)))"#
    )
}

/// A `wasi:cli/run` command with this core function.
fn command(run: &str) -> String {
    format!(
        r#"(component
  (core module $code (func (export "run") (result i32) {run}))
  (core instance $guest (instantiate $code))
  (func $run (result (result)) (canon lift (core func $guest "run")))
  (instance $exports (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exports)))"#
    )
}

/// A command that opens the bucket `b`, writes `v` under `k`, reads it back and adds 5 to `n`; any surprise is a trap.
const KEYVALUE: &str = r#"(component
  (import "wasi:keyvalue/store@0.2.0-draft2" (instance $store
    (type $variant (variant (case "no-such-store") (case "access-denied") (case "other" string)))
    (export "error" (type $error (eq $variant)))
    (export "bucket" (type $bucket (sub resource)))
    (export "open" (func (param "identifier" string) (result (result (own $bucket) (error $error)))))
    (export "[method]bucket.set"
      (func (param "self" (borrow $bucket)) (param "key" string) (param "value" (list u8)) (result (result (error $error)))))
    (export "[method]bucket.get"
      (func (param "self" (borrow $bucket)) (param "key" string) (result (result (option (list u8)) (error $error)))))))
  (alias export $store "bucket" (type $bucket))
  (alias export $store "error" (type $error))
  (import "wasi:keyvalue/atomics@0.2.0-draft2" (instance $atomics
    (alias outer 1 $bucket (type $outer-bucket))
    (alias outer 1 $error (type $outer-error))
    (export "bucket" (type $bucket (eq $outer-bucket)))
    (export "error" (type $error (eq $outer-error)))
    (export "increment"
      (func (param "bucket" (borrow $bucket)) (param "key" string) (param "delta" s64) (result (result s64 (error $error)))))))
  (core module $memory
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $m (instantiate $memory))
  (core func $open (canon lower (func $store "open") (memory (core memory $m "memory")) (realloc (core func $m "realloc"))))
  (core func $set (canon lower (func $store "[method]bucket.set") (memory (core memory $m "memory")) (realloc (core func $m "realloc"))))
  (core func $get (canon lower (func $store "[method]bucket.get") (memory (core memory $m "memory")) (realloc (core func $m "realloc"))))
  (core func $increment (canon lower (func $atomics "increment") (memory (core memory $m "memory")) (realloc (core func $m "realloc"))))
  (core module $code
    (import "m" "memory" (memory 1))
    (import "kv" "open" (func $open (param i32 i32 i32)))
    (import "kv" "set" (func $set (param i32 i32 i32 i32 i32 i32)))
    (import "kv" "get" (func $get (param i32 i32 i32 i32)))
    (import "kv" "increment" (func $increment (param i32 i32 i32 i64 i32)))
    (data (i32.const 0) "bkvn")
    (func $must (param i32) (if (i32.eqz (local.get 0)) (then unreachable)))
    (func (export "run") (result i32)
      (local $bucket i32)
      (call $open (i32.const 0) (i32.const 1) (i32.const 64))
      (if (i32.load8_u (i32.const 64)) (then (return (i32.const 1))))
      (local.set $bucket (i32.load (i32.const 68)))
      (call $set (local.get $bucket) (i32.const 1) (i32.const 1) (i32.const 2) (i32.const 1) (i32.const 64))
      (call $must (i32.eqz (i32.load8_u (i32.const 64))))
      (call $get (local.get $bucket) (i32.const 1) (i32.const 1) (i32.const 64))
      (call $must (i32.eqz (i32.load8_u (i32.const 64))))
      (call $must (i32.load8_u (i32.const 68)))
      (call $must (i32.eq (i32.load (i32.const 76)) (i32.const 1)))
      (call $must (i32.eq (i32.load8_u (i32.load (i32.const 72))) (i32.const 118)))
      (call $increment (local.get $bucket) (i32.const 3) (i32.const 1) (i64.const 5) (i32.const 64))
      (call $must (i32.eqz (i32.load8_u (i32.const 64))))
      (i32.const 0)))
  (core instance $kv
    (export "open" (func $open)) (export "set" (func $set)) (export "get" (func $get)) (export "increment" (func $increment)))
  (core instance $guest (instantiate $code (with "m" (instance $m)) (with "kv" (instance $kv))))
  (func $run (result (result)) (canon lift (core func $guest "run")))
  (instance $exports (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exports)))"#;

/// A command that writes one line of `wasi:logging` with the level `warn`.
const LOGGING: &str = r#"(component
  (import "wasi:logging/logging@0.1.0-draft" (instance $logging
    (type $names (enum "trace" "debug" "info" "warn" "error" "critical"))
    (export "level" (type $level (eq $names)))
    (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
  (core module $memory (memory (export "memory") 1))
  (core instance $m (instantiate $memory))
  (core func $log (canon lower (func $logging "log") (memory (core memory $m "memory"))))
  (core module $code
    (import "m" "memory" (memory 1))
    (import "logging" "log" (func $log (param i32 i32 i32 i32 i32)))
    (data (i32.const 0) "pumptoo hot")
    (func (export "run") (result i32)
      (call $log (i32.const 3) (i32.const 0) (i32.const 4) (i32.const 4) (i32.const 7))
      (i32.const 0)))
  (core instance $l (export "log" (func $log)))
  (core instance $guest (instantiate $code (with "m" (instance $m)) (with "logging" (instance $l))))
  (func $run (result (result)) (canon lift (core func $guest "run")))
  (instance $exports (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exports)))"#;

async fn check_handler(body: &str, expected: impl FnOnce(&Failure) -> bool) {
    let bench = Bench::new();
    let function = bench.wat(&handler(body), "[limits]\ntimeout_ms = 100\nmemory_mb = 4\n");
    let (response, ending) = get(&function, "/").await;
    let failure = response.expect_err("no response");
    assert!(expected(&failure), "{failure:?}");
    assert_eq!(ending.await.unwrap().result, Err(failure));
}

#[tokio::test]
async fn a_handler_that_returns_nothing_has_no_response() {
    check_handler("", |failure| *failure == Failure::NoResponse).await;
}

#[tokio::test]
async fn a_handler_that_traps_says_how() {
    check_handler("unreachable", |failure| matches!(failure, Failure::Trap { .. })).await;
}

#[tokio::test]
async fn a_handler_that_spins_is_stopped() {
    check_handler("(loop $l (br $l))", |failure| *failure == Failure::Timeout { limit_ms: 100 }).await;
}

#[tokio::test]
async fn a_handler_that_allocates_without_end_is_out_of_memory() {
    let body = "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable";
    check_handler(body, |failure| matches!(failure, Failure::OutOfMemory { .. })).await;
}

#[tokio::test]
async fn an_event_to_a_silent_handler_fails() {
    let bench = Bench::new();
    let (reply, _) = handle(&bench.wat(&handler(""), ""), b"21").await;
    assert_eq!(reply, Err(Failure::NoResponse));
}

#[tokio::test]
async fn a_component_command_ends_well_or_not() {
    let bench = Bench::new();
    assert!(handle(&bench.wat(&command("i32.const 0"), ""), b"").await.0.is_ok());
    assert_eq!(handle(&bench.wat(&command("i32.const 1"), ""), b"").await.0, Err(Failure::Exit { code: 1 }));
}

#[tokio::test]
async fn state_is_written_read_and_counted() {
    let bench = Bench::new();
    let function = bench.wat(KEYVALUE, "[access]\nkeyvalue = [\"b\"]\n");
    for count in ["5", "10"] {
        let (result, ending) = handle(&function, b"").await;
        result.unwrap();
        assert_eq!(ending.usage.kv_ops, 3);
        assert_eq!(bench.host.value("b", "k").as_deref(), Some("v"));
        assert_eq!(bench.host.value("b", "n").as_deref(), Some(count));
    }
}

#[tokio::test]
async fn a_bucket_that_is_not_granted_stays_shut() {
    let bench = Bench::new();
    // Without any store it is refused before it runs; with another one, when it opens this one.
    let refused = bench.try_bytes(&wat::parse_str(KEYVALUE).unwrap(), "").unwrap_err().to_string();
    assert!(refused.contains("add `keyvalue = [\"default\"]`"), "{refused}");
    let (result, _) = handle(&bench.wat(KEYVALUE, "[access]\nkeyvalue = ['another']\n"), b"").await;
    assert_eq!(result, Err(Failure::Exit { code: 1 }));
    assert!(bench.host.values.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_line_of_wasi_logging_keeps_its_level() {
    let bench = Bench::new();
    handle(&bench.wat(LOGGING, ""), b"").await.0.unwrap();
    let lines = bench.host.lines.lock().unwrap();
    assert_eq!(*lines, [LogLine { stream: LogStream::Logging(LogLevel::Warn), text: "pump: too hot".into() }]);
}
