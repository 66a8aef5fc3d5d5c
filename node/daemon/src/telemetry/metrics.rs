//! Every number of the node, gathered when somebody asks.
//!
//! Names are those of OpenTelemetry's semantic conventions where it has one (`faas.*`, `http.server.*`, `process.*`), else `sedge.*`.
//! Labels are bounded: functions, revisions that run, routes of manifests, known methods and statuses, words of ours.

use super::histogram::Distribution;
use super::requests::Requests;
use super::text;
use crate::bus::BusHandle;
use crate::device::Board;
use crate::gate::Gate;
use crate::logs::Logs;
use crate::meter::{Counts, Kind as Trigger, Meter, Runs};
use sedge_protocol::local::DeviceReport;
use sedge_store::Store;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::watch;

/// Numbers of one name.
#[derive(Debug)]
pub(super) struct Family {
    /// As OpenTelemetry writes it, with dots.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) unit: Unit,
    pub(super) kind: Kind,
    pub(super) points: Vec<Point>,
}

/// What a number measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    None,
    Seconds,
    Bytes,
}

/// How a number behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Grows only.
    Counter,
    /// Moves.
    Gauge,
    /// Counts values between bounds.
    Histogram,
}

/// One number with its labels.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) labels: Labels,
    pub(super) value: Value,
}

pub(super) type Labels = Vec<(&'static str, String)>;

/// A number.
#[derive(Debug)]
pub(super) enum Value {
    Whole(u64),
    /// Microseconds, told in seconds.
    Micros(u64),
    /// In microseconds when the unit is seconds.
    Distribution(Distribution),
}

/// Where the numbers are. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    pub(crate) meter: Meter,
    pub(crate) gate: Gate,
    pub(crate) bus: BusHandle,
    pub(crate) store: Store,
    pub(crate) logs: Logs,
    pub(crate) unsent: watch::Receiver<u64>,
    pub(crate) devices: Board,
    /// Spans that were not exported.
    pub(crate) spans_dropped: Arc<AtomicU64>,
}

impl Sources {
    /// The text for Prometheus. Reads files of /proc: call it from a blocking thread.
    pub(crate) fn text(&self) -> String {
        text::render(&self.gather())
    }

    /// All numbers now.
    pub(super) fn gather(&self) -> Vec<Family> {
        let (revisions, routes) = self.meter.all();
        let mut families = of_runs(&revisions);
        families.extend(of_revisions(&revisions));
        families.extend(of_routes(&routes));
        families.extend(self.of_gate());
        families.extend(self.of_node());
        families.extend(self.of_devices());
        families
    }

    fn of_gate(&self) -> Vec<Family> {
        let gauge = self.gate.gauge();
        let refused = self.meter.refused().map(|(reason, count)| worded("reason", reason, count)).collect();
        let moved = self.gate.moves().map(|(reason, count)| worded("reason", reason, count)).collect();
        vec![
            one("sedge.admission.limit", "Invocations that may run at a time now.", Kind::Gauge, gauge.limit.into()),
            one("sedge.admission.running", "Invocations that run.", Kind::Gauge, gauge.running.into()),
            one("sedge.admission.waiting", "Invocations that wait for a slot or for memory.", Kind::Gauge, gauge.waiting),
            Family {
                unit: Unit::Bytes,
                ..one("sedge.admission.memory_free", "Memory that no instance has reserved.", Kind::Gauge, gauge.memory_free_bytes)
            },
            counters("sedge.admission.refused", "Invocations that were refused.", refused),
            counters("sedge.admission.limit_changes", "Moves of the limit.", moved),
        ]
    }

    fn of_devices(&self) -> Vec<Family> {
        let devices = self.devices.reports();
        let points = |value: fn(&DeviceReport) -> u64| -> Vec<Point> {
            devices.iter().map(|device| worded("sedge.device", &device.name, value(device))).collect()
        };
        let ready = points(|device| u64::from(device.trouble.is_none()));
        vec![
            Family { kind: Kind::Gauge, ..counters("sedge.device.ready", "1 while the device is there and works.", ready) },
            counters("sedge.device.events", "Events of the device.", points(|device| device.events)),
            counters("sedge.device.lost", "Edges and frames that became no event.", points(|device| device.lost)),
        ]
    }

    fn of_node(&self) -> Vec<Family> {
        let stats = &self.bus.stats;
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        let dropped = self.logs.dropped().into_iter().map(|(function, count)| worded("faas.name", function.as_str(), count)).collect();
        let memory = Family {
            unit: Unit::Bytes,
            ..one("process.resident_memory", "Memory of the daemon and its instances.", Kind::Gauge, resident_bytes())
        };
        let cpu = Point { labels: Vec::new(), value: Value::Micros(cpu_us()) };
        vec![
            one("sedge.bus.events", "Events taken in.", Kind::Counter, load(&stats.events_in)),
            one("sedge.bus.dropped", "Events and messages dropped.", Kind::Counter, load(&stats.dropped)),
            one("sedge.bus.waiting", "Events that wait for their function.", Kind::Gauge, load(&stats.waiting)),
            one("sedge.bus.dead_letters", "Events given up and kept.", Kind::Gauge, load(&stats.dead_letters)),
            one("sedge.store.bytes_written", "Bytes written to disk by the store.", Kind::Counter, self.store.status().write_bytes),
            one("sedge.usage.unsent", "Usage records that the fleet has not confirmed.", Kind::Gauge, *self.unsent.borrow()),
            counters("sedge.logs.dropped", "Lines of functions that were dropped.", dropped),
            one("sedge.telemetry.spans_dropped", "Spans that were not exported.", Kind::Counter, load(&self.spans_dropped)),
            memory,
            Family { unit: Unit::Seconds, points: vec![cpu], ..counters("process.cpu", "Processor time of the daemon.", Vec::new()) },
        ]
    }
}

fn of_runs(revisions: &[Arc<Counts>]) -> Vec<Family> {
    let points = |value: &dyn Fn(&Runs) -> Value| -> Vec<Point> {
        let runs = revisions.iter().flat_map(|counts| counts.runs().map(move |(trigger, runs)| (counts, trigger, runs)));
        let seen = runs.filter_map(|(counts, trigger, runs)| Some((counts, trigger, runs, runs.durations()?)));
        seen.map(|(counts, trigger, runs, _)| Point { labels: with_trigger(counts, trigger), value: value(runs) }).collect()
    };
    let whole = |counter: fn(&Runs) -> &AtomicU64| points(&move |runs| Value::Whole(counter(runs).load(Relaxed)));
    let durations = points(&|runs| Value::Distribution(runs.durations().unwrap_or(Distribution { bounds: &[], buckets: vec![0], sum: 0 })));
    vec![
        counters("faas.invocations", "Invocations that succeeded.", whole(|runs| &runs.succeeded)),
        counters("faas.errors", "Invocations that failed, timeouts excepted.", whole(|runs| &runs.errors)),
        counters("faas.timeouts", "Invocations that were not done in time.", whole(|runs| &runs.timeouts)),
        counters("faas.coldstarts", "First invocations of a revision.", whole(|runs| &runs.cold_starts)),
        histogram("faas.invoke_duration", "How long invocations took.", Unit::Seconds, durations),
    ]
}

fn of_revisions(revisions: &[Arc<Counts>]) -> Vec<Family> {
    let points = |value: &dyn Fn(&Counts) -> Value| -> Vec<Point> {
        revisions.iter().map(|counts| Point { labels: labels_of(counts), value: value(counts) }).collect()
    };
    let net = revisions.iter().flat_map(|counts| {
        let used = counts.used();
        [("receive", used.bytes_in), ("transmit", used.bytes_out)].map(|(direction, bytes)| {
            let mut labels = labels_of(counts);
            labels.push(("direction", direction.to_owned()));
            Point { labels, value: Value::Whole(bytes) }
        })
    });
    let events =
        revisions.iter().filter_map(|counts| Some(Point { labels: labels_of(counts), value: Value::Distribution(counts.events()?) }));
    let init = points(&|counts| Value::Distribution(counts.init_us.read()));
    let memory = points(&|counts| Value::Distribution(counts.memory_bytes.read()));
    let cpu = points(&|counts| Value::Micros(counts.used().cpu_us));
    vec![
        histogram("faas.init_duration", "From the artifact to code that runs.", Unit::Seconds, init),
        histogram("sedge.event.duration", "From the bus taking an event to the end of its invocation.", Unit::Seconds, events.collect()),
        histogram("faas.mem_usage", "Most memory of an invocation, linear and scratch.", Unit::Bytes, memory),
        Family { unit: Unit::Seconds, ..counters("faas.cpu_usage", "Processor time, as it is metered.", cpu) },
        Family { unit: Unit::Bytes, ..counters("faas.net_io", "Bytes of bodies, events and messages.", net.collect()) },
    ]
}

fn of_routes(routes: &[Arc<Requests>]) -> Vec<Family> {
    let served = routes.iter().flat_map(|requests| requests.served());
    let durations = served.map(|served| {
        let mut labels = vec![("http.request.method", served.method.to_owned())];
        labels.extend(served.route.map(|route| ("http.route", route)));
        labels.extend(served.status.map(|status| ("http.response.status_code", status.to_string())));
        labels.push(("url.scheme", "http".to_owned()));
        Point { labels, value: Value::Distribution(served.duration_us) }
    });
    let mut active: BTreeMap<&str, u64> = BTreeMap::new();
    for (method, count) in routes.iter().flat_map(|requests| requests.active()) {
        *active.entry(method).or_default() += count;
    }
    let active = active.into_iter().map(|(method, count)| Point {
        labels: vec![("http.request.method", method.to_owned()), ("url.scheme", "http".to_owned())],
        value: Value::Whole(count),
    });
    vec![
        histogram(
            "http.server.request.duration",
            "From the head of a request to the end of its answer.",
            Unit::Seconds,
            durations.collect(),
        ),
        Family { kind: Kind::Gauge, ..counters("http.server.active_requests", "Requests that are being answered.", active.collect()) },
    ]
}

fn labels_of(counts: &Counts) -> Labels {
    vec![("faas.name", counts.function.to_string()), ("faas.version", counts.revision.short().to_string())]
}

fn with_trigger(counts: &Counts, trigger: Trigger) -> Labels {
    let mut labels = labels_of(counts);
    labels.push(("faas.trigger", trigger.as_str().to_owned()));
    labels
}

fn worded(label: &'static str, word: &str, count: u64) -> Point {
    Point { labels: vec![(label, word.to_owned())], value: Value::Whole(count) }
}

fn one(name: &'static str, help: &'static str, kind: Kind, value: u64) -> Family {
    Family { name, help, unit: Unit::None, kind, points: vec![Point { labels: Vec::new(), value: Value::Whole(value) }] }
}

fn counters(name: &'static str, help: &'static str, points: Vec<Point>) -> Family {
    Family { name, help, unit: Unit::None, kind: Kind::Counter, points }
}

fn histogram(name: &'static str, help: &'static str, unit: Unit, points: Vec<Point>) -> Family {
    Family { name, help, unit, kind: Kind::Histogram, points }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

fn cpu_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec * 1_000_000 + time.tv_nsec / 1_000).unwrap_or(0)
}
