//! Numbers and times as people read them.

/// `1 234 567` with narrow spaces.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Thousandths as `12.3`, without the point from a hundred on.
pub(super) fn milli(number: u64) -> String {
    let tenths = number / 100;
    if tenths >= 1000 { count(tenths / 10) } else { format!("{}.{}", tenths / 10, tenths % 10) }
}

/// `3.4 MiB`.
pub(super) fn bytes(number: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut tenths = u128::from(number) * 10;
    while tenths >= 10_240 && unit + 1 < units.len() {
        tenths /= 1024;
        unit += 1;
    }
    if unit == 0 || tenths >= 1000 {
        format!("{} {}", tenths / 10, units[unit])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, units[unit])
    }
}

/// A span of microseconds: `850 µs`, `12.5 s`, `3.2 h`.
pub(super) fn span_us(us: u64) -> String {
    let steps = [(1_u64, "µs"), (1_000, "ms"), (1_000_000, "s"), (60_000_000, "min"), (3_600_000_000, "h")];
    let (size, unit) = steps.iter().rev().find(|(size, _)| us >= *size).copied().unwrap_or(steps[0]);
    let tenths = u128::from(us) * 10 / u128::from(size);
    if size == 1 || tenths >= 1000 { format!("{} {unit}", tenths / 10) } else { format!("{}.{} {unit}", tenths / 10, tenths % 10) }
}

/// How long ago: `now`, `12 s ago`, `3 h ago`.
pub(super) fn ago(time_ms: u64, now_ms: u64) -> String {
    match now_ms.saturating_sub(time_ms) / 1000 {
        0..5 => "now".to_owned(),
        s @ 5..60 => format!("{s} s ago"),
        s @ 60..3_600 => format!("{} min ago", s / 60),
        s @ 3_600..86_400 => format!("{} h ago", s / 3_600),
        s => format!("{} d ago", s / 86_400),
    }
}

/// Memory held over time: `0.12 MiB·s`, `1.50 GiB·s`.
pub(super) fn memory_time(mib_ms: u64) -> String {
    let (size, unit) = if mib_ms < 1_024_000 { (1000, "MiB·s") } else { (1_024_000, "GiB·s") };
    let hundredths = u128::from(mib_ms) * 100 / size;
    format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567).replace('\u{202f}', "'"), "1'234'567");
        assert_eq!((milli(12_345), milli(150_000), milli(40)), ("12.3".into(), "150".into(), "0.0".into()));
        assert_eq!((bytes(1000), bytes(1536), bytes(u64::MAX)), ("1000 B".into(), "1.5 KiB".into(), "16383 PiB".into()));
        assert_eq!(
            (span_us(0), span_us(850), span_us(12_500_000), span_us(11_520_000_000)),
            ("0 µs".into(), "850 µs".into(), "12.5 s".into(), "3.2 h".into())
        );
        assert_eq!((ago(10, 5), ago(0, 12_000), ago(0, 7_200_000)), ("now".into(), "12 s ago".into(), "2 h ago".into()));
        assert_eq!((memory_time(120), memory_time(1024 * 1500)), ("0.12 MiB·s".into(), "1.50 GiB·s".into()));
    }
}
