//! An open loop: requests come at times that were fixed before, whether or not those before them were answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use hyper::{Method, StatusCode};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::stage::http::Connection;

/// One function's requests.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) path: String,
    /// Metered processor time of one, microseconds.
    pub(super) cpu_us: u64,
    /// After so long nobody wants the answer any more.
    pub(super) patience: Duration,
    /// Share of the box that it wants.
    pub(super) share: f64,
}

/// What became of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Which load it was of.
    pub(super) load: usize,
    /// When it was to come, since the begin of the phase.
    pub(super) at: Duration,
    /// From when it was to come.
    pub(super) took: Duration,
    pub(super) end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Answered in time.
    Good,
    /// 429 or 503.
    Refused,
    /// Not in time, or another answer.
    Lost,
}

/// The same numbers for the same seed.
struct Dice(u64);

impl Dice {
    /// Between 0 and 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are enough")]
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) as f64 / (1_u64 << 53) as f64).max(1e-12)
    }
}

/// When each request is to come: at random, independent of each other.
#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn schedule(loads: &[Load], cores: f64, duration: Duration, seed: u64) -> Vec<(Duration, usize)> {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut times = BTreeMap::new();
    for (number, load) in loads.iter().enumerate() {
        let gap_s = load.cpu_us as f64 / 1e6 / (load.share * cores);
        let mut at = Duration::ZERO;
        while at < duration {
            at += Duration::from_secs_f64(-dice.roll().ln() * gap_s);
            times.insert((at, number), ());
        }
    }
    times.into_keys().filter(|(at, _)| *at < duration).collect()
}

/// Sends all that is to come within `duration` and waits for the last answer or the end of its patience.
pub(super) async fn offer(address: &str, loads: &[Load], cores: f64, duration: Duration, seed: u64) -> Result<Vec<Sample>> {
    let begin = Instant::now();
    let idle: Idle = Arc::default();
    let mut under_way = JoinSet::new();
    for (at, number) in schedule(loads, cores, duration, seed) {
        sleep_until(begin + at).await;
        let (load, address, idle) = (loads[number].clone(), address.to_owned(), Arc::clone(&idle));
        under_way.spawn(async move {
            let due = begin + at;
            let end = match timeout_at(due + load.patience, send(&address, &load.path, &idle)).await {
                Ok(Ok(StatusCode::OK)) => End::Good,
                Ok(Ok(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)) => End::Refused,
                Ok(_) | Err(_) => End::Lost,
            };
            Sample { load: number, at, took: due.elapsed(), end }
        });
    }
    Ok(under_way.join_all().await)
}

/// How many processors' worth of guests the box does a second when it always has something to do and never too much.
#[expect(clippy::cast_precision_loss, reason = "a rate")]
pub(super) async fn capacity(address: &str, loads: &[Load], clients: usize, duration: Duration) -> Result<f64> {
    let begin = Instant::now();
    let idle: Idle = Arc::default();
    let mut under_way = JoinSet::new();
    for client in 0..clients {
        let (loads, address, idle) = (loads.to_vec(), address.to_owned(), Arc::clone(&idle));
        under_way.spawn(async move {
            let mut done_us = 0;
            for load in loads.iter().cycle().skip(client) {
                if send(&address, &load.path, &idle).await.is_ok_and(|status| status == StatusCode::OK) {
                    done_us += load.cpu_us;
                }
                if begin.elapsed() >= duration {
                    break;
                }
            }
            done_us
        });
    }
    let done_us: u64 = under_way.join_all().await.into_iter().sum();
    Ok(done_us as f64 / begin.elapsed().as_micros() as f64)
}

/// Connections between requests; the newest is used first. One whose answer nobody waits for is closed.
type Idle = Arc<Mutex<Vec<Connection>>>;

async fn send(address: &str, path: &str, idle: &Idle) -> Result<StatusCode> {
    let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut connection = match kept {
        Some(connection) => connection,
        None => Connection::tcp(address).await?,
    };
    let (status, _) = connection.send(Method::GET, path, Bytes::new()).await?;
    idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_offers_the_share_of_the_box_that_was_asked_for() {
        let load = |cpu_us, share| Load { name: "x", path: "/".into(), cpu_us, patience: Duration::ZERO, share };
        let times = schedule(&[load(10_000, 0.5), load(1_000, 0.1)], 2.0, Duration::from_secs(100), 7);
        let count = |number| times.iter().filter(|(_, of)| *of == number).count();
        // 100 a second of one, 200 of the other, for 100 seconds.
        assert!(count(0).abs_diff(10_000) < 500 && count(1).abs_diff(20_000) < 700, "{} {}", count(0), count(1));
        assert!(times.is_sorted() && times == schedule(&[load(10_000, 0.5), load(1_000, 0.1)], 2.0, Duration::from_secs(100), 7));
    }
}
