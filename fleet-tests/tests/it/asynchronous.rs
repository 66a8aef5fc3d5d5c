//! Asynchronous calls: kept before they are answered, run once beyond their lease, joined by their key, shown, cancelled, refused.

use crate::support::{directory, function};
use anyhow::{Context as _, Result};
use fleet_tests::http::{exchange, exchange_with};
use fleet_tests::{Node, artifact, call, until};
use http::Method;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sedge_protocol::invocation::{InvocationId, InvocationState};
use sedge_protocol::limits::{CALL_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX};
use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// Calls that are accepted.
const CALLS: u64 = 1200;
/// How many of them are in line before the first kill, at least.
const QUEUED_MIN: u64 = 1000;
/// Kills while they are worked off.
const KILLS: u64 = 5;
/// Threads that call at the same time: half of what the local socket takes, since a connection that ends holds its place for a moment.
const CALLERS: usize = 16;
/// What a lease has beyond the timeout: the wait for admission and a margin.
const LEASE_EXTRA: Duration = Duration::from_secs(6);

fn average(timeout_ms: u64, concurrency: u32) -> Result<sedge_protocol::Manifest> {
    let mut manifest = artifact::manifest("average")?;
    (manifest.limits.timeout_ms, manifest.limits.concurrency, manifest.retry.attempts) = (timeout_ms, concurrency, 100);
    manifest.triggers.push(sedge_protocol::manifest::Trigger::Http { route: "/average".parse()? });
    Ok(manifest)
}

/// `average` counts in its own durable state how often each of these calls has run.
fn count_call(node: &Node, number: u64) -> Result<InvocationId> {
    let topic = format!("plant/c{number}/temperature");
    node.call("/average", &[("ce-topic", &topic)], r#"{"value":20}"#)
}

fn runs(node: &Node, number: u64) -> Result<u64> {
    // Asked by many at a time, so the node may refuse one for the moment.
    let result = until("the node takes a call", || {
        let result = node.invoke(&function("average"), &format!("plant/c{number}/temperature"), r#"{"value":20}"#)?;
        Ok(result.ok.then_some(result))
    })?;
    let answer: serde_json::Value = serde_json::from_str(&result.output)?;
    Ok(answer["count"].as_u64().with_context(|| result.output.clone())? - 1)
}

fn in_parallel<T: Send>(work: impl Fn(u64) -> Result<T> + Sync) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let callers: Vec<_> = (0_u64..)
            .take(CALLERS)
            .map(|caller| {
                let work = &work;
                scope.spawn(move || (caller..CALLS).step_by(CALLERS).map(work).collect::<Result<Vec<T>>>())
            })
            .collect();
        let mut all = Vec::new();
        for caller in callers {
            all.extend(caller.join().map_err(|_| anyhow::anyhow!("a caller panicked"))??);
        }
        Ok(all)
    })
}

#[test]
fn a_thousand_queued_calls_survive_kills_and_none_runs_twice_beyond_its_lease() -> Result<()> {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let directory = directory()?;
    let mut node = Node::start(directory.path(), "node-1", None)?;
    let timeout = Duration::from_millis(500);
    // One at a time while they come, so that they pile up; then as many as there can be.
    node.give(&average(500, 1)?, &artifact::guest("average")?)?;
    let ids: BTreeMap<u64, InvocationId> = in_parallel(|number| Ok((number, count_call(&node, number)?)))?.into_iter().collect();
    let queued = node.status()?.calls.waiting;
    assert!(queued >= QUEUED_MIN, "{queued} in line");
    node.give(&average(500, 32)?, &artifact::guest("average")?)?;
    for _ in 0..KILLS {
        let life = Duration::from_millis(rng.random_range(0..700));
        let begin = Instant::now();
        until("the node has lived long enough", || Ok((begin.elapsed() >= life).then_some(())))?;
        node.kill9()?;
        node.restart()?;
    }
    let began = Instant::now();
    until("every call is over", || Ok((node.status()?.calls.waiting == 0).then_some(())))?;
    let found = in_parallel(|number| Ok((number, node.invocation(ids[&number])?)))?;
    let unsuccessful: Vec<_> = found.iter().filter(|(_, call)| call.state != InvocationState::Succeeded).collect();
    let counts: BTreeMap<u64, u64> = in_parallel(|number| Ok((number, runs(&node, number)?)))?.into_iter().collect();
    let (ran, twice) = (counts.values().sum::<u64>(), counts.values().filter(|count| **count > 1).count());
    let cut_off = found.iter().filter(|(_, call)| call.attempts > 1).count();
    println!(
        "{CALLS} calls accepted, {queued} in line at the first kill; {KILLS} kills; {ran} runs counted, {cut_off} calls were under way at a kill, {twice} of them ran twice; all over after {:?}",
        began.elapsed()
    );
    assert!(unsuccessful.is_empty(), "{unsuccessful:?}");
    for (number, call) in &found {
        let count = counts[number];
        assert!(count >= 1 && count <= u64::from(call.attempts), "{count} runs: {call:?}");
        // The second run began after the lease of the first was over.
        let took = call.began_ms.unwrap_or_default() - call.accepted_ms;
        assert!(call.attempts == 1 || u128::from(took) + 1 >= (timeout + LEASE_EXTRA).as_millis(), "{call:?}");
    }
    Ok(())
}

#[test]
fn a_long_run_that_was_cut_off_starts_again_only_after_its_lease() -> Result<()> {
    let directory = directory()?;
    let mut node = Node::start(directory.path(), "node-1", None)?;
    let mut manifest = artifact::manifest("faulty")?;
    manifest.limits.timeout_ms = 4000;
    node.give(&manifest, &artifact::guest("faulty")?)?;
    let id = node.call("/faulty/slow", &[], "")?;
    until("it runs", || {
        Ok((node.totals(&function("faulty")).is_ok() && node.invocation(id)?.state == InvocationState::Running).then_some(()))
    })?;
    let first = node.invocation(id)?.began_ms.context("it has begun")?;
    node.kill9()?;
    node.restart()?;
    let waiting = node.invocation(id)?;
    assert!(matches!(waiting.state, InvocationState::Queued | InvocationState::Running), "{waiting:?}");
    let over = node.over(id)?;
    let second = over.began_ms.context("it has begun again")?;
    assert_eq!((over.state, over.attempts), (InvocationState::Succeeded, 2));
    let lease = Duration::from_secs(4) + LEASE_EXTRA;
    assert!(u128::from(second - first) + 1 >= lease.as_millis(), "the second run began {} ms after the first", second - first);
    assert_eq!(node.result(id)?.text(), "slow");
    Ok(())
}

#[test]
fn a_key_joins_duplicates_also_after_a_restart_and_refuses_another_request() -> Result<()> {
    let directory = directory()?;
    let mut node = Node::start(directory.path(), "node-1", None)?;
    node.give(&average(5000, 4)?, &artifact::guest("average")?)?;
    let headers = |key: &'static str| [("idempotency-key", key), ("ce-topic", "plant/c1/temperature")];
    let body = r#"{"value":20}"#;
    let id = node.call("/average", &headers("order 7"), body)?;
    assert_eq!(node.call("/average", &headers("order 7"), body)?, id);
    assert_ne!(node.call("/average", &headers("order 8"), body)?, id);
    node.over(id)?;
    assert_eq!(node.call("/average", &headers("order 7"), body)?, id, "also when it is over");
    node.kill9()?;
    node.restart()?;
    assert_eq!(node.call("/average", &headers("order 7"), body)?, id, "also after a restart");
    let other = node.post_async("/average", &headers("order 7"), r#"{"value":21}"#)?;
    assert_eq!(other.status.as_u16(), 422, "{}", other.text());
    assert!(other.text().contains(&id.to_string()), "{}", other.text());
    let long = "k".repeat(IDEMPOTENCY_KEY_BYTES_MAX + 1);
    assert_eq!(node.post_async("/average", &[("idempotency-key", &long)], body)?.status.as_u16(), 400);
    until("both calls are over", || Ok((node.status()?.calls.waiting == 0).then_some(())))?;
    assert_eq!(runs(&node, 1)?, 2, "one run for each key");
    Ok(())
}

#[test]
fn the_answer_is_the_functions_own_and_its_failures_are_told_apart() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    node.give(&artifact::manifest("faulty")?, &artifact::guest("faulty")?)?;
    let hello = artifact::manifest("hello")?;
    node.give(&hello, &artifact::guest("hello")?)?;

    let id = node.call("/hello", &[], "")?;
    assert_eq!(node.over(id)?.state, InvocationState::Succeeded);
    let synchronous = exchange(&node.http(), Method::POST, "/hello", "")?;
    let result = node.result(id)?;
    assert_eq!((result.status, &result.body), (synchronous.status, &synchronous.body));
    assert_eq!(result.headers.get("content-type"), synchronous.headers.get("content-type"));

    let refused = node.over(node.call("/faulty/no-such", &[], "")?)?;
    assert_eq!((refused.state, refused.attempts), (InvocationState::Failed, 1), "404 is an answer, and is not tried again");
    assert_eq!(node.result(refused.id)?.text(), "no such fault");

    let dead = node.over(node.call("/faulty/status", &[], "")?)?;
    assert_eq!((dead.state, dead.attempts), (InvocationState::Dead, 3));
    assert!(dead.reason.as_deref() == Some("status 500: as you wished"), "{dead:?}");
    assert_eq!(node.result(dead.id)?.status.as_u16(), 500, "the last answer is kept");

    let large = node.over(node.call("/faulty/big", &[], "")?)?;
    assert_eq!(large.state, InvocationState::Succeeded);
    let gone = node.result(large.id)?;
    assert!(gone.status.as_u16() == 410 && gone.text().contains("larger than"), "{}", gone.text());
    Ok(())
}

#[test]
fn what_cannot_be_called_is_refused_at_once() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    let hello = artifact::manifest("hello")?;
    assert_eq!(node.post_async("/hello", &[], "")?.status.as_u16(), 404, "no function has this route yet");
    node.give(&hello, &artifact::guest("hello")?)?;
    assert_eq!(node.post_async("/no/such/route", &[], "")?.status.as_u16(), 404);
    node.call("/hello", &[], vec![b'x'; CALL_BYTES_MAX])?;
    let large = node.post_async("/hello", &[], vec![b'x'; CALL_BYTES_MAX + 1])?;
    assert_eq!(large.status.as_u16(), 413, "{}", large.text());
    let header = "x".repeat(20_000);
    assert_eq!(node.post_async("/hello", &[("x-a", &header), ("x-b", &header)], "")?.status.as_u16(), 431);
    let callback = node.post_async("/hello", &[("sedge-callback", "http://127.0.0.1:9/done")], "")?;
    assert_eq!(callback.status.as_u16(), 403);
    assert!(callback.text().contains(r#"outgoing = [\"http://127.0.0.1:9\"]"#), "{}", callback.text());
    assert_eq!(node.post_async("/hello", &[("sedge-callback", "mailto:x")], "")?.status.as_u16(), 400);

    for path in ["/.sedge/invocations/", "/.sedge/invocations/1", "/.sedge/else", "/.sedge/invocations/00000000000000010000000000000001"] {
        assert_eq!(exchange(&node.http(), Method::GET, path, "")?.status.as_u16(), 404, "{path}");
    }
    let id = node.call("/hello", &[], "")?;
    let guess = InvocationId { secret: id.secret ^ 1, ..id };
    assert_eq!(node.result(guess)?.status.as_u16(), 404, "a number alone finds nothing");
    let answer = exchange(&node.http(), Method::PUT, &format!("/.sedge/invocations/{id}"), "")?;
    assert_eq!((answer.status.as_u16(), answer.headers["allow"].to_str()?), (405, "GET, HEAD, DELETE"));
    Ok(())
}

#[test]
fn a_call_that_has_not_begun_is_cancelled_and_one_that_runs_is_not() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    let mut manifest = artifact::manifest("faulty")?;
    (manifest.limits.timeout_ms, manifest.limits.concurrency) = (10_000, 1);
    node.give(&manifest, &artifact::guest("faulty")?)?;
    let [first, second] = [node.call("/faulty/slow", &[], "")?, node.call("/faulty/slow", &[], "")?];
    until("the first runs", || Ok((node.invocation(first)?.state == InvocationState::Running).then_some(())))?;
    let delete = |id: InvocationId| exchange(&node.http(), Method::DELETE, &format!("/.sedge/invocations/{id}"), "");
    assert_eq!(node.result(first)?.status.as_u16(), 409, "no result yet");
    assert_eq!(delete(first)?.status.as_u16(), 409);
    let cancelled: sedge_protocol::invocation::Invocation = delete(second)?.json()?;
    assert_eq!((cancelled.state, cancelled.attempts), (InvocationState::Cancelled, 0));
    assert_eq!(node.over(first)?.state, InvocationState::Succeeded);
    assert_eq!(node.totals(&function("faulty"))?.calls(), 1, "the cancelled one never ran");
    assert_eq!((delete(second)?.status.as_u16(), node.result(second)?.status.as_u16()), (409, 410));
    Ok(())
}

#[test]
fn a_full_disk_refuses_calls_clearly_and_ends_those_it_has() -> Result<()> {
    let directory = directory()?;
    let node = Node::start_on_small_disk(directory.path(), "node-1", None, 48)?;
    let mut manifest = artifact::manifest("faulty")?;
    manifest.limits.timeout_ms = 10_000;
    node.give(&manifest, &artifact::guest("faulty")?)?;
    let id = node.call("/faulty/slow", &[], "")?;
    let ballast = node.disk().context("the node has a disk of its own")?.fill()?;
    let refused = until("calls are refused", || {
        let answer = exchange_with(&node.http(), Method::POST, "/faulty/ok", &[call::ASYNC], "")?;
        Ok((answer.status.as_u16() != 202).then_some(answer))
    })?;
    assert!(matches!(refused.status.as_u16(), 503 | 507), "{}", refused.status);
    assert!(refused.text().contains("the call cannot be kept: the"), "{}", refused.text());
    fs::remove_file(ballast)?;
    assert_eq!(node.over(id)?.state, InvocationState::Succeeded);
    until("calls are taken again", || Ok((node.post_async("/faulty/ok", &[], "")?.status.as_u16() == 202).then_some(())))
}
