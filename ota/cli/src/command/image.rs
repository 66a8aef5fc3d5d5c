//! `sedge image`: versions of the operating system, and who boots which.

use crate::arguments::Context;
use crate::client::Client;
use crate::failure::{FAILED, Failure};
use crate::output::Output;
use crate::style::{Style, Tone};
use crate::table::{Cell, Table};
use crate::text;
use anyhow::Context as _;
use clap::{Args, Subcommand};
use sedge_bundle::{HEAD_BYTES_MAX, Head, Unproven, digest};
use sedge_protocol::NodeId;
use sedge_protocol::api::{Image as Published, ImageRollout, ImageRolloutState, NewImageRollout};
use sedge_protocol::image::{ImageVersion, Restart};
use sedge_protocol::schedule::Interval;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};
use ureq::http::Method;

/// How often the fleet is asked how far a rollout is.
const POLL: Duration = Duration::from_secs(1);

/// Versions of the operating system of nodes
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    Publish(Publish),
    Rollout(Rollout),
    Stop(Stop),
    Ls(Ls),
    Rollouts(Rollouts),
}

/// Upload a bundle, as `cargo xtask image` makes it
///
/// A version never changes: the same bundle again does nothing, another one under the same version is refused. Nothing boots it before a
/// rollout says so.
#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// The bundle, a file whose name ends in .sedge-os
    bundle: PathBuf,
}

/// Move nodes to a version
///
/// A node fetches what it lacks in the background, writes the slot that does not run, restarts when it may, and keeps the version when its
/// functions run and it has reached the fleet from there. Otherwise it goes back by itself.
#[derive(Debug, Args)]
pub(crate) struct Rollout {
    /// Which version
    #[arg(value_name = "VERSION")]
    image: ImageVersion,
    /// For which board, where several have this version
    #[arg(long)]
    board: Option<String>,
    /// Which nodes, by label, such as `site=berlin,line!=2` [default: all]
    #[arg(long, value_name = "FILTER", default_value = "", hide_default_value = true)]
    nodes: String,
    /// When a node may restart: `idle` (nothing runs), `now`, or a time of the day in UTC such as 02:00-04:30
    #[arg(long, value_name = "WHEN", default_value = "idle")]
    restart: Restart,
    /// Keep the version also where the fleet cannot be reached from it
    #[arg(long)]
    offline: bool,
    /// Wait until every node has it; exits with 1 when one goes back or refuses, or none matches
    #[arg(long)]
    wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "TIME", default_value = "1h", requires = "wait")]
    timeout: Interval,
}

/// Stop the rollouts of a version
///
/// Nodes that have not begun with it stay as they are; what is staged goes. A node that has restarted into it goes on: roll out another version
/// to move that. Another rollout of the same version begins anew.
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Which version
    #[arg(value_name = "VERSION")]
    image: ImageVersion,
    /// For which board [default: all]
    #[arg(long)]
    board: Option<String>,
}

/// List versions
#[derive(Debug, Args)]
pub(crate) struct Ls {}

/// List rollouts of versions and how far each node is
#[derive(Debug, Args)]
pub(crate) struct Rollouts {}

impl Image {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let client = context.connection.client()?;
        match self {
            Self::Publish(publish) => publish.run(&client, &context.output)?,
            Self::Rollout(rollout) => return rollout.run(&client, &context.output),
            Self::Stop(stop) => stop.run(&client, &context.output)?,
            Self::Ls(Ls {}) => {
                let images: Vec<Published> = client.get("/api/v1/images")?;
                context.output.show(&images, |style| list(&images, text::now_ms(), style))?;
            }
            Self::Rollouts(Rollouts {}) => {
                let rollouts: Vec<ImageRollout> = client.get("/api/v1/image-rollouts")?;
                context.output.show(&rollouts, |style| rollout_table(&rollouts, text::now_ms(), style))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Publish {
    fn run(&self, client: &Client, output: &Output) -> anyhow::Result<()> {
        let shown = self.bundle.display();
        let mut file = File::open(&self.bundle).with_context(|| format!("open {shown}"))?;
        let mut begin = Vec::new();
        (&mut file).take(HEAD_BYTES_MAX as u64).read_to_end(&mut begin).with_context(|| format!("read {shown}"))?;
        let Unproven(manifest) = Head::parse(&begin).and_then(|head| head.unproven()).map_err(|fault| {
            Failure::usage(format!("{shown}: {fault}"), "`cargo xtask image` makes bundles; their names end in .sedge-os")
        })?;
        let size = file.metadata().with_context(|| format!("read {shown}"))?.len();
        file.rewind()?;
        let digest = digest(&mut file).with_context(|| format!("read {shown}"))?;
        file.rewind()?;
        let bar = output.bar(size, &format!("uploading {} for {}", manifest.version, manifest.board));
        let path = format!("/api/v1/images/{digest}");
        let published: Result<Published, _> = client.put_file(&path, size, &mut bar.wrap_read(file));
        bar.finish_and_clear();
        let published = published.with_context(|| format!("publish {shown}"))?;
        output.said("published", Tone::Good, &format!("{} for {}, {}", published.version, published.board, text::bytes(size)));
        output.show(&published, |_| published.version.to_string())?;
        if !output.is_json() {
            output.note(&format!(
                "next: `sedge image rollout {} --wait` moves every such node to it, `--nodes FILTER` some",
                published.version
            ));
        }
        Ok(())
    }
}

impl Rollout {
    fn run(self, client: &Client, output: &Output) -> anyhow::Result<ExitCode> {
        let new = NewImageRollout {
            version: self.image.clone(),
            board: self.board.clone(),
            filter: self.nodes.clone(),
            restart: self.restart,
            offline: self.offline,
        };
        let mut rollout: ImageRollout =
            client.send_json(Method::POST, "/api/v1/image-rollouts", &new).with_context(|| format!("roll out {}", self.image))?;
        let nodes = if rollout.nodes.len() == 1 { "node" } else { "nodes" };
        output.said("rolling out", Tone::Good, &format!("{} for {}, {} {nodes}", rollout.version, rollout.board, rollout.nodes.len()));
        if rollout.nodes.is_empty() {
            output.note(&format!("no node is a {} and matches now; nodes that join later will get it", rollout.board));
        }
        if self.wait {
            rollout = self.follow(client, output, rollout)?;
        }
        let rows = std::slice::from_ref(&rollout);
        output.show(&rollout, |style| rollout_table(rows, text::now_ms(), style))?;
        let moved = !rollout.nodes.is_empty() && rollout.failed == 0;
        Ok(if self.wait && !moved { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
    }

    fn follow(&self, client: &Client, output: &Output, mut rollout: ImageRollout) -> anyhow::Result<ImageRollout> {
        let (begin, mut said) = (Instant::now(), BTreeMap::<NodeId, String>::new());
        let bar = output.steps(rollout.nodes.len() as u64, &format!("rolling out {}", rollout.version));
        while rollout.waiting > 0 {
            for step in &rollout.nodes {
                let news = if step.reason.is_empty() { step.step.clone() } else { step.reason.clone() };
                if said.get(&step.node) != Some(&news) {
                    bar.suspend(|| output.said(step.node.as_str(), tone(&step.step), &text::clean(&news)));
                    said.insert(step.node.clone(), news);
                }
            }
            bar.set_position(rollout.done + rollout.failed);
            if begin.elapsed() >= Duration::from_millis(self.timeout.as_ms()) {
                bar.finish_and_clear();
                let waiting = rollout.waiting;
                let nodes = if waiting == 1 { "node is" } else { "nodes are" };
                anyhow::bail!("{waiting} {nodes} not there after {}: the rollout goes on, see `sedge image rollouts`", self.timeout);
            }
            thread::sleep(POLL);
            let all: Vec<ImageRollout> = client.get("/api/v1/image-rollouts")?;
            let gone = || format!("the fleet does not know rollout {} any more", rollout.id);
            rollout = all.into_iter().find(|one| one.id == rollout.id).with_context(gone)?;
        }
        bar.finish_and_clear();
        Ok(rollout)
    }
}

impl Stop {
    fn run(self, client: &Client, output: &Output) -> anyhow::Result<()> {
        let all: Vec<ImageRollout> = client.get("/api/v1/image-rollouts")?;
        let meant = |rollout: &ImageRollout| {
            let board = self.board.as_ref().is_none_or(|board| *board == rollout.board);
            board && rollout.version == self.image && rollout.state != ImageRolloutState::Stopped
        };
        let mut stopped: Vec<ImageRollout> = Vec::new();
        for rollout in all.into_iter().filter(meant) {
            let rollout: ImageRollout = client.delete_json(&format!("/api/v1/image-rollouts/{}", rollout.id))?;
            let filter = if rollout.filter.is_empty() { "all nodes" } else { &rollout.filter };
            output.said("stopped", Tone::Good, &format!("{} for {}, {filter}", rollout.version, rollout.board));
            stopped.push(rollout);
        }
        if stopped.is_empty() {
            let board = self.board.map(|board| format!(" for {board}")).unwrap_or_default();
            return Err(Failure::usage(format!("no rollout of {}{board} goes on", self.image), "`sedge image rollouts` lists them").into());
        }
        if output.is_json() {
            output.show(&stopped, |_| String::new())?;
        }
        Ok(())
    }
}

fn tone(step: &str) -> Tone {
    match step {
        "done" => Tone::Good,
        "failed" => Tone::Bad,
        _ => Tone::Busy,
    }
}

fn list(images: &[Published], now_ms: u64, style: Style) -> String {
    let mut table = Table::new(&["VERSION", "BOARD", ">SIZE", "PUBLISHED", "SIGNED BY"]);
    for image in images {
        let signers: Vec<String> = image.signers.iter().map(|key| key.hex()[..16].to_owned()).collect();
        table.row([
            Cell::toned(image.version.to_string(), Tone::Strong),
            image.board.as_str().into(),
            text::bytes(image.size).into(),
            text::ago(now_ms, image.created_ms).into(),
            if signers.is_empty() { Cell::toned("nobody", Tone::Bad) } else { signers.join(" ").into() },
        ]);
    }
    table.render(style, "no images: `cargo xtask image` makes one, `sedge image publish` uploads it")
}

/// Each rollout, and below it each of its nodes.
fn rollout_table(rollouts: &[ImageRollout], now_ms: u64, style: Style) -> String {
    let mut table = Table::new(&["ROLLOUT", "VERSION", "BOARD", "BEGUN", "RESTART", "FILTER", "NODE", "STEP", "REASON"]);
    for rollout in rollouts {
        let head = |first: bool| {
            let show = |value: String| if first { value } else { String::new() };
            let filter = if rollout.filter.is_empty() { "all".to_owned() } else { rollout.filter.clone() };
            let begun = text::ago(now_ms, rollout.created_ms);
            let parts =
                [rollout.id.clone(), rollout.version.to_string(), rollout.board.clone(), begun, rollout.restart.to_string(), filter];
            parts.map(|part| Cell::from(show(part)))
        };
        if rollout.nodes.is_empty() {
            let [a, b, c, d, e, f] = head(true);
            let state = match rollout.state {
                ImageRolloutState::Active => "",
                ImageRolloutState::Superseded => "superseded",
                ImageRolloutState::Stopped => "stopped",
            };
            table.row([a, b, c, d, e, f, Cell::toned("none", Tone::Dim), Cell::toned(state, Tone::Dim), "".into()]);
        }
        for (at, step) in rollout.nodes.iter().enumerate() {
            let [a, b, c, d, e, f] = head(at == 0);
            let cells = [Cell::toned(step.node.as_str(), Tone::Strong), Cell::toned(step.step.as_str(), tone(&step.step))];
            let [node, word] = cells;
            table.row([a, b, c, d, e, f, node, word, text::clean(&step.reason).into()]);
        }
    }
    table.render(style, "no rollouts of images: `sedge image rollout VERSION` begins one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::api::ImageStep;

    #[test]
    fn rollouts_show_every_node_and_why_it_waits() {
        let step = |node: &str, step: &str, reason: &str| ImageStep {
            node: node.parse().unwrap(),
            step: step.to_owned(),
            reason: reason.to_owned(),
        };
        let rollout = ImageRollout {
            id: "r1".to_owned(),
            board: "gateway-x86-64".to_owned(),
            version: "1.2.0".parse().unwrap(),
            filter: String::new(),
            restart: Restart::Idle,
            created_ms: 0,
            state: ImageRolloutState::Active,
            nodes: vec![step("gw-1", "done", ""), step("gw-2", "failed", "no network")],
            done: 1,
            failed: 1,
            waiting: 0,
        };
        let expected = "\
ROLLOUT  VERSION  BOARD           BEGUN    RESTART  FILTER  NODE  STEP    REASON
r1       1.2.0    gateway-x86-64  2 s ago  idle     all     gw-1  done
                                                            gw-2  failed  no network";
        assert_eq!(rollout_table(std::slice::from_ref(&rollout), 2000, Style::PLAIN), expected);
        let rollout = ImageRollout { state: ImageRolloutState::Stopped, nodes: Vec::new(), ..rollout };
        assert!(rollout_table(&[rollout], 2000, Style::PLAIN).ends_with("all     none  stopped"));
    }
}
