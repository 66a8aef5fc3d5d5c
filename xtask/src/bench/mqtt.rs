//! Events: how many a second, and how long from the publish to the reply.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Packet, QoS};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::report::Latency;
use super::target::Target;
use crate::stage::{Look, until};

/// Clients that publish at the same time, each on a topic of its own.
const PUBLISHERS: u64 = 16;
/// Events a second while latency is measured: far below what the node can do.
const STEADY_PER_SECOND: u32 = 50;
/// Longest wait for work that was accepted.
const DRAIN_MAX: Duration = Duration::from_secs(120);
/// Longest wait for the replies that are still open at the end.
const REPLIES_MAX: Duration = Duration::from_secs(10);
/// Requests between a client and its connection.
const QUEUE_MAX: usize = 100;

/// `at_once`: each packet leaves alone. Else the client holds small ones back until those before were acknowledged, and sends many
/// together: right for throughput, wrong for latency.
fn connect(target: &Target, name: &str, at_once: bool) -> (AsyncClient, EventLoop) {
    let (host, port) = target.mqtt();
    let mut options = MqttOptions::new(name, host, port);
    options.set_inflight(QUEUE_MAX.try_into().unwrap_or(u16::MAX));
    let (client, mut connection) = AsyncClient::new(options, QUEUE_MAX);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(at_once);
    connection.set_network_options(network);
    (client, connection)
}

/// Publishes `events` events as fast as the node takes them; events a second until the last invocation has completed.
pub(crate) async fn throughput(target: &Target, function: &str, events: u64) -> Result<f64> {
    let before = target.calls_ok(function).await?;
    let each = events / PUBLISHERS;
    let begin = Instant::now();
    let mut publishers = tokio::task::JoinSet::new();
    for number in 0..PUBLISHERS {
        let (client, connection) = connect(target, &format!("publisher-{number}"), false);
        publishers.spawn(publish(client, connection, format!("line/{number}/celsius"), each));
    }
    while let Some(published) = publishers.join_next().await {
        published??;
    }
    let wanted = before + each * PUBLISHERS;
    let end = until("complete the invocations", DRAIN_MAX, async || {
        let done = target.calls_ok(function).await?;
        Ok(if done >= wanted { Look::Done(Instant::now()) } else { Look::NotYet(format!("{done} of {wanted}")) })
    })
    .await?;
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown with a few digits")]
    Ok((each * PUBLISHERS) as f64 / (end - begin).as_secs_f64())
}

/// Publishes `count` events and returns when all are acknowledged.
async fn publish(client: AsyncClient, mut connection: EventLoop, topic: String, count: u64) -> Result<()> {
    let sender = async {
        for number in 0..count {
            client.publish(&topic, QoS::AtLeastOnce, false, number.to_string()).await?;
        }
        // The connection ends only when it is dropped.
        std::future::pending::<Result<()>>().await
    };
    let receiver = async {
        let mut acknowledged = 0;
        while acknowledged < count {
            if let Event::Incoming(Packet::PubAck(_)) = connection.poll().await.context("publish")? {
                acknowledged += 1;
            }
        }
        Ok(())
    };
    tokio::select! {
        failed = sender => failed,
        done = receiver => done,
    }
}

/// Publishes at a steady pace and waits for nothing but the acknowledgements.
pub(crate) async fn steady(target: &Target, duration: Duration) -> Result<()> {
    let (client, mut connection) = connect(target, "steady", true);
    let pump = tokio::spawn(async move { while connection.poll().await.is_ok() {} });
    let mut tick = interval(Duration::from_secs(1) / STEADY_PER_SECOND);
    let end = Instant::now() + duration;
    while tick.tick().await < end {
        client.publish("line/steady/celsius", QoS::AtLeastOnce, false, "21").await?;
    }
    pump.abort();
    Ok(())
}

/// Publishes at a steady pace and measures until the reply of each event arrives at a subscriber.
pub(crate) async fn latency(target: &Target, duration: Duration) -> Result<Latency> {
    let (client, mut connection) = connect(target, "latency", true);
    client.subscribe("line/fahrenheit", QoS::AtLeastOnce).await?;
    while !matches!(connection.poll().await.context("subscribe")?, Event::Incoming(Packet::SubAck(_))) {}
    let (sender, mut replies) = mpsc::channel(QUEUE_MAX);
    // A task of its own: a poll of the connection that is given up half-way might lose what it held.
    let pump = tokio::spawn(receive(connection, sender));
    let mut tick = interval(Duration::from_secs(1) / STEADY_PER_SECOND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut open, mut took) = (BTreeMap::new(), Vec::new());
    let (end, mut number) = (Instant::now() + duration, 0_u64);
    while !open.is_empty() || Instant::now() < end {
        tokio::select! {
            reply = replies.recv() => {
                let (number, at) = reply.context("the node closed the connection")?;
                took.extend(open.remove(&number).map(|sent| at - sent));
            }
            _ = tick.tick(), if Instant::now() < end => {
                open.insert(number, Instant::now());
                client.publish("line/latency/celsius", QoS::AtLeastOnce, false, number.to_string()).await?;
                number += 1;
            }
            () = tokio::time::sleep_until(end + REPLIES_MAX) => {
                bail!("{} of {number} events had no reply within {} s", open.len(), REPLIES_MAX.as_secs());
            }
        }
    }
    pump.abort();
    Latency::of(took).context("no events")
}

/// Hands on the number of each reply and when it came, until the connection is lost.
async fn receive(mut connection: EventLoop, replies: mpsc::Sender<(u64, Instant)>) -> Result<()> {
    loop {
        if let Event::Incoming(Packet::Publish(reply)) = connection.poll().await? {
            replies.send((number_of(&reply.payload)?, Instant::now())).await?;
        }
    }
}

/// The number that was sent is in the reply as the temperature.
fn number_of(reply: &[u8]) -> Result<u64> {
    let reply: serde_json::Value = serde_json::from_slice(reply).context("read a reply")?;
    let celsius = reply["celsius"].as_u64().or_else(|| reply["celsius"].as_f64().and_then(|number| format!("{number}").parse().ok()));
    celsius.with_context(|| format!("a reply without a number: {reply}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_names_its_event() {
        assert_eq!(number_of(br#"{"celsius":12,"fahrenheit":53.60}"#).unwrap(), 12);
        assert_eq!(number_of(br#"{"celsius":12.0,"fahrenheit":53.60}"#).unwrap(), 12);
        assert!(number_of(b"{}").is_err());
    }
}
