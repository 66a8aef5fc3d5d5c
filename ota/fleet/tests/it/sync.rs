use crate::support::{Stream, World, wasm};
use sedge_protocol::api::{Function, Node, NodeError, Rollout, Status, UsageRow};
use sedge_protocol::message::{ErrorReport, FromFleet, FromNode, FunctionReport, FunctionState, Health, Report, UsageBatch};
use sedge_protocol::usage::{Counters, LedgerEpoch, UsageRecord, Window};
use sedge_protocol::{Digest, RevisionId};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_reaches_the_nodes_that_match_at_once_or_when_they_come() {
    let world = World::new().await;
    let (berlin, paris) = (world.node("berlin", &[("site", "berlin")]).await, world.node("paris", &[("site", "paris")]).await);
    let (_connection, mut control, first) = berlin.greet(&world).await;
    assert!(first.assignments.is_empty());
    let (revision, rollout) = world.rollout("average", "one", "site=berlin").await;
    assert_eq!((rollout.nodes, rollout.waiting), (1, 1));
    let desired = control.desired().await;
    assert_eq!((desired.epoch, desired.assignments[0].revision), (1, revision.id));
    assert_eq!(desired.assignments[0].check(), Ok(()));
    let (_other, _control, nothing) = paris.greet(&world).await;
    assert!(nothing.assignments.is_empty());
    // A node that enrols later gets what matches it.
    let late = world.node("late", &[("site", "berlin")]).await;
    let (_late, _control, desired) = late.greet(&world).await;
    assert_eq!(desired.assignments[0].revision, revision.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_show_who_runs_what_and_who_waits_why() {
    let world = World::new().await;
    let node = world.node("gate", &[]).await;
    let (revision, _) = world.rollout("average", "one", "").await;
    let (_connection, mut control, desired) = node.greet(&world).await;
    let function = |state, running: Option<RevisionId>| FunctionReport {
        function: "average".parse().unwrap(),
        running,
        state,
        assigned: Some(revision.id),
        missing_secrets: Vec::new(),
        totals: Counters::default(),
        health: Health::default(),
    };
    let error = ErrorReport {
        number: 1,
        time_ms: 5,
        function: "average".parse().unwrap(),
        revision: Some(revision.id),
        reason: "<b>trap</b>\0".into(),
    };
    let report =
        |function| Report { desired_epoch: desired.epoch, functions: vec![function], errors: vec![error.clone()], ..Report::default() };
    control.send(&FromNode::Report(report(function(FunctionState::Failed { reason: "too big".into() }, None)))).await;
    let functions = until(&world, |functions: &Vec<Function>| functions[0].waiting[0].reason.contains("too big")).await;
    assert_eq!(functions[0].waiting[0].node, node.identity.node);
    control.send(&FromNode::Report(report(function(FunctionState::Running, Some(revision.id))))).await;
    let functions = until(&world, |functions: &Vec<Function>| !functions[0].running.is_empty()).await;
    assert!(functions[0].waiting.is_empty());
    let rollouts: Vec<Rollout> = world.operator().get("/api/v1/rollouts").await.unwrap();
    assert_eq!((rollouts[0].done, rollouts[0].failed, rollouts[0].waiting), (1, 0, 0));
    let errors: Vec<NodeError> = world.operator().get("/api/v1/errors").await.unwrap();
    assert_eq!(errors.len(), 1, "the same error is kept once");
    assert_eq!(errors[0].reason, "<b>trap</b> ");
    // A function that is taken off every node leaves the desired state.
    let _: Value = world.operator().send("DELETE", "/api/v1/functions/average", &()).await.unwrap();
    assert!(control.desired().await.assignments.is_empty());
}

/// Asks for the functions until they are as wanted: what a node sends arrives in its own time.
async fn until(world: &World, wanted: impl Fn(&Vec<Function>) -> bool) -> Vec<Function> {
    loop {
        let functions: Vec<Function> = world.operator().get("/api/v1/functions").await.unwrap();
        if wanted(&functions) {
            return functions;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_resumes_where_it_was_cut() {
    let world = World::new().await;
    let node = world.node("gate", &[]).await;
    let bytes = wasm(&"x".repeat(60_000));
    world.operator().publish("big", &bytes).await.unwrap();
    let connection = node.connect(&world).await;
    for offset in [0, 1, 30_000, bytes.len() - 1, bytes.len()] {
        let mut stream = Stream::open(&connection).await;
        stream.send(&FromNode::Fetch { digest: Digest::of(&bytes), offset: offset as u64 }).await;
        assert_eq!(stream.next().await, Some(FromFleet::Head { size: bytes.len() as u64 }));
        assert_eq!(stream.bytes().await, bytes[offset..]);
    }
    for (digest, offset) in [(Digest::of(b"none"), 0), (Digest::of(&bytes), bytes.len() as u64 + 1)] {
        let mut stream = Stream::open(&connection).await;
        stream.send(&FromNode::Fetch { digest, offset }).await;
        assert!(matches!(stream.next().await, Some(FromFleet::Refused { .. })));
    }
}

fn record(seq: u64, calls_ok: u64) -> UsageRecord {
    let window = Window { function: "average".parse().unwrap(), revision: "00".repeat(32).parse().unwrap(), start_ms: 3_600_000 };
    UsageRecord { seq, window, counters: Counters { calls_ok, cpu_us: calls_ok * 10, ..Counters::default() } }
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_applied_once_whatever_is_sent_twice() {
    let world = World::new().await;
    let node = world.node("gate", &[]).await;
    let epoch = LedgerEpoch(7);
    let batch = |records| FromNode::Usage(UsageBatch { epoch, records });
    let connection = node.connect(&world).await;
    let mut stream = Stream::open(&connection).await;
    for (records, through) in [
        (vec![record(1, 5), record(2, 9)], 2),
        (vec![record(1, 5), record(2, 9)], 2),
        (vec![record(2, 9), record(3, 12)], 3),
        (vec![record(1, 5)], 3),
        (vec![], 3),
    ] {
        stream.send(&batch(records)).await;
        assert_eq!(stream.next().await, Some(FromFleet::UsageApplied { epoch, through }));
    }
    stream.send(&batch(vec![record(5, 99)])).await;
    assert_eq!(stream.next().await, Some(FromFleet::UsageBeginAnew { through: 3 }), "a gap is not taken");
    // A new ledger of the same node begins anew and adds to the same sum.
    let mut stream = Stream::open(&connection).await;
    stream.send(&FromNode::Usage(UsageBatch { epoch: LedgerEpoch(8), records: vec![record(1, 3)] })).await;
    assert_eq!(stream.next().await, Some(FromFleet::UsageApplied { epoch: LedgerEpoch(8), through: 1 }));
    connection.close(0_u32.into(), b"");
    let world = world.restart().await;
    let rows: Vec<UsageRow> = world.operator().get("/api/v1/usage?function=average&node=gate").await.unwrap();
    assert_eq!((rows.len(), rows[0].usage.calls_ok, rows[0].usage.cpu_us, rows[0].from_ms), (1, 15, 150, 3_600_000));
    let later: Vec<UsageRow> = world.operator().get("/api/v1/usage?since_ms=3600001").await.unwrap();
    assert!(later.is_empty());
    let status: Status = world.operator().get("/api/v1/status").await.unwrap();
    assert_eq!(status.usage.calls_ok, 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_replaces_the_first() {
    let world = World::new().await;
    let node = world.node("gate", &[]).await;
    let (first, _control, _) = node.greet(&world).await;
    let (_second, mut control, _) = node.greet(&world).await;
    assert!(first.closed().await.to_string().contains("took its place"));
    let nodes: Vec<Node> = world.operator().get("/api/v1/nodes").await.unwrap();
    assert_eq!(nodes[0].state, sedge_protocol::api::NodeState::Online, "the end of the first is not the end of the second");
    world.rollout("average", "one", "").await;
    assert_eq!(control.desired().await.assignments.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_frames_close_their_own_connection_only() {
    let world = World::new().await;
    let (good, bad) = (world.node("good", &[]).await, world.node("bad", &[]).await);
    let (_connection, mut control, _) = good.greet(&world).await;
    for bytes in [&[0xff; 64][..], b"\0\0\0\x05hello", b"\0\0\0\x01\xf6"] {
        let connection = bad.connect(&world).await;
        let mut stream = Stream::open(&connection).await;
        stream.asks.write_all(bytes).await.unwrap();
        assert!(matches!(connection.closed().await, quinn::ConnectionError::ApplicationClosed(_)));
    }
    world.rollout("average", "one", "").await;
    assert_eq!(control.desired().await.assignments.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_the_fleet_does_not_know_is_told_so() {
    let (world, other) = (World::new().await, World::new().await);
    let node = world.node("gate", &[]).await;
    // The same authority, but a database that was set up anew.
    for file in ["ca.pem", "ca-key.pem"] {
        std::fs::copy(world.data.path().join(file), other.data.path().join(file)).unwrap();
    }
    let other = other.restart().await;
    let connection = node.connect(&other).await;
    assert!(connection.closed().await.to_string().contains("does not know the node"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_over_the_connection() {
    let world = World::new().await;
    let node = world.node("gate", &[]).await;
    let connection = node.connect(&world).await;
    let mut stream = Stream::open(&connection).await;
    stream.send(&FromNode::Renew { csr: sedge_provisioning::csr(&node.identity.key).unwrap() }).await;
    let Some(FromFleet::Renewed { certificate }) = stream.next().await else { panic!("not renewed") };
    let renewed = sedge_provisioning::Identity::from_pem(&certificate, node.identity.key.clone()).unwrap();
    assert_eq!(renewed.node, node.identity.node);
    let mut stream = Stream::open(&connection).await;
    stream.send(&FromNode::Renew { csr: "nothing".into() }).await;
    assert!(matches!(stream.next().await, Some(FromFleet::Refused { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_restart() {
    let world = World::new().await;
    let node = world.node("gate", &[]).await;
    let (revision, _) = world.rollout("average", "one", "").await;
    let pin = world.addresses().ca_pin;
    let world = world.restart().await;
    assert_eq!(world.addresses().ca_pin, pin);
    let (_connection, _control, desired) = node.greet(&world).await;
    assert_eq!((desired.epoch, desired.assignments[0].revision), (1, revision.id));
}
