//! Whatever a client sends costs it its own connection and nobody else anything.
#![allow(clippy::unwrap_used, reason = "a test may fail that way, its helpers too")]

mod common;

use common::{Answer, connect, packet, publish, start, start_with, subscribe, text};
use proptest::{prelude::*, test_runner::TestRunner};

#[tokio::test]
async fn malformed_packets_close_only_their_connection() {
    let running = start(Answer::Accept);
    let mut bystander = running.client(4, "bystander", true).await;
    let cases: &[(&str, Vec<u8>)] = &[
        ("remaining length of five bytes", vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ("reserved packet type", vec![0x00, 0x00]),
        ("packet only servers send", packet(0x20, &[&[0, 0]])),
        ("second CONNECT", connect(4, "c", true)),
        ("QoS 3", packet(0x36, &[&text("t"), &[0, 1]])),
        ("packet identifier zero", publish(4, 1, 0, "t", "")),
        ("SUBSCRIBE without its flags", packet(0x80, &[&[0, 1], &text("t"), &[0]])),
        ("SUBSCRIBE without a filter", packet(0x82, &[&[0, 1]])),
        ("SUBSCRIBE with reserved bits", subscribe(4, "t", 0x04)),
        ("topic with a wildcard", publish(4, 1, 1, "a/+", "")),
        ("empty topic", publish(4, 1, 1, "", "")),
        ("text that is not UTF-8", packet(0x30, &[&[0, 1, 0xff]])),
        ("PINGREQ with a body", packet(0xc0, &[&[0]])),
        ("body shorter than it says", packet(0x82, &[&[0, 1, 0, 99, b'x']])),
    ];
    for (what, bytes) in cases {
        let mut client = running.client(4, "c", true).await;
        client.send(bytes).await;
        assert_eq!(client.try_frame().await, None, "{what}");
    }
    assert!(bystander.ping().await.is_empty());
    running.shut_down().await;
}

#[tokio::test]
async fn offences_are_named_in_mqtt_5() {
    let running = start(Answer::Accept);
    let alias = packet(0x30, &[&text(""), &[3, 0x23, 0, 1]]);
    let beyond = packet(0x30, &[&text("t"), &[3, 0x23, 0, 17]]);
    let cases: &[(u8, Vec<u8>)] = &[
        (0x82, connect(5, "c", true)),
        (0x82, alias),
        (0x94, beyond),
        (0x95, vec![0x30, 0xff, 0xff, 0xff, 0x7f]),
        (0x90, publish(5, 1, 1, "a/#", "")),
        (0x81, publish(5, 1, 0, "a", "")),
        (0x82, subscribe(5, "$share/g/t", 0x04)),
    ];
    for (reason, bytes) in cases {
        let mut client = running.client(5, "c", true).await;
        client.send(bytes).await;
        assert_eq!(client.try_frame().await, Some((0xe0, vec![*reason])), "{bytes:x?}");
        client.expect_end().await;
    }
    running.shut_down().await;
}

#[tokio::test]
async fn connect_is_answered_by_the_rules() {
    let running = start_with(Answer::Accept, vec![("ann".into(), "secret".into())]);
    let user = |version: u8, password: &str| {
        let properties: &[u8] = if version == 5 { &[0] } else { &[] };
        packet(0x10, &[&text("MQTT"), &[version, 0xc2, 0, 60], properties, &text("c"), &text("ann"), &text(password)])
    };
    let cases: &[(&str, Vec<u8>, Vec<u8>)] = &[
        ("wrong password, 3.1.1", user(4, "guess"), vec![0, 4]),
        ("wrong password, 5", user(5, "guess"), vec![0, 0x86, 0]),
        ("no password", connect(4, "c", true), vec![0, 4]),
        ("version 3.1", packet(0x10, &[&text("MQIsdp"), &[3, 2, 0, 60], &text("c")]), vec![0, 1]),
        ("version 6", packet(0x10, &[&text("MQTT"), &[6, 2, 0, 60, 0], &text("c")]), vec![0, 1]),
        ("right password", user(4, "secret"), vec![0, 0]),
    ];
    for (what, bytes, answer) in cases {
        let mut client = running.raw().await;
        client.send(bytes).await;
        assert_eq!(client.try_frame().await, Some((0x20, answer.clone())), "{what}");
    }
    let silent: &[(&str, Vec<u8>)] = &[
        ("PUBLISH first", publish(4, 1, 1, "t", "")),
        ("another protocol", packet(0x10, &[&text("HTTP"), &[4, 2, 0, 60], &text("c")])),
        ("GET / HTTP/1.1", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in silent {
        let mut client = running.raw().await;
        client.send(bytes).await;
        assert_eq!(client.try_frame().await, None, "{what}");
    }
    running.shut_down().await;
}

#[tokio::test]
async fn reserved_flags_of_connect_are_refused() {
    let running = start(Answer::Accept);
    for flags in [0x03, 0x1e, 0x0a, 0x22] {
        let mut client = running.raw().await;
        client.send(&packet(0x10, &[&text("MQTT"), &[4, flags, 0, 60], &text("c")])).await;
        assert_ne!(client.try_frame().await, Some((0x20, vec![0, 0])), "{flags:x}");
    }
    let mut unnamed = running.raw().await;
    unnamed.send(&connect(4, "", false)).await;
    assert_eq!(unnamed.try_frame().await, Some((0x20, vec![0, 2])));
    running.shut_down().await;
}

/// Takes the ten seconds of the limit: the clock is the system's.
#[tokio::test]
async fn connection_without_connect_is_closed() {
    let running = start(Answer::Accept);
    let mut silent = running.raw().await;
    let mut slow = running.raw().await;
    slow.send(&connect(4, "c", true)[..5]).await;
    silent.expect_end().await;
    slow.expect_end().await;
    running.shut_down().await;
}

#[tokio::test]
async fn silent_client_is_closed_after_its_keep_alive() {
    let running = start(Answer::Accept);
    let mut client = running.raw().await;
    client.send(&packet(0x10, &[&text("MQTT"), &[5, 2, 0, 1], &[0], &text("c")])).await;
    assert_eq!(client.frame().await.0, 0x20);
    assert_eq!(client.frame().await, (0xe0, vec![0x8d]));
    running.shut_down().await;
}

#[tokio::test]
async fn one_client_too_many_is_refused_and_finds_room_later() {
    let running = start(Answer::Accept);
    let mut clients = Vec::new();
    for number in 0..sedge_mqtt::limits::CLIENTS_MAX {
        clients.push(running.client(4, &number.to_string(), true).await);
    }
    let mut more = running.raw().await;
    more.expect_end().await;
    clients.pop();
    running.until("a place is free", |stats| stats.clients < sedge_mqtt::limits::CLIENTS_MAX).await;
    common::soon("let in", async {
        loop {
            let mut more = running.raw().await;
            // The broker may still be closing the one before; then the write or the read fails.
            let sent = tokio::io::AsyncWriteExt::write_all(&mut more.stream, &connect(4, "more", true)).await;
            if sent.is_ok() && more.try_frame().await.is_some() {
                break;
            }
        }
    })
    .await;
    running.shut_down().await;
}

#[test]
fn random_bytes_harm_nobody() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let running = runtime.block_on(async { start(Answer::Accept) });
    let bystander = tokio::sync::Mutex::new(runtime.block_on(running.client(5, "bystander", true)));
    let noise = (any::<bool>(), any::<bool>(), prop::collection::vec(hostile_packet(), 1..6));
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) });
    runner
        .run(&noise, |(five, let_in, packets)| {
            runtime.block_on(async {
                let mut client = running.raw().await;
                if let_in {
                    client.send(&connect(if five { 5 } else { 4 }, "noise", true)).await;
                }
                for bytes in packets {
                    // The broker may have closed already.
                    if tokio::io::AsyncWriteExt::write_all(&mut client.stream, &bytes).await.is_err() {
                        break;
                    }
                }
                drop(client);
                assert!(bystander.lock().await.ping().await.is_empty());
            });
            Ok(())
        })
        .unwrap();
    runtime.block_on(running.shut_down());
}

/// Pure noise, and noise in a frame that announces its right length.
fn hostile_packet() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    let framed = (any::<u8>(), prop::collection::vec(any::<u8>(), 0..100)).prop_map(|(first, body)| packet(first, &[&body]));
    let connect = prop::collection::vec(any::<u8>(), 0..60).prop_map(|body| packet(0x10, &[&text("MQTT"), &[5], &body]));
    prop_oneof![1 => noise, 3 => framed, 1 => connect]
}
