//! Events on the local bus: how long to the completed invocation, and how many a second.

use std::time::Duration;

use anyhow::Result;

use super::table::{Ratio, Row};
use crate::bench::target::Target;
use crate::bench::{load, mqtt};

const ROUNDS: usize = 5;
const EVENTS: u64 = 20_000;
/// Median at light load, milliseconds.
const REACH_MS: f64 = 0.3;

pub(super) async fn measure(target: &Target, each: Duration) -> Result<Vec<Row>> {
    target.put("hello").await?;
    target.put("convert").await?;
    let latency = mqtt::latency(target, each).await?;
    let (mut events, mut requests) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        events.push(mqtt::throughput(target, EVENTS).await?);
        requests.push(load::wrk(&format!("http://{}/hello", target.http()), 64, each).await?.per_second);
    }
    target.remove("convert").await?;
    Ok(vec![
        Row::at_most("event, MQTT publish → reply at a subscriber, p50 at light load", "ms", vec![latency.p50_ms], REACH_MS),
        Row::ratio("events/s saturated ÷ requests/s of hello", "/s", Ratio { ours: events, theirs: requests, at_least: true }, 1.0),
    ])
}
