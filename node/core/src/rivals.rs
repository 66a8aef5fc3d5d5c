//! Other ways to limit concurrency, to compare the [`Controller`](crate::Controller) with: in simulation, and on a real node that was
//! built for it. A node as it is shipped has none of them.

use std::collections::VecDeque;
use std::fmt;

/// How often a policy that looks at pressure does so, microseconds.
const SAMPLE_US: u64 = 250_000;

/// What a policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say<R> {
    /// It starts now.
    Start(R),
    /// It is not taken.
    Refuse(R),
}

/// A way to limit concurrency, over requests named by `R`.
pub trait Policy<R>: fmt::Debug {
    /// One comes.
    fn arrive(&mut self, request: R, now_us: u64) -> Vec<Say<R>>;
    /// One that was started ended, in time or given up.
    fn finish(&mut self, request: R, cpu_us: u64, wall_us: u64, now_us: u64) -> Vec<Say<R>>;
    /// Every few milliseconds; `stretch` of the last 250 and the share of time that somebody waited for a processor.
    fn tick(&mut self, now_us: u64, stretch: f64, pressure: f64) -> Vec<Say<R>>;
}

/// Everything starts at once.
#[derive(Debug, Default)]
pub struct Unlimited;

impl<R> Policy<R> for Unlimited {
    fn arrive(&mut self, request: R, _: u64) -> Vec<Say<R>> {
        vec![Say::Start(request)]
    }

    fn finish(&mut self, _: R, _: u64, _: u64, _: u64) -> Vec<Say<R>> {
        Vec::new()
    }

    fn tick(&mut self, _: u64, _: f64, _: f64) -> Vec<Say<R>> {
        Vec::new()
    }
}

/// A number of slots and a line in order of arrival, of 64 at most.
#[derive(Debug)]
pub struct Fixed<R> {
    limit: usize,
    running: usize,
    line: VecDeque<R>,
}

impl<R> Fixed<R> {
    const LINE_MAX: usize = 64;

    /// So many slots.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, running: 0, line: VecDeque::new() }
    }

    fn start_next(&mut self) -> Vec<Say<R>> {
        let free = self.limit.saturating_sub(self.running).min(self.line.len());
        self.running += free;
        self.line.drain(..free).map(Say::Start).collect()
    }
}

impl<R: fmt::Debug> Policy<R> for Fixed<R> {
    fn arrive(&mut self, request: R, _: u64) -> Vec<Say<R>> {
        if self.line.len() >= Self::LINE_MAX {
            return vec![Say::Refuse(request)];
        }
        self.line.push_back(request);
        self.start_next()
    }

    fn finish(&mut self, _: R, _: u64, _: u64, _: u64) -> Vec<Say<R>> {
        self.running = self.running.saturating_sub(1);
        self.start_next()
    }

    fn tick(&mut self, _: u64, _: f64, _: f64) -> Vec<Say<R>> {
        self.start_next()
    }
}

/// Slots that follow the ratio of a long to a short average of the time that requests take.
#[derive(Debug)]
pub struct Gradient2<R> {
    slots: Fixed<R>,
    limit: f64,
    long_us: f64,
}

impl<R> Default for Gradient2<R> {
    fn default() -> Self {
        Self { slots: Fixed::new(20), limit: 20.0, long_us: 0.0 }
    }
}

impl<R: fmt::Debug> Policy<R> for Gradient2<R> {
    fn arrive(&mut self, request: R, now_us: u64) -> Vec<Say<R>> {
        self.slots.arrive(request, now_us)
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a model with fractions")]
    fn finish(&mut self, request: R, cpu_us: u64, wall_us: u64, now_us: u64) -> Vec<Say<R>> {
        let short_us = wall_us.max(1) as f64;
        self.long_us = if self.long_us == 0.0 { short_us } else { self.long_us * (1.0 - 1.0 / 600.0) + short_us / 600.0 };
        if self.long_us / short_us > 2.0 {
            self.long_us *= 0.95;
        }
        if self.slots.running as f64 >= self.limit / 2.0 {
            let gradient = (1.5 * self.long_us / short_us).clamp(0.5, 1.0);
            let wanted = self.limit * gradient + 4.0;
            self.limit = (self.limit * 0.8 + wanted * 0.2).clamp(20.0, 200.0);
            self.slots.limit = self.limit as usize;
        }
        self.slots.finish(request, cpu_us, wall_us, now_us)
    }

    fn tick(&mut self, now_us: u64, stretch: f64, pressure: f64) -> Vec<Say<R>> {
        self.slots.tick(now_us, stretch, pressure)
    }
}

/// Slots that shrink while somebody waits for a processor, and grow while nobody does.
#[derive(Debug)]
pub struct PressureOnly<R> {
    slots: Fixed<R>,
    cores: usize,
    sampled_us: u64,
}

impl<R> PressureOnly<R> {
    /// For a box with so many processors.
    #[must_use]
    pub fn new(cores: u32) -> Self {
        Self { slots: Fixed::new(16), cores: cores as usize, sampled_us: 0 }
    }
}

impl<R: fmt::Debug> Policy<R> for PressureOnly<R> {
    fn arrive(&mut self, request: R, now_us: u64) -> Vec<Say<R>> {
        self.slots.arrive(request, now_us)
    }

    fn finish(&mut self, request: R, cpu_us: u64, wall_us: u64, now_us: u64) -> Vec<Say<R>> {
        self.slots.finish(request, cpu_us, wall_us, now_us)
    }

    fn tick(&mut self, now_us: u64, stretch: f64, pressure: f64) -> Vec<Say<R>> {
        if now_us.saturating_sub(self.sampled_us) >= SAMPLE_US {
            self.sampled_us = now_us;
            let limit = self.slots.limit;
            self.slots.limit = if pressure > 0.4 { limit * 4 / 5 } else { limit + 1 }.clamp(self.cores, self.cores * 16);
        }
        self.slots.tick(now_us, stretch, pressure)
    }
}
