//! The node's enrolment as a pure machine. Time and jitter are arguments; what is to be done is returned.
//!
//! ```text
//!               ClaimFound              Issued                 due at two thirds of its life
//!  Unclaimed ──────────────▶ Claimed ───────────▶ Enrolled ───────────────────────────────▶ Renewing
//!      ▲                      │  ▲ │ Failed: again after a back-off   ▲        Issued           │ ▲ │ Failed
//!      └──────────────────────┘  └─┘                                  └─────────────────────────┘ └─┘
//!        Refused for good                                  Revoked from Enrolled or Renewing: the end until a new claim
//! ```
//! Draining order: after every [`Enrolment::on`] do the returned action once, then wait until [`Enrolment::due_ms`] and send
//! [`Event::Tick`]. A repeated `Tick` before the answer comes repeats nothing.

use crate::identity::renew_at_ms;

/// First pause after a failure.
const BACKOFF_MS_MIN: u64 = 1_000;
/// Longest pause after failures.
const BACKOFF_MS_MAX: u64 = 5 * 60_000;

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
    /// The fleet does not want this node any more.
    Revoked {
        /// Why, as the fleet said.
        reason: String,
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
    /// When the next one begins; none while an answer is waited for.
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
    /// The claim will never work.
    Refused {
        /// Why.
        reason: String,
    },
    /// The fleet has removed this node.
    Revoked {
        /// Why.
        reason: String,
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
    pub fn on(self, event: Event, now_ms: u64) -> (Self, Option<Action>) {
        match (self, event) {
            (Self::Unclaimed { .. } | Self::Revoked { .. }, Event::ClaimFound) => (Self::Claimed { attempt: ASKING }, Some(Action::Enrol)),
            (Self::Claimed { .. }, Event::Issued(life)) => (Self::Enrolled { life }, None),
            (Self::Claimed { .. }, Event::Refused { reason }) => (Self::Unclaimed { refused: Some(reason) }, None),
            (Self::Claimed { attempt }, Event::Failed { retry_after_ms, jitter_milli }) => {
                (Self::Claimed { attempt: attempt.after_failure(retry_after_ms, jitter_milli, now_ms) }, None)
            }
            (Self::Claimed { attempt }, Event::Tick) if attempt.is_due(now_ms) => {
                (Self::Claimed { attempt: attempt.asking() }, Some(Action::Enrol))
            }
            (Self::Enrolled { life }, Event::Tick) if now_ms >= life.renew_at_ms() => {
                (Self::Renewing { life, attempt: ASKING }, Some(Action::Renew))
            }
            (Self::Renewing { .. }, Event::Issued(life)) => (Self::Enrolled { life }, None),
            (Self::Renewing { life, attempt }, Event::Failed { retry_after_ms, jitter_milli }) => {
                (Self::Renewing { life, attempt: attempt.after_failure(retry_after_ms, jitter_milli, now_ms) }, None)
            }
            // A refused renewal is no end: the certificate at hand is still good, and an operator may mend the cause.
            (Self::Renewing { life, attempt }, Event::Refused { .. }) => {
                (Self::Renewing { life, attempt: attempt.after_failure(Some(BACKOFF_MS_MAX), 0, now_ms) }, None)
            }
            (Self::Renewing { life, attempt }, Event::Tick) if attempt.is_due(now_ms) => {
                (Self::Renewing { life, attempt: attempt.asking() }, Some(Action::Renew))
            }
            (Self::Enrolled { .. } | Self::Renewing { .. }, Event::Revoked { reason }) => (Self::Revoked { reason }, None),
            // Late answers, early ticks and claims that are not needed change nothing.
            (
                state @ (Self::Unclaimed { .. }
                | Self::Claimed { .. }
                | Self::Enrolled { .. }
                | Self::Renewing { .. }
                | Self::Revoked { .. }),
                Event::ClaimFound | Event::Issued(_) | Event::Failed { .. } | Event::Refused { .. } | Event::Revoked { .. } | Event::Tick,
            ) => (state, None),
        }
    }

    /// When [`Event::Tick`] should come next; none while an answer or a claim is waited for.
    #[must_use]
    pub fn due_ms(&self) -> Option<u64> {
        match self {
            Self::Claimed { attempt } | Self::Renewing { attempt, .. } => attempt.next_ms,
            Self::Enrolled { life } => Some(life.renew_at_ms()),
            Self::Unclaimed { .. } | Self::Revoked { .. } => None,
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
    fn after_failure(self, retry_after_ms: Option<u64>, jitter_milli: u32, now_ms: u64) -> Self {
        let failed = self.failed.saturating_add(1);
        let pause_ms = backoff_ms(failed, jitter_milli).max(retry_after_ms.unwrap_or(0));
        Self { failed, next_ms: Some(now_ms.saturating_add(pause_ms)) }
    }

    fn is_due(self, now_ms: u64) -> bool {
        self.next_ms.is_some_and(|next_ms| now_ms >= next_ms)
    }

    fn asking(self) -> Self {
        Self { next_ms: None, ..self }
    }
}

/// Pause after failure number `failed` (the first is 1): doubles from 1 s, at most 5 min; half of it fixed, half random.
#[must_use]
pub fn backoff_ms(failed: u32, jitter_milli: u32) -> u64 {
    let whole = BACKOFF_MS_MIN.saturating_mul(1 << failed.saturating_sub(1).min(20)).min(BACKOFF_MS_MAX);
    whole / 2 + whole / 2 * u64::from(jitter_milli.min(1000)) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Life = Life { not_before_ms: 0, not_after_ms: 30_000_000 };

    fn failed(jitter_milli: u32) -> Event {
        Event::Failed { retry_after_ms: None, jitter_milli }
    }

    #[test]
    fn a_box_enrols_after_the_fleet_was_away() {
        let (state, action) = Enrolment::unclaimed().on(Event::ClaimFound, 0);
        assert_eq!(action, Some(Action::Enrol));
        let (state, action) = state.on(failed(1000), 10);
        assert_eq!((state.due_ms(), action), (Some(1010), None));
        let (state, action) = state.on(Event::Tick, 1009);
        assert_eq!(action, None);
        let (state, action) = state.on(Event::Tick, 1010);
        assert_eq!(action, Some(Action::Enrol));
        let (state, action) = state.on(Event::Tick, 99_999);
        assert_eq!(action, None, "an answer is waited for");
        let (state, _) = state.on(Event::Issued(LIFE), 100_000);
        assert_eq!(state, Enrolment::enrolled(LIFE));
    }

    #[test]
    fn a_refused_claim_is_not_presented_again() {
        let (state, _) = Enrolment::unclaimed().on(Event::ClaimFound, 0);
        let (state, _) = state.on(Event::Refused { reason: "used".into() }, 1);
        assert_eq!(state, Enrolment::Unclaimed { refused: Some("used".into()) });
        assert_eq!(state.on(Event::Tick, u64::MAX).1, None);
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_and_kept_while_that_fails() {
        let (state, action) = Enrolment::enrolled(LIFE).on(Event::Tick, 19_999_999);
        assert_eq!(action, None);
        let (state, action) = state.on(Event::Tick, 20_000_000);
        assert_eq!(action, Some(Action::Renew));
        let (state, _) = state.on(Event::Refused { reason: "later".into() }, 20_000_000);
        assert!(matches!(state, Enrolment::Renewing { life: LIFE, .. }));
        let (state, action) = state.on(Event::Tick, 20_300_000);
        assert_eq!(action, Some(Action::Renew));
        let next = Life { not_before_ms: 20_300_000, not_after_ms: 50_300_000 };
        assert_eq!(state.on(Event::Issued(next), 20_300_001).0, Enrolment::enrolled(next));
    }

    #[test]
    fn revocation_ends_it_until_a_new_claim() {
        let (state, _) = Enrolment::enrolled(LIFE).on(Event::Revoked { reason: "removed".into() }, 5);
        let (state, action) = state.on(Event::Issued(LIFE), 6);
        assert_eq!((&state, action), (&Enrolment::Revoked { reason: "removed".into() }, None));
        assert_eq!(state.on(Event::ClaimFound, 7).1, Some(Action::Enrol));
    }

    #[test]
    fn the_pause_doubles_up_to_its_bound_and_obeys_the_fleet() {
        assert_eq!(backoff_ms(1, 0), 500);
        assert_eq!(backoff_ms(1, 1000), 1000);
        assert_eq!(backoff_ms(3, 1000), 4000);
        assert_eq!(backoff_ms(u32::MAX, 5000), BACKOFF_MS_MAX);
        let (state, _) = Enrolment::unclaimed().on(Event::ClaimFound, 0);
        let (state, _) = state.on(Event::Failed { retry_after_ms: Some(60_000), jitter_milli: 0 }, 0);
        assert_eq!(state.due_ms(), Some(60_000));
    }
}
