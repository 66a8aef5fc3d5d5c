//! What is acknowledged, when, and in which order.
#![allow(clippy::unwrap_used, reason = "a test may fail that way, its helpers too")]

mod common;

use common::{Answer, ack, again, id_of, publish, soon, start};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use sedge_mqtt::Refusal;

const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;

/// An independent client pipelines; the node answers late and backwards.
#[tokio::test]
async fn pubacks_come_in_order_and_only_after_their_receipts() {
    let mut running = start(Answer::Hold);
    let (client, mut events) = AsyncClient::new(MqttOptions::new("c", "127.0.0.1", running.port()), 64);
    for number in 0..10 {
        client.publish("t", QoS::AtLeastOnce, false, number.to_string()).await.unwrap();
    }
    let mut held = Vec::new();
    while held.len() < 10 {
        tokio::select! {
            event = events.poll() => assert!(!matches!(event.unwrap(), Event::Incoming(Packet::PubAck(_))), "nothing is decided yet"),
            arrived = running.arrived.recv() => held.push(arrived.unwrap()),
        }
    }
    assert_eq!(held.iter().map(common::Arrived::payload).collect::<String>(), "0123456789");
    for arrived in held.into_iter().rev() {
        arrived.decide(Ok(()));
    }
    let mut acknowledged = Vec::new();
    while acknowledged.len() < 10 {
        if let Event::Incoming(Packet::PubAck(ack)) = soon("PUBACK", events.poll()).await.unwrap() {
            acknowledged.push(ack.pkid);
        }
    }
    assert!(acknowledged.is_sorted(), "{acknowledged:?}");
    running.shut_down().await;
}

#[tokio::test]
async fn receipt_of_a_later_message_waits_for_the_one_before() {
    for version in [4, 5] {
        let mut running = start(Answer::Hold);
        let mut client = running.client(version, "c", true).await;
        client.send(&[publish(version, 1, 1, "t", "a"), publish(version, 2, 2, "t", "b")].concat()).await;
        let (first, second) = (running.next().await, running.next().await);
        second.decide(Ok(()));
        assert!(client.ping().await.is_empty() && client.ping().await.is_empty());
        first.decide(Ok(()));
        assert_eq!((client.frame().await, client.frame().await), ((PUBACK, vec![0, 1]), (PUBREC, vec![0, 2])));
        running.shut_down().await;
    }
}

#[tokio::test]
async fn qos_2_is_handed_over_once_across_reconnections() {
    for version in [4, 5] {
        let mut running = start(Answer::Hold);
        let message = publish(version, 2, 7, "t", "once");
        let mut client = running.client(version, "c", false).await;
        client.send(&message).await;
        let arrived = running.next().await;
        drop(client);
        running.until("connection is seen gone", |stats| stats.clients == 0).await;

        // Again while the receipt is pending: nothing is acknowledged before it, and nothing is handed over twice.
        let mut client = running.client(version, "c", false).await;
        client.send(&again(message.clone())).await;
        assert!(client.ping().await.is_empty());
        arrived.decide(Ok(()));
        assert_eq!(client.frame().await, (PUBREC, vec![0, 7]));
        drop(client);
        running.until("connection is seen gone", |stats| stats.clients == 0).await;

        // Again after PUBREC was lost.
        let mut client = running.client(version, "c", false).await;
        client.send(&again(message.clone())).await;
        assert_eq!(client.frame().await, (PUBREC, vec![0, 7]));
        client.send(&ack(PUBREL, 7)).await;
        assert_eq!(client.frame().await, (PUBCOMP, vec![0, 7]));
        assert!(running.arrived.try_recv().is_err(), "handed over once");

        // The identifier is free for another message.
        client.send(&message).await;
        assert_eq!(running.next().await.payload(), "once");
        running.shut_down().await;
    }
}

#[tokio::test]
async fn refusal_is_told_in_mqtt_5_and_the_connection_stays() {
    let running = start(Answer::Refuse);
    let mut client = running.client(5, "c", true).await;
    client.send(&publish(5, 1, 1, "t", "a")).await;
    assert_eq!(client.frame().await, (PUBACK, vec![0, 1, 0x97]));
    client.send(&publish(5, 2, 2, "t", "a")).await;
    assert_eq!(client.frame().await, (PUBREC, vec![0, 2, 0x97]));
    // Topics of the broker are not the clients' to publish on, nor are topics with too many levels.
    client.send(&publish(5, 1, 3, "$SYS/x", "a")).await;
    assert_eq!(client.frame().await, (PUBACK, vec![0, 3, 0x87]));
    client.send(&publish(5, 1, 4, &"a/".repeat(16), "a")).await;
    assert_eq!(client.frame().await, (PUBACK, vec![0, 4, 0x90]));
    running.shut_down().await;
}

#[tokio::test]
async fn refusal_closes_the_connection_in_mqtt_3_without_an_acknowledgement() {
    let running = start(Answer::Refuse);
    let mut client = running.client(4, "c", true).await;
    client.send(&publish(4, 1, 1, "t", "a")).await;
    client.expect_end().await;
    running.shut_down().await;
}

#[tokio::test]
async fn refused_message_reaches_no_subscriber() {
    let mut running = start(Answer::Hold);
    let mut listener = running.client(4, "listener", true).await;
    listener.send(&common::subscribe(4, "t", 1)).await;
    assert_eq!(listener.frame().await.0, 0x90);
    let mut client = running.client(5, "c", true).await;
    client.send(&[publish(5, 1, 1, "t", "bad"), publish(5, 1, 2, "t", "good")].concat()).await;
    running.next().await.decide(Err(Refusal::Unavailable));
    running.next().await.decide(Ok(()));
    let (_, body) = listener.frame().await;
    assert!(body.ends_with(b"good"), "{body:?}");
    running.shut_down().await;
}

#[tokio::test]
async fn client_of_mqtt_3_that_sends_too_much_is_slowed() {
    let mut running = start(Answer::Hold);
    let mut client = running.client(4, "c", true).await;
    for id in 1..=40 {
        client.send(&publish(4, 1, id, "t", "x")).await;
    }
    let mut held = std::collections::VecDeque::new();
    for _ in 0..32 {
        held.push_back(running.next().await);
    }
    // Another client's round trips show that the broker had time for the rest and left it.
    let mut other = running.client(4, "other", true).await;
    for _ in 0..10 {
        other.ping().await;
    }
    assert!(running.arrived.try_recv().is_err(), "33 are pending");
    for id in 1..=40 {
        let next = match held.pop_front() {
            Some(arrived) => arrived,
            None => running.next().await,
        };
        next.decide(Ok(()));
        assert_eq!(client.frame().await, (PUBACK, u16::to_be_bytes(id).to_vec()));
    }
    running.shut_down().await;
}

#[tokio::test]
async fn client_of_mqtt_5_that_sends_too_much_is_disconnected() {
    let running = start(Answer::Hold);
    let mut client = running.client(5, "c", true).await;
    for id in 1..=33 {
        client.send(&publish(5, 1, id, "t", "x")).await;
    }
    assert_eq!(client.frame().await, (0xe0, vec![0x93]));
    client.expect_end().await;
    running.shut_down().await;
}

#[tokio::test]
async fn stop_acknowledges_what_is_pending_and_says_goodbye() {
    let mut running = start(Answer::Hold);
    let mut client = running.client(5, "c", true).await;
    client.send(&publish(5, 1, 1, "t", "x")).await;
    let arrived = running.next().await;
    running.stop.cancel();
    arrived.decide(Ok(()));
    let (first, body) = client.frame().await;
    assert_eq!((first, id_of(&body)), (PUBACK, 1));
    assert_eq!(client.frame().await, (0xe0, vec![0x8b]));
    client.expect_end().await;
    running.shut_down().await;
}

#[tokio::test]
async fn dropped_receipt_counts_as_a_refusal() {
    let mut running = start(Answer::Hold);
    let mut client = running.client(5, "c", true).await;
    client.send(&publish(5, 1, 1, "t", "x")).await;
    drop(running.next().await);
    assert_eq!(client.frame().await, (PUBACK, vec![0, 1, 0x80]));
    running.shut_down().await;
}
