//! Traces and numbers in the JSON encoding of OTLP 1.x. Pure: what is sent, as text.
//!
//! JSON and not protobuf: every collector takes it and `serde_json` is here already; the other way would bring the OpenTelemetry SDK,
//! its exporter, prost and a second HTTP client onto a gateway, for a connection that carries one batch in some seconds.

use super::histogram::Distribution;
use super::metrics::{Family, Kind, Labels, Point, Unit, Value};
use super::span::Span;
use crate::meter::Kind as Trigger;
use serde_json::{Value as Json, json};

/// Who sends.
#[derive(Debug, Clone)]
pub(super) struct Resource {
    /// Tells runs of the daemon apart.
    pub(super) instance: String,
    /// When the counting began, milliseconds since 1970.
    pub(super) started_ms: u64,
}

/// The server side of an invocation.
const KIND_SERVER: u8 = 2;
/// The receiving side of an event.
const KIND_CONSUMER: u8 = 5;
/// Numbers are sums since the start.
const CUMULATIVE: u8 = 2;
const STATUS_ERROR: u8 = 2;

/// The body of `POST /v1/traces`.
pub(super) fn traces(resource: &Resource, spans: &[Span]) -> Vec<u8> {
    let spans: Vec<Json> = spans.iter().map(span).collect();
    let body = json!({ "resourceSpans": [{ "resource": attributes_of(resource), "scopeSpans": [{ "scope": scope(), "spans": spans }] }] });
    text(&body)
}

/// The body of `POST /v1/metrics`.
pub(super) fn metrics(resource: &Resource, families: &[Family], now_ms: u64) -> Vec<u8> {
    let times = (nanos(resource.started_ms), nanos(now_ms));
    let families = families.iter().filter(|family| !family.points.is_empty());
    let metrics: Vec<Json> = families.map(|family| metric(family, &times)).collect();
    let body =
        json!({ "resourceMetrics": [{ "resource": attributes_of(resource), "scopeMetrics": [{ "scope": scope(), "metrics": metrics }] }] });
    text(&body)
}

fn text(body: &Json) -> Vec<u8> {
    serde_json::to_vec(body).expect("text keys only")
}

fn attributes_of(resource: &Resource) -> Json {
    let labels = vec![
        ("service.name", "sedged".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", resource.instance.clone()),
    ];
    json!({ "attributes": attributes(&labels) })
}

fn scope() -> Json {
    json!({ "name": "sedged", "version": env!("CARGO_PKG_VERSION") })
}

fn span(span: &Span) -> Json {
    let end = u128::from(span.end_ms) * 1_000_000;
    let (name, kind) = match (&span.request, span.kind) {
        (Some((method, Some(requests))), _) => (format!("{method} {}", requests.route().unwrap_or_default()), KIND_SERVER),
        (Some((method, None)), _) => (method.to_string(), KIND_SERVER),
        (None, Trigger::Pubsub) => (span.counts.function.to_string(), KIND_CONSUMER),
        (None, Trigger::Http | Trigger::Timer | Trigger::Other) => (span.counts.function.to_string(), KIND_SERVER),
    };
    let mut list = attributes(&labels(span));
    list.push(json!({ "key": "faas.coldstart", "value": { "boolValue": span.cold } }));
    let mut body = json!({
        "traceId": format!("{:032x}", span.trace.trace_id()),
        "spanId": format!("{:016x}", span.trace.span_id()),
        "name": name.trim_end(),
        "kind": kind,
        "startTimeUnixNano": end.saturating_sub(u128::from(span.wall_us) * 1_000).to_string(),
        "endTimeUnixNano": end.to_string(),
        "attributes": list,
    });
    let mut put = |key: &str, value: Json| body.as_object_mut().and_then(|map| map.insert(key.to_owned(), value));
    if let Some(parent) = span.trace.parent_id() {
        put("parentSpanId", format!("{parent:016x}").into());
    }
    if let Some(state) = span.trace.state() {
        put("traceState", state.into());
    }
    if let Some(failure) = &span.failure {
        put("status", json!({ "code": STATUS_ERROR, "message": failure }));
    }
    body
}

fn labels(span: &Span) -> Labels {
    let mut labels = vec![
        ("faas.name", span.counts.function.to_string()),
        ("faas.version", span.counts.revision.short().to_string()),
        ("faas.trigger", span.kind.as_str().to_owned()),
        ("faas.invocation_id", span.invocation.to_string()),
    ];
    if let Some((method, requests)) = &span.request {
        labels.push(("http.request.method", method.to_string()));
        labels.extend(requests.as_ref().and_then(|requests| Some(("http.route", requests.route()?.to_owned()))));
    }
    labels
}

fn metric(family: &Family, times: &(String, String)) -> Json {
    let unit = match family.unit {
        Unit::None => "1",
        Unit::Seconds => "s",
        Unit::Bytes => "By",
    };
    let points: Vec<Json> = family.points.iter().map(|point| data_point(point, family.unit, times)).collect();
    let (field, data) = match family.kind {
        Kind::Counter => ("sum", json!({ "aggregationTemporality": CUMULATIVE, "isMonotonic": true, "dataPoints": points })),
        Kind::Gauge => ("gauge", json!({ "dataPoints": points })),
        Kind::Histogram => ("histogram", json!({ "aggregationTemporality": CUMULATIVE, "dataPoints": points })),
    };
    json!({ "name": family.name, "description": family.help, "unit": unit, field: data })
}

fn data_point(point: &Point, unit: Unit, (start, now): &(String, String)) -> Json {
    let mut body = match &point.value {
        Value::Whole(value) => json!({ "asInt": value.to_string() }),
        Value::Micros(value) => json!({ "asDouble": scaled(*value, Unit::Seconds) }),
        Value::Distribution(Distribution { bounds, buckets, sum }) => json!({
            "count": buckets.iter().sum::<u64>().to_string(),
            "sum": scaled(*sum, unit),
            "bucketCounts": buckets.iter().map(u64::to_string).collect::<Vec<_>>(),
            "explicitBounds": bounds.iter().map(|bound| scaled(*bound, unit)).collect::<Vec<_>>(),
        }),
    };
    if let Some(map) = body.as_object_mut() {
        map.insert("attributes".to_owned(), attributes(&point.labels).into());
        map.insert("startTimeUnixNano".to_owned(), start.clone().into());
        map.insert("timeUnixNano".to_owned(), now.clone().into());
    }
    body
}

fn attributes(labels: &Labels) -> Vec<Json> {
    labels.iter().map(|(key, value)| json!({ "key": key, "value": { "stringValue": value } })).collect()
}

#[expect(clippy::cast_precision_loss, reason = "the format has doubles only; what is billed goes another way")]
fn scaled(value: u64, unit: Unit) -> f64 {
    if unit == Unit::Seconds { value as f64 / 1e6 } else { value as f64 }
}

fn nanos(ms: u64) -> String {
    (u128::from(ms) * 1_000_000).to_string()
}
