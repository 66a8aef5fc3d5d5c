//! `sedge run`: a node for one function, which follows its sources.
//!
//! ```text
//! sources ─ notify ──────────▶ Changed ─┐
//! node ─ invocations, lines ─▶ Told ────┼─▶ loop ─▶ build ─▶ give ─▶ node (sedged, a directory that goes with it)
//! Ctrl-C, SIGTERM ───────────▶ Stop ────┘                      └─▶ the event of --event, if there is one
//! ```
//! A build or a revision that fails is reported, and the revision before goes on. `--event` without `--watch` is the same without
//! the loop: one build, one event, its outcome.

pub(crate) mod node;
mod watch;

use super::logs;
use crate::arguments::Context;
use crate::client::Client;
use crate::project::{self, Artifact};
use crate::signal;
use crate::style::{Style, Tone};
use crate::table::{Cell, facts};
use crate::{event_file, output, text, trace_view};
use clap::Args;
use node::{LocalNode, Serve};
use sedge_build::Builder;
use sedge_protocol::artifact::Kind;
use sedge_protocol::local::{Input, LocalStatus, Told, Trace, TraceRequest};
use sedge_protocol::manifest::Trigger;
use sedge_protocol::{Event as CloudEvent, FunctionName, RevisionId};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};
use watch::Sources;

/// Events that may wait; who sends more waits.
const QUEUE_MAX: usize = 256;
/// How long sources have to be quiet before they are built: an editor writes a file in several steps.
const QUIET: Duration = Duration::from_millis(30);
/// How often it is seen whether the node still runs.
const LOOK: Duration = Duration::from_millis(500);

/// Run a function on a node of its own, rebuilding it on every change
///
/// Starts `sedged` without a fleet in a temporary directory, gives it the function and shows each invocation, publication and line
/// of its log until Ctrl-C. With --event it sends one event, shows what came of it and ends; with --watch too, it does so after
/// every build.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Directory with a `function.toml`
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Go on and rebuild on every change [default without --event]
    #[arg(long, short)]
    watch: bool,
    /// Send the event in this file (CloudEvents JSON with a topic)
    #[arg(long, value_name = "FILE")]
    event: Option<PathBuf>,
    /// Build and run it so that gdb and lldb stop at its own lines, and show the command that attaches
    #[arg(long)]
    debug: bool,
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
    /// Something happened on the node.
    Told(Box<Told>),
    /// The node tells nothing any more.
    Silence,
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
    /// How a debugger attaches, with `--debug`.
    #[serde(skip_serializing_if = "Option::is_none")]
    debug: Option<String>,
    /// Absent the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    rebuilt: Option<Rebuilt>,
}

/// How long it took from a change of the sources to the revision that runs.
#[derive(Debug, Clone, Copy, Serialize)]
struct Rebuilt {
    total_ms: u64,
    /// What of it the compiler took, or the command that builds.
    compiler_ms: u64,
}

impl Run {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        // Read before anything is built: a wrong file is known at once.
        let event = self.event.as_deref().map(event_file::read).transpose()?;
        match event {
            Some(event) if !self.watch => self.once(context, event),
            event => self.follow(context, event),
        }
    }

    /// One build, one event.
    fn once(&self, context: &Context, event: CloudEvent) -> anyhow::Result<ExitCode> {
        let artifact = self.load(context)?;
        let mut node = LocalNode::start(self.sedged.as_deref(), self.serve())?;
        node.give(&artifact, &context.output)?;
        let trace = send(node.client(), &artifact.manifest.name, event)?;
        let code = trace_view::print(&context.output, &trace)?;
        node.stop_keeping_core_dumps(&self.dir, &context.output)?;
        Ok(code)
    }

    fn follow(&self, context: &Context, event: Option<CloudEvent>) -> anyhow::Result<ExitCode> {
        let (sender, events) = mpsc::sync_channel(QUEUE_MAX);
        // Before the first build, so that what changes meanwhile is seen.
        let mut sources = Sources::watch(&self.dir, sender.clone())?;
        let artifact = self.load(context)?;
        sources.built(&artifact.path);
        let stop = sender.clone();
        // Nobody listens any more when the loop is over by itself.
        signal::watch(move || drop(stop.send(Event::Stop)))?;
        let node = LocalNode::start(self.sedged.as_deref(), self.serve())?;
        let mut dev = Dev { run: self, context, node, sources, sender, event, given: None, silent: false, shown: None, changed: None };
        let ended = dev.begin(&artifact).and_then(|()| dev.follow(&events));
        // Senders must not wait for a loop that is over.
        drop(events);
        let stopped = dev.node.stop_keeping_core_dumps(&self.dir, &context.output);
        ended?;
        stopped?;
        context.output.said("stopped", Tone::Plain, artifact.manifest.name.as_str());
        Ok(ExitCode::SUCCESS)
    }

    fn serve(&self) -> Serve {
        Serve { http: Some(self.http), mqtt: Some(self.mqtt), debugger: self.debug }
    }

    /// The function, built anew.
    fn load(&self, context: &Context) -> anyhow::Result<Artifact> {
        project::load_by(&Builder::for_user().debugger(self.debug), &self.dir, None, &context.output)
    }

    /// The command that lets a debugger in.
    fn attach(&self, pid: u32) -> Option<String> {
        let source =
            ["src/lib.rs", "src/main.rs"].map(|source| self.dir.join(source)).into_iter().find_map(|path| path.canonicalize().ok());
        let source = source.unwrap_or_else(|| PathBuf::from("FILE"));
        let stop = format!("-ex 'set breakpoint pending on' -ex 'break {}:LINE' -ex continue", source.display());
        self.debug.then(|| format!("gdb -p {pid} {stop}"))
    }
}

fn send(client: &Client, function: &FunctionName, event: CloudEvent) -> anyhow::Result<Trace> {
    trace_view::ask(client, function, &TraceRequest { input: Input::Event(event), state: None })
}

/// The state of the loop.
struct Dev<'a> {
    run: &'a Run,
    context: &'a Context,
    node: LocalNode,
    sources: Sources,
    sender: SyncSender<Event>,
    /// Sent after every build.
    event: Option<CloudEvent>,
    given: Option<RevisionId>,
    /// Whether nobody follows the node now.
    silent: bool,
    /// The invocation of that event, which was shown as a whole.
    shown: Option<String>,
    /// When the change came that is being built.
    changed: Option<Instant>,
}

impl Dev<'_> {
    fn begin(&mut self, artifact: &Artifact) -> anyhow::Result<()> {
        follow_node(self.node.client().clone(), self.sender.clone());
        self.give(artifact)
    }

    fn follow(&mut self, events: &Receiver<Event>) -> anyhow::Result<()> {
        loop {
            match events.recv_timeout(LOOK) {
                Ok(Event::Stop) => return Ok(()),
                Ok(Event::Told(told)) => self.print(&told)?,
                Ok(Event::Changed) => {
                    self.changed = Some(Instant::now());
                    if self.settle(events)? {
                        return Ok(());
                    }
                    self.rebuild();
                }
                Ok(Event::Silence) => self.silent = true,
                Err(RecvTimeoutError::Timeout) => self.look()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Sees that the node runs, and follows it again where that was cut off.
    fn look(&mut self) -> anyhow::Result<()> {
        self.node.check()?;
        if std::mem::take(&mut self.silent) {
            follow_node(self.node.client().clone(), self.sender.clone());
        }
        Ok(())
    }

    /// Waits until the sources are quiet. True when somebody wants an end meanwhile.
    fn settle(&mut self, events: &Receiver<Event>) -> anyhow::Result<bool> {
        let mut quiet = Instant::now() + QUIET;
        while let Ok(event) = events.recv_timeout(quiet.saturating_duration_since(Instant::now())) {
            match event {
                Event::Stop => return Ok(true),
                Event::Told(told) => self.print(&told)?,
                Event::Silence => self.silent = true,
                Event::Changed => quiet = Instant::now() + QUIET,
            }
        }
        Ok(false)
    }

    /// Builds and gives the node what came out, if the sources really differ. What goes wrong is said and ends nothing.
    fn rebuild(&mut self) {
        if !self.sources.differ() {
            return;
        }
        let built = self.run.load(self.context);
        if let Ok(artifact) = &built {
            self.sources.built(&artifact.path);
        }
        if let Err(error) = built.and_then(|artifact| self.give(&artifact)) {
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
        let rebuilt = self.changed.take().map(|changed| Rebuilt::of(changed.elapsed(), artifact.compiler));
        let debug = self.run.attach(self.node.pid());
        let started = Started { rebuilt, debug, ..started(artifact, revision, &status, self.node.socket()) };
        self.context.output.line(&started, |style| describe(&started, artifact, style))?;
        if let Some(event) = self.event.clone() {
            let trace = send(self.node.client(), &artifact.manifest.name, event)?;
            self.shown = trace.ended.as_ref().map(|ended| ended.invocation.clone());
            // A function that fails is what somebody sits here to mend.
            trace_view::print(&self.context.output, &trace)?;
        }
        Ok(())
    }

    /// One line for everything that happens.
    fn print(&self, told: &Told) -> anyhow::Result<()> {
        let invocation = match told {
            Told::Invocation(ended) => &ended.invocation,
            Told::Publication(published) => &published.invocation,
            Told::Log(entry) => &entry.invocation,
            Told::Missing(_) => "",
        };
        if self.shown.as_deref() == Some(invocation) {
            return Ok(());
        }
        Ok(self.context.output.line(told, |style| view(told, style))?)
    }
}

fn view(told: &Told, style: Style) -> String {
    match told {
        Told::Invocation(ended) => trace_view::ended(ended, style),
        Told::Publication(published) => trace_view::published(published, style),
        Told::Log(entry) => logs::line(entry, style),
        Told::Missing(missing) => logs::missing(*missing, style),
    }
}

impl Rebuilt {
    fn of(total: Duration, compiler: Duration) -> Self {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self { total_ms: ms(total), compiler_ms: ms(compiler) }
    }
}

/// A stream that cannot be read ends like one that is over: the loop looks at the node and decides.
fn follow_node(client: Client, sender: SyncSender<Event>) {
    thread::spawn(move || {
        let sent = |told| sender.send(Event::Told(Box::new(told))).ok();
        client.lines("/v1/invocations/stream?logs=true", sent).ok();
        sender.send(Event::Silence).ok();
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
    let mqtt = status.mqtt.clone();
    Started { function: &manifest.name, revision, kind: artifact.kind, http, mqtt, topics, timers, socket, debug: None, rebuilt: None }
}

fn describe(started: &Started<'_>, artifact: &Artifact, style: Style) -> String {
    if let Some(Rebuilt { total_ms, compiler_ms }) = started.rebuilt {
        let (total, compiler) = (text::micros(total_ms * 1000), text::micros(compiler_ms * 1000));
        let own = text::micros(total_ms.saturating_sub(compiler_ms) * 1000);
        let revision = format!("{} ({})", started.revision.short(), artifact.describe());
        return format!("{} {revision} in {total}: compiler {compiler}, everything else {own}", style.paint("rebuilt", Tone::Good));
    }
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
    known.extend(started.debug.iter().map(|command| ("debug", command.into())));
    facts(style, &known)
}
