//! How much runs at once: what is admitted, what waits, what is refused, and whose turn it is.
//!
//! ```text
//!            arrive ─▶ room and a slot? ── yes ──▶ Run
//!                          │ no
//!                          ▼
//!            line of the function (bounded by the wait it would mean) ── full ──▶ Refused
//!                          │ finish, release, tune ─▶ poll: reserved first, then by turns of processor time
//!                          ▼
//!                      Run │ Shed
//! ```
//! Draining order: after any input call [`Controller::poll`] until `None`.
//!
//! - **Memory** is exact: an instance has its maximum reserved before it starts, from what is kept for its function or from what all share.
//! - **Slots**: invocations at a time, between the number of processors and sixteen times that; the [`Tuner`] moves the limit. One that
//!   waits for the host, and so for no processor, gives its slot up meanwhile and goes on without asking; more of them are bounded by
//!   memory. A function of which none runs may start one beyond the limit, so that nobody waits for what others take long for.
//! - **Waiting** is bounded by time: who would wait longer than his deadline is refused at once. A line that has stood for
//!   [`INTERVAL_US`] with waits beyond its target means overload: then the oldest are given up and the line is kept so short that what
//!   is in it starts within a bound; everyone else is refused on arrival, while the refusal is still of use to him. The bound begins at
//!   the target, is halved down to [`TURNOVER_US`] after each interval that turned many away, and doubled after each that turned away
//!   few; beyond the target the overload is over.
//! - **Turns** go round by processor time, so a function gets no more for coming more often; reserved slots go before all turns.
//!
//! Invariants: the memory that is handed out never passes what there is; a function never runs more than its concurrency; every ticket
//! is answered exactly once, with `Run` or `Shed`, unless it was given up.

mod line;
mod memory;
mod tuner;

pub use line::Share;
pub use memory::RoomId;
pub use tuner::{Change, Reason, Sample, Tuner};

use crate::Micros;
use crate::round::Round;
use line::{Line, Waiting};
use memory::Memory;
use sedge_protocol::FunctionName;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How long a line must have stood before it counts as overload, and after which it is judged again.
pub const INTERVAL_US: u64 = 100_000;
/// The shortest line in overload: what waits starts within this time or is not taken.
pub const TURNOVER_US: u64 = 5_000;
/// Most invocations of one function that wait, however long its deadline: each costs memory.
pub const WAITING_MAX: usize = 4096;

/// One that waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What becomes of an invocation that comes.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It starts, in this room.
    Run(RoomId),
    /// It waits; [`Controller::poll`] will name its ticket.
    Wait(Ticket),
    /// It is not taken.
    Refused(Refusal),
}

/// What becomes of one that waited.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It starts, in this room.
    Run(RoomId),
    /// It waited in vain.
    Shed(Refusal),
}

/// Why an invocation is not taken, and when it is worth trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refusal {
    /// Why.
    pub why: Why,
    /// How long the wait would be now, milliseconds.
    pub retry_after_ms: u64,
}

/// Why an invocation is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The function runs as often as its manifest allows, and as many wait as make sense.
    #[error("the function is at its concurrency limit")]
    Concurrency,
    /// The node has no processor time for it soon enough.
    #[error("the node is overloaded")]
    Overload,
    /// The node has no memory for it soon enough.
    #[error("the node has no memory free for another instance")]
    Memory,
    /// The function is gone.
    #[error("the function was removed")]
    Gone,
}

/// The state of admission on one node.
#[derive(Debug)]
pub struct Controller {
    lines: BTreeMap<FunctionName, Line>,
    round: Round<FunctionName>,
    memory: Memory,
    tuner: Tuner,
    cores: u32,
    /// Running and not in a reserved slot.
    in_flight: u32,
    /// Of all that run, those that wait for the host.
    resting: u32,
    /// Most that may be in flight, whether they rest or not.
    in_flight_max: u32,
    /// Lines with something to answer at once, whatever there is room for.
    gone: VecDeque<Ticket>,
    waiting: usize,
    next_ticket: u64,
}

impl Controller {
    /// A node with so many processors, so much memory for instances, and at most so many invocations at a time.
    #[must_use]
    pub fn new(cores: u32, memory_bytes: u64, slots_max: u32) -> Self {
        Self {
            lines: BTreeMap::new(),
            round: Round::default(),
            memory: Memory::new(memory_bytes),
            tuner: Tuner::new(cores, slots_max),
            cores: cores.max(1),
            in_flight: 0,
            resting: 0,
            in_flight_max: slots_max.max(1),
            gone: VecDeque::new(),
            waiting: 0,
            next_ticket: 0,
        }
    }

    /// Whether instances of this function can ever run here, beside what is reserved for others.
    #[must_use]
    pub fn fits(&self, function: &FunctionName, share: &Share) -> bool {
        let others = self
            .lines
            .iter()
            .filter(|(name, line)| *name != function && !line.closed)
            .map(|(_, line)| line.share.reserved_bytes())
            .sum::<u64>();
        others.saturating_add(share.reserved_bytes().max(share.instance_bytes)) <= self.memory.total_bytes()
    }

    /// Takes a function in, or changes what it may use.
    pub fn open(&mut self, function: &FunctionName, share: Share) {
        self.memory.reserve(function, share.reserved, share.instance_bytes);
        match self.lines.get_mut(function) {
            Some(line) => (line.share, line.closed) = (share, false),
            None => {
                self.lines.insert(function.clone(), Line::new(share));
            }
        }
        self.in_flight = self.lines.values().map(|line| line.in_flight.saturating_sub(line.share.reserved)).sum();
    }

    /// Forgets a function; those that wait for it are shed, those that run end as they will.
    pub fn close(&mut self, function: &FunctionName) {
        self.memory.reserve(function, 0, 0);
        self.round.leave(function);
        if let Some(line) = self.lines.get_mut(function) {
            self.waiting -= line.waiting.len();
            self.gone.extend(line.waiting.drain(..).map(|waiting| waiting.ticket));
            line.closed = true;
        }
        self.lines.retain(|_, line| !line.closed || line.in_flight > 0);
    }

    /// An invocation comes. `warm`: an instance waits for it, which has its memory already. `lag_us`: how late the thread that took the
    /// request is, which is a wait that no line shows.
    pub fn arrive(&mut self, function: &FunctionName, warm: bool, lag_us: u64, now: Micros) -> Arrival {
        let Some(line) = self.lines.get_mut(function).filter(|line| !line.closed) else {
            return Arrival::Refused(Refusal { why: Why::Gone, retry_after_ms: 1_000 });
        };
        line.look(now);
        let reserved = line.in_flight < line.share.reserved;
        if line.is_late(lag_us, now) && !reserved {
            return Arrival::Refused(Refusal { why: Why::Overload, retry_after_ms: lag_us.div_ceil(1_000) });
        }
        let (instance_bytes, first) = (line.share.instance_bytes, line.waiting.is_empty());
        if first
            && self.has_slot(function)
            && let Some(room) = self.memory.take(function, warm, instance_bytes)
        {
            self.start(function);
            return Arrival::Run(room);
        }
        self.line_up(function, now)
    }

    /// A call between functions comes. Its caller has a slot and does not run meanwhile, so it is not held to the limit of all: with
    /// every slot held by callers nobody would ever go on. `None`: the function's own limit is reached, or there is no memory now.
    pub fn call(&mut self, function: &FunctionName, warm: bool) -> Option<RoomId> {
        let line = self.lines.get(function).filter(|line| !line.closed && line.in_flight < line.share.concurrency)?;
        let room = self.memory.take(function, warm, line.share.instance_bytes)?;
        self.start(function);
        Some(room)
    }

    /// Whether a function runs as often as its manifest allows.
    #[must_use]
    pub fn is_full(&self, function: &FunctionName) -> bool {
        self.lines.get(function).is_some_and(|line| line.in_flight >= line.share.concurrency)
    }

    /// An invocation of `function` ended, after so much processor time and so much time in all (microseconds), if it began at all.
    /// Its room is released apart.
    pub fn finish(&mut self, function: &FunctionName, used: Option<(u64, u64)>) {
        self.round.charge(function, used.map_or(0, |(cpu_us, _)| cpu_us));
        let Some(line) = self.lines.get_mut(function) else { return };
        line.finished(used);
        if line.in_flight >= line.share.reserved {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        if line.closed && line.in_flight == 0 {
            self.lines.remove(function);
        }
    }

    /// So many of those that run wait for the host now. [`Controller::poll`] may have more to say.
    pub fn rest(&mut self, count: u32) {
        self.resting = count;
    }

    /// Those that want a processor, of what is not in a reserved slot. One that rests in a reserved slot is taken for another: that lets
    /// in too many by what is reserved at most.
    fn awake(&self) -> u32 {
        self.in_flight.saturating_sub(self.resting)
    }

    /// Room for an instance that is made ahead, out of what is kept for `function`.
    pub fn take_reserved(&mut self, function: &FunctionName) -> Option<RoomId> {
        self.memory.take_kept(function)
    }

    /// The memory of an instance is free again.
    pub fn release(&mut self, room: RoomId) {
        self.memory.give_back(room);
    }

    /// Whoever held this ticket went away.
    pub fn give_up(&mut self, function: &FunctionName, ticket: Ticket) {
        let Some(line) = self.lines.get_mut(function) else { return };
        let before = line.waiting.len();
        line.waiting.retain(|waiting| waiting.ticket != ticket);
        self.waiting -= before - line.waiting.len();
        if line.waiting.is_empty() {
            line.cleared();
            self.round.leave(function);
        }
    }

    /// The next one that waited and is answered now.
    pub fn poll(&mut self, now: Micros) -> Option<(Ticket, Verdict)> {
        if let Some(ticket) = self.gone.pop_front() {
            return Some((ticket, Verdict::Shed(Refusal { why: Why::Gone, retry_after_ms: 1_000 })));
        }
        if self.waiting == 0 {
            return None;
        }
        self.shed(now).or_else(|| self.start_next(now))
    }

    /// When to call [`poll`](Self::poll) even if nothing happens: the next one that waits may then have to be given up.
    #[must_use]
    pub fn poll_wake(&self) -> Option<Micros> {
        self.round.keys().filter_map(|name| self.lines[name].wake()).min()
    }

    /// Looks at how the last interval went and moves the limit of slots.
    pub fn tune(&mut self, sample: Sample) -> Option<Change> {
        self.tuner.tune(sample, self.awake())
    }

    /// Invocations at a time, as it is now.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.tuner.limit()
    }

    /// Invocations that run.
    #[must_use]
    pub fn running(&self) -> u32 {
        self.lines.values().map(|line| line.in_flight).sum()
    }

    /// Invocations that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Memory that is not handed out and not kept for a function, bytes.
    #[must_use]
    pub fn memory_free(&self) -> u64 {
        self.memory.free_bytes()
    }

    /// Whether somebody waits who has a slot but no memory: idle instances should give theirs back.
    #[must_use]
    pub fn wants_memory(&self) -> bool {
        self.round.keys().any(|name| self.has_slot(name) && !self.memory.has_room(name, self.lines[name].share.instance_bytes))
    }

    fn has_slot(&self, function: &FunctionName) -> bool {
        let Some(line) = self.lines.get(function) else { return false };
        // The first one of a function goes beyond the limit: it would wait for those of others, and theirs may be long.
        let slots = if line.in_flight == 0 { self.tuner.most() } else { self.tuner.limit() };
        let shared = self.awake() < slots && self.in_flight < self.in_flight_max;
        line.in_flight < line.share.concurrency && (line.in_flight < line.share.reserved || shared)
    }

    fn start(&mut self, function: &FunctionName) {
        let line = self.lines.get_mut(function).expect("only functions that are here start");
        // The first ones are in reserved slots, those above in shared ones.
        if line.in_flight >= line.share.reserved {
            self.in_flight += 1;
        }
        line.in_flight += 1;
        let more = !line.waiting.is_empty();
        if !more {
            self.round.enter(function);
        }
        self.round.take(function, more);
        self.tuner.used(self.awake());
    }

    fn line_up(&mut self, function: &FunctionName, now: Micros) -> Arrival {
        let active = self.round.len().max(1);
        let why = self.why_not(function);
        let line = self.lines.get_mut(function).expect("the caller has looked it up");
        let wait_us = line.wait_us(active, self.cores);
        if line.waiting.len() >= WAITING_MAX || wait_us > line.longest_wait_us() {
            line.turned_away();
            return Arrival::Refused(Refusal { why, retry_after_ms: wait_us.div_ceil(1_000) });
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        line.line_up(Waiting { ticket, since: now });
        self.waiting += 1;
        self.round.enter(function);
        Arrival::Wait(ticket)
    }

    /// What an invocation of the function would wait for.
    fn why_not(&self, function: &FunctionName) -> Why {
        let line = &self.lines[function];
        let at_own_limit = line.in_flight >= line.share.concurrency;
        match (at_own_limit, self.memory.has_room(function, line.share.instance_bytes)) {
            (true, _) => Why::Concurrency,
            (false, true) => Why::Overload,
            (false, false) => Why::Memory,
        }
    }

    /// One that waited too long, if there is one.
    fn shed(&mut self, now: Micros) -> Option<(Ticket, Verdict)> {
        let active = self.round.len().max(1);
        let over = |name: &&FunctionName| self.lines.get_mut(*name).is_some_and(|line| line.is_over(now, active, self.cores));
        let name = self.round.keys().find(over)?.clone();
        let why = self.why_not(&name);
        let line = self.lines.get_mut(&name)?;
        let waiting = line.waiting.pop_front()?;
        line.turned_away();
        self.waiting -= 1;
        let retry_after_ms = line.wait_us(active, self.cores).div_ceil(1_000);
        if line.waiting.is_empty() {
            line.cleared();
            self.round.leave(&name);
        }
        Some((waiting.ticket, Verdict::Shed(Refusal { why, retry_after_ms })))
    }

    fn start_next(&mut self, now: Micros) -> Option<(Ticket, Verdict)> {
        let may_start = |name: &FunctionName| self.has_slot(name) && self.memory.has_room(name, self.lines[name].share.instance_bytes);
        let in_reserve = |name: &&FunctionName| self.lines[*name].in_flight < self.lines[*name].share.reserved && may_start(name);
        let reserved = self.round.keys().find(in_reserve).cloned();
        let name = match reserved {
            Some(name) => name,
            None => {
                let may: BTreeSet<FunctionName> = self.round.keys().filter(|name| may_start(name)).cloned().collect();
                self.round.next(|name| may.contains(name))?
            }
        };
        let line = self.lines.get_mut(&name)?;
        let waiting = line.take(now)?;
        self.waiting -= 1;
        let room = self.memory.take(&name, false, line.share.instance_bytes).expect("there was room just now");
        self.start(&name);
        Some((waiting.ticket, Verdict::Run(room)))
    }
}

#[cfg(test)]
mod tests;
