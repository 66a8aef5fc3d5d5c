//! `sedge rollout`

use super::give::tell_lost_routes;
use super::rollouts;
use crate::arguments::Context;
use crate::client::Client;
use crate::failure::{FAILED, Failure};
use crate::output::Output;
use crate::style::Tone;
use crate::text;
use anyhow::Context as _;
use clap::Args;
use indicatif::ProgressBar;
use sedge_protocol::api::{self, Function, NewRollout, Revision};
use sedge_protocol::schedule::Interval;
use sedge_protocol::{FunctionName, NodeId, RevisionId};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};
use ureq::http::Method;

/// How often the fleet is asked how far a rollout is.
const POLL: Duration = Duration::from_millis(500);
/// Fewest hexadecimal digits that name a revision.
const PREFIX_MIN: usize = 4;

/// Move nodes to a revision of a function
#[derive(Debug, Args)]
pub(crate) struct Rollout {
    /// Which function
    function: FunctionName,
    /// Which revision: its digits, or the first of them [default: the newest]
    #[arg(long)]
    revision: Option<String>,
    /// Which nodes, by label, such as `site=berlin,line!=2` [default: all]
    #[arg(long, value_name = "FILTER", default_value = "", hide_default_value = true)]
    nodes: String,
    /// Wait until every node has answered; exits with 1 when one refuses, or none matches
    #[arg(long)]
    wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "TIME", default_value = "10m", requires = "wait")]
    timeout: Interval,
}

impl Rollout {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let client = context.connection.client()?;
        let revision = self.revision.as_deref().map(|text| self.resolve(&client, text)).transpose()?;
        let new = NewRollout { function: self.function.clone(), revision, filter: self.nodes.clone() };
        let mut rollout: api::Rollout =
            client.send_json(Method::POST, "/api/v1/rollouts", &new).with_context(|| format!("roll out {}", self.function))?;
        let nodes = if rollout.nodes == 1 { "node" } else { "nodes" };
        let what = format!("{} of {}, {} {nodes}", rollout.revision.short(), rollout.function, rollout.nodes);
        context.output.said("rolling out", Tone::Good, &what);
        if rollout.nodes == 0 {
            context.output.note("no node matches now; nodes that join later and match will get it");
        }
        if self.wait {
            rollout = Waiter::new(&client, &context.output, rollout).run(self.timeout)?;
        }
        let rows = std::slice::from_ref(&rollout);
        context.output.show(&rollout, |style| rollouts::list(rows, text::now_ms(), style))?;
        let moved = rollout.nodes > 0 && rollout.failed == 0;
        Ok(if self.wait && !moved { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
    }

    fn resolve(&self, client: &Client, text: &str) -> anyhow::Result<RevisionId> {
        if let Ok(whole) = text.parse() {
            return Ok(whole);
        }
        let revisions: Vec<Revision> = client.get(&format!("/api/v1/functions/{}/revisions", self.function))?;
        Ok(one_of(&revisions, text, &self.function)?)
    }
}

fn one_of(revisions: &[Revision], prefix: &str, function: &FunctionName) -> Result<RevisionId, Failure> {
    let hint = || format!("`sedge revisions {function}` lists them");
    if prefix.len() < PREFIX_MIN {
        return Err(Failure::usage(format!("`{prefix}` is too short to name a revision: write {PREFIX_MIN} digits or more"), hint()));
    }
    let mut fitting = revisions.iter().map(|revision| revision.id).filter(|id| id.to_string().starts_with(prefix));
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err(Failure::usage(format!("several revisions of {function} begin with `{prefix}`"), hint())),
        (None, _) => Err(Failure::usage(format!("no revision of {function} begins with `{prefix}`"), hint())),
    }
}

/// Follows a rollout and says what each node does.
struct Waiter<'a> {
    client: &'a Client,
    output: &'a Output,
    bar: ProgressBar,
    rollout: api::Rollout,
    /// What was last said of each node.
    said: BTreeMap<NodeId, String>,
}

impl<'a> Waiter<'a> {
    fn new(client: &'a Client, output: &'a Output, rollout: api::Rollout) -> Self {
        let bar = output.steps(rollout.nodes, &format!("rolling out {}", rollout.function));
        Self { client, output, bar, rollout, said: BTreeMap::new() }
    }

    fn run(mut self, limit: Interval) -> anyhow::Result<api::Rollout> {
        let begin = Instant::now();
        loop {
            self.look()?;
            if self.rollout.waiting == 0 {
                self.bar.finish_and_clear();
                let functions: Vec<Function> = self.client.get("/api/v1/functions")?;
                let health = functions.iter().map(|function| (&function.name, &function.health));
                tell_lost_routes(self.output, &self.rollout.function, health);
                return Ok(self.rollout);
            }
            if begin.elapsed() >= Duration::from_millis(limit.as_ms()) {
                self.bar.finish_and_clear();
                let waiting = self.rollout.waiting;
                anyhow::bail!(
                    "{waiting} nodes have not answered after {limit}: the rollout goes on without this command, see `sedge rollouts`"
                );
            }
            thread::sleep(POLL);
        }
    }

    fn look(&mut self) -> anyhow::Result<()> {
        let functions: Vec<Function> = self.client.get("/api/v1/functions")?;
        if let Some(function) = functions.iter().find(|function| function.name == self.rollout.function) {
            self.tell(function);
        }
        let rollouts: Vec<api::Rollout> = self.client.get("/api/v1/rollouts")?;
        let gone = || format!("the fleet does not know rollout {} any more", self.rollout.id);
        self.rollout = rollouts.into_iter().find(|rollout| rollout.id == self.rollout.id).with_context(gone)?;
        self.bar.set_length(self.rollout.nodes);
        self.bar.set_position(self.rollout.done + self.rollout.failed);
        Ok(())
    }

    fn tell(&mut self, function: &Function) {
        if self.rollout.nodes == 0 {
            return; // others may run the revision: not by this rollout
        }
        for (node, news) in news(function, self.rollout.revision) {
            if self.said.get(&node) == Some(&news) {
                continue;
            }
            let tone = if news == RUNS { Tone::Good } else { Tone::Busy };
            self.bar.suspend(|| self.output.said(node.as_str(), tone, &text::clean(&news)));
            self.said.insert(node, news);
        }
    }
}

/// What is said of a node that runs the revision.
const RUNS: &str = "runs it";

/// What can be said now of each node that has to do with `revision`.
fn news(function: &Function, revision: RevisionId) -> BTreeMap<NodeId, String> {
    let running = function.running.iter().filter(|running| running.revision == revision).flat_map(|running| &running.nodes);
    let waiting = function.waiting.iter().filter(|waiting| waiting.assigned == Some(revision));
    let mut news: BTreeMap<NodeId, String> = running.map(|node| (node.clone(), RUNS.to_owned())).collect();
    news.extend(waiting.map(|waiting| (waiting.node.clone(), waiting.reason.clone())));
    news
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::{function, revision};

    #[test]
    fn a_revision_is_named_by_its_first_digits() {
        let one = revision();
        let name = &one.function;
        assert_eq!(one_of(std::slice::from_ref(&one), &one.id.short(), name).unwrap(), one.id);
        for (revisions, prefix, reason) in [
            (vec![one.clone()], "zzzz", "no revision"),
            (vec![one.clone(), one.clone()], &one.id.short(), "several"),
            (vec![one.clone()], "0", "too short"),
        ] {
            let error = one_of(&revisions, prefix, name).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn news_speak_of_this_revision_alone() {
        let function = function();
        let said: Vec<String> = news(&function, function.newest).into_iter().map(|(node, news)| format!("{node} {news}")).collect();
        assert_eq!(said, ["gw-1 runs it", "gw-2 runs it", "gw-3 offline"]);
        let other = RevisionId::of(&sedge_protocol::Digest::of(b"other"), &revision().manifest);
        assert!(news(&function, other).is_empty());
    }
}
