//! Timer triggers: publishes an event for one function when its interval or cron expression says so.

use crate::bus::{BusHandle, Publication};
use crate::clock;
use crate::functions::{Functions, Table};
use crate::supervisor::Supervisor;
use sedge_node_core::Mono;
use sedge_node_core::timer::{Next, next_fire};
use sedge_protocol::manifest::Trigger;
use sedge_protocol::{Event, FunctionName, RevisionId, Topic};
use std::collections::BTreeMap;

/// Which timer: function, revision and position among its triggers.
type Key = (FunctionName, RevisionId, usize);

struct Timer {
    trigger: Trigger,
    began: Mono,
    next: Next,
}

/// Runs until the daemon stops.
pub(crate) async fn run(mut functions: Functions, bus: BusHandle, supervisor: Supervisor) -> anyhow::Result<()> {
    let mut timers = BTreeMap::new();
    follow(&mut timers, &functions.table());
    loop {
        let wake = timers.values().filter_map(Timer::wake).min();
        tokio::select! {
            () = supervisor.stop().cancelled() => return Ok(()),
            changed = functions.changed() => { changed?; follow(&mut timers, &functions.table()); }
            () = sleep_until(wake) => fire(&mut timers, &bus),
        }
    }
}

impl Timer {
    fn new(trigger: Trigger) -> Self {
        let began = clock::mono();
        let next = next_fire(&trigger, began, began, clock::wall());
        Self { trigger, began, next }
    }

    fn wake(&self) -> Option<Mono> {
        match self.next {
            Next::Fire(at) | Next::Ask(at) => Some(at),
            Next::Never => None,
        }
    }
}

/// Timers that are still there keep their phase.
fn follow(timers: &mut BTreeMap<Key, Timer>, table: &Table) {
    let wanted: BTreeMap<Key, &Trigger> = table
        .active
        .values()
        .flat_map(|active| {
            let triggers = active.assignment.manifest.triggers.iter().enumerate();
            triggers.map(|(at, trigger)| ((active.name().clone(), active.revision(), at), trigger))
        })
        .filter(|(_, trigger)| matches!(trigger, Trigger::Every { .. } | Trigger::Cron { .. }))
        .collect();
    timers.retain(|key, _| wanted.contains_key(key));
    for (key, trigger) in wanted {
        timers.entry(key).or_insert_with(|| Timer::new(trigger.clone()));
    }
}

fn fire(timers: &mut BTreeMap<Key, Timer>, bus: &BusHandle) {
    let now = clock::mono();
    for ((function, _, _), timer) in timers {
        if timer.wake().is_none_or(|at| at > now) {
            continue;
        }
        if let Next::Fire(at) = timer.next {
            publish(bus, function, at, timer.trigger.reply().cloned());
        }
        timer.next = next_fire(&timer.trigger, timer.began, now, clock::wall());
    }
}

fn publish(bus: &BusHandle, function: &FunctionName, at: Mono, reply: Option<Topic>) {
    let wall = clock::wall().0;
    let event = Event {
        id: format!("timer-{function}-{wall}-{}", at.0),
        source: "/timer".to_owned(),
        kind: "sedge.timer".to_owned(),
        time_ms: Some(wall),
        topic: format!("$timer/{function}").parse().expect("a function name is a topic level"),
        content_type: None,
        extensions: BTreeMap::new(),
        data: Vec::new(),
    };
    let publication = Publication { event, kept: false, fan_out: false, only: Some((function.clone(), reply)), letter: None, answer: None };
    if bus.publish(publication).is_err() {
        log::warn!(function:% = function; "a timer found the bus full and is skipped");
    }
}

async fn sleep_until(at: Option<Mono>) {
    match at {
        Some(at) => tokio::time::sleep_until(clock::instant(at)).await,
        None => std::future::pending().await,
    }
}
