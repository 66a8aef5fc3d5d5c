//! What API and console show: what is kept, joined with who is connected now.

use crate::fleet::Shared;
use crate::hub::{Live, Rates};
use crate::store::{FunctionRow, ImageRolloutRow, NodeRow, RolloutRow, StoreError};
use sedge_fleet_core::{Fleet, NodeFacts, Step, image_step, plan};
use sedge_protocol::api::{
    Function, FunctionUsage, ImageRollout, ImageRolloutState, ImageStep, Node, NodeState, Rollout, Running, Status, Waiting,
};
use sedge_protocol::message::Health;
use sedge_protocol::usage::Counters;
use sedge_protocol::{FunctionName, NodeId, RevisionId};
use sedge_provisioning::clock::now_ms;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

/// Every node.
pub(crate) async fn nodes(shared: &Shared) -> Result<Vec<Node>, StoreError> {
    let (rows, live) = (shared.store.nodes().await?, shared.hub.view().await);
    Ok(rows.into_iter().map(|row| node_of(row, &live)).collect())
}

/// One node.
pub(crate) async fn node(shared: &Shared, id: &NodeId) -> Result<Option<Node>, StoreError> {
    let live = shared.hub.view().await;
    Ok(shared.store.node(id).await?.map(|row| node_of(row, &live)))
}

/// Every function that is not gone.
pub(crate) async fn functions(shared: &Shared) -> Result<Vec<Function>, StoreError> {
    let (rows, nodes) = (shared.store.functions().await?, nodes_as_facts(shared).await?);
    let usage: BTreeMap<FunctionName, Counters> = shared.store.usage_by_function().await?.into_iter().collect();
    let shown = rows.into_iter().map(|row| (row.removed, function_of(row, &nodes, &usage)));
    Ok(shown.filter(|(removed, function)| !removed || !function.running.is_empty()).map(|(_, function)| function).collect())
}

/// Every rollout and how far it is.
pub(crate) async fn rollouts(shared: &Shared) -> Result<Vec<Rollout>, StoreError> {
    let (rows, nodes) = (shared.store.rollouts().await?, nodes_as_facts(shared).await?);
    let fleet = Fleet { generation: now_ms(), nodes };
    Ok(rows.into_iter().map(|row| progress(row, &fleet)).collect())
}

/// One rollout and how far it is.
pub(crate) async fn rollout(shared: &Shared, row: RolloutRow) -> Result<Rollout, StoreError> {
    let fleet = Fleet { generation: now_ms(), nodes: nodes_as_facts(shared).await? };
    Ok(progress(row, &fleet))
}

/// The fleet in a few numbers.
pub(crate) async fn status(shared: &Shared) -> Result<Status, StoreError> {
    let (live, usage) = (shared.hub.view().await, shared.store.usage_by_function().await?);
    let functions = shared.store.functions().await?.iter().filter(|row| !row.removed).count();
    let mut rates = Rates::new();
    for (function, rate) in live.values().flat_map(|node| &node.rates) {
        *rates.entry(function.clone()).or_default() += rate;
    }
    let mut sums: BTreeMap<FunctionName, Counters> = usage.into_iter().collect();
    for function in rates.keys() {
        sums.entry(function.clone()).or_default();
    }
    let mut total = Counters::default();
    sums.values().for_each(|sum| total.add(sum));
    let of_function = |(function, usage)| {
        let calls_per_second_milli = rates.get(&function).copied().unwrap_or(0);
        FunctionUsage { function, usage, calls_per_second_milli }
    };
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        time_ms: now_ms(),
        nodes: shared.store.count_nodes().await?,
        online: live.values().filter(|node| node.online).count() as u64,
        functions: functions as u64,
        calls_per_second_milli: rates.values().sum(),
        usage: total,
        by_function: sums.into_iter().map(of_function).collect(),
    })
}

/// Computes the status once a second while somebody watches, for all who watch.
pub(crate) async fn publish_status(shared: Arc<Shared>, status_sender: watch::Sender<Arc<Status>>, token: CancellationToken) {
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = second.tick() => {}
            () = token.cancelled() => return,
        }
        // One receiver is the shared one that newcomers are cloned from.
        if status_sender.receiver_count() <= 1 {
            continue;
        }
        match status(&shared).await {
            Ok(status) => drop(status_sender.send_replace(Arc::new(status))),
            Err(cause) => log::error!(cause:err; "status not computed"),
        }
    }
}

fn node_of(row: NodeRow, live: &BTreeMap<NodeId, Live>) -> Node {
    let now = live.get(&row.id);
    let report = now.and_then(|live| live.report.as_deref()).unwrap_or(&row.report).clone();
    Node {
        state: if now.is_some_and(|live| live.online) { NodeState::Online } else { NodeState::Offline },
        seen_ms: now.map(|live| live.seen_ms).max(row.seen_ms),
        labels: row.labels,
        standing: row.standing,
        standing_ms: row.standing_ms,
        daemon: row.daemon,
        architecture: row.architecture,
        enrolled_ms: row.enrolled_ms,
        certificate_until_ms: row.certificate_until_ms,
        desired_epoch: row.desired.epoch,
        reported_epoch: report.desired_epoch,
        functions: report.functions,
        vitals: report.vitals,
        os: report.os,
        id: row.id,
    }
}

async fn nodes_as_facts(shared: &Shared) -> Result<BTreeMap<NodeId, NodeFacts>, StoreError> {
    let (rows, live) = (shared.store.nodes().await?, shared.hub.view().await);
    // A node that is not wanted any more holds no rollout up.
    let facts = rows.into_iter().filter(|row| !row.standing.is_revoked()).map(|row| {
        let desired = row.desired.clone();
        let node = node_of(row, &live);
        let online = node.state == NodeState::Online;
        (node.id, NodeFacts { labels: node.labels, online, desired, reported_epoch: node.reported_epoch, functions: node.functions })
    });
    Ok(facts.collect())
}

fn function_of(row: FunctionRow, nodes: &BTreeMap<NodeId, NodeFacts>, usage: &BTreeMap<FunctionName, Counters>) -> Function {
    let mut running: BTreeMap<RevisionId, Vec<NodeId>> = BTreeMap::new();
    let (mut waiting, mut health) = (Vec::new(), Health::default());
    for (id, node) in nodes {
        let report = node.functions.iter().find(|report| report.function == row.name);
        if let Some(revision) = report.and_then(|report| report.running) {
            running.entry(revision).or_default().push(id.clone());
        }
        report.into_iter().for_each(|report| health.add(&report.health));
        let assigned = node.desired.revisions.get(&row.name).copied();
        let reason = match node.step(&row.name, assigned) {
            Step::Done => continue,
            Step::Failed { reason } => format!("refused: {reason}"),
            Step::Waiting(waiting) => waiting.to_string(),
        };
        waiting.push(Waiting { node: id.clone(), assigned, reason });
    }
    let mut running: Vec<Running> = running.into_iter().map(|(revision, nodes)| Running { revision, nodes }).collect();
    running.sort_by(|a, b| b.nodes.len().cmp(&a.nodes.len()).then(a.revision.cmp(&b.revision)));
    let usage = usage.get(&row.name).copied().unwrap_or_default();
    Function { name: row.name, newest: row.newest, revisions: row.revisions, running, waiting, usage, health }
}

fn progress(row: RolloutRow, fleet: &Fleet) -> Rollout {
    let plan = plan(fleet, &row.rollout);
    let (done, failed, waiting) = plan.count();
    Rollout {
        id: row.id,
        function: row.rollout.function,
        revision: row.rollout.revision,
        filter: row.filter,
        created_ms: row.created_ms,
        nodes: plan.steps.len() as u64,
        done,
        failed,
        waiting,
    }
}

/// Every rollout of an image and how far it is.
pub(crate) async fn image_rollouts(shared: &Shared) -> Result<Vec<ImageRollout>, StoreError> {
    let rows = shared.store.image_rollouts().await?;
    let (nodes, live) = (shared.store.nodes().await?, shared.hub.view().await);
    Ok(rows.into_iter().map(|row| image_progress(row, &nodes, &live)).collect())
}

/// One rollout of an image and how far it is.
pub(crate) async fn image_rollout(shared: &Shared, row: ImageRolloutRow) -> Result<ImageRollout, StoreError> {
    let (nodes, live) = (shared.store.nodes().await?, shared.hub.view().await);
    Ok(image_progress(row, &nodes, &live))
}

fn image_progress(row: ImageRolloutRow, nodes: &[NodeRow], live: &BTreeMap<NodeId, Live>) -> ImageRollout {
    let rollout = &row.rollout;
    let ours = nodes.iter().filter(|node| node.desired.image == Some(rollout.number));
    let steps: Vec<(NodeId, Step)> = ours
        .map(|node| {
            let now = live.get(&node.id);
            let report = now.and_then(|live| live.report.as_deref()).unwrap_or(&node.report);
            (node.id.clone(), image_step(&row.rollout.version, now.is_some_and(|live| live.online), report.os.as_ref()))
        })
        .collect();
    let count = |is: fn(&Step) -> bool| steps.iter().filter(|(_, step)| is(step)).count() as u64;
    let newer = |node: &NodeRow| node.desired.image.is_some_and(|number| number > rollout.number);
    let matches = |node: &NodeRow| node.board == rollout.board && rollout.filter.matches(&node.id, &node.labels);
    let state = match () {
        () if rollout.stopped => ImageRolloutState::Stopped,
        () if steps.is_empty() && nodes.iter().any(|node| matches(node) && newer(node)) => ImageRolloutState::Superseded,
        () => ImageRolloutState::Active,
    };
    ImageRollout {
        state,
        done: count(|step| matches!(step, Step::Done)),
        failed: count(|step| matches!(step, Step::Failed { .. })),
        waiting: count(|step| matches!(step, Step::Waiting(_))),
        nodes: steps.into_iter().map(|(node, step)| image_step_of(node, step)).collect(),
        id: row.id,
        board: row.rollout.board,
        version: row.rollout.version,
        filter: row.rollout.filter.to_string(),
        restart: row.restart,
        created_ms: row.created_ms,
    }
}

fn image_step_of(node: NodeId, step: Step) -> ImageStep {
    let (step, reason) = match step {
        Step::Done => ("done", String::new()),
        Step::Failed { reason } => ("failed", reason),
        Step::Waiting(waiting) => ("waiting", waiting.to_string()),
    };
    ImageStep { node, step: step.to_owned(), reason }
}
