//! The line of one function: who waits, since when, and how long that will take.

use super::{INTERVAL_US, TURNOVER_US, Ticket};
use crate::Micros;
use std::collections::VecDeque;

/// Least wait that is tolerated before a line counts as overloaded.
const TARGET_US_MIN: u64 = 5_000;
/// Lateness that no function tolerates for long: nobody sees those that wait for the thread itself.
const LAG_US_MAX: u64 = 50_000;
/// Turned away less often than one in so many is no overload.
const FEW_ARE_ONE_IN: u64 = 4;
/// What an invocation is assumed to cost before any has ended, microseconds.
const COST_US_FIRST: u64 = 500;

/// What one function may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Invocations at a time, at most.
    pub concurrency: u32,
    /// Invocations at a time for which slots and memory are always kept.
    pub reserved: u32,
    /// What one instance may take, bytes.
    pub instance_bytes: u64,
    /// The deadline of one invocation, microseconds.
    pub timeout_us: u64,
}

impl Share {
    pub(super) fn reserved_bytes(&self) -> u64 {
        self.instance_bytes.saturating_mul(self.reserved.into())
    }
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) since: Micros,
}

/// A time of overload, in windows.
#[derive(Debug, Clone, Copy)]
struct Overload {
    /// How long one may have to wait meanwhile: shorter after each window that turned many away, longer after one that did not.
    wait_us: u64,
    /// The window: its begin, what came since, and how many of those were turned away.
    since: Micros,
    came: u64,
    turned_away: u64,
}

impl Overload {
    const fn window(wait_us: u64, since: Micros) -> Self {
        Self { wait_us, since, came: 0, turned_away: 0 }
    }
}

#[derive(Debug)]
pub(super) struct Line {
    pub(super) share: Share,
    pub(super) in_flight: u32,
    /// In the order of arrival.
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) closed: bool,
    /// Since when the line has not been empty.
    standing_since: Option<Micros>,
    /// Since when requests reach the node late.
    late_since: Option<Micros>,
    /// The line has stood with waits beyond its target.
    overloaded: Option<Overload>,
    /// Moving averages of what an invocation costs.
    cpu_us: u64,
    wall_us: u64,
}

impl Line {
    pub(super) fn new(share: Share) -> Self {
        Self {
            share,
            in_flight: 0,
            waiting: VecDeque::new(),
            closed: false,
            standing_since: None,
            late_since: None,
            overloaded: None,
            cpu_us: COST_US_FIRST,
            wall_us: COST_US_FIRST,
        }
    }

    /// The wait that is still good: a tenth of the deadline.
    fn target_us(&self) -> u64 {
        (self.share.timeout_us / 10).max(TARGET_US_MIN)
    }

    /// How long one that comes now may have to wait.
    pub(super) fn longest_wait_us(&self) -> u64 {
        self.overloaded.map_or(self.share.timeout_us, |overload| overload.wait_us)
    }

    /// One comes: after each window the line gets shorter, longer, or is as before. A short line turns some away at any load, so that
    /// nobody was is too much to ask for.
    pub(super) fn look(&mut self, now: Micros) {
        let target_us = self.target_us();
        let Some(overload) = &mut self.overloaded else { return };
        overload.came += 1;
        if now.0.saturating_sub(overload.since.0) < INTERVAL_US {
            return;
        }
        let few = overload.turned_away * FEW_ARE_ONE_IN < overload.came;
        let wait_us = if few { overload.wait_us * 2 } else { (overload.wait_us / 2).max(TURNOVER_US) };
        // Few are turned away although the waits are good: it is over.
        self.overloaded = (wait_us <= target_us).then(|| Overload::window(wait_us, now));
    }

    /// Somebody was turned away.
    pub(super) fn turned_away(&mut self) {
        if let Some(overload) = &mut self.overloaded {
            overload.turned_away += 1;
        }
    }

    /// Whether the line has stood for long enough, and one has waited for long enough, to call it overload.
    fn judge(&mut self, waited_us: u64, now: Micros) {
        let stood_us = self.standing_since.map_or(0, |since| now.0.saturating_sub(since.0));
        if self.overloaded.is_none() && stood_us >= INTERVAL_US && waited_us > self.target_us() {
            self.overloaded = Some(Overload::window(self.target_us(), now));
        }
    }

    /// How long the next one would wait: those before it share the processors with `active` functions, and the function's own slots.
    pub(super) fn wait_us(&self, active: usize, cores: u32) -> u64 {
        let before = self.waiting.len() as u64;
        let by_processor = before * self.cpu_us * active as u64 / u64::from(cores);
        let by_slots = before * self.wall_us / u64::from(self.share.concurrency.max(1));
        by_processor.max(by_slots)
    }

    pub(super) fn line_up(&mut self, waiting: Waiting) {
        if self.waiting.is_empty() {
            self.standing_since = Some(waiting.since);
        }
        self.waiting.push_back(waiting);
    }

    /// Whether requests have been reaching the node late for so long that this one is better refused.
    pub(super) fn is_late(&mut self, lag_us: u64, now: Micros) -> bool {
        if lag_us <= self.target_us().min(LAG_US_MAX) {
            self.late_since = None;
            return false;
        }
        let since = *self.late_since.get_or_insert(now);
        now.0.saturating_sub(since.0) >= INTERVAL_US
    }

    /// Whether the oldest one has waited in vain.
    pub(super) fn is_over(&mut self, now: Micros, active: usize, cores: u32) -> bool {
        let Some(oldest) = self.waiting.front() else { return false };
        let waited_us = now.0.saturating_sub(oldest.since.0);
        self.judge(waited_us, now);
        let crowded = |overload: Overload| self.waiting.len() > 1 && self.wait_us(active, cores) > overload.wait_us;
        waited_us >= self.share.timeout_us || self.overloaded.is_some_and(crowded)
    }

    /// When [`is_over`](Self::is_over) may become true by time alone.
    pub(super) fn wake(&self) -> Option<Micros> {
        let oldest = self.waiting.front()?;
        let patience_us = self.target_us().max(INTERVAL_US).min(self.share.timeout_us);
        Some(Micros(oldest.since.0 + patience_us))
    }

    /// The next one to start.
    pub(super) fn take(&mut self, now: Micros) -> Option<Waiting> {
        let waiting = self.waiting.pop_front()?;
        self.judge(now.0.saturating_sub(waiting.since.0), now);
        if self.waiting.is_empty() {
            self.cleared();
        }
        Some(waiting)
    }

    /// Nobody waits any more.
    pub(super) fn cleared(&mut self) {
        self.standing_since = None;
    }

    pub(super) fn finished(&mut self, used: Option<(u64, u64)>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some((cpu_us, wall_us)) = used else { return };
        self.cpu_us = average(self.cpu_us, cpu_us);
        self.wall_us = average(self.wall_us, wall_us);
    }
}

/// Moves an average an eighth of the way.
fn average(before: u64, new: u64) -> u64 {
    (before * 7 + new).div_ceil(8).max(1)
}
