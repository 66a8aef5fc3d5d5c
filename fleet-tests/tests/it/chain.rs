//! Functions that wake each other for ever: through events, replies and the node's own listener. Every chain ends.

use crate::support::{directory, function, idle};
use anyhow::Result;
use fleet_tests::{Load, Node, Subscriber, artifact, until};
use sedge_protocol::invocation::CallbackState;
use std::time::Duration;

/// Calls and events of functions in a row, as promised.
const CALL_DEPTH_MAX: u64 = 8;

/// Publishes one event and waits until nothing waits any more.
fn once(node: &Node, make: fleet_tests::load::Make) -> Result<()> {
    let load = Load::start(node.mqtt(), Duration::from_millis(1), make);
    until("it is acknowledged", || Ok((load.acknowledged() >= 1).then_some(())))?;
    load.stop()?;
    idle(node)
}

/// Which of the node's newest errors name `part`.
fn told(node: &Node, name: &str, part: &str) -> Result<bool> {
    Ok(node.logs(&function(name))?.iter().any(|entry| entry.text.contains(part)) || node.process().log()?.contains(part))
}

#[test]
fn functions_whose_every_run_queues_two_more_come_to_an_end() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    // Each publishes an alarm when it hears of one, and both hear of each: two runs become four, eight …
    for name in ["one", "two"] {
        let text = format!(
            "name = '{name}'\n[[trigger]]\nmqtt = 'alarm/#'\nqos = 1\n[limits]\nmemory_mb = 32\n[retry]\nattempts = 1\n\
             [settings]\nalarm_above = '80'\n[access]\nkeyvalue = ['default']\npublish = ['alarm/#']\n"
        );
        node.give(&artifact::manifest_of(&text)?, &artifact::guest("average")?)?;
    }
    let outcome = node.invoke(&function("one"), "alarm/boiler", r#"{"value":99}"#)?;
    assert!(outcome.ok, "{outcome:?}");
    idle(&node)?;
    let calls = |name: &str| node.totals(&function(name)).map(|totals| totals.calls_ok + totals.calls_failed);
    // The first run publishes one event; each of eight levels of events wakes both.
    let expected = 1 + (1..=CALL_DEPTH_MAX).map(|level| 1_u64 << level).sum::<u64>();
    until("all are counted", || Ok((calls("one")? + calls("two")? >= expected).then_some(())))?;
    assert_eq!(calls("one")? + calls("two")?, expected);
    assert!(told(&node, "one", "more than 8 calls and events of functions in a row")?, "its log says why");
    Ok(())
}

#[test]
fn a_reply_that_wakes_its_own_function_ends_too() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    let text = "name = 'echo'\n[[trigger]]\nmqtt = 'ring'\nqos = 1\nreply = 'ring'\n[limits]\nmemory_mb = 32\n";
    node.give(&artifact::manifest_of(text)?, &artifact::guest("faulty")?)?;
    once(&node, |number| (if number == 1 { "ring" } else { "elsewhere" }.to_owned(), "ok".to_owned()))?;
    until("all are counted", || Ok((node.totals(&function("echo"))?.calls_ok > CALL_DEPTH_MAX).then_some(())))?;
    idle(&node)?;
    assert_eq!(node.totals(&function("echo"))?.calls_ok, CALL_DEPTH_MAX + 1);
    assert!(told(&node, "echo", "a chain of events ends")?);
    Ok(())
}

#[test]
fn a_circle_through_the_nodes_own_listener_ends_with_508() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    let fleet_tests::http::Target::Tcp(address) = node.http() else { anyhow::bail!("the listener is TCP") };
    let text = format!(
        "name = 'ring'\n[[trigger]]\nhttp = '/ring/*'\n[limits]\nmemory_mb = 16\nconcurrency = 20\n[retry]\nattempts = 1\n[access]\nkeyvalue = ['own']\n\
         keyvalue_shared = ['plant']\nblobstore = ['files']\noutgoing = ['http://{address}']\n"
    );
    node.give(&artifact::manifest_of(&text)?, &artifact::guest("reach")?)?;
    let path = |count: usize| format!("/ring/{}ok", format!("fetch?http://{address}/ring/").repeat(count));
    let answer = node.fetch(&path(8))?;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "ok"));
    let answer = node.fetch(&path(9))?;
    assert!(answer.status.as_u16() == 508 && answer.text().contains("more than 8 calls"), "{answer:?}");
    // Asynchronous calls are part of the chain: what would run later is refused at once.
    let answer = node.post_async("/ring/ok", &[("sedge-depth", "9")], "")?;
    assert_eq!(answer.status.as_u16(), 508, "{answer:?}");
    let id = node.call(&path(7), &[("sedge-depth", "2")], "")?;
    let over = node.over(id)?;
    assert!(over.reason.as_deref().is_some_and(|reason| reason.contains("508")), "{over:?}");
    Ok(())
}

/// A command whose reply is as large as one may be.
const LARGEST_REPLY: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 6)
    (func (export "_start") (local $left i32)
        (local.set $left (i32.const 262144))
        (loop $more
            (i32.store (i32.const 0) (i32.const 65536))
            (i32.store (i32.const 4) (local.get $left))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (local.set $left (i32.sub (local.get $left) (i32.load (i32.const 8))))
            (br_if $more (local.get $left)))))"#;

#[test]
fn the_largest_event_of_a_function_reaches_clients_and_functions_on_the_longest_topic() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    let topic = format!("large/{}", "x".repeat(1018));
    let text = format!("name = 'large'\n[[trigger]]\nmqtt = 'go'\nqos = 1\nreply = '{topic}'\n[limits]\nmemory_mb = 16\n");
    node.give(&artifact::manifest_of(&text)?, &artifact::wasm(LARGEST_REPLY)?)?;
    let text = "name = 'heard'\n[[trigger]]\nmqtt = 'large/+'\nqos = 1\n[limits]\nmemory_mb = 32\n";
    node.give(&artifact::manifest_of(text)?, &artifact::guest("hello")?)?;
    let replies = Subscriber::start(node.mqtt(), "large/+")?;
    once(&node, |number| (if number == 1 { "go" } else { "elsewhere" }.to_owned(), String::new()))?;
    let reply = until("the reply has come", || Ok(replies.received().pop()))?;
    assert_eq!((reply.0.len(), reply.1.len()), (1024, 256 * 1024));
    until("the other function has it", || Ok((node.totals(&function("heard"))?.calls_ok == 1).then_some(())))
}

#[test]
fn a_callback_is_part_of_the_chain_of_the_call_it_ends() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    let text = "name = 'ring'\n[[trigger]]\nhttp = '/ring/*'\n[limits]\nmemory_mb = 16\n[retry]\nattempts = 1\n[access]\nkeyvalue = ['own']\n\
                keyvalue_shared = ['plant']\nblobstore = ['files']\noutgoing = ['http://ring.sedge.internal']\n";
    node.give(&artifact::manifest_of(text)?, &artifact::guest("reach")?)?;
    for (depth, told) in [("7", CallbackState::Delivered), ("8", CallbackState::GivenUp)] {
        let headers = [("sedge-depth", depth), ("sedge-callback", "http://ring.sedge.internal/ring/ok")];
        let id = node.call("/ring/ok", &headers, "")?;
        let callback = until("the callback was tried", || Ok(node.invocation(id)?.callback.filter(|callback| callback.attempts > 0)))?;
        assert_eq!(callback.state, told, "{callback:?}");
        let reason = callback.reason.unwrap_or_default();
        assert_eq!(reason.contains("more than 8 calls"), told == CallbackState::GivenUp, "{reason}");
    }
    Ok(())
}
