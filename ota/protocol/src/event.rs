//! Everything that happens: a CloudEvents 1.0 event on a topic.

use crate::Topic;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One event. Attribute names and meanings are those of CloudEvents 1.0; `topic` is ours and travels as the extension `topic`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Unique together with `source`.
    pub id: String,
    /// Where it comes from, a URI reference such as `/mqtt/sensor-7`.
    pub source: String,
    /// What kind it is, such as `sedge.mqtt.message`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it happened, in milliseconds since 1970; absent when the clock was not trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_ms: Option<u64>,
    /// Where it was published.
    pub topic: Topic,
    /// Media type of `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Further attributes: lower-case letters and digits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extensions: BTreeMap<String, String>,
    /// The payload.
    #[serde(default, with = "bytes")]
    pub data: Vec<u8>,
}

pub(crate) mod bytes {
    //! Bytes as one CBOR byte string instead of a list of numbers; in JSON as text where they are text.
    use serde::{Deserializer, Serializer, de};
    use std::fmt;

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(bytes) {
            Ok(text) if to.is_human_readable() => to.serialize_str(text),
            Ok(_) | Err(_) => to.serialize_bytes(bytes),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl<'de> de::Visitor<'de> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
                Ok(text.as_bytes().to_vec())
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes)
            }
        }
        from.deserialize_byte_buf(Bytes)
    }
}
