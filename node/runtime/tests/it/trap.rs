//! What a trap leaves behind: a backtrace with names, the words of the panic, and the memory if its author asks for it.

use crate::support::{Bench, get, handle};
use sedge_runtime::Failure;
use sedge_runtime::limits::CORE_DUMP_MEMORY_BYTES_MAX;

/// Traps two calls deep.
const DEEP: &str = r#"(module $probe
  (memory (export "memory") 1)
  (data (i32.const 64) "what was in memory")
  (func $inner unreachable)
  (func $outer call $inner)
  (func (export "_start") call $outer))"#;

/// Panics as Rust does: two lines on standard error, a hint, the end.
const PANIC: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "thread 'main' panicked at src/lib.rs:10:5:\nindex out of bounds\nnote: run with more\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 83))
    (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 16)))
    unreachable))"#;

/// The format of core dumps is that of modules.
const MAGIC: &[u8] = b"\0asm";

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn the_backtrace_has_the_names_of_the_functions() {
    let bench = Bench::new();
    let deep = bench.wat(DEEP, "");
    let (result, _) = handle(&deep, b"").await;
    assert_eq!(result, Err(Failure::Trap { message: "wasm `unreachable` instruction executed".to_owned() }));
    let log = bench.host.log().join("\n");
    assert!(log.contains("probe!inner") && log.contains("probe!outer"), "{log}");
    assert!(bench.host.dumps.lock().unwrap().is_empty(), "nobody asked for a core dump");
}

#[tokio::test]
async fn the_reason_has_the_message_of_the_panic() {
    let bench = Bench::new();
    let panic = bench.wat(PANIC, "");
    let (result, ending) = handle(&panic, b"").await;
    let reason = "trap: wasm `unreachable` instruction executed (panicked at src/lib.rs:10:5: index out of bounds)";
    assert_eq!(result.unwrap_err().to_string(), reason);
    assert_eq!(ending.result.unwrap_err().to_string(), reason);
}

#[tokio::test]
async fn a_component_that_panics_is_named_with_file_and_line() {
    let bench = Bench::new();
    let faulty = bench.guest("faulty", "[debug]\ncore_dump = true\n");
    let Err(failure) = get(&faulty, "/faulty/panic").await.0 else { panic!("it did not fail") };
    let reason = failure.to_string();
    assert!(reason.contains("(panicked at src/lib.rs:") && reason.ends_with(": as you wished)"), "{reason}");
    let log = bench.host.log().join("\n");
    assert!(log.contains("faulty::Faulty") && log.contains("src/lib.rs:"), "{log}");
    let dumps = bench.host.dumps.lock().unwrap();
    assert!(dumps.len() == 1 && dumps[0].starts_with(MAGIC) && contains(&dumps[0], b"as you wished"));
}

#[tokio::test]
async fn a_core_dump_holds_the_memory_and_is_made_only_when_asked_for_and_small() {
    let bench = Bench::new();
    let asked = "[debug]\ncore_dump = true\n[limits]\nmemory_mb = 128\n";
    handle(&bench.wat(DEEP, asked), b"").await.0.unwrap_err();
    let dump = bench.host.dumps.lock().unwrap().pop().unwrap();
    assert!(dump.starts_with(MAGIC) && contains(&dump, b"what was in memory") && contains(&dump, b"corestack"));
    let pages = CORE_DUMP_MEMORY_BYTES_MAX / 65_536 + 1;
    handle(&bench.wat(&DEEP.replace("\"memory\") 1", &format!("\"memory\") {pages}")), asked), b"").await.0.unwrap_err();
    assert!(bench.host.dumps.lock().unwrap().is_empty());
    assert!(bench.host.log().iter().any(|line| line.starts_with("no core dump: ")), "{:?}", bench.host.log());
    handle(
        &bench.wat(
            r#"(module (func (export "_start") (loop $for_ever (br $for_ever))))"#,
            "[debug]\ncore_dump = true\n[limits]\ntimeout_ms = 20\n",
        ),
        b"",
    )
    .await
    .0
    .unwrap_err();
    assert!(bench.host.dumps.lock().unwrap().is_empty(), "out of time is no trap");
}
