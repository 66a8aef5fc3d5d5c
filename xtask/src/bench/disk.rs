//! What a steady load writes to the disk.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use rumqttc::{AsyncClient, MqttOptions, QoS};
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::process;
use super::target::Target;
use crate::stage::http::Connection;

/// Events, and calls, a second.
const PER_SECOND: u32 = 10;
/// What came before is on the disk after this time: the store has written, and usage went out.
const WARM_UP: Duration = Duration::from_secs(10);
/// Bytes a day that a cheap flash bears without a thought.
const DAY_BYTES_MAX: u64 = 1_000_000_000;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What reached the disk.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Disk {
    /// Bytes in the measured time.
    pub(crate) bytes: u64,
    /// The measured time, seconds.
    pub(crate) seconds: f64,
    /// As a day.
    pub(crate) bytes_per_day: u64,
    /// Whether a day stays within what was promised.
    pub(crate) within_promise: bool,
    /// Events and calls that went well meanwhile.
    pub(crate) invocations: u64,
}

/// Sends ten events and ten calls a second, and reads from the kernel what the node wrote.
pub(crate) async fn steady(target: &Target, duration: Duration) -> Result<Disk> {
    let (host, port) = target.mqtt();
    let (client, mut connection) = AsyncClient::new(MqttOptions::new("steady", host, port), PER_SECOND as usize);
    let pump = tokio::spawn(async move { while connection.poll().await.is_ok() {} });
    let mut http = Connection::tcp(target.http()).await?;
    let mut tick = interval(Duration::from_secs(1) / PER_SECOND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begin = Instant::now() + WARM_UP;
    let mut first = None;
    let mut number = 0_u64;
    let last = loop {
        let now = tick.tick().await;
        if now >= begin && first.is_none() {
            first = Some(sample(target, now).await?);
        }
        if now >= begin + duration {
            break sample(target, now).await?;
        }
        let payload = format!("{{\"value\": {}}}", 20 + number % 9);
        client.publish(format!("plant/sensor-{}/temperature", number % 4), QoS::AtLeastOnce, false, payload).await?;
        let (status, _) = http.send(Method::GET, "/hello", Bytes::new()).await?;
        ensure!(status == StatusCode::OK, "/hello answered {status}");
        ensure!(!pump.is_finished(), "the node closed the connection of the sensor");
        number += 1;
    };
    pump.abort();
    figure(&first.context("the warm-up has an end")?, &last)
}

/// One look at the node.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    written: u64,
    invocations: u64,
}

async fn sample(target: &Target, at: Instant) -> Result<Sample> {
    let invocations = target.calls_ok("average").await? + target.calls_ok("hello").await?;
    Ok(Sample { at, written: process::written(target.pid())?, invocations })
}

fn figure(first: &Sample, last: &Sample) -> Result<Disk> {
    let (bytes, took) = (last.written.saturating_sub(first.written), last.at - first.at);
    let millis = u64::try_from(took.as_millis()).context("a measurement takes less than an age")?;
    ensure!(millis > 0, "nothing was measured");
    let day = u128::from(bytes) * DAY.as_millis() / u128::from(millis);
    let bytes_per_day = u64::try_from(day).unwrap_or(u64::MAX);
    let invocations = last.invocations.saturating_sub(first.invocations);
    Ok(Disk { bytes, seconds: took.as_secs_f64(), bytes_per_day, within_promise: bytes_per_day <= DAY_BYTES_MAX, invocations })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_made_a_day() {
        let first = Sample { at: Instant::now(), written: 1000, invocations: 5 };
        let last = Sample { at: first.at + Duration::from_secs(60), written: 601_000, invocations: 1205 };
        let disk = figure(&first, &last).unwrap();
        assert_eq!((disk.bytes, disk.bytes_per_day, disk.invocations), (600_000, 864_000_000, 1200));
        assert!(disk.within_promise);
        assert!(!figure(&first, &Sample { written: 801_000, ..last }).unwrap().within_promise);
        assert!(figure(&first, &first).is_err());
    }
}
