//! Events on the local bus: how long to the completed invocation, and how many a second.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hyper::Method;
use sedge_protocol::Manifest;

use crate::bench::table::{Ratio, Row};
use crate::bench::target::{Target, function_of_repository};
use crate::bench::{load, mqtt};
use crate::stage::http::Connection;

const EVENTS: u64 = 20_000;
/// Median at light load, milliseconds.
const REACH_MS: f64 = 0.3;
/// The node's own clock of events; seconds.
const BUCKETS: &str = "sedge_event_duration_seconds_bucket{";

/// The function of the requests takes the events too, so both sides of the ratio run the same code.
pub(super) async fn measure(target: &Target, rounds: usize, each: Duration) -> Result<Vec<Row>> {
    let (mut manifest, wasm) = function_of_repository("hello")?;
    let taker = "name = 'hello'\n[[trigger]]\nmqtt = 'line/+/celsius'\nqos = 1\n";
    manifest.triggers.extend(Manifest::from_toml("bench", taker)?.0.triggers);
    let revision = target.assign(&manifest, wasm).await?;
    target.until_runs("hello", Some(revision)).await?;
    let mut medians = Vec::new();
    for _ in 0..rounds {
        let before = buckets(target).await?;
        mqtt::steady(target, each).await?;
        medians.push(median_ms(&before, &buckets(target).await?).context("no event was handled")?);
    }
    let (mut events, mut requests) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        events.push(mqtt::throughput(target, "hello", EVENTS).await?);
        requests.push(load::wrk(&format!("http://{}/hello", target.http()), 64, each).await?.per_second);
    }
    Ok(vec![
        Row::at_most("event: from the bus to the completed invocation, p50 at light load", "ms", medians, REACH_MS),
        Row::ratio(
            "events/s saturated ÷ requests/s of the same function",
            "/s",
            Ratio { ours: events, theirs: requests, at_least: true },
            1.0,
        ),
    ])
}

/// How many events took at most so long, by microseconds.
async fn buckets(target: &Target) -> Result<BTreeMap<u64, u64>> {
    let (status, body) = Connection::unix(target.socket()).await?.send(Method::GET, "/v1/metrics", Bytes::new()).await?;
    ensure!(status.is_success(), "the node told no metrics: {status}");
    read(&String::from_utf8_lossy(&body))
}

/// Sums over all revisions.
fn read(text: &str) -> Result<BTreeMap<u64, u64>> {
    let mut counts = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix(BUCKETS)) {
        let (labels, count) = line.rsplit_once("} ").with_context(|| format!("no count: {line}"))?;
        let bound = labels.split("le=\"").nth(1).and_then(|rest| rest.split('"').next()).with_context(|| format!("no bound: {line}"))?;
        if bound != "+Inf" {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounds are some seconds at most")]
            let bound_us = (bound.parse::<f64>()? * 1e6).round() as u64;
            *counts.entry(bound_us).or_default() += count.parse::<u64>()?;
        }
    }
    Ok(counts)
}

/// The median of what came between two looks, on a straight line within its bucket.
#[expect(clippy::cast_precision_loss, reason = "a time for people")]
fn median_ms(before: &BTreeMap<u64, u64>, after: &BTreeMap<u64, u64>) -> Option<f64> {
    let new: Vec<(u64, u64)> = after.iter().map(|(bound, count)| (*bound, count - before.get(bound).copied().unwrap_or(0))).collect();
    let half = new.last().filter(|(_, all)| *all > 0)?.1 as f64 / 2.0;
    let (mut below, mut counted) = (0, 0);
    for (bound, count) in new {
        if count as f64 >= half {
            let share = (half - counted as f64) / (count - counted) as f64;
            return Some((below as f64 + share * (bound - below) as f64) / 1000.0);
        }
        (below, counted) = (bound, count);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_its_bucket() {
        let text = |counts: [u64; 3]| {
            let [one, two, all] = counts;
            format!(
                "# HELP x\n{BUCKETS}faas_name=\"h\",le=\"0.0001\"}} {one}\n{BUCKETS}faas_name=\"h\",le=\"0.0002\"}} {two}\n\
                 {BUCKETS}faas_name=\"h\",le=\"+Inf\"}} {all}\n"
            )
        };
        let (before, after) = (read(&text([5, 5, 5])).unwrap(), read(&text([6, 15, 15])).unwrap());
        // Ten new ones: one up to 100 µs, nine up to 200 µs, so the fifth is at 100 + 4/9 of 100.
        assert!((median_ms(&before, &after).unwrap() - 0.144_4).abs() < 0.001);
        assert_eq!(median_ms(&after, &after), None);
    }
}
