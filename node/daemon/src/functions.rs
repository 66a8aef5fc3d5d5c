//! The functions that run now: one table, replaced as a whole at every change.

use crate::limits::LOST_ROUTES_MAX;
use crate::meter::{Counts, Meter};
use crate::secrets::Secrets;
use crate::telemetry::Requests;
use sedge_node_core::queue::{Queue, Settings};
use sedge_protocol::manifest::{Durability, Route, Trigger};
use sedge_protocol::message::{Assignment, FunctionReport, FunctionState, Health, LostRoute};
use sedge_protocol::{FunctionName, Manifest, RevisionId, Topic};
use sedge_runtime::Function;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;

/// A revision that takes invocations.
#[derive(Debug, Clone)]
pub(crate) struct Active {
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) function: Function,
    /// Where its invocations are counted.
    pub(crate) counts: Arc<Counts>,
    /// Where its requests are counted, for each trigger of the manifest.
    routes: Vec<Arc<Requests>>,
}

impl Active {
    pub(crate) fn new(assignment: Assignment, function: Function, meter: &Meter) -> Self {
        let counts = meter.of(assignment.function(), assignment.revision);
        let route = |trigger: &Trigger| match trigger {
            Trigger::Http { route } => meter.route(Some(route.as_str())),
            Trigger::Mqtt { .. } | Trigger::Every { .. } | Trigger::Cron { .. } => meter.route(None),
        };
        let routes = assignment.manifest.triggers.iter().map(route).collect();
        Self { assignment: Arc::new(assignment), function, counts, routes }
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

/// Who takes which path: an exact route goes before a prefix, a longer prefix before a shorter one. Of two that have the same route the
/// one that was added later takes it.
#[derive(Debug)]
pub(crate) struct Routes<T> {
    exact: BTreeMap<String, T>,
    /// By what stands before `/*`.
    prefix: BTreeMap<String, T>,
}

impl<T> Default for Routes<T> {
    fn default() -> Self {
        Self { exact: BTreeMap::new(), prefix: BTreeMap::new() }
    }
}

impl<T> Routes<T> {
    /// `taker` makes who takes the trigger at a place of the manifest.
    fn add(&mut self, manifest: &Manifest, taker: impl Fn(usize) -> T) {
        for (at, trigger) in manifest.triggers.iter().enumerate() {
            let Trigger::Http { route } = trigger else { continue };
            match route.as_str().strip_suffix("/*") {
                Some(prefix) => self.prefix.insert(prefix.to_owned(), taker(at)),
                None => self.exact.insert(route.as_str().to_owned(), taker(at)),
            };
        }
    }

    /// Who takes a route of a manifest, whoever else has it.
    fn taker(&self, route: &Route) -> Option<&T> {
        match route.as_str().strip_suffix("/*") {
            Some(prefix) => self.prefix.get(prefix),
            None => self.exact.get(route.as_str()),
        }
    }

    fn find(&self, path: &str) -> Option<&T> {
        if let Some(taker) = self.exact.get(path) {
            return Some(taker);
        }
        let mut prefix = path;
        loop {
            if let Some(taker) = self.prefix.get(prefix) {
                return Some(taker);
            }
            prefix = &prefix[..prefix.rfind('/')?];
        }
    }
}

/// All functions of the node, those that run and those on the way.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) active: BTreeMap<FunctionName, Arc<Active>>,
    pub(crate) states: BTreeMap<FunctionName, (Arc<Assignment>, FunctionState)>,
    pub(crate) desired_epoch: u64,
    routes: Routes<(Arc<Active>, Arc<Requests>)>,
    coming: Routes<()>,
}

impl Table {
    /// The same functions, ready to be changed; [`Table::ready`] ends the change.
    pub(crate) fn draft(&self) -> Self {
        Self { active: self.active.clone(), states: self.states.clone(), desired_epoch: self.desired_epoch, ..Self::default() }
    }

    /// Finds out who takes which path.
    pub(crate) fn ready(mut self) -> Self {
        self.routes = Routes::default();
        self.coming = Routes::default();
        for active in self.active.values() {
            self.routes.add(&active.assignment.manifest, |at| (Arc::clone(active), Arc::clone(&active.routes[at])));
        }
        for (assignment, state) in self.states.values() {
            if matches!(state, FunctionState::Fetching { .. } | FunctionState::Preparing) {
                self.coming.add(&assignment.manifest, |_| ());
            }
        }
        self
    }

    /// The function that takes `path`.
    pub(crate) fn route(&self, path: &str) -> Routed {
        self.route_counted(path).0
    }

    /// The function that takes `path`, and where the requests of that route are counted.
    pub(crate) fn route_counted(&self, path: &str) -> (Routed, Option<Arc<Requests>>) {
        match self.routes.find(path) {
            Some((active, requests)) => (Routed::Active(Arc::clone(active)), Some(Arc::clone(requests))),
            None if self.coming.find(path).is_some() => (Routed::Coming, None),
            None => (Routed::Nowhere, None),
        }
    }

    /// Routes of a function that runs which another one takes: that whose name comes later in the alphabet.
    pub(crate) fn lost_routes(&self, active: &Active) -> Vec<LostRoute> {
        let lost = |route: &Route| {
            let (taker, _) = self.routes.taker(route)?;
            (taker.name() != active.name()).then(|| LostRoute { route: route.clone(), served_by: taker.name().clone() })
        };
        active.assignment.manifest.routes().filter_map(lost).take(LOST_ROUTES_MAX).collect()
    }

    /// The function of this name.
    pub(crate) fn named(&self, name: &FunctionName) -> Routed {
        match (self.active.get(name), self.states.get(name)) {
            (Some(active), _) => Routed::Active(Arc::clone(active)),
            (None, Some((_, FunctionState::Fetching { .. } | FunctionState::Preparing))) => Routed::Coming,
            (None, Some(_) | None) => Routed::Nowhere,
        }
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
    pub(crate) fn reports(&self, secrets: &Secrets) -> Vec<FunctionReport> {
        let names: BTreeSet<&FunctionName> = self.active.keys().chain(self.states.keys()).collect();
        names
            .into_iter()
            .map(|name| {
                let active = self.active.get(name);
                let running = active.map(|active| active.revision());
                let (assigned, state) = match self.states.get(name) {
                    Some((assignment, state)) => (Some(assignment.revision), state.clone()),
                    None => (None, FunctionState::Running),
                };
                let assignment =
                    active.map(|active| &active.assignment).or_else(|| self.states.get(name).map(|(assignment, _)| assignment));
                let missing_secrets = assignment.map(|assignment| secrets.missing(&assignment.manifest)).unwrap_or_default();
                FunctionReport {
                    function: name.clone(),
                    running,
                    state,
                    assigned,
                    missing_secrets,
                    totals: sedge_protocol::usage::Counters::default(),
                    health: Health { lost_routes: active.map(|active| self.lost_routes(active)).unwrap_or_default(), ..Health::default() },
                }
            })
            .collect()
    }
}

/// Which functions a queue of events or calls has been opened for.
#[derive(Debug, Default)]
pub(crate) struct Followed(BTreeSet<FunctionName>);

impl Followed {
    /// The queue has something for this function, whether it runs or not: it is held, or given up, when the table is followed next.
    pub(crate) fn add(&mut self, function: &FunctionName) {
        self.0.insert(function.clone());
    }

    /// The function is of no concern any more.
    pub(crate) fn remove(&mut self, function: &FunctionName) {
        self.0.remove(function);
    }

    /// Opens and holds functions in `queue` as the table says. Answers those that are assigned no more: what waits for them is to be
    /// given up.
    pub(crate) fn follow<T: Clone>(&mut self, table: &Table, queue: &mut Queue<T>) -> Vec<FunctionName> {
        for (name, active) in &table.active {
            let manifest = &active.assignment.manifest;
            queue.open(name, Settings { concurrency: manifest.limits.concurrency, retry: manifest.retry.clone() });
            self.add(name);
        }
        let idle: Vec<FunctionName> = self.0.iter().filter(|name| !table.active.contains_key(*name)).cloned().collect();
        idle.iter().for_each(|name| self.remove(name));
        let (held, gone): (Vec<_>, Vec<_>) = idle.into_iter().partition(|name| table.states.contains_key(name));
        held.iter().for_each(|name| queue.hold(name));
        gone
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

    #[test]
    fn an_exact_route_goes_before_a_prefix_and_a_longer_prefix_before_a_shorter() {
        let mut routes = Routes::default();
        for (name, route) in [("all", "/*"), ("prefix", "/hello/*"), ("exact", "/hello"), ("deep", "/hello/you/*")] {
            let manifest = Manifest::from_toml("f", &format!("name = '{name}'\n[[trigger]]\nhttp = '{route}'\n")).unwrap().0;
            routes.add(&manifest, |_| name);
        }
        for (path, taker) in [
            ("/hello", "exact"),
            ("/hello/", "prefix"),
            ("/hello/me", "prefix"),
            ("/hello/you/too", "deep"),
            ("/hellou", "all"),
            ("/", "all"),
        ] {
            assert_eq!(routes.find(path), Some(&taker), "{path}");
        }
        assert_eq!(Routes::<()>::default().find("/x"), None);
    }
}
