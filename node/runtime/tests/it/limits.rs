//! Time and memory: what a guest must not pass.

use crate::support::{Bench, ask, ending, event, handle};
use sedge_runtime::{Failure, Fault, Invocation, PrepareError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const SPIN: &str = r#"(module (func (export "_start") (loop $for_ever (br $for_ever))))"#;
const NOTHING: &str = r#"(module (func (export "_start")))"#;

/// Sleeps for an hour in the host.
const SLEEP: &str = r#"(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const 3600000000000))
    (drop (call $poll (i32.const 0) (i32.const 128) (i32.const 1) (i32.const 256)))))"#;

/// Takes memory until it is refused, then traps as allocators do.
const GREED: &str = r#"(module
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
    unreachable))"#;

#[tokio::test(flavor = "current_thread")]
async fn an_endless_loop_is_stopped_and_delays_nobody() {
    let bench = Bench::new();
    let spin = bench.wat(SPIN, "[limits]\ntimeout_ms = 300\n");
    let quick = bench.wat(NOTHING, "");
    let stopped = Arc::new(AtomicBool::new(false));
    let (ended, ending) = ending();
    let flag = Arc::clone(&stopped);
    let spinning = tokio::spawn(async move {
        let result = spin.event(&event(b""), Invocation::new("i-1", (), ended)).await;
        flag.store(true, Ordering::SeqCst);
        result
    });
    let mut meanwhile = 0;
    while !stopped.load(Ordering::SeqCst) {
        assert!(handle(&quick, b"").await.0.is_ok());
        meanwhile += 1;
        tokio::task::yield_now().await;
    }
    assert!(meanwhile >= 10, "only {meanwhile} calls got through on the one worker beside a spinning guest");
    assert_eq!(spinning.await.unwrap(), Err(Failure::Timeout { limit_ms: 300 }));
    let usage = ending.await.unwrap().usage;
    assert!(usage.wall_us >= 300_000, "stopped before its time: {usage:?}");
    assert!(usage.cpu_us > 0 && usage.cpu_us <= usage.wall_us, "{usage:?}");
}

#[tokio::test]
async fn a_guest_that_waits_in_the_host_is_stopped_too() {
    let bench = Bench::new();
    let sleep = bench.wat(SLEEP, "[limits]\ntimeout_ms = 50\n");
    let (result, ending) = handle(&sleep, b"").await;
    assert_eq!(result, Err(Failure::Timeout { limit_ms: 50 }));
    assert!(ending.usage.cpu_us < ending.usage.wall_us / 2, "waiting is not computing: {:?}", ending.usage);
}

#[tokio::test]
async fn memory_ends_at_the_limit() {
    let bench = Bench::new();
    let greed = bench.wat(GREED, "[limits]\nmemory_mb = 8\n");
    let (result, ending) = handle(&greed, b"").await;
    let limit_bytes = 8 * 1024 * 1024;
    assert_eq!(result, Err(Failure::OutOfMemory { limit_bytes }));
    assert!(ending.usage.memory_peak_bytes <= limit_bytes && ending.usage.memory_peak_bytes > limit_bytes / 2);
    let input_and_output = 9 * 1024 * 1024;
    assert_eq!(greed.memory_reservation(), limit_bytes + input_and_output + sedge_runtime::limits::INSTANCE_OVERHEAD_BYTES);
}

/// What the node keeps for a guest is memory like its own: reserved before it starts, and refused beyond.
#[tokio::test]
async fn what_the_host_holds_is_within_what_was_reserved() {
    let bench = Bench::new();
    let function = bench.guest("faulty", "[limits]\nmemory_mb = 8\n");
    let limit_bytes = 8 * 1024 * 1024;
    let (status, text, ending) = ask(&function, "http://node/hoard-fields", "").await;
    assert_eq!((status, &ending.result), (0, &Err(Failure::OutOfMemory { limit_bytes })), "{text}");
    assert!(ending.usage.memory_peak_bytes > limit_bytes / 2, "{:?}", ending.usage);
    assert!(ending.usage.memory_peak_bytes < function.memory_reservation(), "{:?}", ending.usage);
    let (status, text, _) = ask(&function, "http://node/hoard-bodies", "").await;
    assert_eq!(status, 200, "{text}");
    let kept: u64 = text.parse().unwrap();
    assert!(kept > 512 * 1024 && kept < sedge_runtime::limits::INSTANCE_OVERHEAD_BYTES, "{kept} bytes");
    // Tables are memory as well.
    let tables = "(table 65536 funcref)".repeat(12);
    let tables = bench.wat(&format!(r#"(module {tables} (memory 16) (func (export "_start")))"#), "[limits]\nmemory_mb = 2\n");
    assert!(matches!(handle(&tables, b"").await.0, Err(Failure::OutOfMemory { .. })));
}

#[tokio::test]
async fn a_guest_that_starts_above_its_limit_is_out_of_memory() {
    let bench = Bench::new();
    let refused =
        bench.try_bytes(&wat::parse_str(r#"(module (memory 33) (func (export "_start")))"#).unwrap(), "[limits]\nmemory_mb = 2\n");
    assert!(matches!(refused, Err(PrepareError::Artifact(_))), "one memory is seen before it is made: {refused:?}");
    let large = bench.wat(r#"(module (memory 20) (memory 20) (func (export "_start")))"#, "[limits]\nmemory_mb = 2\n");
    assert!(matches!(handle(&large, b"").await.0, Err(Failure::OutOfMemory { .. })), "several count together");
}

#[tokio::test]
async fn endless_recursion_is_a_trap() {
    let bench = Bench::new();
    let deep = bench.wat(r#"(module (func $f (export "_start") call $f))"#, "");
    let (result, _) = handle(&deep, b"").await;
    assert!(matches!(&result, Err(Failure::Trap { message }) if message.contains("stack")), "{result:?}");
}

#[tokio::test]
async fn a_dropped_call_ends_as_cancelled() {
    let bench = Bench::new();
    let sleep = bench.wat(SLEEP, "");
    let (ended, ending) = ending();
    let event = event(b"");
    let call = sleep.event(&event, Invocation::new("i-1", (), ended));
    let mut call = Box::pin(call);
    assert!(futures_poll(&mut call).await.is_none(), "it waits");
    drop(call);
    let ending = ending.await.expect("a dropped call ends as well");
    assert_eq!(ending.result, Err(Failure::Cancelled));
    assert_eq!(Failure::Cancelled.fault(), Fault::Caller);
}

#[tokio::test]
async fn a_full_pool_is_busy_and_nothing_worse() {
    let bench = Bench::of_memory(1);
    let sleep = bench.wat(SLEEP, "[limits]\nmemory_mb = 1\n");
    let slots = bench.engine.plan().slots;
    let event = event(b"");
    let mut waiting = Vec::new();
    for _ in 0..slots {
        let mut call = Box::pin(sleep.event(&event, Invocation::new("i-1", (), drop)));
        assert!(futures_poll(&mut call).await.is_none());
        waiting.push(call);
    }
    let (result, _) = handle(&sleep, b"").await;
    let Err(failure) = result else { panic!("more instances than slots") };
    assert!(matches!(failure, Failure::Busy { .. }), "{failure:?}");
    assert_eq!(failure.fault(), Fault::Platform);
    drop(waiting);
    let quick = bench.wat(NOTHING, "[limits]\nmemory_mb = 1\n");
    assert!(handle(&quick, b"").await.0.is_ok(), "slots come back");
}

/// Polls once.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| match std::pin::Pin::new(&mut *future).poll(cx) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[tokio::test(flavor = "current_thread")]
async fn an_answer_that_is_left_open_is_not_whole_and_holds_nobody_up() {
    let bench = Bench::new();
    let manifests = ["", "[reuse]\ncount = 5\n", "[access]\noutgoing = [\"http://example.org\"]\n"];
    for manifest in manifests {
        let function = bench.guest("faulty", &format!("[limits]\nmemory_mb = 32\n{manifest}"));
        for wish in ["leave-body", "exit-half"] {
            let (status, text, ending) = ask(&function, &format!("http://node/{wish}"), "").await;
            // Before or after its head left, as the processor lets the guest go on.
            assert!(status == 0 || status == 200, "{wish} {manifest}: {status}");
            assert_eq!(text, "the response body was not finished", "{wish} {manifest}");
            assert_eq!(ending.result, Err(Failure::Incomplete), "{wish} {manifest}");
        }
        let (reply, ending) = handle(&function, b"leave-body").await;
        assert!(reply.is_err() && ending.result == Err(Failure::Incomplete), "{reply:?}");
        assert_eq!(ask(&function, "http://node/ok", "").await.1, "ok");
    }
    for manifest in manifests {
        let function = bench.guest("faulty", &format!("[limits]\nmemory_mb = 32\n{manifest}"));
        let (status, text, ending) = ask(&function, "http://node/leave-body-late", "").await;
        assert_eq!((status, text.as_str()), (200, "the response body was not finished"));
        assert_eq!(ending.result, Err(Failure::Incomplete));
    }
}
