//! How far a rollout is: what is done, what failed, who waits and why. Waves will choose here who may move.

use crate::rollout::{DesiredState, Rollout};
use sedge_protocol::message::{FunctionReport, FunctionState};
use sedge_protocol::{FunctionName, Labels, NodeId, RevisionId};
use std::collections::BTreeMap;
use std::fmt;

/// A snapshot of all nodes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fleet {
    /// Grows with every change of what the snapshot was taken from.
    pub generation: u64,
    /// Every node that is enrolled.
    pub nodes: BTreeMap<NodeId, NodeFacts>,
}

/// What is known about one node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeFacts {
    /// Labels.
    pub labels: Labels,
    /// Whether it is connected.
    pub online: bool,
    /// What it is told to run.
    pub desired: DesiredState,
    /// The desired state its last report speaks of. A report of an older one is history.
    pub reported_epoch: u64,
    /// What it runs, as it last said.
    pub functions: Vec<FunctionReport>,
}

/// A rollout's progress at one generation of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Of the snapshot it was made from. An executor refuses an older one than it has seen.
    pub generation: u64,
    /// Every node that the rollout moves, and how far it is.
    pub steps: BTreeMap<NodeId, Step>,
}

/// How far one node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Runs the revision.
    Done,
    /// Refused it.
    Failed {
        /// Why, as the node said.
        reason: String,
    },
    /// Not there yet.
    Waiting(Waiting),
}

/// Why a node does not run yet what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// It is not connected.
    Offline,
    /// It has not answered to its newest desired state.
    Unanswered,
    /// The artifact is on the way.
    Fetching {
        /// Bytes there.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The artifact is being compiled.
    Preparing,
    /// A function that is to go still runs.
    Leaving,
    /// An image is there, and the box waits for the time to restart.
    Restart {
        /// For what.
        waits: String,
    },
    /// An image runs and has not shown yet that it works.
    Trying,
    /// Something is in the way of an image, which is tried again.
    Trouble {
        /// What.
        reason: String,
    },
}

/// What `rollout` has to do with every node it moves: all that match, at once, unless a newer rollout has them.
#[must_use]
pub fn plan(fleet: &Fleet, rollout: &Rollout) -> Plan {
    let moves = |node: &NodeFacts| node.desired.revisions.get(&rollout.function) == Some(&rollout.revision);
    let steps = fleet.nodes.iter().filter(|(id, node)| moves(node) && rollout.filter.matches(id, &node.labels));
    Plan {
        generation: fleet.generation,
        steps: steps.map(|(id, node)| (id.clone(), node.step(&rollout.function, Some(rollout.revision)))).collect(),
    }
}

impl Plan {
    /// Nodes that run the revision, that refused it, and that wait.
    #[must_use]
    pub fn count(&self) -> (u64, u64, u64) {
        self.steps.values().fold((0, 0, 0), |(done, failed, waiting), step| match step {
            Step::Done => (done + 1, failed, waiting),
            Step::Failed { .. } => (done, failed + 1, waiting),
            Step::Waiting(_) => (done, failed, waiting + 1),
        })
    }
}

impl NodeFacts {
    /// How far this node is with `function`: towards `assigned`, or towards not running it.
    #[must_use]
    pub fn step(&self, function: &FunctionName, assigned: Option<RevisionId>) -> Step {
        let report = self.functions.iter().find(|report| report.function == *function);
        let running = report.and_then(|report| report.running);
        if running == assigned {
            return Step::Done;
        }
        let answered = self.reported_epoch >= self.desired.epoch;
        match report.filter(|report| answered && report.assigned == assigned).map(|report| &report.state) {
            Some(FunctionState::Failed { reason }) => Step::Failed { reason: reason.clone() },
            _ if !self.online => Step::Waiting(Waiting::Offline),
            _ if assigned.is_none() => Step::Waiting(Waiting::Leaving),
            Some(FunctionState::Fetching { bytes, total }) => Step::Waiting(Waiting::Fetching { bytes: *bytes, total: *total }),
            Some(FunctionState::Preparing | FunctionState::Running) => Step::Waiting(Waiting::Preparing),
            None => Step::Waiting(Waiting::Unanswered),
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offline => f.write_str("offline"),
            Self::Unanswered => f.write_str("has not answered yet"),
            Self::Fetching { bytes, total } => write!(f, "fetching, {} %", bytes.saturating_mul(100) / (*total).max(1)),
            Self::Preparing => f.write_str("compiling"),
            Self::Leaving => f.write_str("stopping"),
            Self::Restart { waits } => write!(f, "staged, {waits}"),
            Self::Trying => f.write_str("on trial"),
            Self::Trouble { reason } => write!(f, "trying again: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::message::Health;
    use sedge_protocol::usage::Counters;
    use sedge_protocol::{Digest, Manifest};

    fn revision(text: &str) -> RevisionId {
        RevisionId::of(&Digest::of(text.as_bytes()), &Manifest::from_toml("f", "name = 'f'").unwrap().0)
    }

    fn report(running: Option<RevisionId>, assigned: Option<RevisionId>, state: FunctionState) -> FunctionReport {
        FunctionReport {
            function: "f".parse().unwrap(),
            running,
            state,
            assigned,
            missing_secrets: Vec::new(),
            totals: Counters::default(),
            health: Health::default(),
        }
    }

    fn node(epoch: u64, revision: RevisionId, reported_epoch: u64, reports: Vec<FunctionReport>) -> NodeFacts {
        let desired = DesiredState { epoch, revisions: [("f".parse().unwrap(), revision)].into(), image: None };
        NodeFacts { labels: Labels::default(), online: true, desired, reported_epoch, functions: reports }
    }

    #[test]
    fn every_node_that_waits_has_a_reason() {
        let (old, new) = (revision("old"), revision("new"));
        let failed = FunctionState::Failed { reason: "imports x".into() };
        let fetching = FunctionState::Fetching { bytes: 1, total: 4 };
        let cases = [
            ("done", node(2, new, 2, vec![report(Some(new), Some(new), FunctionState::Running)])),
            ("failed", node(2, new, 2, vec![report(Some(old), Some(new), failed.clone())])),
            ("fetching", node(2, new, 2, vec![report(Some(old), Some(new), fetching)])),
            ("late", node(3, new, 2, vec![report(Some(old), Some(old), failed)])),
            ("offline", NodeFacts { online: false, ..node(2, new, 1, vec![]) }),
            ("other", node(2, old, 2, vec![])),
        ];
        let nodes = cases.into_iter().map(|(name, node)| (name.parse().unwrap(), node)).collect();
        let rollout = Rollout { number: 1, function: "f".parse().unwrap(), revision: new, filter: "".parse().unwrap() };
        let plan = plan(&Fleet { generation: 7, nodes }, &rollout);
        let said = |name: &str| plan.steps.get(&name.parse::<NodeId>().unwrap()).cloned();
        assert_eq!(said("done"), Some(Step::Done));
        assert_eq!(said("failed"), Some(Step::Failed { reason: "imports x".into() }));
        assert_eq!(said("fetching"), Some(Step::Waiting(Waiting::Fetching { bytes: 1, total: 4 })));
        assert_eq!(said("late"), Some(Step::Waiting(Waiting::Unanswered)), "an old failure is history");
        assert_eq!(said("offline"), Some(Step::Waiting(Waiting::Offline)));
        assert_eq!(said("other"), None, "a newer rollout has it");
        assert_eq!((plan.generation, plan.count()), (7, (1, 1, 3)));
    }

    #[test]
    fn a_function_that_is_to_go_is_done_when_it_is_gone() {
        let gone = NodeFacts { online: true, ..NodeFacts::default() };
        let name: FunctionName = "f".parse().unwrap();
        assert_eq!(gone.step(&name, None), Step::Done);
        let stays = NodeFacts { functions: vec![report(Some(revision("old")), None, FunctionState::Running)], ..gone };
        assert_eq!(stays.step(&name, None), Step::Waiting(Waiting::Leaving));
    }
}
