//! Values that tests show.

use sedge_protocol::api::{Function, Node, NodeState, Revision, Rollout, Running, Waiting};
use sedge_protocol::artifact::Kind;
use sedge_protocol::message::{FunctionReport, FunctionState, Health, Vitals};
use sedge_protocol::usage::Counters;
use sedge_protocol::{Digest, Labels, Manifest, RevisionId, Standing};

const DAY_MS: u64 = 86_400_000;

/// 1,230 good and 4 failed calls.
pub(crate) fn usage() -> Counters {
    Counters { calls_ok: 1230, calls_failed: 4, cpu_us: 2_500_000, memory_mib_ms: 1024 * 1500, ..Counters::default() }
}

/// A revision of `hello`.
pub(crate) fn revision() -> Revision {
    let (manifest, _) = Manifest::from_toml("f", "name = 'hello'\n[[trigger]]\nhttp = '/hello'").unwrap();
    let artifact = Digest::of(b"wasm");
    let id = RevisionId::of(&artifact, &manifest);
    Revision { id, function: manifest.name.clone(), artifact, size: 63_590, kind: Kind::Http, created_ms: 1000, manifest }
}

/// `hello`, which two nodes run and one waits for.
pub(crate) fn function() -> Function {
    let revision = revision();
    let nodes = ["gw-1", "gw-2"].map(|node| node.parse().unwrap()).to_vec();
    let waiting = Waiting { node: "gw-3".parse().unwrap(), assigned: Some(revision.id), reason: "offline".to_owned() };
    Function {
        name: revision.function,
        newest: revision.id,
        revisions: 2,
        running: vec![Running { revision: revision.id, nodes }],
        waiting: vec![waiting],
        usage: usage(),
        health: Health::default(),
    }
}

/// A rollout of `hello` to as many nodes as are named.
pub(crate) fn rollout(done: u64, failed: u64, waiting: u64) -> Rollout {
    Rollout {
        id: "r1".to_owned(),
        function: revision().function,
        revision: revision().id,
        filter: String::new(),
        created_ms: 1000,
        nodes: done + failed + waiting,
        done,
        failed,
        waiting,
    }
}

/// What a node says of `hello`.
pub(crate) fn report(state: FunctionState) -> FunctionReport {
    let revision = revision();
    FunctionReport {
        function: revision.function,
        running: None,
        state,
        assigned: Some(revision.id),
        missing_secrets: Vec::new(),
        totals: Counters::default(),
        health: Health::default(),
    }
}

/// A node that was lost five seconds before second 6.
pub(crate) fn node() -> Node {
    let mut labels = Labels::default();
    labels.insert("site", "berlin").unwrap();
    Node {
        id: "gw-1".parse().unwrap(),
        state: NodeState::Offline,
        labels,
        standing: Standing::Active,
        standing_ms: 0,
        daemon: "0.1.0".to_owned(),
        architecture: "x86_64".to_owned(),
        enrolled_ms: 0,
        seen_ms: Some(1000),
        certificate_until_ms: 30 * DAY_MS + 6000,
        desired_epoch: 3,
        reported_epoch: 2,
        functions: vec![report(FunctionState::Running)],
        vitals: Vitals {
            uptime_ms: 60_000,
            memory_used: 1 << 30,
            memory_total: 4 << 30,
            cores: 4,
            load_centi: 105,
            events_in: 1000,
            dead_letters: 2,
            ..Vitals::default()
        },
        os: None,
    }
}
