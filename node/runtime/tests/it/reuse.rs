//! Instances between invocations: fresh ones made ahead, and used ones where the manifest allows it.

use crate::support::{Bench, ending};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use sedge_runtime::{Ending, Failure, Function, Invocation};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

const REUSE: &str = "[limits]\ntimeout_ms = 300\nmemory_mb = 32\n[reuse]\ncount = 3\n";

/// Counts rooms that are held.
struct Room(Arc<AtomicU32>);

impl Room {
    fn take(rooms: &Arc<AtomicU32>) -> Self {
        rooms.fetch_add(1, SeqCst);
        Self(Arc::clone(rooms))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// One request as a node makes it: in a warm instance if there is one. Returns when the instance has been cared for.
async fn call(function: &Function, wish: &str, rooms: &Arc<AtomicU32>) -> (Result<Bytes, Failure>, Ending) {
    let (ended, receiver) = ending();
    let invocation = Invocation::new("i-1", (), ended);
    let invocation = match function.warm() {
        Some(warm) => invocation.in_warm(warm),
        None => invocation.in_room(Room::take(rooms)),
    };
    let request = http::Request::get(format!("http://node/{wish}")).body(Full::new(Bytes::new())).unwrap();
    let result = match function.http(request, invocation).await {
        Ok(response) => response.into_body().collect().await.map(http_body_util::Collected::to_bytes),
        Err(failure) => Err(failure),
    };
    (result, receiver.await.unwrap())
}

/// Waits until so many instances wait for an invocation.
async fn until_waiting(function: &Function, instances: usize) {
    while function.waiting() != instances {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "current_thread")]
async fn without_reuse_each_invocation_has_a_fresh_instance_made_ahead_in_the_same_room() {
    let bench = Bench::new();
    let function = bench.guest("faulty", "[limits]\nmemory_mb = 32\n");
    let rooms = Arc::default();
    for _ in 0..5 {
        assert_eq!(call(&function, "count", &rooms).await.0.unwrap(), "1");
        until_waiting(&function, 1).await;
        assert_eq!(rooms.load(SeqCst), 1, "the next instance has the room of the one before");
    }
    function.release(0);
    assert_eq!((function.waiting(), rooms.load(SeqCst)), (0, 0));
}

#[tokio::test(flavor = "current_thread")]
async fn what_was_used_to_make_an_instance_is_paid_by_its_invocation() {
    let bench = Bench::new();
    let function = bench.guest("faulty", "[limits]\nmemory_mb = 32\n");
    let rooms = Arc::default();
    for _ in 0..3 {
        let (_, ending) = call(&function, "ok", &rooms).await;
        assert!(ending.usage.cpu_us > 0 && ending.usage.memory_peak_bytes > 0, "{:?}", ending.usage);
        until_waiting(&function, 1).await;
    }
}

#[tokio::test(flavor = "current_thread")]
async fn an_instance_serves_as_often_as_the_manifest_says() {
    let bench = Bench::new();
    let function = bench.guest("faulty", REUSE);
    let rooms = Arc::default();
    let mut counts = Vec::new();
    for _ in 0..7 {
        counts.push(String::from_utf8(call(&function, "count", &rooms).await.0.unwrap().to_vec()).unwrap());
        until_waiting(&function, 1).await;
    }
    assert_eq!(counts, ["1", "2", "3", "1", "2", "3", "1"]);
    assert_eq!(rooms.load(SeqCst), 1);
}

#[tokio::test(flavor = "current_thread")]
async fn a_trap_or_a_deadline_ends_that_instance_only() {
    let bench = Bench::new();
    let function = bench.guest("faulty", REUSE);
    let rooms = Arc::default();
    for (wish, failure) in [("trap", "trap"), ("loop", "not done after 300 ms"), ("slow", "not done after 300 ms")] {
        assert_eq!(call(&function, "count", &rooms).await.0.unwrap(), "1", "before {wish}");
        until_waiting(&function, 1).await;
        let (result, ending) = call(&function, wish, &rooms).await;
        assert!(result.unwrap_err().to_string().contains(failure));
        assert!(ending.result.is_err() && ending.usage.wall_us < 5_000_000);
        assert_eq!((function.waiting(), rooms.load(SeqCst)), (0, 0), "after {wish} nothing is kept");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_used_instance_holds_nothing_of_a_request_that_is_over() {
    /// Says when the body was dropped.
    struct Body(Option<tokio::sync::oneshot::Sender<()>>);
    impl http_body::Body for Body {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }
    impl Drop for Body {
        fn drop(&mut self) {
            let _unheard = self.0.take().map(|sender| sender.send(()));
        }
    }
    let bench = Bench::new();
    let function = bench.guest("faulty", REUSE);
    let (sender, dropped) = tokio::sync::oneshot::channel();
    let (ended, _ending) = ending();
    let request = http::Request::post("http://node/keep-request").body(Body(Some(sender))).unwrap();
    let response = function.http(request, Invocation::new("i-1", (), ended)).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "kept");
    dropped.await.unwrap();
    until_waiting(&function, 1).await;
}

#[tokio::test(flavor = "current_thread")]
async fn an_instance_that_waits_too_long_is_let_go() {
    let bench = Bench::new();
    let function = bench.guest("faulty", "[limits]\nmemory_mb = 32\n[reuse]\ncount = 3\nidle_s = 1\n");
    let rooms = Arc::default();
    call(&function, "ok", &rooms).await.0.unwrap();
    until_waiting(&function, 1).await;
    function.sweep(0);
    assert_eq!(function.waiting(), 1, "it has not waited for a second");
    let begin = std::time::Instant::now();
    while function.waiting() > 0 {
        function.sweep(0);
        tokio::task::yield_now().await;
    }
    assert!(begin.elapsed().as_millis() >= 500 && rooms.load(SeqCst) == 0);
}

#[tokio::test(flavor = "current_thread")]
async fn instances_can_be_made_before_anybody_asks() {
    let bench = Bench::new();
    let function = bench.guest("faulty", "[limits]\nmemory_mb = 32\nreserved = 3\n");
    let rooms = Arc::default();
    for _ in 0..3 {
        function.prepare(Room::take(&rooms)).await.unwrap();
    }
    assert_eq!((function.waiting(), rooms.load(SeqCst)), (3, 3));
    function.release(2);
    assert_eq!((function.waiting(), rooms.load(SeqCst)), (2, 2));
    assert_eq!(call(&function, "count", &rooms).await.0.unwrap(), "1");
}
