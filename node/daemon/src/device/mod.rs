//! Devices of the node: what they say becomes events on `device/<name>`, what is published on `device/<name>/set` is written to them.
//!
//! ```text
//! GPIO line ─▶ Edges ──┐                                ┌─▶ functions, MQTT clients
//! serial line ─▶ Framer ┴─▶ Port ─▶ bus, device/<name> ─┘
//!      ▲                                 bus, device/<name>/set ─▶ Board ─▶ bounded line ─┐
//!      └──────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! A task each, for the life of the daemon: it takes its device, reads until that is gone, and tries again. A device never stops the node.

mod away;
mod board;
mod gpio;
mod serial;
mod settings;
mod watched;

pub(crate) use board::Board;
pub(crate) use settings::{Device, read};

use crate::bus::{BusHandle, Publication};
use crate::clock;
use crate::supervisor::Supervisor;
use away::Away;
use board::Shown;
use sedge_node_core::device::Patience;
use sedge_node_core::{Mono, Wall};
use sedge_protocol::Event;
use settings::Kind;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;

/// All devices, shown and not yet started.
#[derive(Debug)]
pub(crate) struct Devices {
    pub(crate) board: Board,
    waiting: Vec<(Device, Arc<Shown>, mpsc::Receiver<Vec<u8>>)>,
}

impl Devices {
    /// The devices of the configuration.
    pub(crate) fn new(devices: &[Device]) -> Self {
        let waiting: Vec<_> = devices
            .iter()
            .map(|device| {
                let (shown, sets) = Shown::of(device);
                (device.clone(), Arc::new(shown), sets)
            })
            .collect();
        Self { board: Board::new(waiting.iter().map(|(_, shown, _)| Arc::clone(shown)).collect()), waiting }
    }

    /// Takes them.
    pub(crate) fn start(self, bus: &BusHandle, supervisor: &Supervisor) {
        for (device, shown, sets) in self.waiting {
            let port = Port { shown, bus: bus.clone(), sets, run: rand::random(), told: 0 };
            supervisor.service("device", run(device, port, supervisor.clone()));
        }
    }
}

/// The way of one device to the bus, and from it.
struct Port {
    shown: Arc<Shown>,
    bus: BusHandle,
    /// What is to be written.
    sets: mpsc::Receiver<Vec<u8>>,
    /// Makes event ids differ between runs of the daemon.
    run: u32,
    told: u64,
}

/// What an event of a device says.
struct Told {
    kind: &'static str,
    at: Wall,
    content_type: &'static str,
    data: Vec<u8>,
}

impl Port {
    /// The device has been taken.
    fn ready(&mut self) {
        // What was meant for the device as it was before is late by now.
        while self.sets.try_recv().is_ok() {
            self.shown.unwritten.fetch_add(1, Ordering::Relaxed);
        }
        if self.shown.trouble.send_replace(None).is_some() {
            log::info!(device:% = self.shown.name; "device ready");
        }
    }

    fn away(&self, reason: &Away) {
        let reason = reason.to_string();
        let changed = |before: &mut Option<String>| {
            let changed = before.as_ref() != Some(&reason);
            *before = Some(reason.clone());
            changed
        };
        if self.shown.trouble.send_if_modified(changed) {
            log::warn!(device:% = self.shown.name, reason; "device away");
        }
    }

    fn tell(&mut self, told: Told) {
        self.told += 1;
        let event = Event {
            id: format!("device-{:08x}-{}", self.run, self.told),
            source: format!("/device/{}", self.shown.name),
            kind: told.kind.to_owned(),
            time_ms: Some(told.at.0),
            topic: self.shown.topic.clone(),
            content_type: Some(told.content_type.to_owned()),
            extensions: BTreeMap::new(),
            data: told.data,
        };
        let publication = Publication { event, kept: false, fan_out: true, only: None, letter: None, answer: None };
        match self.bus.publish(publication) {
            Ok(()) => self.shown.events.fetch_add(1, Ordering::Relaxed),
            Err(_refused) => self.shown.lost.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// Takes the device again and again until the daemon stops.
async fn run(device: Device, mut port: Port, supervisor: Supervisor) -> anyhow::Result<()> {
    let mut patience = Patience::default();
    loop {
        let mut ready_since = None;
        let reason = tokio::select! {
            () = supervisor.stop().cancelled() => return Ok(()),
            reason = session(&device, &mut port, &mut ready_since) => reason,
        };
        port.away(&reason);
        let worked = ready_since.map_or(Duration::ZERO, |since: Mono| since.until(clock::mono()));
        tokio::select! {
            () = supervisor.stop().cancelled() => return Ok(()),
            () = tokio::time::sleep(patience.handle_end(worked)) => {}
        }
    }
}

/// Takes the device and reads until it is gone. Cancel safe: what had begun on the device is given up with it.
async fn session(device: &Device, port: &mut Port, ready_since: &mut Option<Mono>) -> Away {
    match &device.kind {
        Kind::Gpio(gpio) => match gpio::open(gpio.clone()).await {
            Ok(line) => {
                port.ready();
                *ready_since = Some(clock::mono());
                gpio::follow(line, port).await
            }
            Err(away) => away,
        },
        Kind::Serial(serial) => match serial::open(serial.clone()).await {
            Ok(line) => {
                port.ready();
                *ready_since = Some(clock::mono());
                serial::follow(line, serial, port).await
            }
            Err(away) => away,
        },
    }
}

/// Sleeps until a moment; for ever without one.
async fn sleep_until(at: Option<Mono>) {
    match at {
        Some(at) => tokio::time::sleep_until(clock::instant(at)).await,
        None => std::future::pending().await,
    }
}
