//! Admission, as the controller (`sedge_node_core::controller`) decides: who starts, who waits, who is refused.
//!
//! ```text
//! arrive ─▶ Controller ─┬─ Run ───▶ (Permit, Place)
//!                       ├─ Wait ──▶ a channel, answered by whatever frees a slot or memory, or by the clock
//!                       └─ Refused
//! finish, release, tune ─▶ poll the controller until it has nothing to say ─▶ channels
//! ```
//! No decision is taken here. The lock is held for a few map operations, never across an await.

mod pressure;
#[cfg(feature = "rivals")]
mod rival;

use crate::clock;
use crate::executor;
use crate::functions::{Active, Functions};
use crate::limits::{CALL_WAIT_MAX, GATE_SAMPLE, GATE_WAKE_MIN};
use crate::supervisor::Supervisor;
use pressure::Pressure;
use sedge_node_core::controller::{Arrival, Change, Reason, Refusal, RoomId, Sample, Share, Ticket, Verdict, Why};
use sedge_node_core::{Capacity, Controller};
use sedge_protocol::local::Admission;
use sedge_protocol::{FunctionName, Manifest};
use sedge_runtime::{Engine, Rests, Usage, Warm};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// Why the limit moves.
const MOVES: [Reason; 4] = [Reason::Stretch, Reason::MemoryPressure, Reason::CpuPressure, Reason::Used];

/// What the box gives to functions. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something runs or waits: the clock of the gate has work.
    stir: Notify,
    /// Nothing ran when the clock last looked: it sleeps until it is stirred.
    asleep: AtomicBool,
    /// What guests that ended since the last sample could have run, and did.
    runnable_us: AtomicU64,
    cpu_us: AtomicU64,
    /// How often the limit moved, for each of [`MOVES`].
    moves: [AtomicU64; MOVES.len()],
    capacity: Capacity,
    /// The guests that wait for the host.
    rests: Arc<Rests>,
    #[cfg(feature = "rivals")]
    rival: Option<Arc<rival::Rival>>,
}

#[derive(Debug)]
struct State {
    controller: Controller,
    waiting: BTreeMap<Ticket, (FunctionName, oneshot::Sender<Verdict>)>,
}

/// The right to run. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Permit {
    gate: Gate,
    function: FunctionName,
    used: Option<Usage>,
    #[cfg(feature = "rivals")]
    rival: Option<rival::Started>,
}

/// Memory that is reserved. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Room {
    gate: Gate,
    id: Option<RoomId>,
}

/// Where an admitted invocation runs.
#[derive(Debug)]
pub(crate) enum Place {
    /// In memory that was reserved for it.
    Room(Room),
    /// In an instance that waited, which has its memory already.
    Warm(Warm),
}

/// One that waits; dropping it takes it out of the line.
struct InLine<'a> {
    gate: &'a Gate,
    function: &'a FunctionName,
    ticket: Ticket,
    verdict: oneshot::Receiver<Verdict>,
}

impl Gate {
    pub(crate) fn new(capacity: Capacity, rests: Arc<Rests>) -> Self {
        let controller = Controller::new(capacity.cores, capacity.memory_bytes, capacity.invocations);
        let state = Mutex::new(State { controller, waiting: BTreeMap::new() });
        let (runnable_us, cpu_us) = (AtomicU64::new(0), AtomicU64::new(0));
        let asleep = AtomicBool::new(false);
        Self(Arc::new(Shared {
            state,
            stir: Notify::new(),
            asleep,
            runnable_us,
            cpu_us,
            moves: Default::default(),
            capacity,
            rests,
            #[cfg(feature = "rivals")]
            rival: rival::Rival::chosen(capacity.cores),
        }))
    }

    /// What the gate hands out.
    pub(crate) fn capacity(&self) -> Capacity {
        self.0.capacity
    }

    /// Whether instances of this size, and what the manifest reserves, have room beside what is reserved for others.
    pub(crate) fn fits(&self, manifest: &Manifest, instance_bytes: u64) -> bool {
        self.state().controller.fits(&manifest.name, &share(manifest, instance_bytes))
    }

    /// Takes a revision in.
    pub(crate) fn open(&self, manifest: &Manifest, instance_bytes: u64) {
        self.state().controller.open(&manifest.name, share(manifest, instance_bytes));
        self.settle();
    }

    /// Forgets a function.
    pub(crate) fn close(&self, function: &FunctionName) {
        self.state().controller.close(function);
        self.settle();
    }

    /// The numbers now.
    pub(crate) fn gauge(&self) -> Admission {
        let state = self.state();
        let controller = &state.controller;
        Admission {
            limit: controller.limit(),
            running: controller.running(),
            waiting: controller.waiting() as u64,
            memory_free_bytes: controller.memory_free(),
        }
    }

    /// How often the limit moved, by reason.
    pub(crate) fn moves(&self) -> impl Iterator<Item = (&'static str, u64)> {
        MOVES.into_iter().zip(&self.0.moves).map(|(reason, count)| (reason.as_str(), count.load(Relaxed)))
    }

    /// Waits for a slot and for memory, as long as the controller finds it sensible.
    ///
    /// Cancel safe: what was reserved is given back, and the place in line is given up.
    pub(crate) async fn admit(&self, active: &Active) -> Result<(Permit, Place), Refusal> {
        let function = active.name();
        #[cfg(feature = "rivals")]
        if let Some(rival) = &self.0.rival {
            let permit = Permit { gate: self.clone(), function: function.clone(), used: None, rival: Some(rival.admit().await?) };
            return Ok((permit, Place::Room(Room { gate: self.clone(), id: None })));
        }
        let warm = active.function.warm();
        let lag_us = executor::lag_us();
        let line = {
            let mut state = self.state();
            state.controller.rest(self.0.rests.count());
            match state.controller.arrive(function, warm.is_some(), lag_us, clock::micros()) {
                Arrival::Run(room) => {
                    drop(state);
                    self.stir();
                    return Ok(self.admitted(function, room, warm));
                }
                Arrival::Refused(refusal) => {
                    drop(state);
                    active.function.put_back(warm);
                    return Err(refusal);
                }
                Arrival::Wait(ticket) => {
                    let (sender, verdict) = oneshot::channel();
                    self.0.rests.watch(true);
                    state.waiting.insert(ticket, (function.clone(), sender));
                    InLine { gate: self, function, ticket, verdict }
                }
            }
        };
        // Others may want its memory while this one waits.
        active.function.put_back(warm);
        // The clock may have planned a later look.
        self.0.stir.notify_one();
        let room = line.verdict().await?;
        Ok(self.admitted(function, room, active.function.warm()))
    }

    /// Admits a call between functions: at once where there is memory, whatever the limit of all is; else it waits like everybody, but
    /// not for long, because its caller holds memory meanwhile.
    ///
    /// Cancel safe, as [`Gate::admit`].
    pub(crate) async fn admit_called(&self, active: &Active) -> Result<(Permit, Place), Refusal> {
        let function = active.name();
        let warm = active.function.warm();
        let room = self.state().controller.call(function, warm.is_some());
        if let Some(room) = room {
            self.stir();
            return Ok(self.admitted(function, room, warm));
        }
        active.function.put_back(warm);
        let waited = tokio::time::timeout(CALL_WAIT_MAX, self.admit(active)).await;
        waited.unwrap_or_else(|_| {
            let why = if self.is_full(function) { Why::Concurrency } else { Why::Overload };
            Err(Refusal { why, retry_after_ms: 1_000 })
        })
    }

    /// Whether a function runs as often as its manifest allows.
    pub(crate) fn is_full(&self, function: &FunctionName) -> bool {
        self.state().controller.is_full(function)
    }

    fn admitted(&self, function: &FunctionName, room: RoomId, warm: Option<Warm>) -> (Permit, Place) {
        let permit = Permit {
            gate: self.clone(),
            function: function.clone(),
            used: None,
            #[cfg(feature = "rivals")]
            rival: None,
        };
        let room = Room { gate: self.clone(), id: Some(room) };
        // With a warm instance the room that was taken for it goes back at once: it has its own.
        (permit, warm.map_or_else(|| Place::Room(room), Place::Warm))
    }

    /// Room for an instance that is made ahead for a reserved slot, if its reserve has any left.
    pub(crate) fn reserve(&self, function: &FunctionName) -> Option<Room> {
        let id = self.state().controller.take_reserved(function)?;
        Some(Room { gate: self.clone(), id: Some(id) })
    }

    fn stir(&self) {
        if self.0.asleep.load(Relaxed) {
            self.0.stir.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers everyone about whom the controller has decided.
    fn settle(&self) {
        let mut late = Vec::new();
        let mut state = self.state();
        state.controller.rest(self.0.rests.count());
        while let Some((ticket, verdict)) = state.controller.poll(clock::micros()) {
            if let Some((function, sender)) = state.waiting.remove(&ticket)
                && let Err(Verdict::Run(id)) = sender.send(verdict)
            {
                late.push((function, id));
            }
        }
        self.0.rests.watch(state.controller.waiting() > 0);
        drop(state);
        // Those went away in the same moment: what they would have got goes back, outside the lock.
        for (function, id) in late {
            drop(self.admitted(&function, id, None));
        }
    }

    /// Runs until the daemon stops: sheds who waits in vain, moves the limit, takes memory back from idle instances.
    pub(crate) async fn run(self, functions: Functions, engine: Engine, supervisor: Supervisor) -> anyhow::Result<()> {
        let mut pressure = Pressure::open();
        let mut sampled = tokio::time::Instant::now();
        loop {
            let wake = self.state().controller.poll_wake();
            // One look more after the last invocation, for its sample.
            let busy = wake.is_some() || self.state().controller.running() > 0 || self.0.cpu_us.load(Relaxed) > 0;
            #[cfg(feature = "rivals")]
            let busy = busy || self.0.rival.is_some();
            self.0.asleep.store(!busy, Relaxed);
            let pause = match wake {
                Some(at) => Duration::from_micros(at.0.saturating_sub(clock::micros().0)).clamp(GATE_WAKE_MIN, GATE_SAMPLE),
                None => GATE_SAMPLE,
            };
            tokio::select! {
                () = supervisor.stop().cancelled() => return Ok(()),
                () = self.0.stir.notified() => {}
                () = self.0.rests.more() => {}
                () = tokio::time::sleep(pause), if busy => {}
            }
            self.settle();
            self.make_room(&functions, &engine);
            if sampled.elapsed() >= GATE_SAMPLE {
                sampled = tokio::time::Instant::now();
                self.tune(&mut pressure);
            }
        }
    }

    /// Idle instances make way for those that wait for memory.
    fn make_room(&self, functions: &Functions, engine: &Engine) {
        let tight = self.state().controller.wants_memory();
        engine.set_tight(tight);
        if tight {
            for active in functions.table().active.values() {
                active.function.release(active.assignment.manifest.limits.reserved as usize);
            }
        }
    }

    fn tune(&self, pressure: &mut Pressure) {
        let (runnable, cpu) = (self.0.runnable_us.swap(0, Relaxed), self.0.cpu_us.swap(0, Relaxed));
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        let stretch = (cpu > 0).then(|| runnable as f64 / cpu as f64);
        let (memory_pressure, cpu_pressure) = pressure.sample();
        #[cfg(feature = "rivals")]
        if let Some(rival) = &self.0.rival {
            rival.tick(stretch.unwrap_or(1.0), cpu_pressure);
        }
        let sample = Sample { stretch, memory_pressure, cpu_pressure };
        let change = self.state().controller.tune(sample);
        if let Some(Change { from, to, reason }) = change {
            if let Some(at) = MOVES.iter().position(|known| *known == reason) {
                self.0.moves[at].fetch_add(1, Relaxed);
            }
            log::info!(from, to, reason = reason.as_str(); "limit of invocations moved");
            self.settle();
        }
    }
}

fn share(manifest: &Manifest, instance_bytes: u64) -> Share {
    let limits = &manifest.limits;
    Share {
        concurrency: limits.concurrency,
        reserved: limits.reserved,
        instance_bytes,
        timeout_us: limits.timeout_ms.saturating_mul(1_000),
    }
}

impl InLine<'_> {
    async fn verdict(mut self) -> Result<RoomId, Refusal> {
        match (&mut self.verdict).await {
            Ok(Verdict::Run(room)) => Ok(room),
            Ok(Verdict::Shed(refusal)) => Err(refusal),
            Err(_) => unreachable!("the gate answers every ticket"),
        }
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        let waited = state.waiting.remove(&self.ticket).is_some();
        if waited {
            state.controller.give_up(self.function, self.ticket);
        }
        drop(state);
        // An answer that came while this was given up.
        if let Ok(Verdict::Run(id)) = self.verdict.try_recv() {
            drop(self.gate.admitted(self.function, id, None));
        }
    }
}

impl Permit {
    /// The guest is gone, and this is what it used.
    pub(crate) fn used(mut self, usage: Usage) {
        self.used = Some(usage);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let shared = &self.gate.0;
        #[cfg(feature = "rivals")]
        if let Some(mut started) = self.rival.take() {
            started.used = self.used;
            return;
        }
        let mut state = self.gate.state();
        state.controller.finish(&self.function, self.used.map(|usage| (usage.cpu_us, usage.wall_us)));
        let waits = state.controller.waiting() > 0;
        drop(state);
        if let Some(usage) = self.used {
            shared.runnable_us.fetch_add(usage.runnable_us, Relaxed);
            shared.cpu_us.fetch_add(usage.cpu_us, Relaxed);
        }
        if waits {
            self.gate.settle();
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let mut state = self.gate.state();
        state.controller.release(id);
        let waits = state.controller.waiting() > 0;
        drop(state);
        if waits {
            self.gate.settle();
        }
    }
}

#[cfg(test)]
mod tests;
