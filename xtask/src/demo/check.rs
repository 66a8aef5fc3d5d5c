//! Did every link of the chain do its part? Pure: from what was seen at one moment to what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sedge_protocol::api::UsageRow;
use sedge_protocol::local::LocalStatus;
use sedge_protocol::message::FunctionState;
use sedge_protocol::usage::Counters;
use sedge_protocol::{FunctionName, RevisionId};

/// A link of the chain from the sensor to the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Link {
    Enrolment,
    Rollout,
    Events,
    Calls,
    SecondRevision,
    Usage,
    Exits,
}

impl Link {
    /// All of them, in the order in which they are reached.
    pub(crate) const ALL: [Self; 7] =
        [Self::Enrolment, Self::Rollout, Self::Events, Self::Calls, Self::SecondRevision, Self::Usage, Self::Exits];
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Enrolment => "enrolment",
            Self::Rollout => "rollout",
            Self::Events => "events",
            Self::Calls => "HTTP calls",
            Self::SecondRevision => "second revision",
            Self::Usage => "usage",
            Self::Exits => "clean exits",
        })
    }
}

/// What became of the links: what was reached, and well or not.
#[derive(Debug, Default)]
pub(crate) struct Verdict(BTreeMap<Link, Result<String, String>>);

impl Verdict {
    /// Notes how a link did.
    pub(crate) fn note(&mut self, link: Link, result: Result<String, String>) {
        self.0.insert(link, result);
    }

    /// Whether every link did its part.
    pub(crate) fn is_good(&self) -> bool {
        Link::ALL.iter().all(|link| matches!(self.0.get(link), Some(Ok(_))))
    }

    /// Whether no link that was reached failed.
    pub(crate) fn nothing_failed(&self) -> bool {
        self.0.values().all(Result::is_ok)
    }

    /// One line a link.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |link: &Link| match self.0.get(link) {
            Some(Ok(what)) => format!("  ✓ {link:<16} {what}"),
            Some(Err(why)) => format!("  ✗ {link:<16} {why}"),
            None => format!("  · {link:<16} not reached"),
        };
        Link::ALL.iter().map(line).collect()
    }
}

/// One node as it was seen.
#[derive(Debug, Clone)]
pub(crate) struct NodeView {
    pub(crate) name: String,
    pub(crate) status: LocalStatus,
    /// Acknowledged events for `average` and `convert`, calls of `hello` answered and failed.
    pub(crate) acknowledged: [u64; 2],
    pub(crate) answered: u64,
    pub(crate) unanswered: u64,
}

/// Everything as it was seen: the fleet's usage first, the nodes after it, so that the fleet can only be behind.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) fleet: Vec<UsageRow>,
    pub(crate) nodes: Vec<NodeView>,
}

impl NodeView {
    /// What it reports of `function`.
    pub(crate) fn totals(&self, function: &str) -> Counters {
        let report = self.status.functions.iter().find(|report| report.function.as_str() == function);
        report.map(|report| report.totals).unwrap_or_default()
    }

    /// The revision of `function` that takes invocations, once no other is on its way.
    pub(crate) fn running(&self, function: &str) -> Option<RevisionId> {
        let report = self.status.functions.iter().find(|report| report.function.as_str() == function)?;
        report.running.filter(|_| report.state == FunctionState::Running)
    }

    /// Sum over all its functions.
    pub(crate) fn sum(&self) -> Counters {
        let mut sum = Counters::default();
        self.status.functions.iter().for_each(|report| sum.add(&report.totals));
        sum
    }

    fn lost(&self) -> Option<String> {
        for (function, acknowledged) in ["average", "convert"].into_iter().zip(self.acknowledged) {
            let processed = self.totals(function).calls_ok;
            if processed < acknowledged {
                return Some(format!("{}: {function} processed {processed} of {acknowledged} acknowledged events", self.name));
            }
        }
        let letters = self.status.vitals.dead_letters;
        (letters > 0).then(|| format!("{}: {letters} dead letters", self.name))
    }

    fn unanswered(&self) -> Option<String> {
        let (ran, answered) = (self.totals("hello").calls_ok, self.answered);
        match (self.unanswered, ran < answered) {
            (0, false) => None,
            (0, true) => Some(format!("{}: {answered} calls answered, {ran} ran", self.name)),
            (failed, _) => Some(format!("{}: {failed} calls failed", self.name)),
        }
    }
}

impl View {
    /// What the fleet knows of `node`, per function.
    fn fleet_of(&self, node: &str) -> BTreeMap<FunctionName, Counters> {
        let mut sums: BTreeMap<FunctionName, Counters> = BTreeMap::new();
        for row in self.fleet.iter().filter(|row| row.node.as_str() == node) {
            sums.entry(row.function.clone()).or_default().add(&row.usage);
        }
        sums
    }

    /// What the fleet knows of `node` in all.
    pub(crate) fn fleet_sum(&self, node: &str) -> Counters {
        let mut sum = Counters::default();
        self.fleet_of(node).values().for_each(|counters| sum.add(counters));
        sum
    }

    /// The nodes whose own counts and the fleet's do not agree; `before` is what a run before has left.
    ///
    /// A node counts from its start, the fleet for ever. A function that a timer started before `before` was seen is not compared:
    /// how much of it the fleet had by then cannot be told.
    fn differing(&self, before: &Self) -> BTreeMap<String, String> {
        let mut differing = BTreeMap::new();
        for node in &self.nodes {
            let (now, then) = (self.fleet_of(&node.name), before.fleet_of(&node.name));
            let node_then = before.nodes.iter().find(|other| other.name == node.name);
            for report in &node.status.functions {
                let name = &report.function;
                if node_then.is_some_and(|node| node.totals(name.as_str()).calls() > 0) {
                    continue;
                }
                let at_fleet = now.get(name).copied().unwrap_or_default();
                let mut at_node = then.get(name).copied().unwrap_or_default();
                at_node.add(&report.totals);
                if at_fleet != at_node {
                    let text = format!("{}: {name} {} calls at the fleet, {} at the node", node.name, at_fleet.calls(), at_node.calls());
                    differing.insert(node.name.clone(), text);
                }
            }
        }
        differing
    }

    /// What is missing now, per link. `agreed` remembers the nodes whose usage has agreed at a moment since the sensors were
    /// stopped: a timer's function goes on running, so they need not do so at the same moment.
    pub(crate) fn missing(&self, before: &Self, second: Option<RevisionId>, agreed: &mut BTreeSet<String>) -> BTreeMap<Link, String> {
        let differing = self.differing(before);
        agreed.extend(self.nodes.iter().map(|node| node.name.clone()).filter(|name| !differing.contains_key(name)));
        let usage = differing.into_iter().find(|(name, _)| !agreed.contains(name)).map(|(_, text)| text);
        let behind = self.nodes.iter().find(|node| second.is_none() || node.running("average") != second);
        let found = [
            (Link::Events, self.nodes.iter().find_map(NodeView::lost)),
            (Link::Calls, self.nodes.iter().find_map(NodeView::unanswered)),
            (Link::SecondRevision, behind.map(|node| format!("{} does not run it", node.name))),
            (Link::Usage, usage),
        ];
        found.into_iter().filter_map(|(link, text)| Some((link, text?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::local::FleetLink;
    use sedge_protocol::message::{FunctionReport, Health, Vitals};
    use sedge_protocol::{Digest, Manifest};

    fn revision(text: &str) -> RevisionId {
        let manifest = Manifest::from_toml("f", "name = 'average'").unwrap().0;
        RevisionId::of(&Digest::of(text.as_bytes()), &manifest)
    }

    fn counters(calls_ok: u64) -> Counters {
        Counters { calls_ok, cpu_us: calls_ok * 7, ..Counters::default() }
    }

    fn report(calls_ok: u64) -> FunctionReport {
        FunctionReport {
            function: "average".parse().unwrap(),
            running: Some(revision("2")),
            state: FunctionState::Running,
            assigned: Some(revision("2")),
            missing_secrets: Vec::new(),
            totals: counters(calls_ok),
            health: Health::default(),
        }
    }

    fn view(at_node: u64, at_fleet: u64, acknowledged: u64) -> View {
        let status = LocalStatus {
            version: String::new(),
            node: None,
            fleet: FleetLink::Online,
            fleet_note: None,
            http: None,
            mqtt: None,
            metrics: None,
            desired_epoch: 0,
            functions: vec![report(at_node)],
            vitals: Vitals::default(),
            admission: sedge_protocol::local::Admission::default(),
            usage_unsent: 0,
            store_bytes_written: 0,
            calls: sedge_protocol::local::CallCounts::default(),
            devices: Vec::new(),
        };
        let row = UsageRow {
            node: "gw-1".parse().unwrap(),
            function: "average".parse().unwrap(),
            revision: revision("1"),
            from_ms: 0,
            usage: counters(at_fleet),
        };
        let node = NodeView { name: "gw-1".to_owned(), status, acknowledged: [acknowledged, 0], answered: 0, unanswered: 0 };
        View { fleet: vec![row], nodes: vec![node] }
    }

    fn missing(view: &View, before: &View) -> Vec<Link> {
        view.missing(before, Some(revision("2")), &mut BTreeSet::new()).into_keys().collect()
    }

    #[test]
    fn nothing_is_missing_when_all_agree() {
        assert_eq!(missing(&view(10, 10, 10), &View::default()), []);
        assert_eq!(missing(&view(11, 11, 10), &View::default()), [], "at least once may be more");
    }

    #[test]
    fn each_link_is_named() {
        assert_eq!(missing(&view(9, 9, 10), &View::default()), [Link::Events]);
        assert_eq!(missing(&view(10, 9, 10), &View::default()), [Link::Usage]);
        assert_eq!(missing(&view(10, 11, 10), &View::default()), [Link::Usage], "more than ran is wrong as well");
        let found = view(1, 1, 1).missing(&View::default(), Some(revision("3")), &mut BTreeSet::new());
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [Link::SecondRevision]);
        let mut failed = view(1, 1, 1);
        failed.nodes[0].unanswered = 2;
        assert_eq!(missing(&failed, &View::default()), [Link::Calls]);
    }

    #[test]
    fn a_continued_run_compares_with_what_was_there() {
        let before = view(0, 100, 0);
        assert_eq!(missing(&view(10, 110, 10), &before), []);
        assert_eq!(missing(&view(10, 100, 10), &before), [Link::Usage]);
    }

    #[test]
    fn a_node_that_has_agreed_once_is_settled() {
        let mut agreed = BTreeSet::new();
        assert!(view(10, 10, 10).missing(&View::default(), Some(revision("2")), &mut agreed).is_empty());
        assert!(view(11, 10, 10).missing(&View::default(), Some(revision("2")), &mut agreed).is_empty());
    }

    #[test]
    fn a_link_that_was_not_reached_is_no_success() {
        let mut verdict = Verdict::default();
        for link in Link::ALL {
            assert!(!verdict.is_good());
            verdict.note(link, Ok(String::new()));
        }
        assert!(verdict.is_good() && verdict.nothing_failed());
        verdict.note(Link::Usage, Err("why".to_owned()));
        assert!(!verdict.is_good() && !verdict.nothing_failed());
        assert!(verdict.lines().iter().any(|line| line.contains("✗ usage") && line.contains("why")));
    }
}
