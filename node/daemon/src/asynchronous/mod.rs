//! Asynchronous calls: a request that is answered at once with an id, kept on disk, run later, and whose answer waits for its caller.
//!
//! ```text
//! HTTP, `sedge invoke --async` ─▶ Handle ─▶ Calls: keys ─▶ store (item, record) ─ durable ─▶ 202
//!                                             │  Queue ─▶ lease ─ durable ─▶ invoker ─▶ end (record, answer | dead letter)
//!                                             └─ callbacks ◀─ durable ──────────────────┘
//! status, result ─▶ read from the store, past the task
//! ```
//! One task owns queue, keys and shelf. Invariants: 202 leaves only when the call is durable; a run begins only when its lease is
//! durable, and is ended with it; what a caller is told of an end is durable; nothing begins while an end cannot be written.

mod callback;
mod http;
mod intake;
mod outcome;
mod purge;
mod record;
mod recover;
mod request;
mod run;

pub(crate) use self::http::{refuse, wanted};

use crate::dead_letters::DeadLetters;
use crate::fault::Errors;
use crate::functions::{Followed, Functions, Table};
use crate::invoke::Invoker;
use crate::limits::{CALLS_INBOX_MAX, REWRITE_PAUSE, SWEEP_PAUSE};
use crate::supervisor::Supervisor;
use crate::{chunks, clock};
use outcome::Ended;
use record::{Record, Since};
use sedge_node_core::asynchronous::{Cause, Keys, Shelf, Steady};
use sedge_node_core::queue::{Item, Queue, Settings};
use sedge_node_core::{Mono, Wall};
use sedge_protocol::FunctionName;
use sedge_protocol::Topic;
use sedge_protocol::invocation::{Call, InvocationId};
use sedge_protocol::local::{CallCounts, DeadLetter};
use sedge_runtime::Egress;
use sedge_store::{Batch, Durability, Pending, Store, Tree};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};

/// A call on its way in, its number not given yet.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) function: FunctionName,
    pub(crate) key: Option<String>,
    pub(crate) callback: Option<String>,
    pub(crate) depth: u32,
    pub(crate) call: Call,
}

/// Why a call is not taken, cancelled or replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The key is another request's.
    #[error("this idempotency key belongs to another request: invocation {0}")]
    OtherRequest(InvocationId),
    /// As much as may wait waits.
    #[error("{0}; try again later")]
    Full(String),
    /// There is no room on the disk.
    #[error("{0}")]
    NoRoom(String),
    /// It cannot be kept now.
    #[error("{0}; try again later")]
    Unavailable(String),
    /// It is running or over.
    #[error("the invocation has begun or is over, and stays as it is")]
    Begun,
}

/// What the task is asked.
#[derive(Debug)]
enum Message {
    Submit { submission: Box<Submission>, answer: oneshot::Sender<Result<InvocationId, Refused>> },
    Cancel { id: InvocationId, answer: oneshot::Sender<Result<(), Refused>> },
    Replay { letter: Box<DeadLetter>, call: Call, record: Option<Box<Record>>, answer: oneshot::Sender<Result<(), Refused>> },
    Purge { function: FunctionName, over: Vec<Record>, answer: oneshot::Sender<Result<u64, Refused>> },
}

/// The way in. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    inbox: mpsc::Sender<Message>,
    functions: Functions,
    store: Store,
    letters: DeadLetters,
    counts: Arc<Counts>,
}

/// Numbers for people.
#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicU64,
    over: AtomicU64,
    /// Answers and calls that were dropped for want of room before their time.
    dropped: AtomicU64,
}

/// What the task works with.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) functions: Functions,
    pub(crate) invoker: Invoker,
    pub(crate) errors: Errors,
    pub(crate) letters: DeadLetters,
    pub(crate) supervisor: Supervisor,
    /// The way of callbacks to other machines.
    pub(crate) egress: Egress,
    /// Calls that may wait, and their bytes: half of what the store's queue takes, so that events have the other half.
    pub(crate) waiting_max: usize,
    pub(crate) waiting_bytes_max: usize,
}

/// A call that is not over.
#[derive(Debug)]
struct Live {
    record: Record,
    bytes: usize,
}

/// Something that work of this task came to.
#[derive(Debug)]
enum Happened {
    Ran { item: Item<Arc<Call>>, ran: run::Ran },
    Told { item: Item<InvocationId>, result: Result<(), String> },
}

/// The task's own state.
pub(crate) struct Calls {
    parts: Parts,
    since: Since,
    queue: Queue<Arc<Call>>,
    callbacks: Queue<InvocationId>,
    live: BTreeMap<u64, Live>,
    live_bytes: usize,
    /// Calls that are over, whose callback is not.
    telling: BTreeMap<u64, Record>,
    keys: Keys,
    shelf: Shelf,
    opened: Followed,
    /// Ends that the disk has not taken yet, oldest first.
    unwritten: VecDeque<Ended>,
    rewrite_at: Option<Mono>,
    inbox: mpsc::Receiver<Message>,
    happened: mpsc::UnboundedReceiver<Happened>,
    /// Unbounded in type only: one message per run or callback under way.
    report: mpsc::UnboundedSender<Happened>,
    counts: Arc<Counts>,
}

/// The task, going on with what the store has kept; the handle to it; and the items that are the bus's.
pub(crate) fn open(parts: Parts, pending: Vec<Pending>) -> anyhow::Result<(Calls, Handle, Vec<Pending>)> {
    let (sender, inbox) = mpsc::channel(CALLS_INBOX_MAX);
    let (report, happened) = mpsc::unbounded_channel();
    let counts = Arc::<Counts>::default();
    let handle = Handle {
        inbox: sender,
        functions: parts.functions.clone(),
        store: parts.store.clone(),
        letters: parts.letters.clone(),
        counts: Arc::clone(&counts),
    };
    let mut calls = Calls {
        parts,
        since: Since::default(),
        queue: Queue::default(),
        callbacks: Queue::default(),
        live: BTreeMap::new(),
        live_bytes: 0,
        telling: BTreeMap::new(),
        keys: Keys::default(),
        shelf: Shelf::default(),
        opened: Followed::default(),
        unwritten: VecDeque::new(),
        rewrite_at: None,
        inbox,
        happened,
        report,
        counts,
    };
    let events = calls.recover(pending)?;
    Ok((calls, handle, events))
}

impl Handle {
    /// How many there are.
    pub(crate) fn counts(&self) -> CallCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CallCounts { waiting: read(&self.counts.waiting), over: read(&self.counts.over), dropped: read(&self.counts.dropped) }
    }

    /// Keeps a call; its id once it is durable.
    pub(crate) async fn submit(&self, submission: Submission) -> Result<InvocationId, Refused> {
        self.ask(|answer| Message::Submit { submission: Box::new(submission), answer }).await
    }

    /// Takes a call back that has not begun.
    async fn cancel(&self, id: InvocationId) -> Result<(), Refused> {
        self.ask(|answer| Message::Cancel { id, answer }).await
    }

    /// Puts a call back in line that is among the dead letters. May read the disk.
    pub(crate) async fn replay(&self, letter: DeadLetter, call: Call) -> Result<(), Refused> {
        let (store, number) = (self.store.clone(), call.id.number);
        let read = move || store.get(Tree::Invocation, &number.to_be_bytes());
        let stored = tokio::task::spawn_blocking(read).await.ok().and_then(Result::ok).flatten();
        let record = stored.and_then(|bytes| Record::decode(&bytes).ok()).map(Box::new);
        self.ask(|answer| Message::Replay { letter: Box::new(letter), call, record, answer }).await
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<Result<T, Refused>>) -> Message) -> Result<T, Refused> {
        let (answer, answered) = oneshot::channel();
        self.inbox.try_send(message(answer)).map_err(|full| match full {
            mpsc::error::TrySendError::Full(_) => Refused::Full("too many asynchronous calls at once".to_owned()),
            mpsc::error::TrySendError::Closed(_) => Refused::Unavailable("the node is stopping".to_owned()),
        })?;
        answered.await.unwrap_or_else(|_| Err(Refused::Unavailable("the node is stopping".to_owned())))
    }
}

impl Calls {
    /// Runs until the daemon stops and what is under way has come to its end.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let (stop, kill) = (self.parts.supervisor.stop().clone(), self.parts.supervisor.kill().clone());
        let mut functions = self.parts.functions.clone();
        self.follow_table();
        loop {
            self.rewrite();
            self.sweep();
            if !stop.is_cancelled() {
                self.dispatch();
                self.tell();
            }
            self.counts.waiting.store(self.live.len() as u64, Ordering::Relaxed);
            self.counts.over.store(self.shelf.len() as u64, Ordering::Relaxed);
            let wakes = [self.queue.poll_wake(), self.callbacks.poll_wake(), self.rewrite_at];
            let sweep = clock::mono().after(SWEEP_PAUSE);
            let wake = clock::instant(wakes.into_iter().flatten().min().unwrap_or(sweep).min(sweep));
            tokio::select! {
                biased;
                () = kill.cancelled() => {
                    // What was drained is written, else it would run again after the start.
                    while let Ok(happened) = self.happened.try_recv() {
                        self.handle_happened(happened);
                    }
                    return Ok(());
                }
                Some(happened) = self.happened.recv() => self.handle_happened(happened),
                changed = functions.changed() => { changed?; self.follow_table(); }
                Some(message) = self.inbox.recv() => self.handle_message(message),
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    fn handle_happened(&mut self, happened: Happened) {
        match happened {
            Happened::Ran { item, ran } => self.handle_ran(&item, ran),
            Happened::Told { item, result } => self.handle_told(&item, result),
        }
    }

    fn handle_message(&mut self, message: Message) {
        match message {
            Message::Submit { submission, answer } => self.submit(*submission, answer),
            Message::Cancel { id, answer } => {
                let _unheard = answer.send(self.cancel(id));
            }
            Message::Replay { letter, call, record, answer } => self.replay(&letter, call, record.map(|record| *record), answer),
            Message::Purge { function, over, answer } => {
                let _unheard = answer.send(self.purge(&function, over));
            }
        }
    }

    /// Opens, holds and forgets functions as the table says.
    fn follow_table(&mut self) {
        let table = self.parts.functions.table();
        let gone = self.opened.follow(&table, &mut self.queue);
        table.active.keys().for_each(|name| self.open_callbacks(name, &table));
        gone.iter().for_each(|name| self.forget(name));
    }

    /// A function that is assigned no more takes its waiting calls with it; they become dead letters, not nothing.
    fn forget(&mut self, name: &FunctionName) {
        for item in self.queue.remove(name) {
            self.bury(&item, "the function was removed", None);
        }
    }

    /// Throws away what is too much or too old.
    fn sweep(&mut self) {
        let now = self.now();
        let mut batch = Batch::new();
        while let Some(dropped) = self.shelf.poll_dropped(now) {
            if dropped.cause != Cause::Expired {
                self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            }
            if dropped.bytes > 0 {
                chunks::delete(&mut batch, Tree::Answer, dropped.number, usize::try_from(dropped.bytes).unwrap_or(usize::MAX));
            }
            if dropped.cause != Cause::Answer {
                batch.delete(Tree::Invocation, dropped.number.to_be_bytes());
            }
        }
        if !batch.is_empty() {
            self.write(batch);
        }
    }

    /// Writes what may also be lost.
    fn write(&self, batch: Batch) {
        match self.parts.store.commit(batch, Durability::None) {
            Ok(commit) => drop(commit),
            Err(error) => log::warn!(reason:% = error; "what became of a call could not be written"),
        }
    }

    /// Tries again to write the ends that the disk did not take.
    fn rewrite(&mut self) {
        if self.rewrite_at.is_none_or(|at| clock::mono() < at) {
            return;
        }
        self.rewrite_at = None;
        while let Some(ended) = self.unwritten.pop_front() {
            if let Err(ended) = self.write_end(ended) {
                self.unwritten.push_front(*ended);
                self.rewrite_at = Some(clock::mono().after(REWRITE_PAUSE));
                return;
            }
        }
    }

    fn open_callbacks(&mut self, name: &FunctionName, table: &Table) {
        let retry = table.active.get(name).map(|active| active.assignment.manifest.retry.clone()).unwrap_or_default();
        self.callbacks.open(name, Settings { concurrency: crate::limits::CALLBACKS_AT_ONCE, retry });
    }

    fn now(&self) -> Steady {
        self.since.now(clock::mono())
    }

    /// Puts a call in line.
    fn line_up(&mut self, item: u64, call: Arc<Call>, live: Live, after: Mono) {
        let (function, topic) = (live.record.function.clone(), lane(call.id.number));
        self.opened.add(&function);
        let failed = live.record.failed;
        self.live_bytes += live.bytes;
        self.live.insert(call.id.number, live);
        self.queue.push(Item { id: item, function: function.clone(), topic: topic.clone(), attempts: failed, kept: true, payload: call });
        if after > clock::mono() {
            self.queue.delay(&function, &topic, after);
        }
    }

    /// The call is in line no more.
    fn drop_live(&mut self, number: u64) -> Option<Record> {
        let live = self.live.remove(&number)?;
        self.live_bytes -= live.bytes;
        Some(live.record)
    }
}

/// Each call is a lane of its own: none waits for another.
fn lane(number: u64) -> Topic {
    format!("call/{number}").parse().expect("letters, a slash and digits are a topic")
}

fn wall() -> Wall {
    clock::wall()
}
