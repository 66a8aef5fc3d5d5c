//! All figures, as a table or as JSON.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::disk::Disk;

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// Calls of `hello`, per number of connections.
    pub(crate) http: Vec<HttpFigure>,
    /// Events a second, from the publish to the completed invocation.
    pub(crate) events_per_second: f64,
    /// From the publish to the reply at a subscriber.
    pub(crate) event_latency: Latency,
    /// Resident memory with one function that is not called, bytes.
    pub(crate) idle_bytes: u64,
    /// Largest resident memory under HTTP load, bytes.
    pub(crate) loaded_bytes: u64,
    /// What reached the disk under a steady load.
    pub(crate) disk: Disk,
}

/// HTTP load at a number of connections.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct HttpFigure {
    pub(crate) connections: u32,
    pub(crate) per_second: f64,
    pub(crate) latency: Latency,
}

/// Half of all and all but one of a hundred took at most so long.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Latency {
    /// Of these; none of none.
    pub(crate) fn of(mut took: Vec<Duration>) -> Option<Self> {
        took.sort_unstable();
        let at = |percent: usize| {
            let rank = (took.len() * percent).div_ceil(100).max(1) - 1;
            took.get(rank).map(|took| took.as_secs_f64() * 1000.0)
        };
        Some(Self { p50_ms: at(50)?, p99_ms: at(99)? })
    }
}

/// Prints the report on standard output.
pub(crate) fn print(report: &Report, json: bool) -> Result<()> {
    let text = if json { serde_json::to_string_pretty(report)? } else { table(report) };
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

fn table(report: &Report) -> String {
    let mut rows = vec![(String::new(), "rate".to_owned(), "p50".to_owned(), "p99".to_owned())];
    let latency = |latency: Latency| (format!("{:.2} ms", latency.p50_ms), format!("{:.2} ms", latency.p99_ms));
    for figure in &report.http {
        let (p50, p99) = latency(figure.latency);
        rows.push((format!("hello over HTTP, {} connections", figure.connections), format!("{:.0}/s", figure.per_second), p50, p99));
    }
    let (p50, p99) = latency(report.event_latency);
    rows.push(("events by MQTT, QoS 1, to the invocation / the reply".to_owned(), format!("{:.0}/s", report.events_per_second), p50, p99));
    let mut lines: Vec<String> = rows.iter().map(|(what, rate, p50, p99)| format!("{what:<54}{rate:>12}{p50:>12}{p99:>12}")).collect();
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    lines.push(format!("{:<54}{:>12}", "resident memory, idle", mib(report.idle_bytes)));
    lines.push(format!("{:<54}{:>12}", "resident memory, loaded", mib(report.loaded_bytes)));
    let promise = if report.disk.within_promise { "promised: at most 1000 MB" } else { "MORE than the promised 1000 MB" };
    let what = format!("to the disk a day (10 events + 10 calls/s, {:.0} s)", report.disk.seconds);
    lines.push(format!("{what:<54}{:>12}  {promise}", format!("{} MB", report.disk.bytes_per_day / 1_000_000)));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let took = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(Latency::of(took), Some(Latency { p50_ms: 50.0, p99_ms: 99.0 }));
        assert_eq!(Latency::of(vec![Duration::from_millis(7)]), Some(Latency { p50_ms: 7.0, p99_ms: 7.0 }));
        assert_eq!(Latency::of(Vec::new()), None);
    }
}
