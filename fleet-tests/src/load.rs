//! Sensors and listeners: independent MQTT clients.

use anyhow::{Context as _, Result};
use rumqttc::{Client, Event, MqttOptions, Outgoing, Packet, QoS};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Events on the way to the broker without an acknowledgement.
const INFLIGHT_MAX: usize = 16;
/// Larger than any packet of the broker.
const PACKET_BYTES_MAX: usize = 512 * 1024;
/// How long the client listens between two looks at its orders.
const LISTEN: Duration = Duration::from_millis(10);

/// Makes the event with a number: topic and data.
pub type Make = fn(u64) -> (String, String);

/// Publishes numbered events with QoS 1 at a steady pace, through every restart of the broker, until told to stop.
/// An event without an acknowledgement is published again after a reconnect; one with it never is.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    address: Mutex<Option<SocketAddr>>,
    acknowledged: Mutex<BTreeSet<u64>>,
    published: AtomicU64,
    stopped: AtomicBool,
}

impl Load {
    /// Starts towards `address`, one event every `pace`.
    #[must_use]
    pub fn start(address: SocketAddr, pace: Duration, make: Make) -> Self {
        let shared = Arc::new(Shared::default());
        let publisher = Publisher { shared: Arc::clone(&shared), pace, make, next: 0, again: VecDeque::new() };
        let load = Self { shared, thread: Some(thread::spawn(|| publisher.run())) };
        load.aim(Some(address));
        load
    }

    /// Publishes to another address from the next connection on, or nowhere.
    pub fn aim(&self, address: Option<SocketAddr>) {
        *lock(&self.shared.address) = address;
    }

    /// Number of acknowledged events.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        lock(&self.shared.acknowledged).len()
    }

    /// Number of times that an event was published, repetitions included.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.shared.published.load(Ordering::Relaxed)
    }

    /// Stops publishing, waits until everything published is acknowledged, and says which were.
    ///
    /// # Errors
    /// When the publisher failed.
    pub fn stop(mut self) -> Result<BTreeSet<u64>> {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stopped twice")?;
        crate::until("the publisher ends", || Ok(thread.is_finished().then_some(())))?;
        thread.join().map_err(|_| anyhow::anyhow!("the publisher panicked"))?;
        Ok(lock(&self.shared.acknowledged).clone())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.aim(None);
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

struct Publisher {
    shared: Arc<Shared>,
    pace: Duration,
    make: Make,
    next: u64,
    /// Published on an earlier connection and not acknowledged.
    again: VecDeque<u64>,
}

impl Publisher {
    fn run(mut self) {
        loop {
            let address = *lock(&self.shared.address);
            match address {
                Some(address) => self.connection(address),
                None if self.is_stopped() => return,
                None => thread::park_timeout(LISTEN),
            }
            if self.is_stopped() && self.again.is_empty() {
                return;
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::Relaxed)
    }

    /// One connection from its begin until it breaks or all is done.
    fn connection(&mut self, address: SocketAddr) {
        let (client, events) = connect("load", address);
        let mut flight = Flight::default();
        let mut due = Instant::now();
        loop {
            let done = self.is_stopped() && self.again.is_empty();
            if done && flight.is_empty() {
                drop(client.try_disconnect());
                return;
            }
            if !done && Instant::now() >= due && flight.len() < INFLIGHT_MAX {
                let number = self.number();
                let (topic, data) = (self.make)(number);
                if client.try_publish(topic, QoS::AtLeastOnce, false, data).is_ok() {
                    self.shared.published.fetch_add(1, Ordering::Relaxed);
                    flight.queued.push_back(number);
                } else {
                    self.again.push_front(number);
                }
                due = Instant::now() + self.pace;
            }
            match events.recv_timeout(LISTEN.min(self.pace)) {
                Ok(event) => self.note(&mut flight, &event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.again.extend(flight.numbers());
                    thread::park_timeout(LISTEN);
                    return;
                }
            }
        }
    }

    fn number(&mut self) -> u64 {
        self.again.pop_front().unwrap_or_else(|| {
            self.next += 1;
            self.next
        })
    }

    fn note(&mut self, flight: &mut Flight, event: &Event) {
        match event {
            Event::Outgoing(Outgoing::Publish(packet)) => {
                if let Some(number) = flight.queued.pop_front() {
                    flight.sent.insert(*packet, number);
                }
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                if let Some(number) = flight.sent.remove(&ack.pkid) {
                    lock(&self.shared.acknowledged).insert(number);
                }
            }
            Event::Outgoing(_) | Event::Incoming(_) => {}
        }
    }
}

/// What is on the way on one connection.
#[derive(Debug, Default)]
struct Flight {
    /// Given to the client, in order.
    queued: VecDeque<u64>,
    /// Written, by packet identifier.
    sent: BTreeMap<u16, u64>,
}

impl Flight {
    fn len(&self) -> usize {
        self.queued.len() + self.sent.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn numbers(&self) -> impl Iterator<Item = u64> {
        self.sent.values().chain(&self.queued).copied()
    }
}

/// Receives what is published on a filter, with QoS 1.
pub struct Subscriber {
    received: Arc<Mutex<Vec<(String, String)>>>,
    client: Client,
}

impl std::fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscriber").field("received", &lock(&self.received).len()).finish_non_exhaustive()
    }
}

impl Subscriber {
    /// Subscribes; when this returns, the broker has confirmed it.
    ///
    /// # Errors
    /// When it does not confirm.
    pub fn start(address: SocketAddr, filter: &str) -> Result<Self> {
        let (client, events) = connect(&format!("subscriber-{filter}"), address);
        client.try_subscribe(filter, QoS::AtLeastOnce)?;
        while !matches!(events.recv_timeout(crate::wait::PATIENCE)?, Event::Incoming(Packet::SubAck(_))) {}
        let received: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let into = Arc::clone(&received);
        thread::spawn(move || {
            for event in events {
                if let Event::Incoming(Packet::Publish(publish)) = event {
                    let data = String::from_utf8_lossy(&publish.payload).into_owned();
                    lock(&into).push((publish.topic, data));
                }
            }
        });
        Ok(Self { received, client })
    }

    /// Topics and data received so far.
    #[must_use]
    pub fn received(&self) -> Vec<(String, String)> {
        lock(&self.received).clone()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        drop(self.client.try_disconnect());
    }
}

/// A client and what happens on its connection; the channel ends with the connection.
///
/// A thread of its own drives the connection, so that nobody's timeout cuts a packet in two.
fn connect(id: &str, address: SocketAddr) -> (Client, Receiver<Event>) {
    let mut options = MqttOptions::new(id, address.ip().to_string(), address.port());
    options.set_keep_alive(Duration::from_secs(30)).set_inflight(u16::try_from(INFLIGHT_MAX).unwrap_or(u16::MAX));
    options.set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
    let (client, mut connection) = Client::new(options, 2 * INFLIGHT_MAX);
    let (sender, events) = channel();
    thread::spawn(move || {
        for event in connection.iter() {
            let Ok(event) = event else { return };
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    (client, events)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
