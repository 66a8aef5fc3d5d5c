//! The functions that run now: one table, replaced as a whole at every change.

use sedge_protocol::manifest::{Durability, Trigger};
use sedge_protocol::message::{Assignment, FunctionReport, FunctionState};
use sedge_protocol::{FunctionName, RevisionId, Topic};
use sedge_runtime::Function;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// A revision that takes invocations.
#[derive(Debug, Clone)]
pub(crate) struct Active {
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) function: Function,
}

impl Active {
    pub(crate) fn new(assignment: Assignment, function: Function) -> Self {
        Self { assignment: Arc::new(assignment), function }
    }

    pub(crate) fn name(&self) -> &FunctionName {
        self.assignment.function()
    }

    pub(crate) fn revision(&self) -> RevisionId {
        self.assignment.revision
    }
}

/// A subscription that matches a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) function: FunctionName,
    pub(crate) qos: u8,
    pub(crate) durability: Durability,
    pub(crate) reply: Option<Topic>,
}

/// Who takes a request.
#[derive(Debug)]
pub(crate) enum Routed {
    /// This function.
    Active(Arc<Active>),
    /// A function that does not run yet.
    Coming,
    /// Nobody.
    Nowhere,
}

/// How well the best route of a function takes `path`: whether it is exact, and its length.
fn rank(assignment: &Assignment, path: &str) -> Option<(bool, usize)> {
    let triggers = assignment.manifest.triggers.iter();
    let ranks = triggers.filter_map(|trigger| match trigger {
        Trigger::Http { route } if route.matches(path) => Some((route.as_str() == path, route.as_str().len())),
        Trigger::Http { .. } | Trigger::Mqtt { .. } | Trigger::Every { .. } | Trigger::Cron { .. } => None,
    });
    ranks.max()
}

/// All functions of the node, those that run and those on the way.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) active: BTreeMap<FunctionName, Arc<Active>>,
    pub(crate) states: BTreeMap<FunctionName, (Arc<Assignment>, FunctionState)>,
    pub(crate) desired_epoch: u64,
}

impl Table {
    /// The function that takes `path`: an exact route goes before a prefix, a longer prefix before a shorter one.
    pub(crate) fn route(&self, path: &str) -> Routed {
        let best = self.active.values().filter_map(|active| Some((rank(&active.assignment, path)?, active)));
        if let Some((_, active)) = best.max_by_key(|(rank, _)| *rank) {
            return Routed::Active(Arc::clone(active));
        }
        let coming = |(assignment, state): &(Arc<Assignment>, FunctionState)| {
            matches!(state, FunctionState::Fetching { .. } | FunctionState::Preparing) && rank(assignment, path).is_some()
        };
        if self.states.values().any(coming) { Routed::Coming } else { Routed::Nowhere }
    }

    /// Who gets an event on `topic`: each function once, by the first trigger that matches.
    pub(crate) fn matches(&self, topic: &Topic) -> Vec<Match> {
        let of = |active: &Arc<Active>| {
            active.assignment.manifest.triggers.iter().find_map(|trigger| match trigger {
                Trigger::Mqtt { filter, qos, durability, reply } if filter.matches(topic) => {
                    Some(Match { function: active.name().clone(), qos: *qos, durability: *durability, reply: reply.clone() })
                }
                Trigger::Mqtt { .. } | Trigger::Http { .. } | Trigger::Every { .. } | Trigger::Cron { .. } => None,
            })
        };
        self.active.values().filter_map(of).collect()
    }

    /// What the fleet and `sedge` are told; `totals` are counted elsewhere.
    pub(crate) fn reports(&self) -> Vec<FunctionReport> {
        let names: std::collections::BTreeSet<&FunctionName> = self.active.keys().chain(self.states.keys()).collect();
        names
            .into_iter()
            .map(|name| {
                let running = self.active.get(name).map(|active| active.revision());
                let (assigned, state) = match self.states.get(name) {
                    Some((assignment, state)) => (Some(assignment.revision), state.clone()),
                    None => (None, FunctionState::Running),
                };
                FunctionReport { function: name.clone(), running, state, assigned, totals: sedge_protocol::usage::Counters::default() }
            })
            .collect()
    }
}

/// Readers' side of the table. Cheap to clone; a look costs no allocation.
#[derive(Debug, Clone)]
pub(crate) struct Functions(watch::Receiver<Arc<Table>>);

/// The one writer's side.
pub(crate) type TableWriter = watch::Sender<Arc<Table>>;

impl Functions {
    pub(crate) fn new() -> (Self, TableWriter) {
        let (writer, reader) = watch::channel(Arc::default());
        (Self(reader), writer)
    }

    /// The table as it is now.
    pub(crate) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.0.borrow())
    }

    /// Waits for a change of the table. Cancel safe.
    pub(crate) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.0.changed().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::{Digest, Manifest};

    #[test]
    fn an_exact_route_goes_before_a_prefix_and_a_longer_prefix_before_a_shorter() {
        let of = |routes: &[&str]| {
            let triggers: String = routes.iter().map(|route| format!("[[trigger]]\nhttp = '{route}'\n")).collect();
            let manifest = Manifest::from_toml("f", &format!("name = 'f'\n{triggers}")).unwrap().0;
            let artifact = Digest::of(b"");
            Assignment { revision: RevisionId::of(&artifact, &manifest), artifact, size: 0, manifest }
        };
        let ranks = |path| [rank(&of(&["/*"]), path), rank(&of(&["/hello/*"]), path), rank(&of(&["/hello"]), path)];
        let [all, prefix, exact] = ranks("/hello");
        assert!(all < prefix && prefix < exact && all.is_some(), "{all:?} {prefix:?} {exact:?}");
        let [all, prefix, exact] = ranks("/hello/you");
        assert!(all < prefix && exact.is_none());
        assert_eq!(rank(&of(&["/a", "/hello"]), "/b"), None);
    }
}
