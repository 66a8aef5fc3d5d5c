//! Events in files: the JSON format of CloudEvents 1.0, with the topic as the extension `topic`.

use crate::failure::Failure;
use crate::text;
use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use sedge_protocol::limits::EVENT_BYTES_MAX;
use sedge_protocol::{Event, Topic};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const FORMAT: &str = "an event file is CloudEvents JSON with a topic, as the event.json that `sedge new` writes";
const JSON: &str = "application/json";

/// The event in the file at `path`.
pub(crate) fn read(path: &Path) -> anyhow::Result<Event> {
    let wrong = |what: String| Failure::configuration(format!("{}: {what}", path.display()), FORMAT);
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|cause| wrong(format!("not JSON: {cause}")))?;
    Ok(parse(value).map_err(wrong)?)
}

/// The event that `value` describes; what is left out is made up.
pub(crate) fn parse(value: Value) -> Result<Event, String> {
    let Value::Object(mut fields) = value else { return Err("an event is an object".to_owned()) };
    let version = take(&mut fields, "specversion")?.unwrap_or_else(|| "1.0".to_owned());
    if version != "1.0" {
        return Err(format!("specversion `{version}` is not known: 1.0 is"));
    }
    let topic = take(&mut fields, "topic")?.ok_or("the attribute `topic` is missing: it says where the event is published")?;
    let topic: Topic = topic.parse().map_err(|broken| format!("topic: {broken}"))?;
    let time_ms = take(&mut fields, "time")?.map(|time| milliseconds(&time)).transpose()?;
    let content_type = take(&mut fields, "datacontenttype")?;
    let (data, content_type) = data(fields.remove("data"), take(&mut fields, "data_base64")?, content_type)?;
    if data.len() > EVENT_BYTES_MAX {
        return Err(format!("{} bytes of data: an event has at most {EVENT_BYTES_MAX}", data.len()));
    }
    Ok(Event {
        id: take(&mut fields, "id")?.unwrap_or_else(|| format!("sedge-{}", text::now_ms())),
        source: take(&mut fields, "source")?.unwrap_or_else(|| "/sedge".to_owned()),
        kind: take(&mut fields, "type")?.unwrap_or_else(|| "sedge.invoke".to_owned()),
        time_ms,
        topic,
        content_type,
        data,
        extensions: extensions(fields)?,
    })
}

/// The event as such a file has it.
pub(crate) fn write(event: &Event) -> Value {
    let Event { id, source, kind, time_ms, topic, content_type, extensions, data } = event;
    let mut fields = Map::new();
    for (name, text) in [("specversion", "1.0"), ("id", id), ("source", source), ("type", kind), ("topic", topic.as_str())] {
        fields.insert(name.to_owned(), text.into());
    }
    let time = time_ms.and_then(|ms| Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok());
    fields.extend(time.map(|time| ("time".to_owned(), time.to_string().into())));
    fields.extend(content_type.as_ref().map(|media| ("datacontenttype".to_owned(), media.as_str().into())));
    fields.extend(extensions.iter().map(|(name, text)| (name.clone(), text.as_str().into())));
    let (name, value) = written("data", data, content_type.as_deref());
    fields.insert(name, value);
    Value::Object(fields)
}

/// Bytes under `name` as JSON or text where they are that, else as base64 under `name_base64`.
pub(crate) fn written(name: &str, bytes: &[u8], content_type: Option<&str>) -> (String, Value) {
    let value = if is_json(content_type) { serde_json::from_slice(bytes).ok() } else { str::from_utf8(bytes).ok().map(Value::from) };
    match value {
        Some(value) => (name.to_owned(), value),
        None => (format!("{name}_base64"), BASE64_STANDARD.encode(bytes).into()),
    }
}

fn is_json(content_type: Option<&str>) -> bool {
    content_type.is_some_and(|media| media.contains("json"))
}

fn take(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("the attribute `{name}` is {other}, not a text")),
    }
}

fn milliseconds(time: &str) -> Result<u64, String> {
    let time: Timestamp = time.parse().map_err(|cause| format!("time `{time}` is not as in 2026-01-31T12:00:00Z: {cause}"))?;
    u64::try_from(time.as_millisecond()).map_err(|_| "the time is before 1970".to_owned())
}

/// JSON as it is written, text as it is, and base64 decoded.
fn data(data: Option<Value>, base64: Option<String>, content_type: Option<String>) -> Result<(Vec<u8>, Option<String>), String> {
    let is_json = is_json(content_type.as_deref());
    match (data, base64) {
        (Some(_), Some(_)) => Err("`data` and `data_base64` together: one is the event's data".to_owned()),
        (None, Some(text)) => {
            let bytes = BASE64_STANDARD.decode(text).map_err(|cause| format!("data_base64: {cause}"))?;
            Ok((bytes, content_type))
        }
        (None, None) => Ok((Vec::new(), content_type)),
        (Some(Value::String(text)), None) if !is_json => Ok((text.into_bytes(), content_type)),
        (Some(value), None) => Ok((value.to_string().into_bytes(), content_type.or_else(|| Some(JSON.to_owned())))),
    }
}

fn extensions(fields: Map<String, Value>) -> Result<BTreeMap<String, String>, String> {
    let extension = |(name, value): (String, Value)| {
        let named_well = !name.is_empty() && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit());
        match value {
            _ if !named_well => Err(format!("`{name}` is no attribute: their names are of a-z and 0-9")),
            Value::String(text) => Ok((name, text)),
            Value::Number(number) => Ok((name, number.to_string())),
            Value::Bool(truth) => Ok((name, truth.to_string())),
            other => Err(format!("the attribute `{name}` is {other}: attributes are texts, numbers or true and false")),
        }
    };
    fields.into_iter().map(extension).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_event_of_the_templates_is_read() {
        let text = include_str!("../../../node/functions/templates/rust-http/event.json");
        let event = parse(serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!((event.topic.as_str(), event.kind.as_str()), ("plant/boiler/temperature", "sedge.mqtt.message"));
        assert_eq!((event.data.as_slice(), event.content_type.as_deref()), (&br#"{"value":21.5}"#[..], Some("application/json")));
    }

    #[test]
    fn data_is_json_text_or_bytes_and_attributes_may_be_added() {
        let of = |value| parse(value).map(|event| (event.data, event.content_type));
        assert_eq!(of(json!({ "topic": "a", "data": "22" })), Ok((b"22".to_vec(), None)));
        assert_eq!(of(json!({ "topic": "a", "data": "x", "datacontenttype": JSON })), Ok((b"\"x\"".to_vec(), Some(JSON.to_owned()))));
        assert_eq!(of(json!({ "topic": "a", "data": [1] })), Ok((b"[1]".to_vec(), Some(JSON.to_owned()))));
        assert_eq!(of(json!({ "topic": "a", "data_base64": "/wA=" })), Ok((vec![0xff, 0], None)));
        let event = parse(json!({ "topic": "a", "time": "1970-01-01T00:00:01Z", "qos": 1, "subject": "s" })).unwrap();
        assert_eq!((event.time_ms, event.extensions["qos"].as_str(), event.extensions["subject"].as_str()), (Some(1000), "1", "s"));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (json, data) in [
            (json!({ "data": { "value": 21.5 }, "datacontenttype": JSON }), &br#"{"value":21.5}"#[..]),
            (json!({ "data": "hot" }), b"hot"),
            (json!({ "data_base64": "/wA=", "datacontenttype": JSON }), &[0xff, 0]),
            (json!({ "data_base64": "e25vIEpTT04=", "datacontenttype": JSON }), b"{no JSON"),
        ] {
            let mut whole = json!({
                "specversion": "1.0", "id": "1", "source": "/s", "type": "t", "topic": "a/b", "time": "1970-01-01T00:00:01Z", "qos": "1"
            });
            whole.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
            let event = parse(whole.clone()).unwrap();
            assert_eq!((event.data.as_slice(), write(&event)), (data, whole));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (value, expected) in [
            (json!([]), "an event is an object"),
            (json!({}), "`topic` is missing"),
            (json!({ "topic": "a/#" }), "topic: "),
            (json!({ "topic": "a", "specversion": "0.3" }), "specversion `0.3`"),
            (json!({ "topic": "a", "id": 7 }), "`id` is 7, not a text"),
            (json!({ "topic": "a", "time": "noon" }), "time `noon`"),
            (json!({ "topic": "a", "data": 1, "data_base64": "" }), "`data` and `data_base64` together"),
            (json!({ "topic": "a", "data_base64": "?" }), "data_base64: "),
            (json!({ "topic": "a", "contentType": "x" }), "`contentType` is no attribute"),
            (json!({ "topic": "a", "list": [] }), "`list` is []"),
            (json!({ "topic": "a", "data": "x".repeat(EVENT_BYTES_MAX + 1) }), "bytes of data"),
        ] {
            let error = parse(value).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
