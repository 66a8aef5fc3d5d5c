//! The controller of a node as one of the policies that are compared; the others are in `rivals`.

use super::box_model::{Load, Request};
use sedge_node_core::controller::{Arrival, RoomId, Sample, Share, Ticket, Verdict};
use sedge_node_core::rivals::{Policy, Say as SayOf};
use sedge_node_core::{Controller, Micros};
use sedge_protocol::FunctionName;
use std::collections::BTreeMap;

const MIB: u64 = 1024 * 1024;

type Say = SayOf<Request>;

/// The controller of a node.
#[derive(Debug)]
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

impl Policy<Request> for Ours {
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
