//! Asynchronous calls: answered at once with an id, run later, their answer kept for whoever asks.
//!
//! ```text
//!            ┌──────────── attempt failed, run refused, interrupted ◀──┐
//! accept ─▶ Waiting ── lease granted, durable ─▶ Running ──────────────┤
//!            │  ▲                                                      └─▶ Over: succeeded │ failed │ dead
//!            │  └── replayed (dead letters) ◀───────────────────────────────────────────────────────┘
//!            └── cancelled ─▶ Over
//! ```
//! The order in which calls run is [`crate::Queue`]'s: each call is a lane of its own. What is here decides what a call is
//! ([`Life`]), when an interrupted run may begin again ([`Lease`]), which calls are the same ([`Keys`]) and how long what
//! ended is kept ([`Shelf`]).
//!
//! Invariants: a call that is over stays over until it is replayed; two runs of one call never hold a lease at the same time.

mod keys;
mod lease;
mod shelf;

pub use keys::{Join, KEYS_AGE_MAX, Key, Keys};
pub use lease::{Boot, LEASE_MARGIN, Lease, Moment};
pub use shelf::{ANSWER_BYTES_MAX, Cause, Dropped, OVER_MAX, RETENTION, Shelf};

use crate::retry::{Verdict, verdict};
use crate::time::{Mono, Wall};
use sedge_protocol::manifest::Retry;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A moment of the time that this node's daemon has been running, over all its lives: milliseconds, as far as they are on disk.
///
/// It never jumps and does not know the calendar: what is kept for a day by it is not thrown away because a clock without a battery
/// was set. Time without power does not count, so things are kept rather longer than shorter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Steady(pub u64);

impl Steady {
    /// The moment `now` of a daemon that began at this moment.
    #[must_use]
    pub fn at(self, now: Mono) -> Self {
        Self(self.0.saturating_add(now.0))
    }

    /// Time since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Where a call is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// In line, for the first time or again.
    Waiting {
        /// Why the last attempt failed, if there was one.
        reason: Option<String>,
    },
    /// A run was let go.
    Running {
        /// Until when nobody else starts it.
        lease: Lease,
    },
    /// Nothing more happens by itself.
    Over {
        /// How it ended.
        end: End,
        /// Why it did not succeed.
        reason: Option<String>,
        /// When, by the calendar.
        ended: Wall,
        /// When, for its retention.
        at: Steady,
    },
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// The function answered.
    Succeeded,
    /// The function answered that the request is wrong; another attempt would hear the same.
    Failed,
    /// Every attempt failed; it lies among the dead letters.
    Dead,
    /// Taken back before it began.
    Cancelled,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A run may start under this lease.
    Leased(Lease),
    /// The run did not start, or failed and is tried again, for this reason if it ran.
    Back(Option<String>),
    /// It ended.
    Ended {
        /// How.
        end: End,
        /// Why it did not succeed.
        reason: Option<String>,
        /// By the calendar.
        wall: Wall,
        /// For its retention.
        at: Steady,
    },
    /// Somebody wants it tried again.
    Replayed,
}

impl Life {
    /// A call that was just accepted.
    #[must_use]
    pub fn new() -> Self {
        Self::Waiting { reason: None }
    }

    /// What follows. An input that makes no sense changes nothing.
    #[must_use]
    pub fn on(self, input: Input) -> Self {
        match (self, input) {
            (Self::Waiting { .. }, Input::Leased(lease)) => Self::Running { lease },
            (Self::Running { .. }, Input::Back(reason)) => Self::Waiting { reason },
            (Self::Waiting { .. } | Self::Running { .. }, Input::Ended { end, reason, wall, at }) => {
                Self::Over { end, reason, ended: wall, at }
            }
            (Self::Over { end: End::Dead, .. }, Input::Replayed) => Self::new(),
            (same @ Self::Waiting { .. }, Input::Back(_) | Input::Replayed)
            | (same @ Self::Running { .. }, Input::Leased(_) | Input::Replayed)
            | (same @ Self::Over { .. }, Input::Leased(_) | Input::Back(_) | Input::Ended { .. } | Input::Replayed) => same,
        }
    }

    /// Whether nothing more happens by itself.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Over { .. })
    }
}

impl Default for Life {
    fn default() -> Self {
        Self::new()
    }
}

/// What a restart of the daemon makes of a call that it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// Not before so much time has passed: the lease of the run that was cut off.
    pub after: Duration,
    /// Failed attempts, the run that was cut off included if it counts.
    pub failed: u32,
}

/// How a call goes on after a restart at `now`; `None` when it is over.
///
/// A run that the daemon's end cut off counts as an attempt, so that a call which takes the daemon down with it is given up some
/// day. One that ended with the whole machine does not count: power cuts are nobody's fault.
#[must_use]
pub fn resume(life: &Life, failed: u32, now: Moment) -> Option<Resume> {
    match life {
        Life::Waiting { .. } => Some(Resume { after: Duration::ZERO, failed }),
        Life::Running { lease } => {
            let failed = failed.saturating_add(u32::from(lease.same_boot(now)));
            Some(Resume { after: lease.left(now), failed })
        }
        Life::Over { .. } => None,
    }
}

/// Whether a call that was found with so many failed attempts may run at all.
#[must_use]
pub fn may_run(retry: &Retry, failed: u32) -> bool {
    failed == 0 || matches!(verdict(retry, failed), Verdict::Again(_))
}

/// What an answer of the function with this status means for the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It is over.
    Over(End),
    /// The attempt failed.
    Again,
}

/// Decides by the status: another attempt helps against faults of the server (5xx), 408 and 429, and against nothing else.
#[must_use]
pub fn judge(status: u16) -> Judgement {
    match status {
        408 | 429 | 500.. => Judgement::Again,
        400..500 => Judgement::Over(End::Failed),
        _ => Judgement::Over(End::Succeeded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lease() -> Lease {
        Lease::grant(Moment { boot: Boot([1; 16]), uptime_ms: 0 }, Duration::from_secs(1))
    }

    fn input(kind: u8) -> Input {
        let ended = |end| Input::Ended { end, reason: None, wall: Wall(5), at: Steady(5) };
        match kind {
            0 => Input::Leased(lease()),
            1 => Input::Back(Some("trap".to_owned())),
            2 => ended(End::Succeeded),
            3 => ended(End::Dead),
            4 => ended(End::Cancelled),
            _ => Input::Replayed,
        }
    }

    proptest! {
        #[test]
        fn what_is_over_stays_over_until_it_is_replayed(kinds in prop::collection::vec(0_u8..6, 0..40)) {
            let mut life = Life::new();
            for kind in kinds {
                let before = life.clone();
                life = life.on(input(kind));
                let back = matches!((&before, &life), (Life::Over { end: End::Dead, .. }, Life::Waiting { .. }));
                prop_assert!(!before.is_over() || before == life || (kind == 5 && back));
                let leased = matches!(before, Life::Waiting { .. }) && kind == 0;
                let running = |life: &Life| matches!(life, Life::Running { .. });
                prop_assert!(!running(&life) || running(&before) || leased);
            }
        }
    }

    #[test]
    fn a_run_that_was_cut_off_waits_for_its_lease_and_counts_unless_the_machine_went_down() {
        let life = Life::new().on(Input::Leased(lease()));
        let at = |boot, uptime_ms| resume(&life, 2, Moment { boot: Boot([boot; 16]), uptime_ms });
        assert_eq!(at(1, 400), Some(Resume { after: Duration::from_millis(600), failed: 3 }));
        assert_eq!(at(1, 5000), Some(Resume { after: Duration::ZERO, failed: 3 }));
        assert_eq!(at(2, 10), Some(Resume { after: Duration::ZERO, failed: 2 }));
        assert_eq!(resume(&Life::new(), 1, Moment { boot: Boot([1; 16]), uptime_ms: 0 }).map(|resume| resume.failed), Some(1));
        assert_eq!(resume(&life.on(input(2)), 0, Moment { boot: Boot([1; 16]), uptime_ms: 0 }), None);
    }

    #[test]
    fn only_what_another_attempt_may_cure_is_tried_again() {
        let again: Vec<u16> = (100..600).filter(|status| judge(*status) == Judgement::Again).collect();
        assert_eq!(again, [408, 429].into_iter().chain(500..600).collect::<Vec<u16>>());
        assert_eq!((judge(204), judge(404)), (Judgement::Over(End::Succeeded), Judgement::Over(End::Failed)));
        let retry = Retry { attempts: 3, backoff_ms: 0 };
        assert_eq!([0, 2, 3].map(|failed| may_run(&retry, failed)), [true, true, false]);
        assert!(may_run(&Retry { attempts: 1, backoff_ms: 0 }, 0));
    }
}
