//! The embedded MQTT broker between its clients and the bus.

use crate::bus::{BusHandle, Publication};
use crate::clock;
use crate::config::Mqtt;
use crate::supervisor::Supervisor;
use anyhow::Context as _;
use sedge_mqtt::limits::{PACKET_BYTES_MAX, PAYLOAD_BYTES_MAX};
use sedge_mqtt::{Broker, BrokerConfig, BrokerTask, Inbound, Ingress, Message, QoS, Receipt, Refusal};
use sedge_protocol::limits::{CONTENT_TYPE_BYTES_MAX, EVENT_BYTES_MAX, TOPIC_BYTES_MAX};
use sedge_protocol::{Event, Topic};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};

// Whatever a function may publish or reply fits a packet: `fits` of the broker counts 1 KiB for what comes on top.
const _: () = assert!(
    EVENT_BYTES_MAX == PAYLOAD_BYTES_MAX && EVENT_BYTES_MAX + TOPIC_BYTES_MAX + CONTENT_TYPE_BYTES_MAX + 1024 <= PACKET_BYTES_MAX as usize
);

/// A broker that has its address and does not serve yet.
pub(super) struct Parts {
    broker: Broker,
    task: BrokerTask,
}

pub(super) fn bind(mqtt: &Mqtt, bus: BusHandle) -> anyhow::Result<Parts> {
    let config = BrokerConfig { listen: mqtt.listen, users: mqtt.users.clone() };
    let ingress = Arc::new(BusIngress { bus, run: rand::random(), next: AtomicU64::new(0) });
    let (broker, task) = Broker::bind(config, ingress).context("start the MQTT broker")?;
    Ok(Parts { broker, task })
}

impl Parts {
    pub(super) fn address(&self) -> SocketAddr {
        self.broker.local_addr()
    }

    /// Serves clients, and brings them what the bus publishes.
    pub(super) fn start(self, supervisor: &Supervisor, mut messages: mpsc::Receiver<Message>) {
        let (broker, stop) = (self.broker, supervisor.stop().clone());
        let task = self.task.run(stop.clone());
        supervisor.service("mqtt", async move { task.await.context("serve MQTT") });
        supervisor.service("fan-out", async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    message = messages.recv() => {
                        let Some(message) = message else { return stopped(&stop).await };
                        let topic = message.topic.clone();
                        if let Err(error) = broker.publish(message).await {
                            log::warn!(topic, reason:% = error; "a message did not reach the MQTT clients");
                        }
                    }
                }
            }
        });
    }
}

async fn stopped(stop: &tokio_util::sync::CancellationToken) -> anyhow::Result<()> {
    stop.cancelled().await;
    Ok(())
}

struct BusIngress {
    bus: BusHandle,
    /// Makes event ids differ between runs of the daemon.
    run: u32,
    next: AtomicU64,
}

impl Ingress for BusIngress {
    fn publish(&self, inbound: Inbound) -> Receipt {
        let Inbound { client_id, message } = inbound;
        let Ok(topic) = message.topic.parse::<Topic>() else { return Receipt::Refused(Refusal::NotAuthorized) };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let event = Event {
            id: format!("mqtt-{:08x}-{number}", self.run),
            source: format!("/mqtt/{client_id}"),
            kind: "sedge.mqtt.message".to_owned(),
            time_ms: Some(clock::wall().0),
            topic,
            content_type: message.properties.content_type.clone(),
            extensions: BTreeMap::new(),
            data: message.payload.to_vec(),
        };
        let kept = message.qos != QoS::AtMostOnce;
        let (answer, receipt) = if kept {
            let (answer, receipt) = oneshot::channel();
            (Some(answer), Receipt::Pending(receipt))
        } else {
            (None, Receipt::Accepted)
        };
        match self.bus.publish(Publication { event, kept, fan_out: false, only: None, letter: None, answer }) {
            Ok(()) => receipt,
            Err(refusal) => Receipt::Refused(refusal),
        }
    }
}
