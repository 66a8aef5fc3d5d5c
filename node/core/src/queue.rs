//! Events that wait for their function: in order per function and topic, with attempts, backoff and dead letters.
//!
//! ```text
//! push ─▶ lane (function, topic) ─▶ poll_dispatch ─▶ in flight ─┬─ handle_done ───▶ gone
//!                 ▲                                             └─ handle_failed ─▶ Again: the same lane waits │ DeadLetter: gone
//!                 └──────────────────── backoff over ◀──────────────────────────────────┘
//! ```
//! Draining order: after any input call `poll_dispatch` until `None`, then sleep until `poll_wake`.
//!
//! Invariants: one event of a lane in flight; a lane that backs off holds its later events back; a function has at most its
//! concurrency in flight; functions take turns.

use crate::retry::{Verdict, verdict};
use crate::time::Mono;
use sedge_protocol::manifest::Retry;
use sedge_protocol::{FunctionName, Topic};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Most volatile events (QoS 0) that wait for one function; above it the oldest is dropped.
pub const VOLATILE_MAX: usize = 1000;

/// One event on its way to one function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item<T> {
    /// Unique among waiting items; also the order of recovery.
    pub id: u64,
    /// Who gets it.
    pub function: FunctionName,
    /// Where it was published.
    pub topic: Topic,
    /// Failed attempts so far.
    pub attempts: u32,
    /// Whether it must be kept until it is done (QoS ≥ 1).
    pub kept: bool,
    /// What is delivered.
    pub payload: T,
}

#[derive(Debug)]
struct Lane<T> {
    items: VecDeque<Item<T>>,
    state: LaneState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LaneState {
    Ready,
    InFlight,
    BackingOff { until: Mono },
}

#[derive(Debug)]
struct Function<T> {
    lanes: BTreeMap<Topic, Lane<T>>,
    ready: VecDeque<Topic>,
    in_flight: u32,
    volatile: usize,
    kept: usize,
    settings: Option<Settings>,
}

/// What the manifest of the running revision says; without it events wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Events in flight at most.
    pub concurrency: u32,
    /// What happens after a failure.
    pub retry: Retry,
}

/// What became of a failed item.
#[derive(Debug, PartialEq, Eq)]
pub enum Failed<T> {
    /// It waits for its next attempt; so many have failed.
    Again {
        /// Failed attempts.
        attempts: u32,
    },
    /// It is given up; the caller keeps it as a dead letter.
    DeadLetter(Item<T>),
    /// The function is gone, and its items with it.
    Gone,
}

/// All events that wait on a node.
#[derive(Debug)]
pub struct Queue<T> {
    functions: BTreeMap<FunctionName, Function<T>>,
    turns: VecDeque<FunctionName>,
    wakes: BTreeSet<(Mono, FunctionName, Topic)>,
    waiting: usize,
    dropped: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { functions: BTreeMap::new(), turns: VecDeque::new(), wakes: BTreeSet::new(), waiting: 0, dropped: 0 }
    }
}

impl<T: Clone> Queue<T> {
    /// Lets events of `function` flow under these settings.
    pub fn open(&mut self, function: &FunctionName, settings: Settings) {
        self.function(function).settings = Some(settings);
        self.take_turn(function);
    }

    /// Holds events of `function` back; those that come meanwhile wait.
    pub fn hold(&mut self, function: &FunctionName) {
        self.function(function).settings = None;
    }

    /// Forgets `function` and answers the items that waited or were in flight, in order of their ids.
    pub fn remove(&mut self, function: &FunctionName) -> Vec<Item<T>> {
        let Some(gone) = self.functions.remove(function) else { return Vec::new() };
        self.wakes.retain(|(_, name, _)| name != function);
        self.turns.retain(|name| name != function);
        let mut items: Vec<Item<T>> = gone.lanes.into_values().flat_map(|lane| lane.items).collect();
        self.waiting -= items.len();
        items.sort_by_key(|item| item.id);
        items
    }

    /// Takes an event. Answers the volatile one that was dropped for it, if any.
    pub fn push(&mut self, item: Item<T>) -> Option<Item<T>> {
        let name = item.function.clone();
        let topic = item.topic.clone();
        let kept = item.kept;
        let function = self.function(&name);
        let lane = function.lanes.entry(topic.clone()).or_insert_with(Lane::new);
        lane.items.push_back(item);
        if lane.items.len() == 1 {
            function.ready.push_back(topic);
        }
        function.volatile += usize::from(!kept);
        function.kept += usize::from(kept);
        let over = function.volatile > VOLATILE_MAX;
        self.waiting += 1;
        self.take_turn(&name);
        if over { self.drop_oldest_volatile(&name) } else { None }
    }

    /// The next event to deliver, or `None` until something changes or [`Queue::poll_wake`] passes.
    pub fn poll_dispatch(&mut self, now: Mono) -> Option<Item<T>> {
        self.wake(now);
        for _ in 0..self.turns.len() {
            let name = self.turns.pop_front()?;
            let Some(function) = self.functions.get_mut(&name) else { continue };
            let Some(item) = function.next() else { continue };
            self.turns.push_back(name);
            return Some(item);
        }
        None
    }

    /// When to call [`Queue::poll_dispatch`] even if nothing happens.
    #[must_use]
    pub fn poll_wake(&self) -> Option<Mono> {
        self.wakes.first().map(|(at, _, _)| *at)
    }

    /// The event in flight on this lane succeeded, or is not to be tried again.
    pub fn handle_done(&mut self, function: &FunctionName, topic: &Topic) -> Option<Item<T>> {
        let entry = self.functions.get_mut(function)?;
        let lane = entry.lanes.get_mut(topic).filter(|lane| lane.state == LaneState::InFlight)?;
        let item = lane.items.pop_front()?;
        lane.state = LaneState::Ready;
        if lane.items.is_empty() {
            entry.lanes.remove(topic);
        } else {
            entry.ready.push_back(topic.clone());
        }
        entry.in_flight -= 1;
        entry.volatile -= usize::from(!item.kept);
        entry.kept -= usize::from(item.kept);
        self.waiting -= 1;
        self.take_turn(function);
        Some(item)
    }

    /// The event in flight on this lane failed. Volatile events are not tried again.
    pub fn handle_failed(&mut self, function: &FunctionName, topic: &Topic, now: Mono) -> Failed<T> {
        let Some(entry) = self.functions.get_mut(function) else { return Failed::Gone };
        let retry = entry.settings.as_ref().map(|settings| settings.retry.clone()).unwrap_or_default();
        let lane = entry.lanes.get_mut(topic).filter(|lane| lane.state == LaneState::InFlight);
        let Some((lane, item)) = lane.and_then(|lane| lane.items.front().cloned().map(|item| (lane, item))) else {
            return Failed::Gone;
        };
        let attempts = item.attempts.saturating_add(1);
        let verdict = if item.kept { verdict(&retry, attempts) } else { Verdict::DeadLetter };
        match verdict {
            Verdict::Again(delay) => {
                let until = now.after(delay);
                if let Some(front) = lane.items.front_mut() {
                    front.attempts = attempts;
                }
                lane.state = LaneState::BackingOff { until };
                entry.in_flight -= 1;
                self.wakes.insert((until, function.clone(), topic.clone()));
                self.take_turn(function);
                Failed::Again { attempts }
            }
            Verdict::DeadLetter => {
                self.handle_done(function, topic);
                Failed::DeadLetter(Item { attempts, ..item })
            }
        }
    }

    /// The event in flight could not be started for want of room: it stays first and nothing is counted against it.
    pub fn handle_refused(&mut self, function: &FunctionName, topic: &Topic, retry_at: Mono) {
        let Some(entry) = self.functions.get_mut(function) else { return };
        let Some(lane) = entry.lanes.get_mut(topic).filter(|lane| lane.state == LaneState::InFlight) else { return };
        lane.state = LaneState::BackingOff { until: retry_at };
        entry.in_flight -= 1;
        self.wakes.insert((retry_at, function.clone(), topic.clone()));
    }

    /// Kept events of `function` that wait or are in flight.
    #[must_use]
    pub fn kept(&self, function: &FunctionName) -> usize {
        self.functions.get(function).map_or(0, |entry| entry.kept)
    }

    /// Holds a lane back that nobody has begun, until `until`.
    pub fn delay(&mut self, function: &FunctionName, topic: &Topic, until: Mono) {
        let Some(entry) = self.functions.get_mut(function) else { return };
        let Some(lane) = entry.lanes.get_mut(topic).filter(|lane| lane.state == LaneState::Ready) else { return };
        lane.state = LaneState::BackingOff { until };
        entry.ready.retain(|ready| ready != topic);
        self.wakes.insert((until, function.clone(), topic.clone()));
    }

    /// Takes the first event of a lane out of line; `None` when it is in flight or not there.
    pub fn withdraw(&mut self, function: &FunctionName, topic: &Topic) -> Option<Item<T>> {
        let entry = self.functions.get_mut(function)?;
        let lane = entry.lanes.get_mut(topic).filter(|lane| lane.state != LaneState::InFlight)?;
        let item = lane.items.pop_front()?;
        if let LaneState::BackingOff { until } = lane.state {
            self.wakes.remove(&(until, function.clone(), topic.clone()));
            lane.state = LaneState::Ready;
            entry.ready.push_back(topic.clone());
        }
        if lane.items.is_empty() {
            entry.lanes.remove(topic);
            entry.ready.retain(|ready| ready != topic);
        }
        entry.volatile -= usize::from(!item.kept);
        entry.kept -= usize::from(item.kept);
        self.waiting -= 1;
        self.take_turn(function);
        Some(item)
    }

    /// Events that wait or are in flight.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Volatile events given up for want of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn function(&mut self, name: &FunctionName) -> &mut Function<T> {
        if !self.functions.contains_key(name) {
            self.functions.insert(name.clone(), Function::new());
        }
        self.functions.get_mut(name).expect("it was inserted above")
    }

    fn take_turn(&mut self, name: &FunctionName) {
        if !self.turns.contains(name) {
            self.turns.push_back(name.clone());
        }
    }

    fn wake(&mut self, now: Mono) {
        while let Some((at, _, _)) = self.wakes.first() {
            if *at > now {
                return;
            }
            let Some((at, name, topic)) = self.wakes.pop_first() else { return };
            let Some(function) = self.functions.get_mut(&name) else { continue };
            let Some(lane) = function.lanes.get_mut(&topic) else { continue };
            if lane.state == (LaneState::BackingOff { until: at }) {
                lane.state = LaneState::Ready;
                function.ready.push_back(topic);
                self.take_turn(&name);
            }
        }
    }

    fn drop_oldest_volatile(&mut self, name: &FunctionName) -> Option<Item<T>> {
        let function = self.functions.get_mut(name)?;
        let oldest = function
            .lanes
            .iter()
            .flat_map(|(topic, lane)| {
                let skip = usize::from(lane.state != LaneState::Ready);
                lane.items.iter().enumerate().skip(skip).find(|(_, item)| !item.kept).map(|(at, item)| (item.id, topic.clone(), at))
            })
            .min()?;
        let (_, topic, at) = oldest;
        let lane = function.lanes.get_mut(&topic)?;
        let item = lane.items.remove(at)?;
        if lane.items.is_empty() {
            function.lanes.remove(&topic);
            function.ready.retain(|ready| *ready != topic);
        }
        function.volatile -= 1;
        self.waiting -= 1;
        self.dropped += 1;
        Some(item)
    }
}

impl<T> Lane<T> {
    fn new() -> Self {
        Self { items: VecDeque::new(), state: LaneState::Ready }
    }
}

impl<T: Clone> Function<T> {
    fn new() -> Self {
        Self { lanes: BTreeMap::new(), ready: VecDeque::new(), in_flight: 0, volatile: 0, kept: 0, settings: None }
    }

    fn next(&mut self) -> Option<Item<T>> {
        let settings = self.settings.as_ref()?;
        if self.in_flight >= settings.concurrency {
            return None;
        }
        let topic = self.ready.pop_front()?;
        let lane = self.lanes.get_mut(&topic).expect("a ready lane has items");
        let item = lane.items.front().cloned().expect("a ready lane has items");
        lane.state = LaneState::InFlight;
        self.in_flight += 1;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> FunctionName {
        text.parse().unwrap()
    }

    fn item(id: u64, function: &str, topic: &str, kept: bool) -> Item<u64> {
        Item { id, function: name(function), topic: topic.parse().unwrap(), attempts: 0, kept, payload: id }
    }

    fn settings(concurrency: u32, attempts: u32) -> Settings {
        Settings { concurrency, retry: Retry { attempts, backoff_ms: 1000 } }
    }

    fn drain(queue: &mut Queue<u64>, now: Mono) -> Vec<u64> {
        std::iter::from_fn(|| queue.poll_dispatch(now)).map(|item| item.id).collect()
    }

    #[test]
    fn a_lane_is_in_order_and_lanes_run_side_by_side() {
        let mut queue = Queue::default();
        queue.open(&name("f"), settings(8, 3));
        for (id, topic) in [(1, "a"), (2, "a"), (3, "b")] {
            queue.push(item(id, "f", topic, true));
        }
        assert_eq!(drain(&mut queue, Mono(0)), [1, 3]);
        queue.handle_done(&name("f"), &"a".parse().unwrap());
        assert_eq!(drain(&mut queue, Mono(0)), [2]);
    }

    #[test]
    fn a_failure_holds_its_lane_back_until_the_dead_letter() {
        let mut queue = Queue::default();
        let (f, a) = (name("f"), "a".parse().unwrap());
        queue.open(&f, settings(8, 2));
        queue.push(item(1, "f", "a", true));
        queue.push(item(2, "f", "a", true));
        assert_eq!(drain(&mut queue, Mono(0)), [1]);
        assert_eq!(queue.handle_failed(&f, &a, Mono(0)), Failed::Again { attempts: 1 });
        assert_eq!(drain(&mut queue, Mono(999)), [0; 0]);
        assert_eq!(queue.poll_wake(), Some(Mono(1000)));
        assert_eq!(drain(&mut queue, Mono(1000)), [1]);
        assert!(matches!(queue.handle_failed(&f, &a, Mono(1000)), Failed::DeadLetter(Item { id: 1, attempts: 2, .. })));
        assert_eq!(drain(&mut queue, Mono(1000)), [2]);
    }

    #[test]
    fn events_wait_while_the_function_is_held() {
        let mut queue = Queue::default();
        queue.push(item(1, "f", "a", true));
        assert_eq!(drain(&mut queue, Mono(0)), [0; 0]);
        queue.open(&name("f"), settings(1, 3));
        assert_eq!(drain(&mut queue, Mono(0)), [1]);
    }

    #[test]
    fn newest_volatile_events_win() {
        let mut queue = Queue::default();
        for id in 0..=VOLATILE_MAX as u64 {
            let dropped = queue.push(item(id, "f", "a", false));
            assert_eq!(dropped.map(|item| item.id), (id == VOLATILE_MAX as u64).then_some(0));
        }
        assert_eq!((queue.waiting(), queue.dropped(), queue.kept(&name("f"))), (VOLATILE_MAX, 1, 0));
        queue.push(item(0, "f", "b", true));
        assert_eq!((queue.kept(&name("f")), queue.kept(&name("g"))), (1, 0));
    }

    #[test]
    fn what_has_not_begun_can_be_held_back_and_withdrawn() {
        let mut queue = Queue::default();
        let (f, a, b) = (name("f"), "a".parse().unwrap(), "b".parse().unwrap());
        queue.open(&f, settings(8, 3));
        queue.push(item(1, "f", "a", true));
        queue.push(item(2, "f", "b", true));
        queue.delay(&f, &a, Mono(50));
        assert_eq!(drain(&mut queue, Mono(49)), [2]);
        assert_eq!(queue.withdraw(&f, &b), None, "it is in flight");
        assert_eq!(queue.withdraw(&f, &a).map(|item| item.id), Some(1));
        assert_eq!((queue.poll_wake(), queue.waiting()), (None, 1));
        queue.push(item(3, "f", "a", true));
        queue.delay(&f, &a, Mono(60));
        assert_eq!((drain(&mut queue, Mono(59)), drain(&mut queue, Mono(60))), (vec![], vec![3]));
        assert_eq!(queue.handle_done(&f, &a).map(|item| item.id), Some(3));
        assert_eq!(queue.withdraw(&f, &a), None);
    }

    #[test]
    fn functions_take_turns() {
        let mut queue = Queue::default();
        for function in ["f", "g"] {
            queue.open(&name(function), settings(2, 3));
        }
        for id in 0..4 {
            queue.push(item(id, "f", &format!("t{id}"), true));
        }
        queue.push(item(9, "g", "t", true));
        assert_eq!(drain(&mut queue, Mono(0)), [0, 9, 1]);
    }

    proptest! {
        /// Whatever fails, every kept item ends exactly once, and a lane never runs two at a time or out of order.
        #[test]
        fn every_kept_item_ends_once_and_in_order(steps in proptest::collection::vec((0_u8..4, 0_u8..3, any::<bool>()), 1..200)) {
            let mut queue = Queue::default();
            let f = name("f");
            queue.open(&f, settings(2, 3));
            let (mut next, mut now, mut flying) = (0, Mono(0), Vec::<Item<u64>>::new());
            let mut ended = BTreeMap::<Topic, Vec<u64>>::new();
            let mut finish = |queue: &mut Queue<u64>, flying: &mut Vec<Item<u64>>, at: usize, ok: bool, now: Mono| {
                let item = flying.swap_remove(at);
                let over = if ok {
                    queue.handle_done(&f, &item.topic).is_some()
                } else {
                    matches!(queue.handle_failed(&f, &item.topic, now), Failed::DeadLetter(_))
                };
                if over {
                    ended.entry(item.topic).or_default().push(item.id);
                }
            };
            for (kind, lane, ok) in steps {
                match kind {
                    0 | 1 => { queue.push(item(next, "f", &format!("t{lane}"), true)); next += 1; }
                    2 => now = Mono(now.0 + 700),
                    _ if !flying.is_empty() => {
                        let at = usize::from(lane) % flying.len();
                        finish(&mut queue, &mut flying, at, ok, now);
                    }
                    _ => {}
                }
                while let Some(item) = queue.poll_dispatch(now) {
                    prop_assert!(flying.iter().all(|other| other.topic != item.topic));
                    flying.push(item);
                    prop_assert!(flying.len() <= 2);
                }
            }
            while queue.waiting() > 0 {
                while let Some(item) = queue.poll_dispatch(now) { flying.push(item); }
                if flying.is_empty() { now = queue.poll_wake().unwrap(); } else { finish(&mut queue, &mut flying, 0, true, now); }
            }
            prop_assert_eq!(ended.values().map(Vec::len).sum::<usize>() as u64, next);
            prop_assert!(ended.values().all(|ids| ids.is_sorted()));
        }
    }
}
