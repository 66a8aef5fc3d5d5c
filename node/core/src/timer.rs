//! When a timer trigger fires next.

use crate::time::{Mono, Wall};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use sedge_protocol::manifest::Trigger;
use std::time::Duration;

/// Longest sleep before the calendar is looked at again: it may have jumped meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What to do about a timer now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Fires at this moment.
    Fire(Mono),
    /// Does not fire before this moment; ask again then.
    Ask(Mono),
    /// Never fires again.
    Never,
}

/// When `trigger` fires after `now`. Intervals count from `began`, so that they keep their phase; cron expressions follow the
/// calendar, whose reading at `now` is `wall`. Triggers that are no timers never fire.
#[must_use]
pub fn next_fire(trigger: &Trigger, began: Mono, now: Mono, wall: Wall) -> Next {
    match trigger {
        Trigger::Every { interval, .. } => {
            let passed = now.0.saturating_sub(began.0) / interval.as_ms();
            Next::Fire(Mono(began.0.saturating_add((passed + 1).saturating_mul(interval.as_ms()))))
        }
        Trigger::Cron { expression, .. } => {
            let Some(at) = calendar(wall) else { return Next::Ask(now.after(LOOK_AGAIN)) };
            let Ok(next) = expression.cron().find_next_occurrence(&at, false) else { return Next::Never };
            let wait = next.timestamp().as_millisecond().saturating_sub(at.timestamp().as_millisecond());
            let wait = Duration::from_millis(u64::try_from(wait).unwrap_or(0));
            if wait > LOOK_AGAIN { Next::Ask(now.after(LOOK_AGAIN)) } else { Next::Fire(now.after(wait)) }
        }
        Trigger::Http { .. } | Trigger::Mqtt { .. } => Next::Never,
    }
}

fn calendar(wall: Wall) -> Option<Zoned> {
    let timestamp = Timestamp::from_millisecond(i64::try_from(wall.0).ok()?).ok()?;
    Some(timestamp.to_zoned(TimeZone::UTC))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(text: &str) -> Trigger {
        Trigger::Every { interval: text.parse().unwrap(), reply: None }
    }

    fn cron(text: &str) -> Trigger {
        Trigger::Cron { expression: text.parse().unwrap(), reply: None }
    }

    #[test]
    fn intervals_keep_their_phase() {
        let fire = |now| next_fire(&every("5s"), Mono(1_000), Mono(now), Wall(0));
        assert_eq!(fire(1_000), Next::Fire(Mono(6_000)));
        assert_eq!(fire(5_999), Next::Fire(Mono(6_000)));
        assert_eq!(fire(6_000), Next::Fire(Mono(11_000)));
        assert_eq!(fire(62_345), Next::Fire(Mono(66_000)));
    }

    #[test]
    fn cron_follows_the_calendar_and_looks_again() {
        // 1970-01-01T00:00:50Z: the next full minute is ten seconds away.
        assert_eq!(next_fire(&cron("* * * * *"), Mono(0), Mono(7), Wall(50_000)), Next::Fire(Mono(10_007)));
        assert_eq!(next_fire(&cron("0 6 * * *"), Mono(0), Mono(7), Wall(50_000)), Next::Ask(Mono(30_007)));
        assert_eq!(next_fire(&cron("* * * * *"), Mono(0), Mono(7), Wall(u64::MAX)), Next::Ask(Mono(30_007)));
    }
}
