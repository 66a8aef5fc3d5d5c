//! Packets to bytes.  Written straight into the buffer of the connection; a test reads them back with the library's parser.

use bytes::{BufMut, BytesMut};

use super::{Deliver, Reason, ToClient, Version, Welcome};
use crate::{
    limits::{PACKET_BYTES_MAX, RECEIVE_MAX, TOPIC_ALIASES_MAX},
    message::{Properties, QoS},
};

/// Appends `packet` to `out`.
pub(crate) fn encode(version: Version, packet: &ToClient, out: &mut BytesMut) {
    match packet {
        ToClient::Welcome(welcome) => self::welcome(version, welcome, out),
        ToClient::Unwelcome(reason) => match version {
            Version::V3 => frame(0x20, &[0, return_code(*reason)], out),
            Version::V5 => frame(0x20, &[0, *reason as u8, 0], out),
        },
        ToClient::Publish(deliver) => publish(version, deliver, out),
        ToClient::PubAck { packet_id, reason } => ack(version, 0x40, *packet_id, *reason, out),
        ToClient::PubRec { packet_id, reason } => ack(version, 0x50, *packet_id, *reason, out),
        ToClient::PubRel { packet_id } => ack(version, 0x62, *packet_id, Reason::Success, out),
        ToClient::PubComp { packet_id, reason } => ack(version, 0x70, *packet_id, *reason, out),
        ToClient::SubAck { packet_id, answers } => {
            let codes = answers.iter().map(|answer| match (answer, version) {
                (Ok(qos), _) => *qos as u8,
                (Err(_), Version::V3) => 0x80,
                (Err(reason), Version::V5) => *reason as u8,
            });
            answer(version, 0x90, *packet_id, codes, out);
        }
        ToClient::UnsubAck { packet_id, answers } => match version {
            Version::V3 => answer(version, 0xb0, *packet_id, std::iter::empty(), out),
            Version::V5 => answer(version, 0xb0, *packet_id, answers.iter().map(|reason| *reason as u8), out),
        },
        ToClient::Pong => frame(0xd0, &[], out),
        // A server of MQTT 3.1.1 says nothing before it closes.
        ToClient::Disconnect(_) if version == Version::V3 => {}
        ToClient::Disconnect(reason) => frame(0xe0, &[*reason as u8], out),
    }
}

/// Return codes of CONNACK in MQTT 3.1.1.
fn return_code(reason: Reason) -> u8 {
    match reason {
        Reason::Version => 1,
        Reason::ClientId => 2,
        Reason::Credentials => 4,
        Reason::NotAuthorized => 5,
        _ => 3,
    }
}

fn welcome(version: Version, welcome: &Welcome, out: &mut BytesMut) {
    let mut body = BytesMut::new();
    body.put_u8(welcome.session_present.into());
    body.put_u8(0);
    if version == Version::V5 {
        let mut properties = BytesMut::new();
        if let Some(expiry) = welcome.session_expiry {
            properties.put_u8(0x11);
            properties.put_u32(seconds(expiry));
        }
        properties.put_u8(0x21);
        properties.put_u16(RECEIVE_MAX);
        properties.put_u8(0x22);
        properties.put_u16(TOPIC_ALIASES_MAX);
        properties.put_u8(0x27);
        properties.put_u32(PACKET_BYTES_MAX);
        if let Some(id) = &welcome.assigned_id {
            properties.put_u8(0x12);
            text(id.as_bytes(), &mut properties);
        }
        length(properties.len(), &mut body);
        body.extend_from_slice(&properties);
    }
    frame(0x20, &body, out);
}

fn publish(version: Version, deliver: &Deliver, out: &mut BytesMut) {
    let message = &deliver.message;
    let mut properties = BytesMut::new();
    if version == Version::V5 {
        put_properties(deliver, &message.properties, &mut properties);
    }
    let assured = deliver.qos > QoS::AtMostOnce;
    let property_bytes = if version == Version::V5 { length_bytes(properties.len()) + properties.len() } else { 0 };
    let body = 2 + message.topic.len() + if assured { 2 } else { 0 } + property_bytes + message.payload.len();
    out.reserve(5 + body);
    out.put_u8(0x30 | u8::from(deliver.dup) << 3 | (deliver.qos as u8) << 1 | u8::from(deliver.retain));
    length(body, out);
    text(message.topic.as_bytes(), out);
    if assured {
        out.put_u16(deliver.packet_id);
    }
    if version == Version::V5 {
        length(properties.len(), out);
        out.extend_from_slice(&properties);
    }
    out.extend_from_slice(&message.payload);
}

fn put_properties(deliver: &Deliver, properties: &Properties, out: &mut BytesMut) {
    if properties.utf8_payload {
        out.put_slice(&[0x01, 1]);
    }
    if let Some(expiry) = deliver.expiry {
        out.put_u8(0x02);
        out.put_u32(seconds(expiry));
    }
    let texts = [(0x03, properties.content_type.as_deref()), (0x08, properties.response_topic.as_deref())];
    for (id, value) in texts {
        if let Some(value) = value {
            out.put_u8(id);
            text(value.as_bytes(), out);
        }
    }
    if let Some(data) = &properties.correlation_data {
        out.put_u8(0x09);
        text(data, out);
    }
    for id in &deliver.subscription_ids {
        out.put_u8(0x0b);
        length(usize::try_from(*id).unwrap_or(usize::MAX), out);
    }
    for (name, value) in &properties.user {
        out.put_u8(0x26);
        text(name.as_bytes(), out);
        text(value.as_bytes(), out);
    }
}

fn ack(version: Version, first: u8, packet_id: u16, reason: Reason, out: &mut BytesMut) {
    let [high, low] = packet_id.to_be_bytes();
    match (version, reason) {
        (Version::V3, _) | (Version::V5, Reason::Success) => frame(first, &[high, low], out),
        (Version::V5, _) => frame(first, &[high, low, reason as u8], out),
    }
}

fn answer(version: Version, first: u8, packet_id: u16, codes: impl Iterator<Item = u8>, out: &mut BytesMut) {
    let mut body = BytesMut::new();
    body.put_u16(packet_id);
    if version == Version::V5 {
        body.put_u8(0);
    }
    body.extend(codes);
    frame(first, &body, out);
}

fn frame(first: u8, body: &[u8], out: &mut BytesMut) {
    out.put_u8(first);
    length(body.len(), out);
    out.extend_from_slice(body);
}

/// A variable byte integer.
fn length(mut value: usize, out: &mut BytesMut) {
    loop {
        let byte = u8::try_from(value & 0x7f).expect("seven bits fit");
        value >>= 7;
        if value == 0 {
            return out.put_u8(byte);
        }
        out.put_u8(byte | 0x80);
    }
}

fn length_bytes(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x001f_ffff => 3,
        _ => 4,
    }
}

/// A string or binary with its length in front.  All of ours came from such a field or were checked by `Broker::publish`.
fn text(bytes: &[u8], out: &mut BytesMut) {
    let length = u16::try_from(bytes.len()).expect("checked when the message came in");
    out.put_u16(length);
    out.extend_from_slice(bytes);
}

fn seconds(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
