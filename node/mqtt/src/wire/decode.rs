//! Bytes to packets.  Whatever is wrong with them becomes a [`Reason`]; nothing here panics.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use mqtt_protocol_core::mqtt::{
    common::Cursor,
    connection::{PacketBuildResult, PacketBuilder, PacketData, RawPacket},
    packet::{Property, Qos, RetainHandling as WireRetain, SubEntry, v3_1_1, v5_0},
    result_code::{DisconnectReasonCode, MqttError, PubrecReasonCode},
};

use super::{Connect, FromClient, Options, Publish, Reason, RetainHandling, Version, Will, owned};
use crate::{
    limits::{PACKET_BYTES_MAX, PAYLOAD_BYTES_MAX, SESSION_EXPIRY_MAX, USER_PROPERTIES_MAX},
    message::{Message, Properties, QoS},
};

/// First byte of CONNECT.
const CONNECT: u8 = 0x10;

/// Cuts the bytes of one connection into packets.  The first must be CONNECT, whose version then holds.
pub(crate) struct Frames {
    builder: PacketBuilder,
    version: Option<Version>,
    /// Whether the first byte has been seen.
    begun: bool,
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Frames").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Frames {
    pub(crate) fn new() -> Self {
        Self { builder: PacketBuilder::with_maximum_packet_size(PACKET_BYTES_MAX), version: None, begun: false }
    }

    /// The version, once CONNECT has been seen.
    pub(crate) fn version(&self) -> Option<Version> {
        self.version
    }

    /// Takes bytes from the front of `input` until a packet is whole; `None` when all of them were taken before that.
    pub(crate) fn poll_packet(&mut self, input: &mut BytesMut) -> Result<Option<FromClient>, Reason> {
        while let Some(first) = input.first() {
            // What is not CONNECT need not be waited for.
            if !self.begun && *first != CONNECT {
                return Err(Reason::Protocol);
            }
            self.begun = true;
            let mut cursor = Cursor::new(&input[..]);
            let result = self.builder.feed(&mut cursor);
            let taken = usize::try_from(cursor.position()).expect("a position in a slice");
            input.advance(taken);
            match result {
                PacketBuildResult::Complete(raw) => return self.decode(&raw).map(Some),
                PacketBuildResult::Incomplete => {}
                PacketBuildResult::Error(MqttError::PacketTooLarge) => {
                    return Err(Reason::TooLarge);
                }
                PacketBuildResult::Error(_) => return Err(Reason::Malformed),
            }
        }
        Ok(None)
    }

    fn decode(&mut self, raw: &RawPacket) -> Result<FromClient, Reason> {
        let kind = raw.packet_type();
        match (self.version, kind) {
            (None, 1) => {
                let version = connect_version(raw.data_as_slice())?;
                self.version = Some(version);
                check_flags(raw)?;
                connect(version, raw).map(|connect| FromClient::Connect(Box::new(connect)))
            }
            (None, _) | (Some(_), 1) => Err(Reason::Protocol),
            (Some(version), _) => {
                check_flags(raw)?;
                packet(version, raw)
            }
        }
    }
}

/// The flags beside the packet type are fixed, except those of PUBLISH.
fn check_flags(raw: &RawPacket) -> Result<(), Reason> {
    match (raw.packet_type(), raw.flags()) {
        (3, _) | (6 | 8 | 10, 0b0010) | (1 | 4 | 5 | 7 | 12 | 14, 0) => Ok(()),
        (_, _) => Err(Reason::Malformed),
    }
}

/// Reads the version, and checks the connect flags that the packet parser takes on trust.
fn connect_version(body: &[u8]) -> Result<Version, Reason> {
    let version = match body {
        [0, 4, b'M', b'Q', b'T', b'T', 4, ..] => Version::V3,
        [0, 4, b'M', b'Q', b'T', b'T', 5, ..] => Version::V5,
        [0, 4, b'M', b'Q', b'T', b'T', ..] | [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', ..] => {
            return Err(Reason::Version);
        }
        _ => return Err(Reason::Protocol),
    };
    let flags = *body.get(7).ok_or(Reason::Malformed)?;
    let (will, will_qos, will_retain) = (flags & 0x04 != 0, flags >> 3 & 0x03, flags & 0x20 != 0);
    let stray_will = !will && (will_qos != 0 || will_retain);
    if flags & 0x01 != 0 || will_qos == 3 || stray_will { Err(Reason::Malformed) } else { Ok(version) }
}

fn connect(version: Version, raw: &RawPacket) -> Result<Connect, Reason> {
    match version {
        Version::V3 => raw.parse_exact(v3_1_1::Connect::parse).map(|packet| connect_v3(&packet)).map_err(reason),
        Version::V5 => connect_v5(&raw.parse_exact(v5_0::Connect::parse).map_err(reason)?),
    }
}

fn connect_v3(packet: &v3_1_1::Connect) -> Connect {
    let will = packet.will_topic().map(|topic| Will {
        message: Arc::new(Message {
            topic: topic.into(),
            payload: owned(packet.will_payload().unwrap_or_default()),
            qos: qos(packet.will_qos()),
            retain: packet.will_retain(),
            properties: Properties::default(),
        }),
        delay: Duration::ZERO,
    });
    Connect {
        version: Version::V3,
        client_id: packet.client_id().into(),
        clean_start: packet.clean_session(),
        keep_alive: Duration::from_secs(packet.keep_alive().into()),
        session_expiry: if packet.clean_session() { Duration::ZERO } else { SESSION_EXPIRY_MAX },
        receive_max: u16::MAX,
        packet_bytes_max: u32::MAX,
        will,
        user: packet.user_name().map(Into::into),
        password: packet.password().map(Into::into),
    }
}

fn connect_v5(packet: &v5_0::Connect) -> Result<Connect, Reason> {
    let mut connect = Connect {
        version: Version::V5,
        client_id: packet.client_id().into(),
        clean_start: packet.clean_start(),
        keep_alive: Duration::from_secs(packet.keep_alive().into()),
        session_expiry: Duration::ZERO,
        receive_max: u16::MAX,
        packet_bytes_max: u32::MAX,
        will: will_v5(packet)?,
        user: packet.user_name().map(Into::into),
        password: packet.password().map(Into::into),
    };
    for property in packet.props() {
        match property {
            Property::SessionExpiryInterval(value) => connect.session_expiry = Duration::from_secs(value.val().into()),
            Property::ReceiveMaximum(value) => connect.receive_max = value.val(),
            Property::MaximumPacketSize(value) => connect.packet_bytes_max = value.val(),
            Property::AuthenticationMethod(_) => return Err(Reason::AuthenticationMethod),
            _ => {}
        }
    }
    Ok(connect)
}

fn will_v5(packet: &v5_0::Connect) -> Result<Option<Will>, Reason> {
    let Some(topic) = packet.will_topic() else {
        return Ok(None);
    };
    let delay = packet.will_props().iter().find_map(|property| match property {
        Property::WillDelayInterval(value) => Some(Duration::from_secs(value.val().into())),
        _ => None,
    });
    let message = Message {
        topic: topic.into(),
        payload: owned(packet.will_payload().unwrap_or_default()),
        qos: qos(packet.will_qos()),
        retain: packet.will_retain(),
        properties: properties(packet.will_props())?,
    };
    Ok(Some(Will { message: Arc::new(message), delay: delay.unwrap_or_default() }))
}

fn packet(version: Version, raw: &RawPacket) -> Result<FromClient, Reason> {
    match version {
        Version::V3 => packet_v3(raw),
        Version::V5 => packet_v5(raw),
    }
}

fn packet_v3(raw: &RawPacket) -> Result<FromClient, Reason> {
    Ok(match raw.packet_type() {
        3 => publish_v3(&v3_1_1::Publish::parse(raw.flags(), publish_body(raw)?).map_err(reason)?.0)?,
        4 => FromClient::PubAck { packet_id: id(raw.parse_exact(v3_1_1::Puback::parse).map_err(reason)?.packet_id())? },
        5 => FromClient::PubRec { packet_id: id(raw.parse_exact(v3_1_1::Pubrec::parse).map_err(reason)?.packet_id())?, failed: false },
        6 => FromClient::PubRel { packet_id: id(raw.parse_exact(v3_1_1::Pubrel::parse).map_err(reason)?.packet_id())? },
        7 => FromClient::PubComp { packet_id: id(raw.parse_exact(v3_1_1::Pubcomp::parse).map_err(reason)?.packet_id())? },
        8 => {
            let packet = raw.parse_exact(v3_1_1::Subscribe::parse).map_err(reason)?;
            subscribe(Version::V3, packet.packet_id(), packet.entries(), None)?
        }
        10 => {
            let packet = raw.parse_exact(v3_1_1::Unsubscribe::parse).map_err(reason)?;
            let filters = packet.entries().iter().map(|filter| filter.as_str().to_owned()).collect();
            FromClient::Unsubscribe { packet_id: id(packet.packet_id())?, filters }
        }
        12 => raw.parse_exact(v3_1_1::Pingreq::parse).map(|_| FromClient::Ping).map_err(reason)?,
        14 => {
            raw.parse_exact(v3_1_1::Disconnect::parse).map_err(reason)?;
            FromClient::Disconnect { with_will: false, session_expiry: None }
        }
        _ => return Err(Reason::Protocol),
    })
}

fn packet_v5(raw: &RawPacket) -> Result<FromClient, Reason> {
    Ok(match raw.packet_type() {
        3 => publish_v5(&v5_0::Publish::parse(raw.flags(), publish_body(raw)?).map_err(reason)?.0)?,
        4 => FromClient::PubAck { packet_id: id(raw.parse_exact(v5_0::Puback::parse).map_err(reason)?.packet_id())? },
        5 => {
            let packet = raw.parse_exact(v5_0::Pubrec::parse).map_err(reason)?;
            let failed = packet.reason_code().is_some_and(|code| code as u8 >= PubrecReasonCode::UnspecifiedError as u8);
            FromClient::PubRec { packet_id: id(packet.packet_id())?, failed }
        }
        6 => FromClient::PubRel { packet_id: id(raw.parse_exact(v5_0::Pubrel::parse).map_err(reason)?.packet_id())? },
        7 => FromClient::PubComp { packet_id: id(raw.parse_exact(v5_0::Pubcomp::parse).map_err(reason)?.packet_id())? },
        8 => {
            let packet = raw.parse_exact(v5_0::Subscribe::parse).map_err(reason)?;
            let id = packet.props().iter().find_map(|property| match property {
                Property::SubscriptionIdentifier(value) => Some(value.val()),
                _ => None,
            });
            subscribe(Version::V5, packet.packet_id(), packet.entries(), id)?
        }
        10 => {
            let packet = raw.parse_exact(v5_0::Unsubscribe::parse).map_err(reason)?;
            let filters = packet.entries().iter().map(|filter| filter.as_str().to_owned()).collect();
            FromClient::Unsubscribe { packet_id: id(packet.packet_id())?, filters }
        }
        12 => raw.parse_exact(v5_0::Pingreq::parse).map(|_| FromClient::Ping).map_err(reason)?,
        14 => disconnect_v5(&raw.parse_exact(v5_0::Disconnect::parse).map_err(reason)?),
        _ => return Err(Reason::Protocol),
    })
}

fn disconnect_v5(packet: &v5_0::Disconnect) -> FromClient {
    let properties = packet.props().iter().flatten();
    let session_expiry = properties.into_iter().find_map(|property| match property {
        Property::SessionExpiryInterval(value) => Some(Duration::from_secs(value.val().into())),
        _ => None,
    });
    // Anything but a normal disconnection leaves the will in force.
    let normal = packet.reason_code().is_none_or(|code| code == DisconnectReasonCode::NormalDisconnection);
    FromClient::Disconnect { with_will: !normal, session_expiry }
}

fn publish_body(raw: &RawPacket) -> Result<Arc<[u8]>, Reason> {
    match &raw.data {
        PacketData::Publish(body) => Ok(Arc::clone(body)),
        PacketData::Normal(_) => Err(Reason::Malformed),
    }
}

fn publish_v3(packet: &v3_1_1::Publish) -> Result<FromClient, Reason> {
    let message = Message {
        topic: packet.topic_name().into(),
        payload: owned(packet.payload().as_slice()),
        qos: qos(packet.qos()),
        retain: packet.retain(),
        properties: Properties::default(),
    };
    publish(packet.packet_id(), packet.dup(), None, message)
}

fn publish_v5(packet: &v5_0::Publish) -> Result<FromClient, Reason> {
    let mut alias = None;
    for property in packet.props() {
        match property {
            Property::TopicAlias(value) => alias = Some(value.val()),
            // Only servers send these.
            Property::SubscriptionIdentifier(_) => return Err(Reason::Protocol),
            _ => {}
        }
    }
    let message = Message {
        topic: packet.topic_name().into(),
        payload: owned(packet.payload().as_slice()),
        qos: qos(packet.qos()),
        retain: packet.retain(),
        properties: properties(packet.props())?,
    };
    publish(packet.packet_id(), packet.dup(), alias, message)
}

fn publish(packet_id: Option<u16>, dup: bool, alias: Option<u16>, message: Message) -> Result<FromClient, Reason> {
    if message.payload.len() > PAYLOAD_BYTES_MAX {
        return Err(Reason::TooLarge);
    }
    let packet_id = match (packet_id, message.qos) {
        (Some(packet_id), _) => id(packet_id)?,
        (None, QoS::AtMostOnce) if dup => return Err(Reason::Malformed),
        (None, _) => 0,
    };
    Ok(FromClient::Publish(Box::new(Publish { packet_id, dup, alias, message })))
}

fn subscribe(version: Version, packet_id: u16, entries: &[SubEntry], subscription: Option<u32>) -> Result<FromClient, Reason> {
    let options = |entry: &SubEntry| {
        let options = entry.sub_opts();
        // MQTT 3.1.1 never returns a client's own retain flag and always sends retained messages: the defaults of 5.0.
        Options {
            qos: qos(options.qos()),
            no_local: options.nl(),
            retain_as_published: options.rap(),
            retain_handling: match options.rh() {
                WireRetain::SendRetained => RetainHandling::Always,
                WireRetain::SendRetainedIfNotExists => RetainHandling::IfNew,
                WireRetain::DoNotSendRetained => RetainHandling::Never,
            },
            id: subscription,
        }
    };
    let reserved = |entry: &SubEntry| {
        let byte = entry.sub_opts().to_buffer()[0];
        if version == Version::V3 { byte & !0x03 } else { byte & 0xc0 }
    };
    if entries.is_empty() || entries.iter().any(|entry| reserved(entry) != 0) {
        return Err(Reason::Malformed);
    }
    let filters = entries.iter().map(|entry| (entry.topic_filter().to_owned(), options(entry))).collect();
    Ok(FromClient::Subscribe { packet_id: id(packet_id)?, filters })
}

/// Properties that PUBLISH and wills share.
fn properties(list: &[Property]) -> Result<Properties, Reason> {
    let mut properties = Properties::default();
    for property in list {
        match property {
            Property::ContentType(value) => properties.content_type = Some(value.val().into()),
            Property::ResponseTopic(value) => properties.response_topic = Some(value.val().into()),
            Property::CorrelationData(value) => properties.correlation_data = Some(owned(value.val())),
            Property::MessageExpiryInterval(value) => properties.expiry = Some(Duration::from_secs(value.val().into())),
            Property::PayloadFormatIndicator(value) => properties.utf8_payload = value.val() == 1,
            Property::UserProperty(value) if properties.user.len() < USER_PROPERTIES_MAX => {
                properties.user.push((value.key().into(), value.val().into()));
            }
            Property::UserProperty(_) => return Err(Reason::Quota),
            _ => {}
        }
    }
    Ok(properties)
}

fn id(packet_id: u16) -> Result<u16, Reason> {
    if packet_id == 0 { Err(Reason::Malformed) } else { Ok(packet_id) }
}

fn qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn reason(error: MqttError) -> Reason {
    match error {
        MqttError::ProtocolError => Reason::Protocol,
        MqttError::UnsupportedProtocolVersion => Reason::Version,
        MqttError::ClientIdentifierNotValid => Reason::ClientId,
        MqttError::BadUserNameOrPassword => Reason::Credentials,
        MqttError::TopicFilterInvalid => Reason::Filter,
        MqttError::TopicNameInvalid => Reason::Topic,
        MqttError::TopicAliasInvalid => Reason::TopicAlias,
        MqttError::PacketTooLarge => Reason::TooLarge,
        _ => Reason::Malformed,
    }
}
