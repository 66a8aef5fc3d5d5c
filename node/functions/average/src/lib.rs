//! Running statistics of each sensor, and an alarm when a reading is too high.
//!
//! ```text
//! plant/<sensor>/temperature ─▶ handle ─▶ state (keyvalue) ─▶ reply {"sensor","count","mean","max"}
//!                                  └─ value > alarm_above ─▶ alarm/<sensor>
//! ```
//! Events of one topic arrive one after the other, so reading, changing and writing the statistics needs no lock.

mod http;
mod statistics;

use serde::{Deserialize, Serialize};
use statistics::Statistics;

mod imports {
    wit_bindgen::generate!({ world: "average", path: "wit", generate_all });
}
use imports::wasi::config::store as config;
use imports::wasi::keyvalue::{atomics, store as keyvalue};
use imports::wasi::logging::logging::{Level, log};
use imports::wasi::messaging::{producer, types::Client, types::Message};

/// What a sensor sends.
#[derive(Deserialize)]
struct Reading {
    value: f64,
}

/// What the function answers.
#[derive(Serialize)]
struct Answer<'a> {
    sensor: &'a str,
    count: u64,
    mean: f64,
    max: f64,
    #[cfg(feature = "v2")]
    trend: statistics::Trend,
}

/// What is published when a reading is too high.
#[derive(Serialize)]
struct Alarm<'a> {
    sensor: &'a str,
    value: f64,
    limit: f64,
}

/// Whose fault it was that there is no answer.
enum Failure {
    /// The event's: trying again is of no use.
    BadReading(String),
    /// The surroundings': trying again may help.
    Unavailable(String),
}

/// Handles one event.
fn handle(topic: &str, data: &[u8]) -> Result<Vec<u8>, Failure> {
    let sensor = topic.split('/').nth(1).filter(|sensor| !sensor.is_empty());
    let sensor = sensor.ok_or_else(|| Failure::BadReading(format!("no sensor in topic `{topic}`")))?;
    let reading: Reading = serde_json::from_slice(data).map_err(|error| Failure::BadReading(error.to_string()))?;

    let bucket = keyvalue::open("default").map_err(unavailable)?;
    let key = format!("statistics/{sensor}");
    let stored = bucket.get(&key).map_err(unavailable)?;
    let before: Statistics = stored.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let after = before.with(reading.value);
    bucket.set(&key, &json(&after)).map_err(unavailable)?;

    alarm(sensor, reading.value)?;
    // Counted last: an attempt that failed half-way is not counted twice.
    let count = atomics::increment(&bucket, &format!("count/{sensor}"), 1).map_err(unavailable)?;
    Ok(json(&Answer {
        sensor,
        count: count.unsigned_abs(),
        mean: after.mean,
        max: after.max,
        #[cfg(feature = "v2")]
        trend: before.trend(reading.value),
    }))
}

fn alarm(sensor: &str, value: f64) -> Result<(), Failure> {
    let setting = config::get("alarm_above").map_err(unavailable)?;
    let Some(limit) = setting.and_then(|text| text.parse::<f64>().ok()) else { return Ok(()) };
    if value <= limit {
        return Ok(());
    }
    let message = Message::new(&json(&Alarm { sensor, value, limit }));
    message.set_content_type("application/json");
    let bus = Client::connect("default").map_err(unavailable)?;
    producer::send(&bus, &format!("alarm/{sensor}"), message).map_err(unavailable)
}

fn unavailable(error: impl std::fmt::Debug) -> Failure {
    Failure::Unavailable(format!("{error:?}"))
}

/// Our own plain structures always have a JSON form.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
