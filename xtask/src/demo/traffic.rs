//! The world around the nodes: sensors that speak MQTT over TCP, and somebody who calls a function over HTTP.
//!
//! ```text
//! sensor ─ plant/<sensor>/temperature ─▶ node ─ PUBACK ─▶ tally      caller ─ GET /hello ─▶ node ─ 200 ─▶ tally
//! line   ─ line/<n>/celsius ───────────▶
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use sedge_protocol::local::LocalStatus;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::stage::http::Connection;
use crate::stage::{Look, until};

/// Requests between the sensor and its connection.
const QUEUE_MAX: usize = 16;
/// Pause before a lost connection is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How often `/hello` is called.
const CALL_EVERY: Duration = Duration::from_millis(250);
/// Longest wait for the acknowledgements of what was sent.
const ACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);
/// One reading in so many is above the alarm's limit.
const ALARM_EVERY: u64 = 50;

/// What a kind of sensor sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Temperature,
    Celsius,
}

/// What was sent and answered.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Sent.
    sent: AtomicU64,
    /// Acknowledged (events) or answered with 200 (calls).
    good: AtomicU64,
    /// Connections lost, or answers other than 200.
    bad: AtomicU64,
}

impl Tally {
    /// Acknowledged events, or calls answered with 200.
    pub(crate) fn good(&self) -> u64 {
        self.good.load(Ordering::Relaxed)
    }

    /// Lost connections, or answers other than 200.
    pub(crate) fn bad(&self) -> u64 {
        self.bad.load(Ordering::Relaxed)
    }

    fn open(&self) -> u64 {
        self.sent.load(Ordering::Relaxed).saturating_sub(self.good())
    }
}

/// Everything that goes to one node.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// Events for `average`.
    pub(crate) temperature: Arc<Tally>,
    /// Events for `convert`.
    pub(crate) celsius: Arc<Tally>,
    /// Calls of `hello`.
    pub(crate) calls: Arc<Tally>,
    senders: Vec<JoinHandle<()>>,
    receivers: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Traffic {
    /// Begins to send `rate` events a second, four of five to `average`, to the node that `status` describes.
    pub(crate) fn begin(name: &str, status: &LocalStatus, rate: f64) -> Result<Self> {
        let mqtt = status.mqtt.as_deref().with_context(|| format!("{name} serves no MQTT"))?;
        let http = status.http.clone().with_context(|| format!("{name} serves no HTTP"))?;
        let (host, port) = mqtt.rsplit_once(':').with_context(|| format!("{name} serves MQTT at `{mqtt}`"))?;
        let port = port.parse().with_context(|| format!("{name} serves MQTT at `{mqtt}`"))?;
        let mut traffic = Self {
            temperature: Arc::default(),
            celsius: Arc::default(),
            calls: Arc::default(),
            senders: Vec::new(),
            receivers: Vec::new(),
            stop: watch::channel(false).0,
        };
        for (kind, share) in [(Kind::Temperature, 0.8), (Kind::Celsius, 0.2)] {
            let options = MqttOptions::new(format!("{name}-{kind:?}").to_lowercase(), host, port);
            traffic.sensor(kind, options, Duration::from_secs_f64(1.0 / (rate * share)));
        }
        let (tally, stop) = (Arc::clone(&traffic.calls), traffic.stop.subscribe());
        traffic.senders.push(tokio::spawn(call(http, tally, stop)));
        Ok(traffic)
    }

    fn sensor(&mut self, kind: Kind, options: MqttOptions, every: Duration) {
        let tally = match kind {
            Kind::Temperature => &self.temperature,
            Kind::Celsius => &self.celsius,
        };
        let (client, connection) = AsyncClient::new(options, QUEUE_MAX);
        self.senders.push(tokio::spawn(send(kind, client, every, Arc::clone(tally), self.stop.subscribe())));
        self.receivers.push(tokio::spawn(receive(connection, Arc::clone(tally))));
    }

    /// Sends nothing more, and waits until everything sent is acknowledged.
    pub(crate) async fn end(&mut self) -> Result<()> {
        self.stop.send_replace(true);
        for sender in self.senders.drain(..) {
            sender.await?;
        }
        let all = until("acknowledgements of what the sensors sent", ACKNOWLEDGED_MAX, async || {
            let open = self.temperature.open() + self.celsius.open();
            Ok(if open == 0 { Look::Done(()) } else { Look::NotYet(format!("{open} are open")) })
        });
        let all = all.await;
        self.receivers.iter().for_each(JoinHandle::abort);
        all
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.senders.iter().chain(&self.receivers).for_each(JoinHandle::abort);
    }
}

async fn send(kind: Kind, client: AsyncClient, every: Duration, tally: Arc<Tally>, mut stop: watch::Receiver<bool>) {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0.. {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = tick.tick() => {}
        }
        let (topic, payload) = reading(kind, number);
        tally.sent.fetch_add(1, Ordering::Relaxed);
        // Fails only when the connection's task has ended; then nothing is acknowledged any more, and that is noticed.
        if client.publish(topic, QoS::AtLeastOnce, false, payload).await.is_err() {
            return;
        }
    }
}

async fn receive(mut connection: EventLoop, tally: Arc<Tally>) {
    loop {
        match connection.poll().await {
            Ok(Event::Incoming(Packet::PubAck(_))) => {
                tally.good.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Event::Incoming(_) | Event::Outgoing(_)) => {}
            Err(_lost) => {
                tally.bad.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn call(address: String, tally: Arc<Tally>, mut stop: watch::Receiver<bool>) {
    let mut tick = interval(CALL_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection = None;
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = tick.tick() => {}
        }
        tally.sent.fetch_add(1, Ordering::Relaxed);
        match call_once(&address, &mut connection).await {
            Ok(StatusCode::OK) => tally.good.fetch_add(1, Ordering::Relaxed),
            Ok(_) | Err(_) => {
                connection = None;
                tally.bad.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

async fn call_once(address: &str, connection: &mut Option<Connection>) -> Result<StatusCode> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(Connection::tcp(address).await?),
    };
    Ok(open.send(Method::GET, "/hello", Bytes::new()).await?.0)
}

/// Topic and payload of reading `number`: a slow wave, and now and then one that is too high.
fn reading(kind: Kind, number: u64) -> (String, String) {
    #[expect(clippy::cast_precision_loss, reason = "a wave looks the same with a rounded number")]
    let wave = (number as f64 / 20.0).sin() * 8.0;
    match kind {
        Kind::Temperature => {
            let sensor = ["boiler", "press", "oven"][usize::try_from(number % 3).unwrap_or(0)];
            let value = if number % ALARM_EVERY == ALARM_EVERY - 1 { 91.5 } else { 60.0 + wave };
            (format!("plant/{sensor}/temperature"), format!("{{\"value\": {value:.1}}}"))
        }
        Kind::Celsius => (format!("line/{}/celsius", number % 2 + 1), format!("{:.1}", 21.0 + wave)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_have_the_topics_that_the_functions_listen_to() {
        for number in 0..10 {
            let (topic, payload) = reading(Kind::Temperature, number);
            assert!(topic.starts_with("plant/") && topic.ends_with("/temperature"));
            let value = serde_json::from_str::<serde_json::Value>(&payload).unwrap();
            assert!(value["value"].as_f64().unwrap() < 80.0);
            let (topic, payload) = reading(Kind::Celsius, number);
            assert!(topic.starts_with("line/") && payload.parse::<f64>().is_ok());
        }
        assert!(reading(Kind::Temperature, ALARM_EVERY - 1).1.contains("91.5"));
    }

    #[test]
    fn what_is_not_acknowledged_is_open() {
        let tally = Tally::default();
        tally.sent.fetch_add(3, Ordering::Relaxed);
        tally.good.fetch_add(1, Ordering::Relaxed);
        assert_eq!((tally.open(), tally.good(), tally.bad()), (2, 1, 0));
    }
}
