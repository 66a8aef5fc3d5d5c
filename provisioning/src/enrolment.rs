//! The node's enrolment as a pure machine. Time and jitter are arguments; what is to be done is returned.
//!
//! ```text
//!               ClaimFound              Issued                 due at two thirds of its life
//!  Unclaimed ──────────────▶ Claimed ───────────▶ Enrolled ───────────────────────────────▶ Renewing
//!      ▲                      │  ▲ │ Failed: again after a back-off   ▲        Issued           │ ▲ │ Failed
//!      └──────────────────────┘  └─┘                                  └─────────────────────────┘ └─┘
//!        Refused for good
//!
//!  Enrolled, Renewing ── Expired: the fleet says so ─▶ Returning (the grace path) ── Issued ─▶ Enrolled
//!                                                        │ Refused
//!                     ── Unknown: the fleet forgot it ─▶ Forgotten (the claim once more) ── Issued, Greeted, or ten minutes ─▶ Enrolled
//!                     ── Revoked, also from Returning ─▶ Revoked (a new claim, if there is one) ── Issued, or six hours ─▶ Enrolled
//! ```
//! From `Forgotten` and `Revoked` the node tries again as if nothing had happened, rarely: whoever decided may have changed their mind, and the
//! answer to that try leads back. Functions go on in every state.
//!
//! Draining order: after every [`Enrolment::on`] do the returned action once in place of the one before, then wait for [`Enrolment::pause_ms`]
//! and send [`Event::Tick`]. A repeated `Tick` before the answer comes repeats nothing.

use crate::identity::renew_at_ms;

/// First pause after a failure.
const BACKOFF_MS_MIN: u64 = 1_000;
/// Longest pause after failures.
const BACKOFF_MS_MAX: u64 = 5 * 60_000;
/// Longest pause that the fleet may ask for.
const RETRY_AFTER_MS_MAX: u64 = 3_600_000;
/// Pause before a node that the fleet does not know tries everything anew.
const FORGOTTEN_MS: u64 = 10 * 60_000;
/// The same for a node that was revoked; half of it fixed, half random.
const REVOKED_MS: u64 = 6 * 3_600_000;

/// Now, by two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// By a clock that never jumps: pauses follow it.
    pub mono_ms: u64,
    /// By the fleet's clock as far as the box knows it ([`crate::clock::FleetTime`]): certificates follow it. Zero while nothing is known.
    pub fleet_ms: u64,
}

/// Where a box stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolment {
    /// No claim, or the last one was refused for good.
    Unclaimed {
        /// Why the last claim was refused.
        refused: Option<String>,
    },
    /// Has a claim and asks for a certificate.
    Claimed {
        /// The pause or the answer that is waited for.
        attempt: Attempt,
    },
    /// Has a certificate that is good.
    Enrolled {
        /// Begin and end of the certificate.
        life: Life,
    },
    /// Has a certificate and asks for the next one. Everything goes on meanwhile.
    Renewing {
        /// Begin and end of the certificate it has.
        life: Life,
        /// The pause or the answer that is waited for.
        attempt: Attempt,
    },
    /// Its certificate has expired; asks for another with the key that the fleet knows.
    Returning {
        /// Begin and end of the certificate it had.
        life: Life,
        /// The pause or the answer that is waited for.
        attempt: Attempt,
    },
    /// The fleet does not know this node; presents its claim once more.
    Forgotten {
        /// Begin and end of the certificate it has.
        life: Life,
        /// The pause or the answer that is waited for.
        attempt: Attempt,
    },
    /// The fleet does not want this node any more.
    Revoked {
        /// Begin and end of the certificate it has.
        life: Life,
        /// Why, as the fleet said.
        reason: String,
        /// The pause, or the answer to a new claim that is waited for.
        attempt: Attempt,
    },
}

/// Begin and end of a certificate, milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Begin.
    pub not_before_ms: u64,
    /// End.
    pub not_after_ms: u64,
}

/// One try after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// How many failed.
    pub failed: u32,
    /// When the next one begins, by the clock that never jumps; none while an answer is waited for.
    pub next_ms: Option<u64>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A claim was found on the boot partition or in the configuration.
    ClaimFound,
    /// The fleet gave a certificate.
    Issued(Life),
    /// No answer, or a refusal that passes.
    Failed {
        /// How long the fleet asked to wait.
        retry_after_ms: Option<u64>,
        /// Part of the pause that is random, thousandths from 0 to 1000.
        jitter_milli: u32,
    },
    /// The claim, or the way back, will never work.
    Refused {
        /// Why.
        reason: String,
    },
    /// The fleet has greeted the node on its connection.
    Greeted {
        /// What its clock shows.
        fleet_ms: u64,
    },
    /// The fleet says that the node's certificate is not of this day.
    Expired,
    /// The fleet does not know the node: it was removed, or the fleet has lost its database.
    Unknown,
    /// The fleet does not want the node.
    Revoked {
        /// Why.
        reason: String,
        /// Whether the node has a claim that it did not become a node with.
        new_claim: bool,
        /// Part of the pause that is random, thousandths from 0 to 1000.
        jitter_milli: u32,
    },
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Present the claim over HTTPS.
    Enrol,
    /// Ask for the next certificate over the connection.
    Renew,
    /// Ask for a certificate over HTTPS with the key that the fleet knows.
    Return,
}

const ASKING: Attempt = Attempt { failed: 0, next_ms: None };

impl Enrolment {
    /// A box without certificate.
    #[must_use]
    pub fn unclaimed() -> Self {
        Self::Unclaimed { refused: None }
    }

    /// A box that starts with the certificate it has kept.
    #[must_use]
    pub fn enrolled(life: Life) -> Self {
        Self::Enrolled { life }
    }

    /// The next state and what is to be done now.
    #[must_use]
    pub fn on(self, event: Event, now: Moment) -> (Self, Option<Action>) {
        match self {
            state @ (Self::Unclaimed { .. } | Self::Claimed { .. }) => state.before_enrolment(event, now),
            state @ (Self::Enrolled { .. } | Self::Renewing { .. }) => state.inside(event, now),
            state @ (Self::Returning { .. } | Self::Forgotten { .. } | Self::Revoked { .. }) => state.outside(event, now),
        }
    }

    fn before_enrolment(self, event: Event, now: Moment) -> (Self, Option<Action>) {
        match (self, event) {
            (Self::Unclaimed { .. }, Event::ClaimFound) => (Self::Claimed { attempt: ASKING }, Some(Action::Enrol)),
            (Self::Claimed { .. }, Event::Issued(life)) => (Self::Enrolled { life }, None),
            (Self::Claimed { .. }, Event::Refused { reason }) => (Self::Unclaimed { refused: Some(reason) }, None),
            (Self::Claimed { attempt }, Event::Failed { retry_after_ms, jitter_milli }) => {
                (Self::Claimed { attempt: attempt.after_failure(retry_after_ms, jitter_milli, now) }, None)
            }
            (Self::Claimed { attempt }, Event::Tick) if attempt.is_due(now) => {
                (Self::Claimed { attempt: attempt.asking() }, Some(Action::Enrol))
            }
            // Early ticks, late answers, and words of a connection that there cannot be.
            (state, _) => (state, None),
        }
    }

    fn inside(self, event: Event, now: Moment) -> (Self, Option<Action>) {
        match (self, event) {
            (Self::Enrolled { life } | Self::Renewing { life, .. }, Event::Expired) => {
                (Self::Returning { life, attempt: ASKING }, Some(Action::Return))
            }
            (Self::Enrolled { life } | Self::Renewing { life, .. }, Event::Unknown) => {
                (Self::Forgotten { life, attempt: ASKING }, Some(Action::Enrol))
            }
            (Self::Enrolled { life } | Self::Renewing { life, .. }, Event::Revoked { reason, new_claim, jitter_milli }) => {
                Self::revoked(life, reason, (new_claim, jitter_milli), now)
            }
            (Self::Enrolled { life }, Event::Tick) if now.fleet_ms >= life.renew_at_ms() => {
                (Self::Renewing { life, attempt: ASKING }, Some(Action::Renew))
            }
            (Self::Renewing { .. }, Event::Issued(life)) => (Self::Enrolled { life }, None),
            (Self::Renewing { life, attempt }, Event::Failed { retry_after_ms, jitter_milli }) => {
                (Self::Renewing { life, attempt: attempt.after_failure(retry_after_ms, jitter_milli, now) }, None)
            }
            // A refused renewal is no end: the certificate at hand is still good, and an operator may mend the cause.
            (Self::Renewing { life, attempt }, Event::Refused { .. }) => {
                (Self::Renewing { life, attempt: attempt.after_failure(Some(BACKOFF_MS_MAX), 0, now) }, None)
            }
            (Self::Renewing { life, attempt }, Event::Tick) if attempt.is_due(now) => {
                (Self::Renewing { life, attempt: attempt.asking() }, Some(Action::Renew))
            }
            // Greetings, early ticks, late answers and claims that are not needed change nothing.
            (state, _) => (state, None),
        }
    }

    fn outside(self, event: Event, now: Moment) -> (Self, Option<Action>) {
        match (self, event) {
            (_, Event::Issued(life)) => (Self::Enrolled { life }, None),
            (Self::Returning { life, .. } | Self::Forgotten { life, .. }, Event::Revoked { reason, new_claim, jitter_milli }) => {
                Self::revoked(life, reason, (new_claim, jitter_milli), now)
            }
            (Self::Returning { life, attempt }, Event::Failed { retry_after_ms, jitter_milli }) => {
                (Self::Returning { life, attempt: attempt.after_failure(retry_after_ms, jitter_milli, now) }, None)
            }
            (Self::Returning { life, attempt }, Event::Tick) if attempt.is_due(now) => {
                (Self::Returning { life, attempt: attempt.asking() }, Some(Action::Return))
            }
            (Self::Returning { life, .. }, Event::Refused { .. }) => (Self::Forgotten { life, attempt: ASKING }, Some(Action::Enrol)),
            // One try with the claim is enough for a while: who presents a wrong one often is slowed down, and others behind its address too.
            (Self::Forgotten { life, .. }, Event::Failed { .. } | Event::Refused { .. }) => {
                (Self::Forgotten { life, attempt: Attempt::after(FORGOTTEN_MS, now) }, None)
            }
            (Self::Forgotten { life, .. }, Event::Greeted { .. }) => (Self::Enrolled { life }, None),
            (Self::Revoked { life, reason, .. }, Event::ClaimFound) => {
                (Self::Revoked { life, reason, attempt: ASKING }, Some(Action::Enrol))
            }
            (Self::Revoked { life, reason, .. }, Event::Failed { jitter_milli, .. }) => {
                (Self::Revoked { life, reason, attempt: Attempt::after(half_random(REVOKED_MS, jitter_milli), now) }, None)
            }
            (Self::Revoked { life, reason, .. }, Event::Refused { .. }) => {
                (Self::Revoked { life, reason, attempt: Attempt::after(REVOKED_MS, now) }, None)
            }
            (Self::Forgotten { life, attempt } | Self::Revoked { life, attempt, .. }, Event::Tick) if attempt.is_due(now) => {
                (Self::Enrolled { life }, None)
            }
            // Early ticks, and words of a connection that was there before.
            (state, _) => (state, None),
        }
    }

    fn revoked(life: Life, reason: String, (new_claim, jitter_milli): (bool, u32), now: Moment) -> (Self, Option<Action>) {
        if new_claim {
            return (Self::Revoked { life, reason, attempt: ASKING }, Some(Action::Enrol));
        }
        (Self::Revoked { life, reason, attempt: Attempt::after(half_random(REVOKED_MS, jitter_milli), now) }, None)
    }

    /// For how long [`Event::Tick`] may be put off; none while an answer, a claim or a greeting is waited for.
    #[must_use]
    pub fn pause_ms(&self, now: Moment) -> Option<u64> {
        match self {
            Self::Claimed { attempt }
            | Self::Renewing { attempt, .. }
            | Self::Returning { attempt, .. }
            | Self::Forgotten { attempt, .. }
            | Self::Revoked { attempt, .. } => attempt.next_ms.map(|next_ms| next_ms.saturating_sub(now.mono_ms)),
            Self::Enrolled { life } => (now.fleet_ms > 0).then(|| life.renew_at_ms().saturating_sub(now.fleet_ms)),
            Self::Unclaimed { .. } => None,
        }
    }

    /// Whether a connection may be tried. A node that was forgotten goes on trying: the fleet may have been brought back from a copy.
    #[must_use]
    pub fn may_connect(&self) -> bool {
        match self {
            Self::Enrolled { .. } | Self::Renewing { .. } | Self::Forgotten { .. } => true,
            Self::Unclaimed { .. } | Self::Claimed { .. } | Self::Returning { .. } | Self::Revoked { .. } => false,
        }
    }

    /// What stands between the node and its fleet, for people.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        match self {
            Self::Unclaimed { refused: Some(reason) } => Some(format!("not enrolled: {reason}")),
            Self::Returning { .. } => Some("the certificate has expired: asking for another".to_owned()),
            Self::Forgotten { .. } => Some("the fleet does not know this node: a new claim lets it join again".to_owned()),
            Self::Revoked { reason, .. } => Some(format!("revoked: {reason}")),
            Self::Unclaimed { refused: None } | Self::Claimed { .. } | Self::Enrolled { .. } | Self::Renewing { .. } => None,
        }
    }
}

impl Life {
    /// Two thirds of it.
    #[must_use]
    pub fn renew_at_ms(&self) -> u64 {
        renew_at_ms(self.not_before_ms, self.not_after_ms)
    }
}

impl Attempt {
    fn after(pause_ms: u64, now: Moment) -> Self {
        Self { failed: 0, next_ms: Some(now.mono_ms.saturating_add(pause_ms)) }
    }

    fn after_failure(self, retry_after_ms: Option<u64>, jitter_milli: u32, now: Moment) -> Self {
        let failed = self.failed.saturating_add(1);
        let pause_ms = backoff_ms(failed, jitter_milli).max(retry_after_ms.unwrap_or(0).min(RETRY_AFTER_MS_MAX));
        Self { failed, ..Self::after(pause_ms, now) }
    }

    fn is_due(self, now: Moment) -> bool {
        self.next_ms.is_some_and(|next_ms| now.mono_ms >= next_ms)
    }

    fn asking(self) -> Self {
        Self { next_ms: None, ..self }
    }
}

/// Pause after failure number `failed` (the first is 1): doubles from 1 s, at most 5 min; half of it fixed, half random.
#[must_use]
pub fn backoff_ms(failed: u32, jitter_milli: u32) -> u64 {
    half_random(BACKOFF_MS_MIN.saturating_mul(1 << failed.saturating_sub(1).min(20)).min(BACKOFF_MS_MAX), jitter_milli)
}

fn half_random(whole: u64, jitter_milli: u32) -> u64 {
    whole / 2 + whole / 2 * u64::from(jitter_milli.min(1000)) / 1000
}

#[cfg(test)]
mod tests;
