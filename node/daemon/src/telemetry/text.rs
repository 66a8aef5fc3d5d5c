//! The text format of Prometheus, version 0.0.4: a few lines, exact, and without a registry that would be asked on each request.

use super::histogram::Distribution;
use super::metrics::{Family, Kind, Point, Unit, Value};
use std::fmt::Write as _;

/// All families as text.
pub(super) fn render(families: &[Family]) -> String {
    let mut text = String::with_capacity(16 * 1024);
    for family in families.iter().filter(|family| !family.points.is_empty()) {
        let name = name_of(family);
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        line(&mut text, format_args!("# HELP {name} {}\n# TYPE {name} {kind}", family.help));
        family.points.iter().for_each(|point| write_point(&mut text, &name, family, point));
    }
    text
}

/// The name that the OpenTelemetry rules give: dots become underscores, then the unit, then `_total` for counters.
fn name_of(family: &Family) -> String {
    let unit = match family.unit {
        Unit::None => "",
        Unit::Seconds => "_seconds",
        Unit::Bytes => "_bytes",
    };
    let total = if family.kind == Kind::Counter { "_total" } else { "" };
    format!("{}{unit}{total}", family.name.replace('.', "_"))
}

fn write_point(text: &mut String, name: &str, family: &Family, point: &Point) {
    let labels: Vec<String> =
        point.labels.iter().map(|(name, value)| format!("{}=\"{}\"", name.replace('.', "_"), escape(value))).collect();
    match &point.value {
        Value::Whole(value) => line(text, format_args!("{name}{} {value}", braced(&labels))),
        Value::Micros(value) => line(text, format_args!("{name}{} {}", braced(&labels), scaled(*value, Unit::Seconds))),
        Value::Distribution(read) => write_histogram(text, name, (family.unit, &labels), read),
    }
}

fn write_histogram(text: &mut String, name: &str, (unit, labels): (Unit, &[String]), read: &Distribution) {
    let mut count = 0;
    let bounds = read.bounds.iter().map(|bound| scaled(*bound, unit)).chain(["+Inf".to_owned()]);
    for (bound, bucket) in bounds.zip(&read.buckets) {
        count += bucket;
        let labels = [labels, &[format!("le=\"{bound}\"")]].concat();
        line(text, format_args!("{name}_bucket{} {count}", braced(&labels)));
    }
    line(text, format_args!("{name}_sum{} {}", braced(labels), scaled(read.sum, unit)));
    line(text, format_args!("{name}_count{} {count}", braced(labels)));
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a string takes everything");
}

/// Microseconds as seconds, without rounding; other numbers as they are.
fn scaled(value: u64, unit: Unit) -> String {
    if unit != Unit::Seconds {
        return value.to_string();
    }
    let fraction = format!("{:06}", value % 1_000_000);
    match fraction.trim_end_matches('0') {
        "" => (value / 1_000_000).to_string(),
        digits => format!("{}.{digits}", value / 1_000_000),
    }
}

fn braced(labels: &[String]) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_their_unit_and_values_are_exact() {
        let read = Distribution { bounds: &[500, 2_500_000], buckets: vec![1, 2, 0], sum: 1_000_001 };
        let labels = vec![("http.route", "/a\"b\\c\n".to_owned())];
        let duration = Point { labels, value: Value::Distribution(read) };
        let cpu = Point { labels: Vec::new(), value: Value::Micros(1_500_000) };
        let families = [
            Family { name: "faas.invoke_duration", help: "h", unit: Unit::Seconds, kind: Kind::Histogram, points: vec![duration] },
            Family { name: "process.cpu", help: "c", unit: Unit::Seconds, kind: Kind::Counter, points: vec![cpu] },
            Family { name: "empty", help: "e", unit: Unit::None, kind: Kind::Gauge, points: Vec::new() },
        ];
        let route = r#"http_route="/a\"b\\c\n""#;
        let expected = format!(
            "# HELP faas_invoke_duration_seconds h\n# TYPE faas_invoke_duration_seconds histogram\n\
             faas_invoke_duration_seconds_bucket{{{route},le=\"0.0005\"}} 1\n\
             faas_invoke_duration_seconds_bucket{{{route},le=\"2.5\"}} 3\n\
             faas_invoke_duration_seconds_bucket{{{route},le=\"+Inf\"}} 3\n\
             faas_invoke_duration_seconds_sum{{{route}}} 1.000001\n\
             faas_invoke_duration_seconds_count{{{route}}} 3\n\
             # HELP process_cpu_seconds_total c\n# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 1.5\n"
        );
        assert_eq!(render(&families), expected);
    }
}
