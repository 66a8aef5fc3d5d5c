//! The store's promises, on SQLite and on PostgreSQL.

use crate::postgres::Postgres;
use sedge_fleet::store::{Admission, ClaimRefusal, EnrolFault, NodeFault, RolloutFault, Store, UsageFault};
use sedge_protocol::api::{Claim, LabelChange, Revision};
use sedge_protocol::artifact::Kind;
use sedge_protocol::message::{ErrorReport, Hello, Report, UsageBatch, VERSION};
use sedge_protocol::usage::{Counters, LedgerEpoch, UsageRecord, Window};
use sedge_protocol::{Digest, Labels, Manifest, NodeId, RevisionId, Standing};

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_the_promises() {
    let data = tempfile::tempdir().unwrap();
    // A name that a database address would take apart.
    let path = data.path().join("fleet %20?.db");
    let store = Store::open(&path).await.unwrap();
    promises(&store).await;
    // Not closed: as if the process had been killed.
    let again = Store::open(&path).await.unwrap();
    assert_eq!(again.nodes().await.unwrap(), store.nodes().await.unwrap());
    assert_eq!(again.usage_by_function().await.unwrap(), store.usage_by_function().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts a PostgreSQL server: `cargo xtask test --all` brings it"]
async fn postgresql_keeps_the_promises() {
    let postgres = Postgres::start();
    let store = Store::connect(&postgres.url()).await.unwrap();
    promises(&store).await;
    store.close().await;
}

async fn promises(store: &Store) {
    let node = claims_are_used_up(store).await;
    rollouts_advance_epochs(store, &node).await;
    usage_is_cumulative(store, &node).await;
    reports_and_errors_are_kept_once(store, &node).await;
    standings_decide_what_is_assigned_and_who_joins(store, &node).await;
}

async fn claims_are_used_up(store: &Store) -> NodeId {
    let mut labels = Labels::default();
    labels.insert("site", "claim").unwrap();
    let claim = claim("c1", labels);
    store.create_claim(&claim, Digest::of(b"token"), 1).await.unwrap();
    let mut own = Labels::default();
    own.insert("site", "own").unwrap();
    own.insert("line", "1").unwrap();
    let name: NodeId = "gate".parse().unwrap();
    let admission =
        |token: &[u8], key: &[u8], now_ms| Admission { token: Digest::of(token), key: Digest::of(key), name: &name, labels: &own, now_ms };
    let enrol = async |admission: Admission<'_>| store.enrol(&admission, |_| Ok(("certificate".into(), 5000))).await;
    let refused = async |admission| match enrol(admission).await {
        Err(EnrolFault::Claim(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(admission(b"wrong", b"k", 2)).await, ClaimRefusal::Unknown);
    assert_eq!(refused(admission(b"token", b"k", 1000)).await, ClaimRefusal::Expired);
    let node = enrol(admission(b"token", b"k", 999)).await.unwrap().node;
    assert_eq!(enrol(admission(b"token", b"k", 999)).await.unwrap().node, node);
    assert_eq!(refused(admission(b"token", b"other", 999)).await, ClaimRefusal::UsedUp);
    let row = store.node(&node).await.unwrap().unwrap();
    assert_eq!((row.labels.value("site"), row.labels.value("line")), (Some("claim"), Some("1")), "the operator's labels win");
    node
}

/// A claim for one box.
fn claim(id: &str, labels: Labels) -> Claim {
    Claim { id: id.into(), uses: 1, used: 0, expires_ms: 1000, labels, approval: false, replaces: None, revoked: false }
}

fn revision(marker: &[u8]) -> Revision {
    let manifest = Manifest::from_toml("f", "name = 'average'").unwrap().0;
    let artifact = Digest::of(marker);
    Revision {
        id: RevisionId::of(&artifact, &manifest),
        function: manifest.name.clone(),
        artifact,
        size: 9,
        kind: Kind::Http,
        created_ms: 1,
        manifest,
    }
}

async fn rollouts_advance_epochs(store: &Store, node: &NodeId) {
    let (one, two) = (revision(b"one"), revision(b"two"));
    let all = "".parse().unwrap();
    let missing = store.create_rollout("r0", &one.function, None, (&all, 1)).await;
    assert!(matches!(missing, Err(RolloutFault::Function(_))));
    store.publish(&one).await.unwrap();
    store.publish(&two).await.unwrap();
    let (_, changed) = store.create_rollout("r1", &one.function, Some(one.id), (&all, 1)).await.unwrap();
    assert_eq!((changed.len(), changed[0].1.epoch, changed[0].1.assignments[0].revision), (1, 1, one.id));
    let (_, changed) = store.create_rollout("r2", &one.function, Some(one.id), (&all, 2)).await.unwrap();
    assert!(changed.is_empty(), "the same set is no news");
    let (row, changed) = store.create_rollout("r3", &one.function, None, (&"line=1".parse().unwrap(), 3)).await.unwrap();
    assert_eq!((row.rollout.number, changed[0].1.epoch, changed[0].1.assignments[0].revision), (3, 2, two.id));
    // Other labels move the node under another rollout; a larger epoch at the node is overtaken.
    let hello = Hello {
        version: VERSION,
        daemon: "1".into(),
        desired_epoch: 40,
        architecture: "x".into(),
        board: None,
        labels: Labels::default(),
        instance: 0,
    };
    let changed = store.greet(node, &hello, 7).await.unwrap();
    assert_eq!((changed[0].1.epoch, changed[0].1.assignments[0].revision), (42, one.id));
    let changed = store.remove_function(&one.function).await.unwrap();
    assert_eq!((changed[0].1.epoch, changed[0].1.assignments.len()), (43, 0));
    assert!(matches!(store.remove_function(&one.function).await, Err(RolloutFault::Function(_))));
    assert_eq!(store.desired(node).await.unwrap().unwrap().epoch, 43);
}

async fn usage_is_cumulative(store: &Store, node: &NodeId) {
    let record = |seq, calls_ok, kv_ops| UsageRecord {
        seq,
        window: Window { function: "average".parse().unwrap(), revision: revision(b"one").id, start_ms: 0 },
        counters: Counters { calls_ok, kv_ops, ..Counters::default() },
    };
    let apply = async |records| store.apply_usage(node, &UsageBatch { epoch: LedgerEpoch(1), records }).await;
    assert_eq!(apply(vec![record(1, 5, 1), record(2, 4, 7)]).await.unwrap(), 2);
    assert_eq!(apply(vec![record(1, 90, 90)]).await.unwrap(), 2, "what was applied is not applied again");
    assert!(matches!(apply(vec![record(3, 50, 0), record(5, 60, 0)]).await, Err(UsageFault::BeginAnew { through: 2, .. })));
    let sum = store.usage_by_function().await.unwrap()[0].1;
    assert_eq!((sum.calls_ok, sum.kv_ops), (5, 7), "each counter keeps its largest, and half a batch is no batch");
    assert_eq!(apply(vec![record(3, u64::MAX, 0)]).await.unwrap(), 3);
    let again: NodeId = "again".parse().unwrap();
    let elsewhere = store.apply_usage(&again, &UsageBatch { epoch: LedgerEpoch(1), records: vec![record(1, 5, 1)] }).await;
    assert!(matches!(elsewhere, Err(UsageFault::BeginAnew { through: 3, .. })), "a box under a new identity does not count twice");
}

async fn standings_decide_what_is_assigned_and_who_joins(store: &Store, node: &NodeId) {
    let (one, two, all) = (revision(b"one"), revision(b"two"), "".parse().unwrap());
    let quarantined = Standing::Quarantined { reason: "r".into() };
    store.create_rollout("r4", &one.function, Some(one.id), (&all, 4)).await.unwrap();
    assert!(store.quarantine(node, "r".into(), 5).await.unwrap() && !store.quarantine(node, "again".into(), 6).await.unwrap());
    let row = store.node(node).await.unwrap().unwrap();
    assert_eq!((row.standing, row.standing_ms), (quarantined.clone(), 5));
    assert!(store.create_rollout("r5", &one.function, Some(two.id), (&all, 7)).await.unwrap().1.is_empty(), "nothing new");
    assert!(store.set_standing(node, &quarantined, 8).await.unwrap().is_empty());
    assert_eq!(store.node(node).await.unwrap().unwrap().standing_ms, 5, "the same again changes nothing");
    let changed = store.set_standing(node, &Standing::Active, 9).await.unwrap();
    assert_eq!(changed[0].1.assignments[0].revision, two.id);

    let change = LabelChange { remove: vec!["none".into()], ..LabelChange::default() };
    assert!(store.label_node(node, &change).await.unwrap().is_empty());
    let name: NodeId = "box".parse().unwrap();
    let labels = Labels::default();
    let enrol = async |token: &[u8], key: &[u8], now_ms| {
        let admission = Admission { token: Digest::of(token), key: Digest::of(key), name: &name, labels: &labels, now_ms };
        store.enrol(&admission, |_| Ok(("certificate".into(), 5000))).await
    };
    let create = async |id: &str, now_ms, replaces| {
        let claim = Claim { uses: 9, replaces, ..claim(id, Labels::default()) };
        store.create_claim(&claim, Digest::of(id.as_bytes()), now_ms).await.unwrap();
    };
    // The key of the node, revoked: barred for the claim of before, not for one that is made later.
    create("before", 10, None).await;
    store.set_standing(node, &Standing::Revoked { reason: "r".into() }, 20).await.unwrap();
    assert!(matches!(enrol(b"before", b"k", 21).await, Err(EnrolFault::Claim(ClaimRefusal::Barred))));
    assert!(matches!(enrol(b"token", b"k", 21).await, Err(EnrolFault::Claim(ClaimRefusal::Barred))));
    create("after", 30, None).await;
    assert_eq!(enrol(b"after", b"k", 31).await.unwrap().node, *node);
    assert_eq!(store.entry(node).await.unwrap().unwrap().standing, Standing::Active);
    // Another key takes over the entry; the former one is barred.
    create("heir", 40, Some(node.clone())).await;
    let joined = enrol(b"heir", b"new", 41).await.unwrap();
    assert!(joined.node == *node && joined.replaced);
    assert_eq!(store.entry(node).await.unwrap().unwrap().key, Digest::of(b"new"));
    assert!(matches!(enrol(b"after", b"k", 42).await, Err(EnrolFault::Claim(ClaimRefusal::Barred))));
    assert!(!enrol(b"heir", b"new", 43).await.unwrap().replaced, "the answer was lost");
    // Removed, with its errors, not its usage; then somebody else.
    let usage = store.usage_by_function().await.unwrap();
    store.remove_node(node, 50).await.unwrap();
    assert!(matches!(store.remove_node(node, 50).await, Err(NodeFault::Unknown(_))));
    assert!(store.errors(10).await.unwrap().is_empty() && store.nodes().await.unwrap().is_empty());
    assert_eq!(store.usage_by_function().await.unwrap(), usage);
    assert!(matches!(enrol(b"heir", b"new", 51).await, Err(EnrolFault::Claim(ClaimRefusal::Barred))));
    assert_eq!(enrol(b"after", b"third", 52).await.unwrap().node, name);
    assert!(store.revoke_claim("after", 53).await.unwrap() && store.revoke_claim("after", 54).await.unwrap());
    assert!(!store.revoke_claim("none", 53).await.unwrap());
    assert!(matches!(enrol(b"after", b"fourth", 55).await, Err(EnrolFault::Claim(ClaimRefusal::Revoked))));
    assert_eq!(enrol(b"after", b"third", 56).await.unwrap().node, name, "who has joined stays");
}

async fn reports_and_errors_are_kept_once(store: &Store, node: &NodeId) {
    let error =
        |number| ErrorReport { number, time_ms: 1, function: "average".parse().unwrap(), revision: None, reason: "nul \0 and ü".into() };
    for _ in 0..2 {
        store.keep_errors(node, 100, &[error(1), error(2)], 5).await.unwrap();
    }
    store.keep_errors(node, 200, &[error(1)], 6).await.unwrap();
    store.trim_errors().await.unwrap();
    assert_eq!(store.errors(10).await.unwrap().len(), 3);
    let report = Report { desired_epoch: 43, ..Report::default() };
    store.keep_reports([(node, 50, Some(&report)), (node, 60, None)]).await.unwrap();
    let row = store.node(node).await.unwrap().unwrap();
    assert_eq!((row.report, row.seen_ms), (report, Some(60)));
}
