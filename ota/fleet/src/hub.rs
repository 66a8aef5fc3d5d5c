//! Who is connected and what each node last said. One task owns it; everybody else holds a [`Hub`].
//!
//! ```text
//!  session ─ connect ─▶ Seat { news: watches, end: watch }      a second connection of a node replaces the first
//!  operator ─ end ────▶ the seat of a node that is not wanted any more
//!  session ─ greeted ─▶ Greetings: one box that comes back, or two with one key
//!  session ─ report ──▶ Live ── every two seconds, what changed ──▶ store
//!  operator ─ stands ─▶ the watch of that node
//!  rollout ─ push ────▶ watch of each node that changed: the larger epoch wins, so that the order of pushes does not matter
//! ```

use crate::farewell::Farewell;
use crate::limits::{FLUSH_INTERVAL, HUB_QUEUE};
use crate::store::{Changed, Store};
use log::{error, info};
use sedge_fleet_core::{Greetings, Twins};
use sedge_protocol::message::{Desired, Report};
use sedge_protocol::{FunctionName, NodeId, Standing};
use sedge_provisioning::clock::now_ms;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Invocations per second of each function, in thousandths.
pub(crate) type Rates = BTreeMap<FunctionName, u64>;

/// What is known of a node that has connected since the fleet started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Live {
    pub(crate) online: bool,
    pub(crate) seen_ms: u64,
    pub(crate) report: Option<Arc<Report>>,
    pub(crate) rates: Rates,
}

/// A node's place while it is connected.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) connection: u64,
    pub(crate) news: News,
    /// Says when and why the node loses the place.
    pub(crate) end: watch::Receiver<Option<Farewell>>,
}

/// What a node that is connected is told when it changes.
#[derive(Debug, Clone)]
pub(crate) struct News {
    pub(crate) desired: watch::Receiver<Option<Arc<Desired>>>,
    pub(crate) standing: watch::Receiver<Option<Standing>>,
}

enum Command {
    Connect(NodeId, oneshot::Sender<Seat>),
    Leave(NodeId, u64),
    End(NodeId, Farewell),
    Greeted(NodeId, u64, String, oneshot::Sender<Option<Twins>>),
    Pardon(NodeId),
    Report(NodeId, u64, Box<Report>),
    Push(Vec<Changed>),
    Stands(NodeId, Standing),
    View(oneshot::Sender<BTreeMap<NodeId, Live>>),
}

/// Speaks to the task. After the task has ended, at shutdown, everything is ignored and answers are empty.
#[derive(Debug, Clone)]
pub(crate) struct Hub {
    commands: mpsc::Sender<Command>,
}

impl Hub {
    /// The handle, and the task that the supervisor runs.
    pub(crate) fn new(store: Store, token: CancellationToken) -> (Self, impl Future<Output = ()> + Send) {
        let (commands, queue) = mpsc::channel(HUB_QUEUE);
        let task = Task { store, places: BTreeMap::new(), last_connection: 0 };
        (Self { commands }, task.run(queue, token))
    }

    /// Takes the node's place, from another connection if need be.
    pub(crate) async fn connect(&self, node: &NodeId) -> Option<Seat> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Connect(node.clone(), reply)).await;
        answer.await.ok()
    }

    /// Leaves the place, unless another connection has it by now.
    pub(crate) async fn leave(&self, node: &NodeId, connection: u64) {
        self.send(Command::Leave(node.clone(), connection)).await;
    }

    /// Takes the place from whoever has it.
    pub(crate) async fn end(&self, node: &NodeId, farewell: Farewell) {
        self.send(Command::End(node.clone(), farewell)).await;
    }

    /// Which start of a node's daemon has greeted from where. Answers with what follows when two boxes have one key.
    pub(crate) async fn greeted(&self, node: &NodeId, instance: u64, from: String) -> Option<Twins> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Greeted(node.clone(), instance, from, reply)).await;
        answer.await.ok().flatten()
    }

    /// Forgets the greetings of a node: whether it is one box is found out anew.
    pub(crate) async fn pardon(&self, node: &NodeId) {
        self.send(Command::Pardon(node.clone())).await;
    }

    /// What a node says now.
    pub(crate) async fn report(&self, node: &NodeId, connection: u64, report: Report) {
        self.send(Command::Report(node.clone(), connection, Box::new(report))).await;
    }

    /// Tells the nodes that are connected.
    pub(crate) async fn push(&self, changed: Vec<Changed>) {
        if !changed.is_empty() {
            self.send(Command::Push(changed)).await;
        }
    }

    /// Tells a node that is connected how it stands.
    pub(crate) async fn stands(&self, node: &NodeId, standing: Standing) {
        self.send(Command::Stands(node.clone(), standing)).await;
    }

    /// Everything as it is now.
    pub(crate) async fn view(&self) -> BTreeMap<NodeId, Live> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::View(reply)).await;
        answer.await.unwrap_or_default()
    }

    async fn send(&self, command: Command) {
        // Nobody listens only when the process ends.
        drop(self.commands.send(command).await);
    }
}

struct Task {
    store: Store,
    places: BTreeMap<NodeId, Place>,
    last_connection: u64,
}

#[derive(Default)]
struct Place {
    live: Live,
    connection: Option<Connection>,
    greetings: Greetings,
    /// What the store does not have yet.
    unkept: Unkept,
}

#[derive(Default, PartialEq, Eq, Clone, Copy)]
enum Unkept {
    #[default]
    Nothing,
    Seen,
    Report,
}

struct Connection {
    number: u64,
    desired: watch::Sender<Option<Arc<Desired>>>,
    standing: watch::Sender<Option<Standing>>,
    end: watch::Sender<Option<Farewell>>,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Command>, token: CancellationToken) {
        let mut flush = interval(FLUSH_INTERVAL);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = queue.recv() => match command {
                    Some(command) => self.handle(command, now_ms()),
                    None => break,
                },
                _ = flush.tick() => self.flush().await,
                () = token.cancelled() => break,
            }
        }
        self.flush().await;
    }

    fn handle(&mut self, command: Command, now_ms: u64) {
        match command {
            Command::Connect(node, reply) => {
                let seat = self.connect(&node, now_ms);
                drop(reply.send(seat));
            }
            Command::Leave(node, connection) => {
                if let Some(place) = self.place_of(&node, connection) {
                    place.leave();
                    info!(node:%; "node disconnected");
                }
            }
            Command::End(node, farewell) => {
                if let Some(connection) = self.places.get_mut(&node).and_then(Place::leave) {
                    info!(node:%, reason = farewell.reason.as_str(); "connection ended");
                    connection.end.send_replace(Some(farewell));
                }
            }
            Command::Greeted(node, instance, from, reply) => {
                let place = self.places.entry(node).or_default();
                drop(reply.send(place.greetings.greeted(instance, &from, now_ms)));
            }
            Command::Pardon(node) => {
                if let Some(place) = self.places.get_mut(&node) {
                    place.greetings = Greetings::default();
                }
            }
            Command::Report(node, connection, report) => {
                if let Some(place) = self.place_of(&node, connection) {
                    place.take(*report, now_ms);
                }
            }
            Command::Push(changed) => {
                for (node, desired) in changed {
                    if let Some(connection) = self.places.get(&node).and_then(|place| place.connection.as_ref()) {
                        connection.tell(desired);
                    }
                }
            }
            Command::Stands(node, standing) => {
                if let Some(connection) = self.places.get(&node).and_then(|place| place.connection.as_ref()) {
                    connection.standing.send_replace(Some(standing));
                }
            }
            Command::View(reply) => {
                let view = self.places.iter().map(|(node, place)| (node.clone(), place.live.clone())).collect();
                drop(reply.send(view));
            }
        }
    }

    fn connect(&mut self, node: &NodeId, now_ms: u64) -> Seat {
        self.last_connection += 1;
        let number = self.last_connection;
        let (desired, desired_news) = watch::channel(None);
        let (standing, standing_news) = watch::channel(None);
        let (end, ended) = watch::channel(None);
        let place = self.places.entry(node.clone()).or_default();
        if let Some(before) = place.connection.replace(Connection { number, desired, standing, end }) {
            before.end.send_replace(Some(Farewell::replaced()));
        }
        place.live.online = true;
        place.live.seen_ms = now_ms;
        place.unkept = place.unkept.or(Unkept::Seen);
        info!(node:%; "node connected");
        Seat { connection: number, news: News { desired: desired_news, standing: standing_news }, end: ended }
    }

    /// The place of a node, if this connection still has it.
    fn place_of(&mut self, node: &NodeId, connection: u64) -> Option<&mut Place> {
        self.places.get_mut(node).filter(|place| place.connection.as_ref().is_some_and(|held| held.number == connection))
    }

    async fn flush(&mut self) {
        let unkept = self.places.iter().filter(|(_, place)| place.unkept != Unkept::Nothing);
        let reports: Vec<_> = unkept
            .map(|(node, place)| {
                let report = place.live.report.as_deref().filter(|_| place.unkept == Unkept::Report);
                (node, place.live.seen_ms, report)
            })
            .collect();
        if reports.is_empty() {
            return;
        }
        match self.store.keep_reports(reports).await {
            Ok(()) => self.places.values_mut().for_each(|place| place.unkept = Unkept::Nothing),
            Err(cause) => error!(cause:err; "reports not kept, tried again"),
        }
        if let Err(cause) = self.store.trim_errors().await {
            error!(cause:err; "old errors not removed");
        }
    }
}

impl Place {
    /// Gives up the connection, if there is one.
    fn leave(&mut self) -> Option<Connection> {
        self.live.online = false;
        self.live.rates.clear();
        self.connection.take()
    }

    fn take(&mut self, report: Report, now_ms: u64) {
        if let Some(before) = &self.live.report
            && let Some(rates) = rates(before, &report)
        {
            self.live.rates = rates;
        }
        self.live.seen_ms = now_ms;
        self.live.report = Some(Arc::new(report));
        self.unkept = Unkept::Report;
    }
}

impl Unkept {
    fn or(self, other: Self) -> Self {
        if self == Self::Nothing { other } else { self }
    }
}

impl Connection {
    fn tell(&self, desired: Desired) {
        self.desired.send_if_modified(|held| {
            let newer = held.as_ref().is_none_or(|held| desired.epoch > held.epoch);
            if newer {
                *held = Some(Arc::new(desired));
            }
            newer
        });
    }
}

/// Invocations per second between two reports of one run of the daemon, by the node's own monotonic clock; none when they are
/// of different runs or less than half a second apart.
fn rates(before: &Report, after: &Report) -> Option<Rates> {
    let (was, is) = (&before.vitals, &after.vitals);
    if was.started_ms != is.started_ms {
        return Some(Rates::new());
    }
    let elapsed_ms = is.uptime_ms.checked_sub(was.uptime_ms).filter(|ms| *ms >= 500)?;
    let calls_before: BTreeMap<&FunctionName, u64> = before.functions.iter().map(|f| (&f.function, f.totals.calls())).collect();
    let rate = |report: &sedge_protocol::message::FunctionReport| {
        let calls = report.totals.calls().saturating_sub(calls_before.get(&report.function).copied().unwrap_or(0));
        (report.function.clone(), calls.saturating_mul(1_000_000) / elapsed_ms)
    };
    Some(after.functions.iter().map(rate).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::message::{FunctionReport, FunctionState, Health, Vitals};
    use sedge_protocol::usage::Counters;

    fn report(started_ms: u64, uptime_ms: u64, calls_ok: u64) -> Report {
        let totals = Counters { calls_ok, ..Counters::default() };
        let function = FunctionReport {
            function: "f".parse().unwrap(),
            running: None,
            state: FunctionState::Running,
            assigned: None,
            missing_secrets: Vec::new(),
            totals,
            health: Health::default(),
        };
        Report { functions: vec![function], vitals: Vitals { started_ms, uptime_ms, ..Vitals::default() }, ..Report::default() }
    }

    #[test]
    fn rates_follow_the_clock_of_the_node_and_begin_anew_with_it() {
        let name: FunctionName = "f".parse().unwrap();
        assert_eq!(rates(&report(1, 1000, 10), &report(1, 3000, 30)).unwrap()[&name], 10_000);
        assert_eq!(rates(&report(1, 1000, 10), &report(2, 3000, 30)), Some(Rates::new()));
        assert_eq!(rates(&report(1, 1000, 10), &report(1, 1100, 30)), None);
        assert_eq!(rates(&report(1, 3000, 10), &report(1, 1000, 30)), None);
    }
}
