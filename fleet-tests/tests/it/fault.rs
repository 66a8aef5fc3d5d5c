//! Functions that misbehave.

use crate::support::{directory, function};
use anyhow::Result;
use fleet_tests::{Node, artifact, until};
use std::thread;

/// Requests that spin at the same time, more than there are processors on most boxes.
const SPINNING: usize = 4;
/// Requests to the other function that must be answered meanwhile.
const ANSWERED: usize = 20;

#[test]
fn a_faulty_function_fails_alone_is_counted_and_its_log_says_why() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    node.give(&artifact::manifest("hello")?, &artifact::guest("hello")?)?;
    node.give(&artifact::manifest("faulty")?, &artifact::guest("faulty")?)?;
    let faulty = function("faulty");
    let cases = [
        ("trap", 500, "trap"),
        ("allocate", 500, "needs more memory than its limit"),
        ("nothing", 500, "returned without a response"),
        ("loop", 504, "not done after 1000 ms"),
        ("status-100", 500, "the status 100, which is not final"),
        ("status-101", 500, "the status 101, which is not final"),
        ("status-103", 500, "the status 103, which is not final"),
        ("status-199", 500, "the status 199, which is not final"),
    ];
    for (number, (wish, status, reason)) in (1..).zip(cases) {
        assert_eq!(node.fetch(&format!("/faulty/{wish}"))?.status.as_u16(), status, "{wish}");
        until("the failure is counted", || Ok((node.totals(&faulty)?.calls_failed == number).then_some(())))?;
        until("the log has the reason", || {
            let named = |entry: &sedge_protocol::local::LogEntry| entry.function == faulty && entry.text.contains(reason);
            Ok(node.logs(&faulty)?.iter().any(named).then_some(()))
        })?;
        let log = node.process().log()?;
        assert!(log.lines().any(|line| line.contains("faulty") && line.contains(reason)), "the daemon's log does not say `{reason}`");
        assert_eq!(node.fetch("/hello")?.status.as_u16(), 200, "after {wish}");
    }
    assert_eq!(node.fetch("/faulty/ok")?.text(), "ok");
    Ok(())
}

#[test]
fn functions_that_spin_on_every_processor_hold_up_no_one_else() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    node.give(&artifact::manifest("hello")?, &artifact::guest("hello")?)?;
    let mut manifest = artifact::manifest("faulty")?;
    manifest.limits.timeout_ms = 20_000;
    node.give(&manifest, &artifact::guest("faulty")?)?;
    thread::scope(|scope| {
        let spinning: Vec<_> = (0..SPINNING).map(|_| scope.spawn(|| node.fetch("/faulty/loop"))).collect();
        for _ in 0..ANSWERED {
            assert_eq!(node.fetch("/hello")?.status.as_u16(), 200);
        }
        assert!(spinning.iter().all(|request| !request.is_finished()), "a loop ended before {ANSWERED} other requests were answered");
        for request in spinning {
            assert_eq!(request.join().unwrap()?.status.as_u16(), 504);
        }
        Ok(())
    })
}

#[test]
fn an_event_that_fails_every_attempt_becomes_a_dead_letter_and_holds_nothing_else_up() -> Result<()> {
    let directory = directory()?;
    let node = Node::start(directory.path(), "node-1", None)?;
    node.give(&artifact::manifest("faulty")?, &artifact::guest("faulty")?)?;
    node.give(&artifact::manifest("average")?, &artifact::guest("average")?)?;
    let replies = fleet_tests::Subscriber::start(node.mqtt(), "plant/average")?;
    // Number 1 asks for a trap; all others are readings.
    let load = fleet_tests::Load::start(node.mqtt(), std::time::Duration::from_millis(5), |number| match number {
        1 => ("test/faulty".to_owned(), "trap".to_owned()),
        number => crate::support::own_sensor(number),
    });
    until("the event is given up", || Ok((node.status()?.vitals.dead_letters == 1).then_some(())))?;
    let acknowledged = load.stop()?;
    until("every reading has its reply", || Ok((replies.received().len() == acknowledged.len() - 1).then_some(())))?;
    let letters = node.ask(http::Method::GET, "/v1/dead-letters", "")?;
    let letters: Vec<sedge_protocol::local::DeadLetterHead> = serde_json::from_slice(&letters.body)?;
    assert_eq!((letters.len(), letters[0].function.as_str(), letters[0].attempts), (1, "faulty", 3));
    assert!(letters[0].reason.contains("trap") && letters[0].subject == "test/faulty", "{letters:?}");
    let letter = node.ask(http::Method::GET, &format!("/v1/dead-letters/{}", letters[0].id), "")?;
    let letter: sedge_protocol::local::DeadLetter = serde_json::from_slice(&letter.body)?;
    assert_eq!(letter.letter.payload(), b"trap");
    assert_eq!(node.totals(&function("faulty"))?.calls_failed, 3);
    Ok(())
}
