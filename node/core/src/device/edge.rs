//! Edges of a GPIO line: which are told, and how many were not.
//!
//! ```text
//! handle_edge ─▶ held, newest wins ─▶ poll_reading: within the allowance
//! ```
//! Draining order: after [`Edges::handle_edge`], [`Edges::poll_reading`] until `None`, then sleep until [`Edges::poll_wake`].
//! Invariant: `sequence` of a reading is that of the one before, plus one, plus `lost`; so whoever counts pulses loses none of them.

use super::allowance::Allowance;
use crate::{Mono, Wall};
use serde::Serialize;

/// Which way a line went, as it is meant: a line that is active low rises when its voltage falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To active.
    Rising,
    /// To inactive.
    Falling,
}

/// One edge as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// Which way.
    pub direction: Direction,
    /// The kernel counts edges from 1 when the line is taken. A gap is what its buffer had no room for.
    pub number: u32,
    /// When, by the kernel's clock that only goes forward, nanoseconds.
    pub at_ns: u64,
}

/// What is told of an edge: the data of its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// 1 when the line is active.
    pub value: u8,
    /// Which way it went.
    pub edge: Direction,
    /// Edges since the line was taken, this one included, told or not.
    pub sequence: u64,
    /// Edges right before this one that were not told.
    pub lost: u64,
    /// When it happened, as in [`Edge`].
    #[serde(skip)]
    pub at_ns: u64,
}

/// The edges of one line since it was taken.
#[derive(Debug, Clone, Default)]
pub struct Edges {
    allowance: Allowance,
    /// The kernel's number of the newest.
    number: u32,
    sequence: u64,
    told: u64,
    held: Option<Edge>,
}

impl Edges {
    /// An edge came.
    pub fn handle_edge(&mut self, edge: Edge) {
        // A number that did not move is no number: each edge counts once at least.
        self.sequence += u64::from(edge.number.wrapping_sub(self.number).max(1));
        self.number = edge.number;
        self.held = Some(edge);
    }

    /// What is to be told now.
    pub fn poll_reading(&mut self, now: Mono) -> Option<Reading> {
        let edge = self.held.take_if(|_| self.allowance.take(now))?;
        let (value, sequence) = (u8::from(edge.direction == Direction::Rising), self.sequence);
        let lost = sequence - self.told - 1;
        self.told = sequence;
        Some(Reading { value, edge: edge.direction, sequence, lost, at_ns: edge.at_ns })
    }

    /// Edges that were not told and will not be when the line is given up now.
    #[must_use]
    pub fn untold(&self) -> u64 {
        self.sequence - self.told
    }

    /// When the one that is held may be told.
    #[must_use]
    pub fn poll_wake(&self) -> Option<Mono> {
        self.held.as_ref().map(|_| self.allowance.next())
    }
}

/// The date of a moment of the kernel's clock that only goes forward: `now_ns` and `wall` are the readings of both clocks now.
#[must_use]
pub fn wall_of(at_ns: u64, now_ns: u64, wall: Wall) -> Wall {
    Wall(wall.0.saturating_sub(now_ns.saturating_sub(at_ns) / 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::super::allowance::BURST_MAX;
    use super::*;
    use proptest::prelude::*;

    fn edge(number: u32) -> Edge {
        let direction = if number % 2 == 1 { Direction::Rising } else { Direction::Falling };
        Edge { direction, number, at_ns: u64::from(number) }
    }

    #[test]
    fn what_the_kernel_had_no_room_for_is_lost_before_the_next() {
        let mut edges = Edges::default();
        let mut tell = |number| {
            edges.handle_edge(edge(number));
            edges.poll_reading(Mono(0)).map(|reading| (reading.value, reading.sequence, reading.lost))
        };
        assert_eq!([tell(1), tell(2), tell(7)], [Some((1, 1, 0)), Some((0, 2, 0)), Some((1, 7, 4))]);
    }

    #[test]
    fn of_a_flood_the_newest_edge_is_told_when_there_is_room() {
        let mut edges = Edges::default();
        let told = (1_u32..=5000).filter(|number| {
            edges.handle_edge(edge(*number));
            edges.poll_reading(Mono(9)).is_some()
        });
        assert_eq!(told.count() as u64, BURST_MAX);
        assert_eq!((edges.poll_wake(), edges.untold()), (Some(Mono(10)), 5000 - BURST_MAX));
        let last = edges.poll_reading(Mono(10)).unwrap();
        assert_eq!((last.sequence, last.lost, last.value), (5000, 5000 - BURST_MAX - 1, 0));
        assert_eq!((edges.poll_reading(Mono(11)), edges.poll_wake(), edges.untold()), (None, None, 0));
    }

    #[test]
    fn an_event_has_the_date_of_its_edge() {
        assert_eq!(wall_of(2_000_000, 5_000_000, Wall(1000)), Wall(997));
        // Clocks that disagree are no reason for a date before 1970, or after now.
        assert_eq!(wall_of(9_000_000, 5_000_000, Wall(1000)), Wall(1000));
        assert_eq!(wall_of(0, u64::MAX, Wall(1000)), Wall(0));
    }

    proptest! {
        #[test]
        fn each_edge_is_told_or_counted(steps in prop::collection::vec((1_u32..9, 0_u64..3, any::<bool>()), 1..600)) {
            let (mut edges, mut number, mut now, mut before) = (Edges::default(), 0_u32, 0, 0);
            for (gap, later, look) in steps {
                (number, now) = (number.wrapping_add(gap), now + later);
                edges.handle_edge(edge(number));
                while let Some(reading) = look.then(|| edges.poll_reading(Mono(now))).flatten() {
                    prop_assert_eq!(reading.sequence, before + 1 + reading.lost);
                    before = reading.sequence;
                }
            }
            if let Some(wake) = edges.poll_wake() {
                let last = edges.poll_reading(wake.max(Mono(now + 1))).unwrap();
                prop_assert_eq!((last.sequence, last.sequence), (u64::from(number), before + 1 + last.lost));
                before = last.sequence;
            }
            prop_assert_eq!(before, u64::from(number));
        }
    }
}
