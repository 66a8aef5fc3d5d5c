//! Giving a function to a node that has no fleet.

use crate::client::Client;
use crate::command::publish;
use crate::output::Output;
use crate::project::Artifact;
use crate::style::Tone;
use sedge_protocol::local::{LocalRevision, LocalStatus};
use sedge_protocol::message::{FunctionState, Health, LostRoute};
use sedge_protocol::{FunctionName, RevisionId};
use std::thread;
use std::time::{Duration, Instant};

/// How long a node of ours may compile one function, seconds: an interpreter takes minutes on a busy machine, and here somebody looks on.
pub(crate) const COMPILE_S: u64 = 3600;
/// How long until a node has said how that ended. Others have bounds of their own, and say when they are reached.
const READY_MAX: Duration = Duration::from_secs(COMPILE_S + 60);
/// How soon a condition is looked at again; each time twice as late.
const POLL_MIN: Duration = Duration::from_millis(1);
/// How often it is looked at after a while.
const POLL_MAX: Duration = Duration::from_millis(25);

/// Gives the function to the node and waits until the node runs or refuses it. `check` fails when there is no sense in waiting.
pub(crate) fn give(
    client: &Client,
    artifact: &Artifact,
    output: &Output,
    mut check: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<LocalStatus> {
    let function = &artifact.manifest.name;
    let revision = RevisionId::of(&artifact.digest, &artifact.manifest);
    publish::upload(client, artifact, "/v1/artifacts", output)?;
    let body = LocalRevision { artifact: artifact.digest, manifest: artifact.manifest.clone() };
    client.put_json(&format!("/v1/functions/{function}"), &body)?;
    let bar = output.spinner(&format!("{function}: the node compiles it"));
    let (begin, mut poll) = (Instant::now(), Poll::new());
    loop {
        check()?;
        let status: LocalStatus = client.get("/v1/status")?;
        let report = status.functions.iter().find(|report| report.function == *function);
        match report.map(|report| (&report.state, report.running, report.assigned)) {
            Some((FunctionState::Running, Some(running), _)) if running == revision => {
                bar.finish_and_clear();
                tell_lost_routes(output, function, status.functions.iter().map(|report| (&report.function, &report.health)));
                return Ok(status);
            }
            Some((FunctionState::Failed { reason }, _, Some(assigned))) if assigned == revision => {
                anyhow::bail!("the node refuses {function}: {reason}")
            }
            Some(_) | None => {}
        }
        anyhow::ensure!(begin.elapsed() < READY_MAX, "the node did not get {function} ready in {} s", READY_MAX.as_secs());
        poll.pause();
    }
}

/// Says which routes `function` does not get, and which it takes from others.
pub(crate) fn tell_lost_routes<'a>(output: &Output, function: &FunctionName, health: impl Iterator<Item = (&'a FunctionName, &'a Health)>) {
    for (loser, LostRoute { route, served_by }) in health.flat_map(|(name, health)| health.lost_routes.iter().map(move |lost| (name, lost)))
    {
        if loser == function || served_by == function {
            let what = format!("`{loser}` and `{served_by}` have the same route {route}: `{served_by}` serves it, `{loser}` does not");
            output.said("conflict", Tone::Bad, &what);
        }
    }
}

/// Pauses between looks: short at first, so that what is quick costs no time.
pub(crate) struct Poll(Duration);

impl Poll {
    pub(crate) fn new() -> Self {
        Self(POLL_MIN)
    }

    pub(crate) fn pause(&mut self) {
        thread::sleep(self.0);
        self.0 = (self.0 * 2).min(POLL_MAX);
    }
}
