//! The ways to limit concurrency that are compared: ours, and four that others use.

use super::box_model::{Load, Policy, Request, Say};
use sedge_node_core::controller::{Arrival, RoomId, Sample, Share, Ticket, Verdict};
use sedge_node_core::{Controller, Micros};
use sedge_protocol::FunctionName;
use std::collections::{BTreeMap, VecDeque};

const MIB: u64 = 1024 * 1024;

/// The controller of a node.
pub(crate) struct Ours {
    controller: Controller,
    names: Vec<FunctionName>,
    waiting: BTreeMap<Ticket, Request>,
    rooms: BTreeMap<Request, RoomId>,
    sampled_us: u64,
}

impl Ours {
    pub(crate) fn new(cores: u32, memory_mib: u64, loads: &[Load]) -> Self {
        let mut controller = Controller::new(cores, memory_mib * MIB, 1000);
        let names: Vec<FunctionName> = loads.iter().map(|load| load.name.parse().expect("loads have names of functions")).collect();
        for (name, load) in names.iter().zip(loads) {
            let share = Share { concurrency: 1000, reserved: 0, instance_bytes: load.instance_mib * MIB, timeout_us: load.timeout_us };
            controller.open(name, share);
        }
        Self { controller, names, waiting: BTreeMap::new(), rooms: BTreeMap::new(), sampled_us: 0 }
    }

    fn poll(&mut self, now_us: u64) -> Vec<Say> {
        let mut says = Vec::new();
        while let Some((ticket, verdict)) = self.controller.poll(Micros(now_us)) {
            let request = self.waiting.remove(&ticket).expect("each ticket is answered once");
            says.push(match verdict {
                Verdict::Run(room) => {
                    self.rooms.insert(request, room);
                    Say::Start(request)
                }
                Verdict::Shed(_) => Say::Refuse(request),
            });
        }
        says
    }
}

impl Policy for Ours {
    fn arrive(&mut self, request: Request, now_us: u64) -> Vec<Say> {
        let mut says = match self.controller.arrive(&self.names[request.load], false, 0, Micros(now_us)) {
            Arrival::Run(room) => {
                self.rooms.insert(request, room);
                vec![Say::Start(request)]
            }
            Arrival::Wait(ticket) => {
                self.waiting.insert(ticket, request);
                Vec::new()
            }
            Arrival::Refused(_) => vec![Say::Refuse(request)],
        };
        says.extend(self.poll(now_us));
        says
    }

    fn finish(&mut self, request: Request, cpu_us: u64, wall_us: u64, now_us: u64) -> Vec<Say> {
        self.controller.finish(&self.names[request.load], Some((cpu_us, wall_us)));
        self.controller.release(self.rooms.remove(&request).expect("what runs has a room"));
        self.poll(now_us)
    }

    fn tick(&mut self, now_us: u64, stretch: f64, pressure: f64) -> Vec<Say> {
        if now_us - self.sampled_us.min(now_us) >= 250_000 || now_us < self.sampled_us {
            self.sampled_us = now_us;
            self.controller.tune(Sample { stretch: Some(stretch), memory_pressure: 0.0, cpu_pressure: pressure });
        }
        self.poll(now_us)
    }
}

/// Everything starts at once.
#[derive(Default)]
pub(crate) struct Unlimited;

impl Policy for Unlimited {
    fn arrive(&mut self, request: Request, _: u64) -> Vec<Say> {
        vec![Say::Start(request)]
    }

    fn finish(&mut self, _: Request, _: u64, _: u64, _: u64) -> Vec<Say> {
        Vec::new()
    }

    fn tick(&mut self, _: u64, _: f64, _: f64) -> Vec<Say> {
        Vec::new()
    }
}

/// A number of slots and a line in order of arrival, as long again as there are slots.
pub(crate) struct Fixed {
    limit: usize,
    running: usize,
    line: VecDeque<Request>,
}

impl Fixed {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, running: 0, line: VecDeque::new() }
    }

    fn start_next(&mut self) -> Vec<Say> {
        let mut says = Vec::new();
        while self.running < self.limit {
            let Some(request) = self.line.pop_front() else { break };
            self.running += 1;
            says.push(Say::Start(request));
        }
        says
    }
}

impl Policy for Fixed {
    fn arrive(&mut self, request: Request, _: u64) -> Vec<Say> {
        if self.line.len() >= 64 {
            return vec![Say::Refuse(request)];
        }
        self.line.push_back(request);
        self.start_next()
    }

    fn finish(&mut self, _: Request, _: u64, _: u64, _: u64) -> Vec<Say> {
        self.running -= 1;
        self.start_next()
    }

    fn tick(&mut self, _: u64, _: f64, _: f64) -> Vec<Say> {
        self.start_next()
    }
}

/// Slots that follow the ratio of a long to a short average of the time that requests take.
pub(crate) struct Gradient2 {
    slots: Fixed,
    limit: f64,
    long_us: f64,
}

impl Default for Gradient2 {
    fn default() -> Self {
        Self { slots: Fixed::new(20), limit: 20.0, long_us: 0.0 }
    }
}

impl Policy for Gradient2 {
    fn arrive(&mut self, request: Request, now_us: u64) -> Vec<Say> {
        self.slots.arrive(request, now_us)
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a model with fractions")]
    fn finish(&mut self, request: Request, cpu_us: u64, wall_us: u64, now_us: u64) -> Vec<Say> {
        let short_us = wall_us.max(1) as f64;
        self.long_us = if self.long_us == 0.0 { short_us } else { self.long_us * (1.0 - 1.0 / 600.0) + short_us / 600.0 };
        if self.long_us / short_us > 2.0 {
            self.long_us *= 0.95;
        }
        if self.slots.running as f64 >= self.limit / 2.0 {
            let gradient = (1.5 * self.long_us / short_us).clamp(0.5, 1.0);
            let wanted = self.limit * gradient + 4.0;
            self.limit = (self.limit * 0.8 + wanted * 0.2).clamp(20.0, 200.0);
            self.slots.limit = self.limit as usize;
        }
        self.slots.finish(request, cpu_us, wall_us, now_us)
    }

    fn tick(&mut self, now_us: u64, stretch: f64, pressure: f64) -> Vec<Say> {
        self.slots.tick(now_us, stretch, pressure)
    }
}

/// Slots that shrink while somebody waits for a processor, and grow while nobody does.
pub(crate) struct PressureOnly {
    slots: Fixed,
    cores: usize,
    sampled_us: u64,
}

impl PressureOnly {
    pub(crate) fn new(cores: u32) -> Self {
        Self { slots: Fixed::new(16), cores: cores as usize, sampled_us: 0 }
    }
}

impl Policy for PressureOnly {
    fn arrive(&mut self, request: Request, now_us: u64) -> Vec<Say> {
        self.slots.arrive(request, now_us)
    }

    fn finish(&mut self, request: Request, cpu_us: u64, wall_us: u64, now_us: u64) -> Vec<Say> {
        self.slots.finish(request, cpu_us, wall_us, now_us)
    }

    fn tick(&mut self, now_us: u64, stretch: f64, pressure: f64) -> Vec<Say> {
        if now_us - self.sampled_us.min(now_us) >= 250_000 || now_us < self.sampled_us {
            self.sampled_us = now_us;
            let limit = self.slots.limit;
            self.slots.limit = if pressure > 0.4 { limit * 4 / 5 } else { limit + 1 }.clamp(self.cores, self.cores * 16);
        }
        self.slots.tick(now_us, stretch, pressure)
    }
}
