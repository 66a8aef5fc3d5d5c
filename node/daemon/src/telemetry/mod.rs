//! What others see of the node: numbers for Prometheus, and traces and numbers for an OpenTelemetry collector.
//!
//! ```text
//! invocation ─▶ counts (meter, requests) ─▶ metrics::gather ─┬─ text ─▶ GET /v1/metrics, GET /metrics
//!      │                                                     └─ otlp ─┐
//!      └─ Tracer: span ─▶ bounded line ──────────────────────────────▶ export ─▶ collector (OTLP over HTTP)
//! ```
//! Without `[telemetry]` there is no line and no task: an invocation has its span id, and nothing is recorded.

mod export;
mod histogram;
mod listener;
mod metrics;
mod otlp;
mod requests;
mod span;
mod text;

pub(crate) use export::{Collector, Export};
pub(crate) use histogram::{DURATION_US, Distribution, EVENT_US, Histogram, MEMORY_BYTES};
pub(crate) use listener::run as serve;
pub(crate) use metrics::Sources;
pub(crate) use requests::{Open, Requests};
pub(crate) use span::{Span, Tracer, line};

/// Media type of the text that Prometheus reads.
pub(crate) const TEXT_MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";
