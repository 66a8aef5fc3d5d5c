//! `sedge run`: a node for one function, which follows its sources.
//!
//! ```text
//! sources ─ notify ─▶ Changed ─┐
//! node ─ log ────────▶ Log ────┼─▶ loop ─▶ build ─▶ give ─▶ node (sedged, a directory that goes with it)
//! Ctrl-C, SIGTERM ───▶ Stop ───┘
//! ```
//! A build or a revision that fails is reported, and the revision before goes on.

mod node;
mod signal;
mod watch;

use super::logs;
use crate::arguments::Context;
use crate::client::Client;
use crate::output;
use crate::project::{self, Artifact};
use crate::style::{Style, Tone};
use crate::table::{Cell, facts};
use clap::Args;
use node::LocalNode;
use sedge_protocol::artifact::Kind;
use sedge_protocol::local::{LocalStatus, LogEntry};
use sedge_protocol::manifest::Trigger;
use sedge_protocol::{FunctionName, RevisionId};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;
use watch::Sources;

/// Events that may wait; who sends more waits.
const QUEUE_MAX: usize = 256;
/// How long sources have to be quiet before they are built.
const QUIET: Duration = Duration::from_millis(100);
/// How often it is seen whether the node still runs.
const LOOK: Duration = Duration::from_millis(500);

/// Run a function on a node of its own, rebuilding it on every change
///
/// Starts `sedged` without a fleet in a temporary directory, gives it the function and follows its log until Ctrl-C.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Directory with a `function.toml`
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Where to serve HTTP triggers
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    http: SocketAddr,
    /// Where to serve MQTT
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    mqtt: SocketAddr,
    /// The node daemon [default: beside `sedge`, else in PATH]
    #[arg(long, value_name = "FILE", env = "SEDGED")]
    sedged: Option<PathBuf>,
}

/// What the loop reacts to.
#[derive(Debug)]
enum Event {
    /// A source may have changed.
    Changed,
    /// The function wrote a line.
    Log(Box<LogEntry>),
    /// The log ended.
    LogEnded,
    /// Somebody wants an end.
    Stop,
}

/// Where the function can be reached.
#[derive(Debug, Serialize)]
struct Started<'a> {
    function: &'a FunctionName,
    revision: RevisionId,
    kind: Kind,
    http: Vec<String>,
    mqtt: Option<String>,
    topics: Vec<String>,
    timers: Vec<String>,
    socket: PathBuf,
}

impl Run {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let (sender, events) = mpsc::sync_channel(QUEUE_MAX);
        // Before the first build, so that what changes meanwhile is seen.
        let sources = Sources::watch(&self.dir, sender.clone())?;
        let artifact = project::load(&self.dir, None, &context.output)?;
        signal::watch(sender.clone())?;
        let node = LocalNode::start(self.sedged.as_deref(), self.http, self.mqtt)?;
        let mut dev = Dev { run: &self, context, node, sources, sender, given: None, log_ended: false };
        let ended = dev.begin(&artifact).and_then(|()| dev.follow(&events));
        // Senders must not wait for a loop that is over.
        drop(events);
        let stopped = dev.node.stop();
        ended?;
        stopped?;
        context.output.said("stopped", Tone::Plain, artifact.manifest.name.as_str());
        Ok(ExitCode::SUCCESS)
    }
}

/// The state of the loop.
struct Dev<'a> {
    run: &'a Run,
    context: &'a Context,
    node: LocalNode,
    sources: Sources,
    sender: SyncSender<Event>,
    given: Option<RevisionId>,
    /// Whether nobody follows the log now.
    log_ended: bool,
}

impl Dev<'_> {
    fn begin(&mut self, artifact: &Artifact) -> anyhow::Result<()> {
        follow_log(self.node.client().clone(), 1000, self.sender.clone());
        self.give(artifact)
    }

    fn follow(&mut self, events: &Receiver<Event>) -> anyhow::Result<()> {
        loop {
            match events.recv_timeout(LOOK) {
                Ok(Event::Stop) => return Ok(()),
                Ok(Event::Log(entry)) => self.print(&entry)?,
                Ok(Event::Changed) => {
                    if self.settle(events)? {
                        return Ok(());
                    }
                    self.rebuild();
                }
                Ok(Event::LogEnded) => self.log_ended = true,
                Err(RecvTimeoutError::Timeout) => self.look()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Sees that the node runs, and follows its log again where that was cut off.
    fn look(&mut self) -> anyhow::Result<()> {
        self.node.check()?;
        if std::mem::take(&mut self.log_ended) {
            follow_log(self.node.client().clone(), 0, self.sender.clone());
        }
        Ok(())
    }

    /// Waits until the sources are quiet. True when somebody wants an end meanwhile.
    fn settle(&mut self, events: &Receiver<Event>) -> anyhow::Result<bool> {
        while let Ok(event) = events.recv_timeout(QUIET) {
            match event {
                Event::Stop => return Ok(true),
                Event::Log(entry) => self.print(&entry)?,
                Event::LogEnded => self.log_ended = true,
                Event::Changed => {}
            }
        }
        Ok(false)
    }

    /// Builds and gives the node what came out, if the sources really differ. What goes wrong is said and ends nothing.
    fn rebuild(&mut self) {
        if !self.sources.differ() {
            return;
        }
        let done = project::load(&self.run.dir, None, &self.context.output).and_then(|artifact| self.give(&artifact));
        if let Err(error) = done {
            output::failure(&error);
            self.context.output.said("waiting", Tone::Busy, "for the next change; the revision before goes on");
        }
    }

    fn give(&mut self, artifact: &Artifact) -> anyhow::Result<()> {
        let revision = RevisionId::of(&artifact.digest, &artifact.manifest);
        if self.given == Some(revision) {
            return Ok(());
        }
        let status = self.node.give(artifact, &self.context.output)?;
        self.given = Some(revision);
        let started = started(artifact, revision, &status, self.node.socket());
        self.context.output.line(&started, |style| describe(&started, artifact, style))?;
        Ok(())
    }

    fn print(&self, entry: &LogEntry) -> anyhow::Result<()> {
        Ok(self.context.output.line(entry, |style| logs::line(entry, style))?)
    }
}

/// A log that cannot be read ends like one that is over: the loop looks at the node and decides.
fn follow_log(client: Client, lines: u32, sender: SyncSender<Event>) {
    thread::spawn(move || {
        let path = format!("/v1/logs?lines={lines}&follow=true");
        let sent = |entry| sender.send(Event::Log(Box::new(entry))).ok();
        client.lines(&path, sent).ok();
        sender.send(Event::LogEnded).ok();
    });
}

fn started<'a>(artifact: &'a Artifact, revision: RevisionId, status: &LocalStatus, socket: PathBuf) -> Started<'a> {
    let manifest = &artifact.manifest;
    let base = status.http.as_deref().map(|http| if http.contains("://") { http.to_owned() } else { format!("http://{http}") });
    let (mut http, mut topics, mut timers) = (Vec::new(), Vec::new(), Vec::new());
    for trigger in &manifest.triggers {
        match trigger {
            Trigger::Http { route } => http.extend(base.as_ref().map(|base| format!("{base}{route}"))),
            Trigger::Mqtt { filter, .. } => topics.push(filter.to_string()),
            Trigger::Every { interval, .. } => timers.push(format!("every {interval}")),
            Trigger::Cron { expression, .. } => timers.push(expression.to_string()),
        }
    }
    Started { function: &manifest.name, revision, kind: artifact.kind, http, mqtt: status.mqtt.clone(), topics, timers, socket }
}

fn describe(started: &Started<'_>, artifact: &Artifact, style: Style) -> String {
    let mut known = vec![
        ("function", Cell::toned(started.function.as_str(), Tone::Strong)),
        ("revision", format!("{} ({})", started.revision.short(), artifact.describe()).into()),
    ];
    known.extend(started.http.iter().map(|url| ("http", Cell::toned(url, Tone::Good))));
    if let (Some(mqtt), false) = (&started.mqtt, started.topics.is_empty()) {
        known.push(("mqtt", Cell::toned(format!("{mqtt}, topics {}", started.topics.join(" ")), Tone::Good)));
    }
    known.extend(started.timers.iter().map(|timer| ("timer", timer.into())));
    let invoke = format!("sedge invoke {} --node {}", started.function, started.socket.display());
    known.push(("invoke", invoke.into()));
    facts(style, &known)
}
