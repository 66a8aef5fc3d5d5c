//! A box with processors that are shared evenly among what was started.

use sedge_node_core::rivals::{Policy, Say};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One function's requests.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) name: &'static str,
    /// Processor time of one, microseconds.
    pub(crate) cpu_us: u64,
    pub(crate) instance_mib: u64,
    pub(crate) timeout_us: u64,
    pub(crate) per_second: f64,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Request {
    pub(crate) id: u64,
    /// Which load it is of.
    pub(crate) load: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    seconds: f64,
    capacity_us: f64,
    done: BTreeMap<&'static str, u64>,
    /// Processor time of what was done in time.
    useful_us: u64,
    latencies_us: Vec<u64>,
    refusals_us: Vec<u64>,
    offered: u64,
    pub(crate) memory_peak_mib: u64,
}

impl Outcome {
    /// Share of the box's processor time that went into answers in time.
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    pub(crate) fn useful_share(&self) -> f64 {
        self.useful_us as f64 / self.capacity_us
    }

    /// Answers in time a second.
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    pub(crate) fn goodput(&self, name: &str) -> f64 {
        self.done.get(name).copied().unwrap_or(0) as f64 / self.seconds
    }

    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    pub(crate) fn refused_share(&self) -> f64 {
        self.refusals_us.len() as f64 / self.offered.max(1) as f64
    }

    pub(crate) fn p99_us(&self) -> u64 {
        percentile(&self.latencies_us)
    }

    pub(crate) fn refused_p99_us(&self) -> u64 {
        percentile(&self.refusals_us)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "useful {:5.1} %  p99 {:>7} µs  refused {:5.1} % after p99 {:>6} µs  victim {:>5.1}/s  memory {} MiB",
            self.useful_share() * 100.0,
            self.p99_us(),
            self.refused_share() * 100.0,
            self.refused_p99_us(),
            self.goodput("victim"),
            self.memory_peak_mib
        )
    }
}

fn percentile(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) * 99 / 100).copied().unwrap_or(0)
}

const PHASE_US: u64 = 10_000_000;
/// The first seconds of the last phase are not counted.
const WARM_UP_US: u64 = 3_000_000;
const TICK_US: u64 = 1_000;
const SAMPLE_US: u64 = 250_000;

struct Running {
    came_us: u64,
    started_us: u64,
    left_us: f64,
}

/// A generator of numbers between 0 and 1, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        #[expect(clippy::cast_precision_loss, reason = "53 bits are enough")]
        let number = (self.0 >> 11) as f64 / (1_u64 << 53) as f64;
        number.max(1e-12)
    }
}

/// Runs phases of loads against a policy; what came after the first seconds of the last phase is the outcome. Requests come at random,
/// independent of each other; one that is not done by its deadline is given up.
pub(crate) fn simulate(policy: &mut impl Policy<Request>, cores: u32, phases: &[&[Load]], seed: u64) -> Outcome {
    let last_us = (phases.len() as u64 - 1) * PHASE_US;
    let mut world = World::new(f64::from(cores), phases[0], last_us + WARM_UP_US);
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut now_us = 0;
    for loads in phases {
        world.loads = loads;
        let mut next: BTreeSet<(u64, usize)> = loads.iter().enumerate().map(|(load, of)| (now_us + gap_us(&mut dice, of), load)).collect();
        let end_us = now_us + PHASE_US;
        while now_us < end_us {
            // All that comes within this tick, in its order, then the processors work for the rest of it.
            while let Some(&(at, load)) = next.first().filter(|(at, _)| *at < now_us + TICK_US) {
                next.remove(&(at, load));
                next.insert((at + gap_us(&mut dice, &loads[load]).max(1), load));
                let request = world.come(load, at);
                let says = policy.arrive(request, at);
                world.obey(says, at);
            }
            world.work(policy, now_us);
            now_us += TICK_US;
            let (stretch, pressure) = world.sample(now_us);
            let says = policy.tick(now_us, stretch, pressure);
            world.obey(says, now_us);
        }
    }
    world.outcome
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time in microseconds")]
fn gap_us(dice: &mut Dice, load: &Load) -> u64 {
    (-dice.roll().ln() * 1e6 / load.per_second) as u64
}

struct World<'a> {
    cores: f64,
    loads: &'a [Load],
    running: BTreeMap<Request, Running>,
    came: BTreeMap<Request, u64>,
    outcome: Outcome,
    runnable_us: f64,
    used_us: f64,
    pressed_us: u64,
    last: (f64, f64),
    sampled_us: u64,
    counted_from_us: u64,
    next_id: u64,
}

impl<'a> World<'a> {
    #[expect(clippy::cast_precision_loss, reason = "a time")]
    fn new(cores: f64, loads: &'a [Load], counted_from_us: u64) -> Self {
        let seconds = (PHASE_US - WARM_UP_US) as f64 / 1e6;
        let outcome = Outcome { seconds, capacity_us: seconds * 1e6 * cores, ..Outcome::default() };
        Self {
            cores,
            loads,
            running: BTreeMap::new(),
            came: BTreeMap::new(),
            outcome,
            counted_from_us,
            next_id: 0,
            runnable_us: 0.0,
            used_us: 0.0,
            pressed_us: 0,
            last: (1.0, 0.0),
            sampled_us: 0,
        }
    }

    fn come(&mut self, load: usize, at: u64) -> Request {
        let request = Request { id: self.next_id, load };
        self.next_id += 1;
        self.came.insert(request, at);
        self.outcome.offered += u64::from(at >= self.counted_from_us);
        request
    }

    #[expect(clippy::cast_precision_loss, reason = "a time")]
    fn obey(&mut self, says: Vec<Say<Request>>, now_us: u64) {
        for say in says {
            match say {
                Say::Start(request) => {
                    let came_us = self.came.remove(&request).expect("it came and was not answered");
                    let left_us = self.loads[request.load].cpu_us as f64;
                    self.running.insert(request, Running { came_us, started_us: now_us, left_us });
                    let memory = self.running.keys().map(|request| self.loads[request.load].instance_mib).sum();
                    self.outcome.memory_peak_mib = self.outcome.memory_peak_mib.max(memory);
                }
                Say::Refuse(request) => {
                    let came_us = self.came.remove(&request).expect("it came and was not answered");
                    if came_us >= self.counted_from_us {
                        self.outcome.refusals_us.push(now_us.saturating_sub(came_us));
                    }
                }
            }
        }
    }

    /// One tick of the processors, shared evenly; what ends makes way at once.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "times in microseconds")]
    fn work(&mut self, policy: &mut impl Policy<Request>, now_us: u64) {
        let mut passed = 0.0;
        while passed < TICK_US as f64 && !self.running.is_empty() {
            let count = self.running.len() as f64;
            let rate = (self.cores / count).min(1.0);
            let least = self.running.values().map(|running| running.left_us).fold(f64::MAX, f64::min);
            let step = (least / rate).max(1.0).min(TICK_US as f64 - passed);
            passed += step;
            self.runnable_us += step * count;
            self.used_us += step * rate * count;
            self.pressed_us += if count > self.cores { step as u64 } else { 0 };
            let at = now_us + passed as u64;
            let mut ended = Vec::new();
            for (request, running) in &mut self.running {
                running.left_us -= step * rate;
                if running.left_us <= 0.5 || at.saturating_sub(running.came_us) >= self.loads[request.load].timeout_us {
                    ended.push(*request);
                }
            }
            for request in ended {
                let running = self.running.remove(&request).expect("it was found just now");
                self.end(request, &running, at);
                let used = self.loads[request.load].cpu_us as f64 - running.left_us.max(0.0);
                let says = policy.finish(request, used as u64, at - running.started_us.min(at), at);
                self.obey(says, at);
            }
        }
    }

    fn end(&mut self, request: Request, running: &Running, at: u64) {
        let load = &self.loads[request.load];
        let latency_us = at.saturating_sub(running.came_us);
        if running.came_us >= self.counted_from_us && running.left_us <= 0.5 && latency_us < load.timeout_us {
            *self.outcome.done.entry(load.name).or_default() += 1;
            self.outcome.useful_us += load.cpu_us;
            self.outcome.latencies_us.push(latency_us);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "ratios")]
    fn sample(&mut self, now_us: u64) -> (f64, f64) {
        if now_us - self.sampled_us >= SAMPLE_US {
            self.last = (self.runnable_us / self.used_us.max(1.0), self.pressed_us as f64 / (now_us - self.sampled_us) as f64);
            (self.runnable_us, self.used_us, self.pressed_us, self.sampled_us) = (0.0, 0.0, 0, now_us);
        }
        self.last
    }
}
