//! The bus: takes events, keeps those that must be kept, and brings each to the functions that subscribed to its topic.
//!
//! ```text
//! broker, timers, functions ─▶ inbox ─▶ match ─▶ store.accept ─▶ Queue ─▶ invoke ─▶ outcome ─▶ store.finish + reply
//!                                                     └─ durable or done ─▶ receipt (PUBACK)
//! ```
//! One task owns queue and subscriptions. Invariants: an event of QoS ≥ 1 is answered only when it is durable or done; a reply is
//! accepted in the same batch that finishes the event it answers, so neither exists without the other after a power cut.

mod outcome;
mod pace;
mod purge;
mod queued;

use crate::dead_letters::{DeadLetters, ExchangeError};
use crate::device::Board;
use crate::functions::{Followed, Functions, Match, Table};
use crate::invoke::Invoker;
use crate::limits::{BUS_INBOX_MAX, FANOUT_MAX, PURGES_MAX};
use crate::supervisor::Supervisor;
use crate::{clock, fault::Errors};
use outcome::Outcome;
use pace::Ack;
pub(crate) use pace::bound;
pub(crate) use purge::Purge;
use queued::Queued;
use sedge_mqtt::{Message, QoS, Refusal};
use sedge_node_core::brake::{Bound, Brake};
use sedge_node_core::queue::{Item, Queue};
use sedge_protocol::manifest::Durability;
use sedge_protocol::{Event, FunctionName, Topic};
use sedge_store::{Batch, Commit, ItemId, Pending, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Answer to one who published: kept (or done), or not taken.
pub(crate) type Answer = oneshot::Sender<Result<(), Refusal>>;

/// An event on its way into the bus.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) event: Event,
    /// Whether the publisher wants it kept (QoS ≥ 1).
    pub(crate) kept: bool,
    /// Whether MQTT clients get it: not what came from the broker, which has delivered it itself.
    pub(crate) fan_out: bool,
    /// Goes to this function only: timers.
    pub(crate) only: Option<(FunctionName, Option<Topic>)>,
    /// The dead letter that it was, gone in the batch that keeps it.
    pub(crate) letter: Option<u64>,
    pub(crate) answer: Option<Answer>,
}

/// Numbers for people and the fleet.
#[derive(Debug, Default)]
pub(crate) struct BusStats {
    pub(crate) events_in: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) waiting: AtomicU64,
    pub(crate) dead_letters: AtomicU64,
}

/// The way in. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct BusHandle {
    inbox: mpsc::Sender<Publication>,
    purges: mpsc::Sender<Purge>,
    pub(crate) stats: Arc<BusStats>,
}

/// What comes in.
#[derive(Debug)]
pub(crate) struct Inbox {
    publications: mpsc::Receiver<Publication>,
    purges: mpsc::Receiver<Purge>,
}

impl BusHandle {
    /// Puts a publication in line, or gives it back when the line is full. Never blocks; the order of calls is kept.
    pub(crate) fn publish(&self, publication: Publication) -> Result<(), Refusal> {
        self.inbox.try_send(publication).map_err(|full| match full {
            mpsc::error::TrySendError::Full(_) => {
                self.stats.dropped.fetch_add(1, Ordering::Relaxed);
                Refusal::QuotaExceeded
            }
            mpsc::error::TrySendError::Closed(_) => Refusal::Unavailable,
        })
    }
}

/// What the bus works with.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) functions: Functions,
    pub(crate) invoker: Invoker,
    pub(crate) errors: Errors,
    pub(crate) letters: DeadLetters,
    pub(crate) supervisor: Supervisor,
    /// Towards the broker; `None` without one.
    pub(crate) fan_out: Option<mpsc::Sender<Message>>,
    /// What events on `device/<name>/set` are written to.
    pub(crate) devices: Board,
    /// What may wait for one function.
    pub(crate) bound: Bound,
}

/// One event for all who get it, and what keeps it.
#[derive(Default)]
struct Intake {
    batch: Batch,
    items: Vec<Item<Arc<Queued>>>,
    /// The strongest durability among those that are kept.
    strongest: Option<Durability>,
}

/// The task's own state.
pub(crate) struct Bus {
    parts: Parts,
    queue: Queue<Arc<Queued>>,
    brake: Brake<Ack>,
    /// Told to stop: nothing new begins.
    stopping: bool,
    opened: Followed,
    inbox: Inbox,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    /// Unbounded in type only: one message per invocation in flight.
    report: mpsc::UnboundedSender<Outcome>,
    stats: Arc<BusStats>,
    volatile_id: u64,
}

/// The two ends of the way in, made before the parts exist that need the handle.
pub(crate) fn inbox() -> (BusHandle, Inbox) {
    let (inbox, publications) = mpsc::channel(BUS_INBOX_MAX);
    let (ask, purges) = mpsc::channel(PURGES_MAX);
    (BusHandle { inbox, purges: ask, stats: Arc::default() }, Inbox { publications, purges })
}

/// The way from the bus to the broker.
pub(crate) fn fan_out() -> (mpsc::Sender<Message>, mpsc::Receiver<Message>) {
    mpsc::channel(FANOUT_MAX)
}

impl Bus {
    /// A bus that goes on with what the store has kept.
    pub(crate) fn new(parts: Parts, handle: &BusHandle, inbox: Inbox, pending: Vec<Pending>) -> Self {
        let (report, outcomes) = mpsc::unbounded_channel();
        let mut bus = Self {
            brake: Brake::new(parts.bound),
            parts,
            queue: Queue::default(),
            stopping: false,
            opened: Followed::default(),
            inbox,
            outcomes,
            report,
            stats: Arc::clone(&handle.stats),
            volatile_id: 0,
        };
        for item in pending {
            bus.recover(item);
        }
        bus
    }

    /// Runs until the daemon stops and what is in flight has come to its end.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let (stop, kill) = (self.parts.supervisor.stop().clone(), self.parts.supervisor.kill().clone());
        let mut functions = self.parts.functions.clone();
        self.follow_table();
        loop {
            if !stop.is_cancelled() {
                self.dispatch();
            }
            self.release();
            self.stats.waiting.store(self.queue.waiting() as u64, Ordering::Relaxed);
            let wake = self.queue.poll_wake().into_iter().chain(self.brake.poll_wake()).min().map(clock::instant);
            tokio::select! {
                biased;
                () = kill.cancelled() => return Ok(()),
                () = stop.cancelled(), if !self.stopping => self.stop_holding(),
                Some(outcome) = self.outcomes.recv() => self.handle_outcome(outcome),
                changed = functions.changed() => { changed?; self.follow_table(); }
                Some(purge) = self.inbox.purges.recv() => self.handle_purge(purge),
                Some(publication) = self.inbox.publications.recv() => self.accept(publication),
                () = sleep_until(wake) => {}
            }
        }
    }

    fn recover(&mut self, item: Pending) {
        match Queued::decode(&item.bytes) {
            Ok(queued) => {
                let item = Item {
                    id: item.id.0,
                    function: queued.function.clone(),
                    topic: queued.event.topic.clone(),
                    attempts: item.attempts,
                    kept: true,
                    payload: Arc::new(queued),
                };
                // As if it had been open: `follow_table` holds it, or buries its events when it is assigned no more.
                self.opened.add(&item.function);
                self.brake.enter(&item.function, pace::weight(&item.payload.event));
                self.queue.push(item);
            }
            Err(reason) => {
                log::error!(item = item.id.0, reason; "a kept event cannot be read and is dropped");
                let mut batch = Batch::new();
                batch.finish(item.id);
                drop(self.parts.store.commit(batch, sedge_store::Durability::None));
            }
        }
    }

    /// Opens, holds and forgets functions as the table says.
    fn follow_table(&mut self) {
        let gone = self.opened.follow(&self.parts.functions.table(), &mut self.queue);
        gone.iter().for_each(|name| self.forget(name));
    }

    /// A function that is assigned no more takes its waiting events with it; they become dead letters, not nothing.
    fn forget(&mut self, name: &FunctionName) {
        for item in self.queue.remove(name) {
            if item.kept {
                self.bury(&item, "the function was removed");
            }
        }
    }

    fn accept(&mut self, publication: Publication) {
        self.stats.events_in.fetch_add(1, Ordering::Relaxed);
        let Publication { event, kept, fan_out, only, letter, answer } = publication;
        let (event, to_all) = (Arc::new(event), only.is_none());
        let matches = match only {
            Some((function, reply)) => vec![Match { function, qos: 1, durability: Durability::Grouped, reply }],
            None => self.parts.functions.table().matches(&event.topic),
        };
        let matches = self.within_depth(&event, matches);
        if kept && self.full(&event, &matches).is_some() {
            return self.refuse(answer);
        }
        if to_all {
            self.parts.devices.offer(&event);
        }
        let intake = self.enlist(&event, kept, matches);
        self.take_in(intake, letter, answer);
        if fan_out {
            self.send_to_clients(&event, kept);
        }
    }

    /// An item for each match, and the batch that keeps those that are to be kept.
    fn enlist(&mut self, event: &Arc<Event>, kept: bool, matches: Vec<Match>) -> Intake {
        let (mut intake, taken) = (Intake::default(), Some(Instant::now()));
        for found in matches {
            let kept = kept && found.qos > 0;
            let queued = Queued { function: found.function, event: Arc::clone(event), reply: found.reply, taken };
            let id = if kept {
                let id = self.parts.store.next_item_id();
                if found.durability != Durability::None {
                    intake.batch.accept(id, queued.encode());
                }
                intake.strongest = Some(stronger(intake.strongest, found.durability));
                id.0
            } else {
                self.volatile_id += 1;
                self.volatile_id
            };
            let (function, topic) = (queued.function.clone(), event.topic.clone());
            intake.items.push(Item { id, function, topic, attempts: 0, kept, payload: Arc::new(queued) });
        }
        intake
    }

    fn take_in(&mut self, intake: Intake, letter: Option<u64>, answer: Option<Answer>) {
        let Intake { batch, items, strongest } = intake;
        let commit = match strongest {
            None | Some(Durability::None) => None,
            Some(durability) => match self.keep(batch, letter, durability) {
                Ok(commit) => Some(commit),
                Err(error) => {
                    log::warn!(reason:% = error; "an event is refused: it cannot be kept");
                    if let Some(answer) = answer {
                        let _unheard = answer.send(Err(Refusal::QuotaExceeded));
                    }
                    return;
                }
            },
        };
        let functions: Vec<FunctionName> = items.iter().filter(|item| item.kept).map(|item| item.function.clone()).collect();
        self.line_up(items);
        if let Some(answer) = answer {
            self.acknowledge_in_pace(&functions, Ack { commit, answer });
        }
    }

    fn keep(&self, batch: Batch, letter: Option<u64>, durability: Durability) -> Result<Commit, ExchangeError> {
        match letter {
            Some(letter) => self.parts.letters.exchange(batch, letter),
            None => Ok(self.parts.store.commit(batch, store_durability(durability))?),
        }
    }

    fn line_up(&mut self, items: Vec<Item<Arc<Queued>>>) {
        for item in items {
            if item.kept {
                self.brake.enter(&item.function, pace::weight(&item.payload.event));
            }
            if let Some(dropped) = self.queue.push(item) {
                self.stats.dropped.fetch_add(1, Ordering::Relaxed);
                log::debug!(function:% = dropped.function, topic:% = dropped.topic; "an event of QoS 0 is dropped for a newer one");
            }
        }
    }

    fn acknowledge(&self, Ack { commit, answer }: Ack) {
        let Some(commit) = commit else {
            let _unheard = answer.send(Ok(()));
            return;
        };
        self.parts.supervisor.work(async move {
            let result = commit.durable().await.map_err(|lost| {
                log::warn!(reason:% = lost; "an event could not be kept");
                Refusal::Unavailable
            });
            let _unheard = answer.send(result);
        });
    }

    fn send_to_clients(&self, event: &Event, kept: bool) {
        let Some(fan_out) = &self.parts.fan_out else { return };
        let mut message = Message::new(event.topic.as_str(), event.data.clone());
        message.qos = if kept { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        message.properties.content_type.clone_from(&event.content_type);
        if fan_out.try_send(message).is_err() {
            self.stats.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn dispatch(&mut self) {
        let table: Arc<Table> = self.parts.functions.table();
        while let Some(item) = self.queue.poll_dispatch(clock::mono()) {
            let Some(active) = table.active.get(&item.function) else {
                self.queue.handle_refused(&item.function, &item.topic, clock::mono().after(outcome::REFUSED_PAUSE));
                self.queue.hold(&item.function);
                continue;
            };
            let (active, invoker, report) = (Arc::clone(active), self.parts.invoker.clone(), self.report.clone());
            self.parts.supervisor.spread(async move {
                let result = invoker.event(&active, &item.payload.event).await;
                if let (Ok(_), Some(taken), 0) = (&result, item.payload.taken, item.attempts) {
                    active.counts.event_done(taken.elapsed());
                }
                drop(report.send(Outcome { item, result }));
            });
        }
    }
}

fn stronger(one: Option<Durability>, other: Durability) -> Durability {
    match (one, other) {
        (Some(Durability::Each), _) | (_, Durability::Each) => Durability::Each,
        (Some(Durability::Grouped), _) | (_, Durability::Grouped) => Durability::Grouped,
        (Some(Durability::None) | None, Durability::None) => Durability::None,
    }
}

fn store_durability(durability: Durability) -> sedge_store::Durability {
    match durability {
        Durability::Grouped => sedge_store::Durability::Grouped,
        Durability::Each => sedge_store::Durability::Each,
        Durability::None => sedge_store::Durability::None,
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The number of an item in the store.
fn item_id(item: &Item<Arc<Queued>>) -> ItemId {
    ItemId(item.id)
}
