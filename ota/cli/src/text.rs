//! Numbers and times as people read them.

use jiff::Timestamp;
use sedge_protocol::artifact::Kind;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, now.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `text` without characters that control a terminal; a tab becomes a space.
pub(crate) fn clean(text: &str) -> String {
    let harmless = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(harmless).collect()
}

/// How long ago `then` was: `now`, `12 s ago`, `3 min ago`, `5 h ago`, `9 d ago`.
pub(crate) fn ago(now_ms: u64, then_ms: u64) -> String {
    match now_ms.saturating_sub(then_ms) {
        0..=999 => "now".to_owned(),
        past => format!("{} ago", span(past)),
    }
}

/// How far away `then` is: `in 3 h`, or `5 min ago` when it has passed. A day that has just begun is still `in 24 h`.
pub(crate) fn until(now_ms: u64, then_ms: u64) -> String {
    match then_ms.saturating_sub(now_ms) {
        0 => ago(now_ms, then_ms),
        left @ 1..120_000 => format!("in {}", span(left)),
        left => format!("in {}", span(left + 59_999)),
    }
}

/// A span of time in its largest whole unit.
pub(crate) fn span(ms: u64) -> String {
    match ms / 1000 {
        0 => format!("{ms} ms"),
        s @ 1..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

/// A span of microseconds with three digits that matter: `840 µs`, `1.25 ms`, `12.5 s`, `1,204 s`.
pub(crate) fn micros(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..1_000_000 => format!("{} ms", three_digits(us, 1000)),
        1_000_000.. => format!("{} s", three_digits(us, 1_000_000)),
    }
}

/// A size: `812 B`, `1.20 KiB`, `34.5 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{} {name}", three_digits(bytes, unit)),
        None => format!("{bytes} B"),
    }
}

/// A count with its digits in groups: `12,345`.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Thousandths as a rate: `0.4`, `12`.
pub(crate) fn per_second(milli: u64) -> String {
    if milli == 0 { "0".to_owned() } else { three_digits(milli, 1000) }
}

/// Memory held over time: `0.12 MiB·s`, `34.5 GiB·s`.
pub(crate) fn memory_time(mib_ms: u64) -> String {
    match mib_ms {
        0 => "0".to_owned(),
        1..1_024_000 => format!("{} MiB·s", three_digits(mib_ms, 1000)),
        1_024_000.. => format!("{} GiB·s", three_digits(mib_ms, 1_024_000)),
    }
}

/// The time of day of a moment, UTC: `14:03:07.120`.
pub(crate) fn clock(ms: u64) -> String {
    let moment = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    moment.map_or_else(|| "?".to_owned(), |moment| moment.strftime("%H:%M:%S.%3f").to_string())
}

/// What an artifact is.
pub(crate) fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Http => "HTTP component",
        Kind::Http03 => "HTTP component of WASI 0.3",
        Kind::Command => "command component",
        Kind::Command03 => "command component of WASI 0.3",
        Kind::CoreCommand => "WASI command",
    }
}

/// `number / unit` with three digits that matter, in whole numbers all the way.
fn three_digits(number: u64, unit: u64) -> String {
    let whole = number / unit;
    let fraction = |scale: u64| u128::from(number % unit) * u128::from(scale) / u128::from(unit);
    match whole {
        0..10 => format!("{whole}.{:02}", fraction(100)),
        10..100 => format!("{whole}.{}", fraction(10)),
        _ => count(whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_use_their_largest_unit() {
        for (ms, expected) in
            [(0, "0 ms"), (999, "999 ms"), (1000, "1 s"), (119_999, "119 s"), (120_000, "2 min"), (7_200_000, "2 h"), (172_800_000, "2 d")]
        {
            assert_eq!(span(ms), expected);
        }
        assert_eq!((ago(5000, 4500), ago(5000, 9000), ago(9000, 4000)), ("now".into(), "now".into(), "5 s ago".into()));
        assert_eq!((until(2000, 86_400_000), until(9000, 4000)), ("in 24 h".into(), "5 s ago".into()));
    }

    #[test]
    fn sizes_and_counts_are_short() {
        for (size, expected) in [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (70_000, "68.3 KiB"), (300 << 20, "300 MiB")] {
            assert_eq!(bytes(size), expected);
        }
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(count(number), expected);
        }
        assert_eq!((micros(840), micros(1250), micros(12_500_000)), ("840 µs".into(), "1.25 ms".into(), "12.5 s".into()));
        assert_eq!((memory_time(0), memory_time(120), memory_time(1024 * 2500)), ("0".into(), "0.12 MiB·s".into(), "2.50 GiB·s".into()));
        assert_eq!(bytes(u64::MAX), "16,777,215 TiB");
    }

    #[test]
    fn a_moment_has_a_time_of_day() {
        assert_eq!(clock(1_700_000_000_120), "22:13:20.120");
        assert_eq!(clock(u64::MAX), "?");
    }
}
