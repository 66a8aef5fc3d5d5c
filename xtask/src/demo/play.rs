//! The acts of the demonstration, in order: fleet, nodes, functions, sensors, second revision, reckoning, curtain.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use sedge_protocol::api::{self, CreatedClaim, Revision, UsageRow};
use sedge_protocol::local::FleetLink;
use sedge_protocol::{FunctionName, RevisionId};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::check::{Link, NodeView, Verdict, View};
use super::directory::Directory;
use super::table::{self, Table, print};
use super::traffic::Traffic;
use super::{FUNCTIONS, Options, SECOND};
use crate::binaries::Binaries;
use crate::stage::fleet::Fleet;
use crate::stage::node::{Membership, Node};
use crate::stage::{Look, until};
use crate::{progress, workspace};

/// How long nodes may take to enrol and connect.
const ENROL_MAX: Duration = Duration::from_secs(90);
/// How long a rollout may take; a node compiles each function once.
const ROLLOUT_MAX: &str = "5m";
/// How long work may go on after the last event, and usage may take to arrive.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// When the second revision comes if no end is set.
const SECOND_AFTER: Duration = Duration::from_secs(15);
/// How often the table is drawn.
const REFRESH: Duration = Duration::from_secs(1);

/// A demonstration and how far it is.
#[derive(Debug)]
pub(crate) struct Play {
    options: Options,
    directory: Directory,
    binaries: Binaries,
    fleet: Option<Fleet>,
    nodes: Vec<Node>,
    traffic: Vec<Traffic>,
    /// What a run before has left; nothing, when this is the first.
    before: View,
    second: Option<RevisionId>,
    verdict: Verdict,
    /// What is being done, for the verdict on an error.
    act: Link,
}

impl Play {
    pub(crate) fn new(options: Options, directory: Directory, binaries: Binaries) -> Self {
        Self {
            options,
            directory,
            binaries,
            fleet: None,
            nodes: Vec::new(),
            traffic: Vec::new(),
            before: View::default(),
            second: None,
            verdict: Verdict::default(),
            act: Link::Enrolment,
        }
    }

    /// Plays to the end, or for ever when no end is set.
    pub(crate) async fn run(&mut self) -> Result<()> {
        self.raise().await?;
        self.act = Link::Rollout;
        if self.options.keep {
            self.before = self.inheritance().await?;
        }
        self.roll_out_all().await?;
        self.act = Link::Events;
        self.perform().await?;
        self.reckon().await
    }

    /// Notes the error that ended the play, if one did.
    pub(crate) fn fail_with(&mut self, played: Result<()>) {
        if let Err(error) = played {
            self.verdict.note(self.act, Err(format!("{error:#}")));
        }
    }

    /// Stops every process and says how it went. `cut`: a person ended it, so what was not reached is no failure.
    pub(crate) fn end(mut self, cut: bool) -> Result<ExitCode> {
        self.traffic.clear();
        print("");
        progress::say("stopping");
        let exits = self.stop();
        self.verdict.note(Link::Exits, exits);
        self.verdict.lines().iter().for_each(|line| print(line));
        print(&format!("  data and logs: {}", self.directory.path().display()));
        let good = if cut { self.verdict.nothing_failed() } else { self.verdict.is_good() };
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Fleet, claim, nodes, until all are connected.
    async fn raise(&mut self) -> Result<()> {
        let (dir, run) = (self.directory.path().to_owned(), self.directory.run());
        progress::say(&format!("data in {}", dir.display()));
        let fleet = Fleet::start(&self.binaries.fleet, &self.binaries.sedge, &dir.join("fleet"), &run).await?;
        print(&format!("  console      {}", fleet.addresses.console));
        print(&format!("  admin token  {}", fleet.token_file().display()));
        let fleet = self.fleet.insert(fleet);
        let uses = self.options.nodes.to_string();
        let claim: CreatedClaim = fleet.sedge(&["claim", "create", "--uses", &uses, "--ttl", "1h", "--label", "site=demo"]).await?;
        let membership = Membership::from(claim);
        for number in 1..=self.options.nodes {
            let name = format!("gw-{number}");
            let node = Node::start(&name, &self.binaries.sedged, &dir.join(&name), &run, Some(&membership)).await?;
            progress::say(&format!("{name} runs; its own API: {}", node.socket.display()));
            self.nodes.push(node);
        }
        until("enrol", ENROL_MAX, async || {
            let mut missing = Vec::new();
            for node in &self.nodes {
                let status = node.status().await?;
                if status.fleet != FleetLink::Online {
                    missing.push(format!("{} is {:?}", node.name, status.fleet).to_lowercase());
                }
            }
            Ok(if missing.is_empty() { Look::Done(()) } else { Look::NotYet(missing.join(", ")) })
        })
        .await?;
        self.verdict.note(Link::Enrolment, Ok(format!("{} nodes joined with one claim and are connected", self.nodes.len())));
        Ok(())
    }

    /// What a run before has left, once the nodes have sent the usage that it had not.
    async fn inheritance(&self) -> Result<View> {
        until("send the usage of the run before", SETTLE_MAX, async || {
            let view = self.view().await?;
            let unsent: u64 = view.nodes.iter().map(|node| node.status.usage_unsent).sum();
            Ok(if unsent == 0 { Look::Done(view) } else { Look::NotYet(format!("{unsent} records are not sent")) })
        })
        .await
    }

    async fn roll_out_all(&mut self) -> Result<()> {
        let fleet = self.fleet.as_ref().context("a fleet runs")?;
        let mut moved = Vec::new();
        for function in FUNCTIONS {
            progress::say(&format!("publishing and rolling out {function}"));
            let rollout = roll_out(fleet, function, function).await?;
            moved.push(format!("{function} {}", rollout.revision.short()));
        }
        self.verdict.note(Link::Rollout, Ok(format!("{} on every node", moved.join(", "))));
        Ok(())
    }

    /// Sensors and caller at work, the table each second, the second revision half-way.
    async fn perform(&mut self) -> Result<()> {
        for node in &self.nodes {
            self.traffic.push(Traffic::begin(&node.name, &node.status().await?, self.options.rate)?);
        }
        let begin = Instant::now();
        let duration = self.options.duration.map(|interval| Duration::from_millis(interval.as_ms()));
        let half = begin + duration.map_or(SECOND_AFTER, |duration| duration / 2);
        let fleet = self.fleet.as_ref().context("a fleet runs")?;
        let second = async {
            tokio::time::sleep_until(half).await;
            roll_out(fleet, "average", SECOND).await
        };
        tokio::pin!(second);
        let (mut table, mut tick) = (Table::new(), interval(REFRESH));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut revision = None;
        // The second revision is waited for even when the time is over.
        while revision.is_none() || duration.is_none_or(|duration| begin.elapsed() < duration) {
            tokio::select! {
                rolled = &mut second, if revision.is_none() => {
                    self.act = Link::SecondRevision;
                    let second = rolled.context("roll out the second revision")?.revision;
                    self.verdict.note(Link::SecondRevision, Ok(format!("average {} on every node", second.short())));
                    revision = Some(second);
                    self.act = Link::Events;
                }
                _ = tick.tick() => {
                    let view = view(fleet, &self.nodes, &self.traffic).await?;
                    table.draw(&view, &self.before, &caption(begin.elapsed(), &view, revision));
                }
            }
        }
        table.leave();
        self.second = revision;
        Ok(())
    }

    /// Stops the sensors and waits until everything that was acknowledged has run and the counts agree.
    async fn reckon(&mut self) -> Result<()> {
        progress::say("the sensors stop; waiting until everything acknowledged has run and the fleet's count agrees");
        for traffic in &mut self.traffic {
            traffic.end().await?;
        }
        let mut missing = BTreeMap::new();
        let mut agreed = BTreeSet::new();
        let settled = until("settle", SETTLE_MAX, async || {
            let view = self.view().await?;
            missing = view.missing(&self.before, self.second, &mut agreed);
            Ok(if missing.is_empty() { Look::Done(view) } else { Look::NotYet(format!("{missing:?}")) })
        })
        .await;
        let last = match settled {
            Ok(view) => view,
            // Which links are missing is in `missing`.
            Err(_) if !missing.is_empty() => self.view().await?,
            Err(error) => return Err(error),
        };
        for link in [Link::Events, Link::Calls, Link::SecondRevision, Link::Usage] {
            let result = missing.remove(&link).map_or_else(|| Ok(self.praise(link, &last)), Err);
            self.verdict.note(link, result);
        }
        Ok(())
    }

    fn praise(&self, link: Link, view: &View) -> String {
        let count = |part: fn(&NodeView) -> u64| view.nodes.iter().map(part).sum::<u64>();
        match link {
            Link::Events => {
                let (sent, ran) = (
                    count(|node| node.acknowledged.iter().sum()),
                    count(|node| node.totals("average").calls_ok + node.totals("convert").calls_ok),
                );
                format!("{sent} acknowledged, {ran} processed, none lost")
            }
            Link::Calls => format!("{} answered", count(|node| node.answered)),
            Link::SecondRevision => format!("average {} on every node", self.second.map(|id| id.short()).unwrap_or_default()),
            Link::Usage => {
                let total = table::total(view);
                format!("{} calls, {} ms CPU: the fleet and the nodes agree", total.calls(), total.cpu_us / 1000)
            }
            Link::Enrolment | Link::Rollout | Link::Exits => String::new(),
        }
    }

    async fn view(&self) -> Result<View> {
        view(self.fleet.as_ref().context("a fleet runs")?, &self.nodes, &self.traffic).await
    }

    /// Nodes first: their last report still finds the fleet.
    fn stop(&mut self) -> Result<String, String> {
        let mut faults = Vec::new();
        let mut nodes: Vec<_> = self.nodes.drain(..).collect();
        nodes.iter_mut().for_each(|node| node.child.ask());
        let mut exits: Vec<_> = nodes.into_iter().map(|node| (node.name.clone(), node.child.wait())).collect();
        if let Some(mut fleet) = self.fleet.take() {
            fleet.child.ask();
            exits.push(("fleet".to_owned(), fleet.child.wait()));
        }
        let count = exits.len();
        for (name, exit) in exits {
            match exit {
                Ok(status) if status.success() => {}
                Ok(status) => faults.push(format!("{name}: {status}")),
                Err(error) => faults.push(format!("{error:#}")),
            }
        }
        if faults.is_empty() { Ok(format!("{count} processes ended with 0")) } else { Err(faults.join("; ")) }
    }
}

/// Publishes target/guests/`artifact`.wasm as `function` and moves every node to it.
async fn roll_out(fleet: &Fleet, function: &str, artifact: &str) -> Result<api::Rollout> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let wasm = text(workspace::guests().join(format!("{artifact}.wasm")));
    let manifest = text(workspace::root().join("node/functions").join(function).join("function.toml"));
    let revision: Revision = fleet.sedge(&["publish", &wasm, "--manifest", &manifest]).await?;
    let name: FunctionName = revision.function;
    fleet.sedge(&["rollout", name.as_str(), "--revision", &revision.id.to_string(), "--wait", "--timeout", ROLLOUT_MAX]).await
}

/// The fleet's usage first, the nodes after it.
async fn view(fleet: &Fleet, nodes: &[Node], traffic: &[Traffic]) -> Result<View> {
    let usage: Vec<UsageRow> = fleet.api.get("/api/v1/usage").await?;
    let mut views = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let sent = traffic.get(index);
        // Acknowledgements first: what is acknowledged later is not yet to be expected of the node.
        let acknowledged = sent.map_or([0, 0], |sent| [sent.temperature.good(), sent.celsius.good()]);
        let answered = sent.map_or(0, |sent| sent.calls.good());
        let unanswered = sent.map_or(0, |sent| sent.calls.bad());
        views.push(NodeView { name: node.name.clone(), status: node.status().await?, acknowledged, answered, unanswered });
    }
    Ok(View { fleet: usage, nodes: views })
}

fn caption(elapsed: Duration, view: &View, second: Option<RevisionId>) -> String {
    let mut running: BTreeMap<String, usize> = BTreeMap::new();
    for revision in view.nodes.iter().filter_map(|node| node.running("average")) {
        let which = if Some(revision) == second { " (second revision)" } else { "" };
        *running.entry(format!("{}{which}", revision.short())).or_default() += 1;
    }
    let running: Vec<String> = running.into_iter().map(|(revision, nodes)| format!("{revision} on {nodes}")).collect();
    format!("{:>4} s   average: {}", elapsed.as_secs(), running.join(", "))
}
