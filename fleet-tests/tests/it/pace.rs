//! Publishers are slowed before anything of theirs is refused.

use crate::support::{directory, function, idle};
use anyhow::Result;
use fleet_tests::{Load, Node, artifact, until};
use std::thread;
use std::time::Duration;

/// What may wait for one function here: a quarter of the store's queue.
const BOUND: u64 = 40;
/// What a client of the tests sends before it waits for an acknowledgement.
const WINDOW: u64 = 16;
/// Events that the publisher gets through.
const EVENTS: u64 = 60;

#[test]
fn a_publisher_is_slowed_to_the_pace_of_the_function_and_loses_nothing() -> Result<()> {
    let directory = directory()?;
    let keys = format!("store = {{ queue_items_max = {}, group_ms = 10 }}\n", BOUND * 4);
    let node = Node::start_with(directory.path(), "node-1", None, &keys)?;
    // Two seconds an event, eight at a time.
    let text = "name = 'slow'\n[[trigger]]\nmqtt = 'slow/+'\nqos = 1\n[limits]\nmemory_mb = 32\ntimeout_ms = 20000\nconcurrency = 8\n";
    node.give(&artifact::manifest_of(text)?, &artifact::guest("faulty")?)?;
    let load = Load::start(node.mqtt(), Duration::from_millis(1), |number| (format!("slow/{number}"), "slow".to_owned()));
    let slow = function("slow");
    let mut most = 0;
    until("the publisher got through", || {
        let (waiting, done) = (node.status()?.vitals.events_waiting, node.totals(&slow)?.calls_ok);
        most = most.max(waiting);
        assert!(waiting <= BOUND, "{waiting} wait");
        // Read last: it only grows.
        let sent = load.published();
        assert!(sent <= done + BOUND / 2 + WINDOW + 8 + 1, "{sent} sent, {done} done: the window holds the publisher");
        Ok((load.acknowledged() as u64 >= EVENTS).then_some(()))
    })?;
    assert!(most > BOUND / 2, "the queue was more than half full: {most}");
    let acknowledged = load.stop()?;
    idle(&node)?;
    until("all are counted", || Ok((node.totals(&slow)?.calls_ok >= acknowledged.len() as u64).then_some(())))?;
    assert_eq!(node.totals(&slow)?.calls_ok, acknowledged.len() as u64, "each ran once, and none is lost");
    let status = node.status()?;
    assert_eq!((status.vitals.events_dropped, status.vitals.dead_letters), (0, 0));
    assert!(!node.process().log()?.contains("refused"), "nothing was refused");
    Ok(())
}

/// Requests that are sent at the same moment, to a function that waits two seconds for each.
const SLEEPERS: usize = 48;

#[test]
fn invocations_that_wait_take_no_slot_from_others() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    let text =
        format!("name = 'slow'\n[[trigger]]\nhttp = '/slow/*'\n[limits]\nmemory_mb = 4\ntimeout_ms = 8000\nconcurrency = {SLEEPERS}\n");
    node.give(&artifact::manifest_of(&text)?, &artifact::guest("faulty")?)?;
    thread::scope(|scope| {
        let ask = || scope.spawn(|| node.fetch("/slow/slow"));
        let sleepers: Vec<_> = (0..SLEEPERS).map(|_| ask()).collect();
        until("more run than there are slots", || {
            let admission = node.status()?.admission;
            Ok((admission.running > admission.limit + 8).then_some(()))
        })?;
        for sleeper in sleepers {
            let answer = sleeper.join().expect("no panic")?;
            assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "slow"));
        }
        Ok(())
    })
}
