//! Our bytes are read back by the parser of another library; any bytes are read without a panic.

use bytes::BytesMut;
use proptest::prelude::*;
use rumqttc::{
    mqttbytes::v4,
    v5::mqttbytes::v5::{self, PublishProperties},
};

use super::*;
use crate::limits::PACKET_BYTES_MAX;
use crate::message::Properties;

fn bytes(version: Version, packet: &ToClient) -> BytesMut {
    let mut out = BytesMut::new();
    encode(version, packet, &mut out);
    out
}

fn deliver() -> impl Strategy<Value = Deliver> {
    let text = || prop::option::of("[a-z/ä]{0,20}");
    let head = (any::<bool>(), any::<bool>(), 0..3u8, 1..=u16::MAX);
    let body = ("[a-z]{1,9}(/[a-z]{0,9}){0,3}", prop::collection::vec(any::<u8>(), 0..300));
    let properties = (text(), text(), prop::collection::vec(1..268_435_455u32, 0..3), prop::option::of(any::<u32>()));
    let user = prop::collection::vec(("[a-z]{0,5}", "[a-z]{0,200}"), 0..3);
    (head, body, properties, user).prop_map(
        |((dup, retain, qos, packet_id), (topic, payload), (content_type, response_topic, subscription_ids, expiry), user)| {
            let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)];
            let correlation_data = content_type.as_ref().map(|_| Bytes::from_static(&[0, 255]));
            let properties = Properties { content_type, response_topic, correlation_data, user, utf8_payload: retain, expiry: None };
            let message = Arc::new(Message { qos, retain, properties, ..Message::new(topic, payload) });
            let assured = qos > QoS::AtMostOnce;
            Deliver {
                packet_id: if assured { packet_id } else { 0 },
                dup: dup && assured,
                qos,
                retain,
                expiry: expiry.map(|seconds| Duration::from_secs(seconds.into())),
                subscription_ids,
                message,
            }
        },
    )
}

proptest! {
    #[test]
    fn publish_is_read_back_by_another_library(deliver in deliver()) {
        let message = &deliver.message;
        let v4::Packet::Publish(read) = v4::Packet::read(&mut bytes(Version::V3, &ToClient::Publish(deliver.clone())), 1 << 20).unwrap() else {
            panic!("not a PUBLISH");
        };
        prop_assert_eq!((&read.topic, &read.payload, read.pkid), (&message.topic, &message.payload, deliver.packet_id));
        prop_assert_eq!((read.dup, read.retain, read.qos as u8), (deliver.dup, deliver.retain, deliver.qos as u8));

        let v5::Packet::Publish(read) = v5::Packet::read(&mut bytes(Version::V5, &ToClient::Publish(deliver.clone())), None).unwrap() else {
            panic!("not a PUBLISH");
        };
        prop_assert_eq!((&read.topic[..], &read.payload, read.pkid), (message.topic.as_bytes(), &message.payload, deliver.packet_id));
        let properties = &message.properties;
        let expected = PublishProperties {
            payload_format_indicator: properties.utf8_payload.then_some(1),
            message_expiry_interval: deliver.expiry.map(|expiry| u32::try_from(expiry.as_secs()).unwrap()),
            topic_alias: None,
            response_topic: properties.response_topic.clone(),
            correlation_data: properties.correlation_data.clone(),
            user_properties: properties.user.clone(),
            subscription_identifiers: deliver.subscription_ids.iter().map(|id| usize::try_from(*id).unwrap()).collect(),
            content_type: properties.content_type.clone(),
        };
        prop_assert_eq!(read.properties.unwrap_or_default(), expected);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(five in any::<bool>(), packets in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..80)), 0..8)) {
        let version = if five { 5 } else { 4 };
        let mut input = BytesMut::from(&[0x10, 13 + u8::from(five), 0, 4, b'M', b'Q', b'T', b'T', version, 2, 0, 0][..]);
        input.extend_from_slice(if five { &[0, 0, 1, b'c'] } else { &[0, 1, b'c'] });
        for (first, body) in &packets {
            input.extend_from_slice(&[*first, u8::try_from(body.len()).unwrap()]);
            input.extend_from_slice(body);
        }
        let mut frames = Frames::new();
        while let Ok(Some(_)) = frames.poll_packet(&mut input) {}
    }

    #[test]
    fn packets_are_the_same_however_the_bytes_are_cut(cuts in prop::collection::vec(1..9usize, 1..40)) {
        let whole = [&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'c'][..], &[0x32, 6, 0, 1, b't', 0, 9, b'x'], &[0xc0, 0], &[0xe0, 0]].concat();
        let mut frames = Frames::new();
        let (mut input, mut kinds, mut rest) = (BytesMut::new(), Vec::new(), whole.as_slice());
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            input.extend_from_slice(now);
            rest = later;
            while let Some(packet) = frames.poll_packet(&mut input).unwrap() {
                kinds.push(match packet {
                    FromClient::Connect(connect) => connect.client_id,
                    FromClient::Publish(publish) => publish.message.topic,
                    FromClient::Ping => "ping".into(),
                    _ => "end".into(),
                });
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(kinds, ["c", "t", "ping", "end"]);
    }
}

#[test]
fn answers_are_read_back_by_another_library() {
    let welcome = Welcome { session_present: true, assigned_id: Some("sedge-1".into()), session_expiry: Some(Duration::from_secs(9)) };
    let v5::Packet::ConnAck(read) = v5::Packet::read(&mut bytes(Version::V5, &ToClient::Welcome(welcome)), None).unwrap() else {
        panic!("not a CONNACK");
    };
    let properties = read.properties.unwrap();
    assert!(read.session_present);
    assert_eq!((properties.receive_max, properties.max_packet_size), (Some(32), Some(PACKET_BYTES_MAX)));
    assert_eq!((properties.assigned_client_identifier.as_deref(), properties.session_expiry_interval), (Some("sedge-1"), Some(9)));

    let answers = vec![Ok(QoS::ExactlyOnce), Err(Reason::Quota)];
    let suback = ToClient::SubAck { packet_id: 3, answers };
    let v4::Packet::SubAck(read) = v4::Packet::read(&mut bytes(Version::V3, &suback), 1 << 20).unwrap() else { panic!("not a SUBACK") };
    assert_eq!((read.pkid, read.return_codes.len()), (3, 2));
    let v5::Packet::SubAck(read) = v5::Packet::read(&mut bytes(Version::V5, &suback), None).unwrap() else { panic!("not a SUBACK") };
    assert_eq!(
        read.return_codes,
        [v5::SubscribeReasonCode::Success(rumqttc::v5::mqttbytes::QoS::ExactlyOnce), v5::SubscribeReasonCode::QuotaExceeded]
    );

    let disconnect = bytes(Version::V5, &ToClient::Disconnect(Reason::TakenOver));
    assert_eq!(&disconnect[..], [0xe0, 1, 0x8e]);
    assert!(bytes(Version::V3, &ToClient::Disconnect(Reason::TakenOver)).is_empty());
}
