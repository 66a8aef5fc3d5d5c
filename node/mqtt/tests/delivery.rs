//! Who receives what: with independent clients of both versions, and byte by byte where the specification is exact.
#![allow(clippy::unwrap_used, reason = "a test may fail that way, its helpers too")]

mod common;

use common::{Answer, Running, connect, id_of, packet, publish, soon, start, subscribe, text};
use rumqttc::{AsyncClient, Event, EventLoop, LastWill, MqttOptions, Packet, Publish, QoS, v5};
use sedge_mqtt::limits::{PACKET_BYTES_MAX, PAYLOAD_BYTES_MAX, TOPIC_BYTES_MAX};
use sedge_mqtt::{Message, Properties};

const SUBACK: u8 = 0x90;

/// A client of MQTT 3.1.1 that has subscribed.
async fn subscriber(running: &Running, id: &str, filter: &str, qos: QoS) -> (AsyncClient, EventLoop) {
    let (client, mut events) = AsyncClient::new(MqttOptions::new(id, "127.0.0.1", running.port()), 64);
    client.subscribe(filter, qos).await.unwrap();
    while !matches!(soon("SUBACK", events.poll()).await.unwrap(), Event::Incoming(Packet::SubAck(_))) {}
    (client, events)
}

async fn received(events: &mut EventLoop) -> Publish {
    loop {
        if let Event::Incoming(Packet::Publish(publish)) = soon("PUBLISH", events.poll()).await.unwrap() {
            return publish;
        }
    }
}

/// Publishes with MQTT 3.1.1 and waits until the broker has all of it.
async fn say(running: &Running, messages: &[(&str, &str, bool)]) {
    let mut client = running.client(4, "speaker", true).await;
    for (topic, payload, retain) in messages {
        client.send(&packet(0x30 | u8::from(*retain), &[&text(topic), payload.as_bytes()])).await;
    }
    client.ping().await;
}

#[tokio::test]
async fn wildcards_select_and_payloads_arrive_whole() {
    let running = start(Answer::Accept);
    let (_plus, mut plus) = subscriber(&running, "plus", "plant/+/temp", QoS::AtMostOnce).await;
    let (_all, mut all) = subscriber(&running, "all", "plant/#", QoS::AtMostOnce).await;
    let large = "x".repeat(100_000);
    let (client, mut events) =
        AsyncClient::new({ MqttOptions::new("large", "127.0.0.1", running.port()) }.set_max_packet_size(200_000, 200_000).clone(), 8);
    for (topic, payload) in [("plant/1/temp", "20"), ("plant/1/hum", "50"), ("other", "0"), ("plant", "root")] {
        client.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
    }
    tokio::spawn(async move { while events.poll().await.is_ok() {} });
    assert_eq!(received(&mut plus).await.payload, "20");
    let heard = [received(&mut all).await, received(&mut all).await, received(&mut all).await];
    assert_eq!(heard.each_ref().map(|publish| publish.topic.as_str()), ["plant/1/temp", "plant/1/hum", "plant"]);

    let mut reader = running.client(5, "reader", true).await;
    reader.send(&subscribe(5, "large", 0)).await;
    assert_eq!(reader.frame().await.0, SUBACK);
    client.publish("large", QoS::ExactlyOnce, false, large.clone()).await.unwrap();
    let (_, body) = reader.frame().await;
    assert!(body.ends_with(large.as_bytes()) && body.len() > large.len());
    running.shut_down().await;
}

#[tokio::test]
async fn qos_2_reaches_an_independent_client_once() {
    let mut running = start(Answer::Accept);
    let (_client, mut events) = subscriber(&running, "s", "t", QoS::ExactlyOnce).await;
    let (speaker, mut speaking) = AsyncClient::new(MqttOptions::new("p", "127.0.0.1", running.port()), 64);
    for number in 0..100 {
        speaker.publish("t", QoS::ExactlyOnce, false, number.to_string()).await.unwrap();
        if number % 20 == 19 {
            // The request queue of the client is small: let it work.
            let mut completed = 0;
            while completed < 20 {
                tokio::select! {
                    event = speaking.poll() => completed += usize::from(matches!(event.unwrap(), Event::Incoming(Packet::PubComp(_)))),
                    event = events.poll() => drop(event.unwrap()),
                }
            }
        }
    }
    for number in 0..100 {
        assert_eq!(running.next().await.payload(), number.to_string());
    }
    assert!(running.arrived.try_recv().is_err());
    running.shut_down().await;
}

#[tokio::test]
async fn retained_messages_are_kept_replaced_and_cleared() {
    let running = start(Answer::Accept);
    say(
        &running,
        &[("r/a", "old", true), ("r/a", "new", true), ("r/b", "x", true), ("r/b", "", false), ("r/c", "x", true), ("r/c", "", true)],
    )
    .await;
    let (client, mut events) = subscriber(&running, "s", "r/+", QoS::AtLeastOnce).await;
    let (first, second) = (received(&mut events).await, received(&mut events).await);
    assert_eq!((first.payload.as_ref(), first.retain), (b"new".as_slice(), true));
    // An empty message without the flag has cleared nothing.
    assert_eq!((second.topic.as_str(), second.payload.as_ref()), ("r/b", b"x".as_slice()));
    // What is published now does not bear the flag.
    client.publish("r/a", QoS::AtMostOnce, true, "live").await.unwrap();
    let live = received(&mut events).await;
    assert_eq!((live.payload.as_ref(), live.retain), (b"live".as_slice(), false));
    assert_eq!(running.broker.stats().retained, 2);
    running.shut_down().await;
}

#[tokio::test]
async fn will_is_said_when_a_client_vanishes_and_not_when_it_says_goodbye() {
    let mut running = start(Answer::Accept);
    let (_client, mut events) = subscriber(&running, "s", "will/+", QoS::AtLeastOnce).await;
    for (id, polite) in [("polite", true), ("rude", false)] {
        let mut options = MqttOptions::new(id, "127.0.0.1", running.port());
        options.set_last_will(LastWill::new(format!("will/{id}"), "gone", QoS::AtLeastOnce, false));
        let (client, mut loop_) = AsyncClient::new(options, 8);
        while !matches!(soon("CONNACK", loop_.poll()).await.unwrap(), Event::Incoming(Packet::ConnAck(_))) {}
        if polite {
            client.disconnect().await.unwrap();
            while soon("the end", loop_.poll()).await.is_ok() {}
        }
    }
    assert_eq!(received(&mut events).await.topic, "will/rude");
    // The node hears wills too.
    assert_eq!(running.next().await.inbound.message.topic, "will/rude");
    running.shut_down().await;
}

#[tokio::test]
async fn same_client_identifier_takes_over() {
    let running = start(Answer::Accept);
    let mut old = running.client(5, "c", true).await;
    let mut older = running.client(4, "d", true).await;
    let mut new = running.client(5, "c", true).await;
    let mut newer = running.client(4, "d", true).await;
    assert_eq!(old.frame().await, (0xe0, vec![0x8e]));
    old.expect_end().await;
    older.expect_end().await;
    assert!(new.ping().await.is_empty() && newer.ping().await.is_empty());
    assert_eq!(running.broker.stats().clients, 2);
    running.shut_down().await;
}

#[tokio::test]
async fn session_keeps_subscriptions_and_messages_while_its_client_is_away() {
    for version in [4, 5] {
        let running = start(Answer::Accept);
        let mut client = running.client(version, "c", false).await;
        client.send(&subscribe(version, "t", 1)).await;
        assert_eq!(client.frame().await.0, SUBACK);
        drop(client);
        running.until("client is away", |stats| stats.clients == 0).await;
        let mut speaker = running.client(4, "speaker", true).await;
        for (id, payload) in [(1, "a"), (2, "b")] {
            speaker.send(&publish(4, 1, id, "t", payload)).await;
            assert_eq!(speaker.frame().await.0, 0x40);
        }
        say(&running, &[("t", "loose", false)]).await;

        let mut client = running.raw().await;
        client.send(&connect(version, "c", false)).await;
        let (_, body) = client.frame().await;
        assert_eq!(body[0], 1, "session present");
        let (a, b) = (client.frame().await.1, client.frame().await.1);
        assert!(a.ends_with(b"a") && b.ends_with(b"b"));
        drop(client);

        // Not acknowledged, so both come again, marked; a clean start forgets them.
        let mut client = running.raw().await;
        client.send(&connect(version, "c", false)).await;
        assert_eq!(client.frame().await.1[0], 1);
        let (first, again) = client.frame().await;
        assert_eq!((first, again), (0x3a, a));
        drop(client);
        let mut client = running.raw().await;
        client.send(&connect(version, "c", true)).await;
        assert_eq!(client.frame().await.1[0], 0, "no session");
        assert!(client.ping().await.is_empty());
        running.shut_down().await;
    }
}

#[tokio::test]
async fn shared_subscription_divides_the_messages() {
    let running = start(Answer::Accept);
    let mut members = Vec::new();
    for id in ["a", "b", "c"] {
        let mut member = running.client(5, id, true).await;
        member.send(&subscribe(5, "$share/group/t/#", 0)).await;
        assert_eq!(member.frame().await.0, SUBACK);
        members.push(member);
    }
    let messages: Vec<String> = (0..9).map(|number| number.to_string()).collect();
    say(&running, &messages.iter().map(|payload| ("t/x", payload.as_str(), false)).collect::<Vec<_>>()).await;
    let mut heard = Vec::new();
    for member in &mut members {
        let messages = member.ping().await;
        assert_eq!(messages.len(), 3, "in turn");
        heard.extend(messages.into_iter().map(|(_, body)| body.last().copied()));
    }
    heard.sort_unstable();
    assert_eq!(heard, (b'0'..=b'8').map(Some).collect::<Vec<_>>());

    // Who leaves is passed over.
    drop(members.remove(0));
    running.until("one is gone", |stats| stats.clients == 2).await;
    say(&running, &[("t/x", "p", false), ("t/x", "q", false)]).await;
    for member in &mut members {
        assert_eq!(member.ping().await.len(), 1);
    }
    running.shut_down().await;
}

#[tokio::test]
async fn options_of_mqtt_5_subscriptions_hold() {
    let running = start(Answer::Accept);
    say(&running, &[("t", "kept", true)]).await;
    let mut client = running.client(5, "c", true).await;
    let with_id = |filter: &str, options: u8, id: u8| packet(0x82, &[&[0, 9, 2, 0x0b, id], &text(filter), &[options]]);

    // No local, retain as published, never send retained: 0x04 | 0x08 | 0x20; overlapping with another, merged into one copy.
    client.send(&with_id("t", 0x2c, 7)).await;
    client.send(&with_id("#", 0x20, 8)).await;
    assert_eq!((client.frame().await.0, client.frame().await.0), (SUBACK, SUBACK));
    say(&running, &[("t", "flagged", true)]).await;
    let (first, body) = client.frame().await;
    assert_eq!(first, 0x31, "the flag stays");
    assert_eq!(body, [&text("t")[..], &[4, 0x0b, 8, 0x0b, 7], b"flagged"].concat());
    client.send(&packet(0x30, &[&text("t"), &[0], b"mine"])).await;
    let (_, body) = client.frame().await;
    assert_eq!(body, [&text("t")[..], &[2, 0x0b, 8], b"mine"].concat(), "only the filter that wants echoes");

    // Retained only for a new subscription: 0x10.
    for (fresh, expected) in [(true, 1), (false, 0)] {
        let mut client = running.client(5, "d", fresh).await;
        if !fresh {
            client.send(&subscribe(5, "t", 0x20)).await;
            assert_eq!(client.frame().await.0, SUBACK);
        }
        client.send(&subscribe(5, "t", 0x10)).await;
        assert_eq!(client.frame().await.0, SUBACK);
        assert_eq!(client.ping().await.len(), expected);
    }
    running.shut_down().await;
}

#[tokio::test]
async fn properties_reach_the_node_and_the_subscriber() {
    let mut running = start(Answer::Accept);
    let options = v5::MqttOptions::new("c", "127.0.0.1", running.port());
    let (client, mut events) = v5::AsyncClient::new(options, 8);
    client.subscribe("t", v5::mqttbytes::QoS::AtLeastOnce).await.unwrap();
    let properties = v5::mqttbytes::v5::PublishProperties {
        content_type: Some("text/plain".into()),
        response_topic: Some("answers".into()),
        correlation_data: Some("17".into()),
        message_expiry_interval: Some(600),
        payload_format_indicator: Some(1),
        user_properties: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
        topic_alias: Some(3),
        ..Default::default()
    };
    client.publish_with_properties("t", v5::mqttbytes::QoS::AtLeastOnce, false, "x", properties.clone()).await.unwrap();
    let publish = loop {
        if let v5::Event::Incoming(v5::mqttbytes::v5::Packet::Publish(publish)) = soon("PUBLISH", events.poll()).await.unwrap() {
            break publish;
        }
    };
    let seen = publish.properties.unwrap();
    assert!(seen.message_expiry_interval.is_some_and(|seconds| (500..=600).contains(&seconds)));
    let expected =
        v5::mqttbytes::v5::PublishProperties { topic_alias: None, message_expiry_interval: seen.message_expiry_interval, ..properties };
    assert_eq!(seen, expected);
    let inbound = running.next().await.inbound;
    assert_eq!(inbound.client_id.as_ref(), "c");
    let Properties { content_type, response_topic, correlation_data, user, utf8_payload, .. } = &inbound.message.properties;
    assert_eq!(
        (content_type.as_deref(), response_topic.as_deref(), correlation_data.as_deref()),
        (Some("text/plain"), Some("answers"), Some(b"17".as_slice()))
    );
    assert!(*utf8_payload && user.len() == 2);
    running.shut_down().await;
}

#[tokio::test]
async fn topic_alias_stands_for_the_topic() {
    let mut running = start(Answer::Accept);
    let mut client = running.client(5, "c", true).await;
    client.send(&packet(0x30, &[&text("a/b"), &[3, 0x23, 0, 5], b"1"])).await;
    client.send(&packet(0x30, &[&text(""), &[3, 0x23, 0, 5], b"2"])).await;
    for payload in ["1", "2"] {
        let arrived = running.next().await;
        assert_eq!((arrived.inbound.message.topic.as_str(), arrived.payload().as_str()), ("a/b", payload));
    }
    running.shut_down().await;
}

#[tokio::test]
async fn node_publishes_to_clients_and_does_not_hear_itself() {
    let mut running = start(Answer::Accept);
    let (_client, mut events) = subscriber(&running, "s", "out", QoS::AtLeastOnce).await;
    let message = Message { qos: sedge_mqtt::QoS::AtLeastOnce, retain: true, ..Message::new("out", "hello") };
    running.broker.publish(message).await.unwrap();
    let publish = received(&mut events).await;
    assert_eq!((publish.payload.as_ref(), publish.qos), (b"hello".as_slice(), QoS::AtLeastOnce));
    assert!(running.arrived.try_recv().is_err());
    assert!(running.broker.publish(Message::new("a/+", "")).await.is_err());
    let largest = Message::new("x".repeat(TOPIC_BYTES_MAX), vec![0; PAYLOAD_BYTES_MAX]);
    assert!(running.broker.publish(largest).await.is_ok(), "the longest topic fits beside the largest payload");
    assert!(running.broker.publish(Message::new("a", vec![0; PACKET_BYTES_MAX as usize])).await.is_err());
    assert_eq!(running.broker.stats().retained, 1);
    running.shut_down().await;
}

#[tokio::test]
async fn the_largest_payload_is_taken_and_one_byte_more_is_not() {
    for (bytes, taken) in [(PAYLOAD_BYTES_MAX, true), (PAYLOAD_BYTES_MAX + 1, false)] {
        let mut running = start(Answer::Accept);
        let mut client = running.client(4, "c", true).await;
        client.send(&packet(0x30, &[&text(&"x".repeat(TOPIC_BYTES_MAX)), &vec![7; bytes]])).await;
        if taken {
            assert_eq!(running.next().await.inbound.message.payload.len(), bytes);
        } else {
            client.expect_end().await;
            assert!(running.arrived.try_recv().is_err());
        }
        running.shut_down().await;
    }
}

#[tokio::test]
async fn packet_too_large_for_the_client_is_not_sent() {
    let running = start(Answer::Accept);
    let mut client = running.raw().await;
    client.send(&packet(0x10, &[&text("MQTT"), &[5, 2, 0, 60, 5, 0x27, 0, 0, 0, 40], &text("c")])).await;
    assert_eq!(client.frame().await.0, 0x20);
    client.send(&subscribe(5, "t", 1)).await;
    assert_eq!(client.frame().await.0, SUBACK);
    let mut speaker = running.client(4, "speaker", true).await;
    for (id, payload) in [(1, "y".repeat(40)), (2, "fits".into())] {
        speaker.send(&publish(4, 1, id, "t", &payload)).await;
        assert_eq!(id_of(&speaker.frame().await.1), id);
    }
    let (_, body) = client.frame().await;
    assert!(body.ends_with(b"fits"));
    assert_eq!(running.broker.stats().dropped, 1);
    running.shut_down().await;
}

#[tokio::test]
async fn client_without_a_name_is_given_one() {
    let running = start(Answer::Accept);
    let mut client = running.raw().await;
    client.send(&connect(5, "", true)).await;
    let (_, body) = client.frame().await;
    assert!(body.windows(6).any(|window| window == b"sedge-"), "{body:?}");
    running.client(4, "", true).await;
    running.shut_down().await;
}

#[tokio::test]
async fn unsubscribing_ends_delivery_and_says_what_existed() {
    let running = start(Answer::Accept);
    let mut client = running.client(5, "c", true).await;
    client.send(&subscribe(5, "t", 0)).await;
    assert_eq!(client.frame().await, (SUBACK, vec![0, 9, 0, 0]));
    client.send(&packet(0xa2, &[&[0, 3, 0], &text("t"), &text("u")])).await;
    assert_eq!(client.frame().await, (0xb0, vec![0, 3, 0, 0x00, 0x11]));
    say(&running, &[("t", "x", false)]).await;
    assert!(client.ping().await.is_empty());
    running.shut_down().await;
}

#[tokio::test]
async fn subscription_with_a_bad_filter_fails_alone() {
    let running = start(Answer::Accept);
    for (version, failure) in [(4, 0x80), (5, 0x8f)] {
        let mut client = running.client(version, "c", true).await;
        let properties: &[u8] = if version == 5 { &[0] } else { &[] };
        client.send(&packet(0x82, &[&[0, 1], properties, &text("a#"), &[0], &text("ok"), &[1]])).await;
        let (_, body) = client.frame().await;
        assert!(body.ends_with(&[failure, 1]), "{body:?}");
    }
    running.shut_down().await;
}

#[tokio::test]
async fn port_in_use_and_open_network_are_errors_before_the_start() {
    struct Deaf;
    impl sedge_mqtt::Ingress for Deaf {
        fn publish(&self, _: sedge_mqtt::Inbound) -> sedge_mqtt::Receipt {
            sedge_mqtt::Receipt::Accepted
        }
    }
    let running = start(Answer::Accept);
    let bind = |listen| sedge_mqtt::Broker::bind(sedge_mqtt::BrokerConfig { listen, users: Vec::new() }, std::sync::Arc::new(Deaf));
    let taken = bind(running.broker.local_addr());
    assert!(matches!(taken, Err(sedge_mqtt::BindError::Listen { .. })));
    let open = bind(([0, 0, 0, 0], 0).into());
    assert!(matches!(open, Err(sedge_mqtt::BindError::OpenToNetwork { .. })));
    running.shut_down().await;
}
