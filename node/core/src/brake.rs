//! How full the queue of each function is, and how its publishers are slowed before it is full.
//!
//! ```text
//!  enter ─▶ filling ──┬─ below half: acknowledged as soon as it is durable
//!                     ├─ above:      the acknowledgement is held ─┬─ one leaves with each event that is worked off
//!                     │                                           └─ none is held longer than its filling deserves (poll_release)
//!                     └─ full:       refused (is_full)
//!  leave ─▶ filling
//! ```
//! A publisher has a window of events that are not acknowledged; with it full it waits. So above half a queue takes as many events as
//! are worked off, whatever its publishers would like, and the upper half is there for the windows of many. A publisher without a
//! window, or more of them than the upper half has room for, is refused at the bound as before.
//!
//! Draining order: after any input call `poll_release` until `None`, then sleep until `poll_wake`.
//!
//! Invariants: acknowledgements of a function leave in the order in which they were held; what is held is released within
//! [`HELD_MAX`]; nothing is held below half.

use crate::time::Mono;
use sedge_protocol::FunctionName;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Longest time that an acknowledgement is held: that of a queue which is about to be full.
pub const HELD_MAX: Duration = Duration::from_secs(60);

/// What may wait for one function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Events.
    pub items: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// The filling of all queues, and the acknowledgements that are held. `A` is whatever acknowledges.
#[derive(Debug)]
pub struct Brake<A> {
    bound: Bound,
    functions: BTreeMap<FunctionName, Filling<A>>,
}

#[derive(Debug)]
struct Filling<A> {
    items: usize,
    bytes: usize,
    /// Oldest first, each with the time at which it leaves in any case.
    held: VecDeque<(Mono, A)>,
    /// Whether it was said that the queue is full, since it was below half.
    told: bool,
}

impl<A> Brake<A> {
    /// Queues with this bound each.
    #[must_use]
    pub fn new(bound: Bound) -> Self {
        Self { bound, functions: BTreeMap::new() }
    }

    /// An event of `bytes` bytes was taken for `function`.
    pub fn enter(&mut self, function: &FunctionName, bytes: usize) {
        let filling = self.functions.entry(function.clone()).or_insert_with(Filling::new);
        filling.items += 1;
        filling.bytes += bytes;
    }

    /// An event of `bytes` bytes left the queue of `function`: an acknowledgement that was held for it may leave too, all of them
    /// when the queue is below half again.
    pub fn leave(&mut self, function: &FunctionName, bytes: usize, now: Mono) {
        let bound = self.bound;
        let Some(filling) = self.functions.get_mut(function) else { return };
        filling.items = filling.items.saturating_sub(1);
        filling.bytes = filling.bytes.saturating_sub(bytes);
        let below = filling.above_half(bound) == 0;
        filling.told &= !below;
        let released = if below { filling.held.len() } else { 1 };
        filling.held.iter_mut().filter(|(until, _)| *until > now).take(released).for_each(|(until, _)| *until = now);
        if filling.items == 0 && filling.held.is_empty() {
            self.functions.remove(function);
        }
    }

    /// Whether an event of `bytes` bytes has no room any more in the queue of `function`.
    #[must_use]
    pub fn is_full(&self, function: &FunctionName, bytes: usize) -> bool {
        let bound = self.bound;
        self.functions.get(function).is_some_and(|filling| filling.items >= bound.items || filling.bytes + bytes > bound.bytes)
    }

    /// Notes that an event was refused. True when that is news: the first time since the queue was below half.
    pub fn handle_refused(&mut self, function: &FunctionName) -> bool {
        self.functions.get_mut(function).is_some_and(|filling| !std::mem::replace(&mut filling.told, true))
    }

    /// An event for these functions wants to be acknowledged: at once, then it comes back; or the fullest of them holds it.
    pub fn handle_ack<'a>(&mut self, functions: impl Iterator<Item = &'a FunctionName>, ack: A, now: Mono) -> Option<A> {
        let bound = self.bound;
        let above = |name: &FunctionName| self.functions.get(name).map_or(0, |filling| filling.above_half(bound));
        let fullest = functions.map(|name| (above(name), name)).max_by_key(|(above, _)| *above);
        let Some((above @ 1.., name)) = fullest else { return Some(ack) };
        let Some(filling) = self.functions.get_mut(name) else { return Some(ack) };
        filling.held.push_back((now.after(HELD_MAX * above / PARTS), ack));
        None
    }

    /// The next acknowledgement that may leave.
    pub fn poll_release(&mut self, now: Mono) -> Option<A> {
        let due = |filling: &Filling<A>| filling.held.front().is_some_and(|(until, _)| *until <= now);
        let filling = self.functions.values_mut().find(|filling| due(filling))?;
        filling.held.pop_front().map(|(_, ack)| ack)
    }

    /// All that are held: nobody waits for what will not be worked off.
    pub fn release_all(&mut self) -> Vec<A> {
        self.functions.values_mut().flat_map(|filling| filling.held.drain(..)).map(|(_, ack)| ack).collect()
    }

    /// When to call [`Brake::poll_release`] even if nothing happens.
    #[must_use]
    pub fn poll_wake(&self) -> Option<Mono> {
        self.functions.values().filter_map(|filling| filling.held.front()).map(|(until, _)| *until).min()
    }

    /// Acknowledgements that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.functions.values().map(|filling| filling.held.len()).sum()
    }
}

/// Into so many parts the upper half of a queue is divided.
const PARTS: u32 = 1000;

impl<A> Filling<A> {
    fn new() -> Self {
        Self { items: 0, bytes: 0, held: VecDeque::new(), told: false }
    }

    /// How far the queue is above half: 0 at half, [`PARTS`] when it is full, by events or by bytes, whichever is more.
    fn above_half(&self, bound: Bound) -> u32 {
        let part = |used: usize, bound: usize| {
            let over = (used as u128 * 2).saturating_sub(bound as u128);
            u32::try_from(over * u128::from(PARTS) / (bound as u128).max(1)).unwrap_or(PARTS).min(PARTS)
        };
        part(self.items, bound.items).max(part(self.bytes, bound.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUND: Bound = Bound { items: 100, bytes: 1_000_000 };

    fn name(text: &str) -> FunctionName {
        text.parse().unwrap()
    }

    fn filled(items: usize) -> Brake<u32> {
        let mut brake = Brake::new(BOUND);
        (0..items).for_each(|_| brake.enter(&name("f"), 10));
        brake
    }

    fn drain(brake: &mut Brake<u32>, now: Mono) -> Vec<u32> {
        std::iter::from_fn(|| brake.poll_release(now)).collect()
    }

    #[test]
    fn below_half_nobody_waits_and_above_one_leaves_with_each_event() {
        let f = name("f");
        let mut brake = filled(50);
        assert_eq!(brake.handle_ack([&f].into_iter(), 1, Mono(0)), Some(1));
        brake.enter(&f, 10);
        brake.enter(&f, 10);
        for ack in [2, 3, 4] {
            assert_eq!(brake.handle_ack([&name("other"), &f].into_iter(), ack, Mono(0)), None, "the fullest decides");
        }
        assert_eq!(drain(&mut brake, Mono(0)), [0; 0]);
        brake.leave(&f, 10, Mono(5));
        assert_eq!(drain(&mut brake, Mono(5)), [2]);
        brake.leave(&f, 10, Mono(6));
        assert_eq!(drain(&mut brake, Mono(6)), [3, 4], "below half all leave");
    }

    #[test]
    fn what_is_held_leaves_in_time_and_later_the_fuller_the_queue() {
        let f = name("f");
        let wait = |items: usize| {
            let mut brake = filled(items);
            assert_eq!(brake.handle_ack([&f].into_iter(), 7, Mono(1000)), None);
            let wake = brake.poll_wake().unwrap();
            assert_eq!(drain(&mut brake, Mono(wake.0 - 1)), [0; 0]);
            assert_eq!(drain(&mut brake, wake), [7]);
            Duration::from_millis(wake.0 - 1000)
        };
        let waits: Vec<Duration> = [51, 60, 75, 100].map(wait).to_vec();
        assert!(waits.is_sorted() && waits[0] > Duration::ZERO, "{waits:?}");
        assert_eq!((waits[2], waits[3]), (HELD_MAX / 2, HELD_MAX));
    }

    #[test]
    fn a_full_queue_is_told_once_until_it_was_below_half() {
        let f = name("f");
        let mut brake = filled(100);
        assert!(brake.is_full(&f, 1) && !brake.is_full(&name("other"), 1));
        assert_eq!([brake.handle_refused(&f), brake.handle_refused(&f)], [true, false]);
        (0..50).for_each(|_| brake.leave(&f, 10, Mono(0)));
        (0..50).for_each(|_| brake.enter(&f, 10));
        assert!(brake.handle_refused(&f));
    }

    #[test]
    fn bytes_fill_a_queue_like_events() {
        let f = name("f");
        let mut brake = Brake::new(BOUND);
        brake.enter(&f, 750_000);
        assert_eq!(brake.handle_ack([&f].into_iter(), 1, Mono(0)), None);
        assert_eq!(brake.poll_wake(), Some(Mono(30_000)));
        assert!(!brake.is_full(&f, 250_000) && brake.is_full(&f, 250_001));
    }

    proptest! {
        /// A publisher with a window, any rate of work: nothing is lost, nothing refused, and the bound holds.
        #[test]
        fn a_publisher_with_a_window_is_never_refused_and_gets_every_acknowledgement(window in 1_usize..50, each_ms in 1_u64..500) {
            let f = name("f");
            let mut brake = Brake::new(BOUND);
            let (mut out, mut waiting, mut sent, mut acknowledged) = (0, 0, 0, 0);
            for now in (0..20_000).map(Mono) {
                while out < window {
                    prop_assert!(!brake.is_full(&f, 10));
                    brake.enter(&f, 10);
                    (waiting, sent, out) = (waiting + 1, sent + 1, out + 1);
                    if brake.handle_ack([&f].into_iter(), 0, now).is_some() {
                        (out, acknowledged) = (out - 1, acknowledged + 1);
                    }
                    prop_assert!(waiting <= BOUND.items);
                }
                if now.0 % each_ms == 0 && waiting > 0 {
                    brake.leave(&f, 10, now);
                    waiting -= 1;
                }
                let released = drain(&mut brake, now).len();
                (out, acknowledged) = (out - released, acknowledged + released);
            }
            prop_assert_eq!(sent, acknowledged + brake.held());
        }
    }
}
