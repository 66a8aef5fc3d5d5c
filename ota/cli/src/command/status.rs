//! `sedge status`

use super::{MaybeNode, ls, node};
use crate::arguments::Context;
use crate::style::{Style, Tone};
use crate::table::{Cell, Table, facts};
use crate::text;
use clap::Args;
use sedge_protocol::api::Status as FleetStatus;
use sedge_protocol::local::{Admission, CallCounts, DeviceReport, FleetLink, LocalStatus};
use std::process::ExitCode;

/// Show how the fleet is, or one node of this machine
#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    node: MaybeNode,
}

impl Status {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        if let Some(client) = self.node.client() {
            let status: LocalStatus = client.get("/v1/status")?;
            context.output.show(&status, |style| of_node(&status, style))?;
        } else {
            let status: FleetStatus = context.connection.client()?.get("/api/v1/status")?;
            context.output.show(&status, |style| of_fleet(&status, style))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn of_fleet(status: &FleetStatus, style: Style) -> String {
    let online = format!("{} of {} online", text::count(status.online), text::count(status.nodes));
    let usage = &status.usage;
    let known = [
        ("fleet", Cell::from(format!("sedge-fleet {}", status.version))),
        ("nodes", Cell::toned(online, if status.online == status.nodes { Tone::Good } else { Tone::Busy })),
        ("functions", text::count(status.functions).into()),
        ("calls", format!("{}, {} per second", text::count(usage.calls()), text::per_second(status.calls_per_second_milli)).into()),
        ("failed", text::count(usage.calls_failed).into()),
        ("cpu", text::micros(usage.cpu_us).into()),
    ];
    let mut table = Table::new(&["FUNCTION", ">CALLS", ">FAILED", ">PER SECOND", ">CPU", ">MEMORY"]);
    for row in &status.by_function {
        table.row([
            Cell::toned(row.function.as_str(), Tone::Strong),
            text::count(row.usage.calls()).into(),
            text::count(row.usage.calls_failed).into(),
            text::per_second(row.calls_per_second_milli).into(),
            text::micros(row.usage.cpu_us).into(),
            text::memory_time(row.usage.memory_mib_ms).into(),
        ]);
    }
    format!("{}\n\n{}", facts(style, &known), table.render(style, "nothing has run yet"))
}

fn of_node(status: &LocalStatus, style: Style) -> String {
    let (fleet, tone) = match status.fleet {
        FleetLink::None => ("none configured", Tone::Plain),
        FleetLink::Unclaimed => ("not enrolled yet", Tone::Busy),
        FleetLink::Offline => ("offline", Tone::Bad),
        FleetLink::Online => ("online", Tone::Good),
    };
    let or_none = |text: &Option<String>| Cell::from(text.as_deref().unwrap_or("-"));
    let mut known = vec![
        ("node", status.node.as_ref().map_or("-", |node| node.as_str()).into()),
        ("sedged", status.version.as_str().into()),
        (
            "fleet",
            status.fleet_note.as_ref().map_or_else(|| Cell::toned(fleet, tone), |note| Cell::toned(format!("{fleet}, {note}"), Tone::Bad)),
        ),
        ("http", or_none(&status.http)),
        ("mqtt", or_none(&status.mqtt)),
        ("usage unsent", text::count(status.usage_unsent).into()),
        ("disk written", text::bytes(status.store_bytes_written).into()),
    ];
    let CallCounts { waiting, over, dropped } = status.calls;
    if waiting + over + dropped > 0 {
        let dropped = if dropped > 0 { format!(", {} dropped early", text::count(dropped)) } else { String::new() };
        known.push(("async calls", format!("{} waiting, {} over{dropped}", text::count(waiting), text::count(over)).into()));
    }
    known.extend(node::vitals(&status.vitals));
    let Admission { limit, running, waiting, memory_free_bytes } = status.admission;
    known.push(("invocations", format!("{running} running, {waiting} waiting, at most {limit} at a time").into()));
    known.push(("memory free for instances", text::bytes(memory_free_bytes).into()));
    let functions = ls::of_node(&status.functions, text::now_ms(), style);
    if status.devices.is_empty() {
        return format!("{}\n\n{functions}", facts(style, &known));
    }
    format!("{}\n\n{functions}\n\n{}", facts(style, &known), devices(&status.devices, style))
}

fn devices(reports: &[DeviceReport], style: Style) -> String {
    let mut table = Table::new(&["DEVICE", "AT", ">EVENTS", ">LOST", ">WRITTEN", ">NOT WRITTEN", "STATE"]);
    for report in reports {
        let state = match &report.trouble {
            None => Cell::toned("ready", Tone::Good),
            Some(trouble) => Cell::toned(text::clean(trouble), Tone::Bad),
        };
        table.row([
            Cell::toned(report.name.as_str(), Tone::Strong),
            text::clean(&report.what).into(),
            text::count(report.events).into(),
            Cell::toned(text::count(report.lost), if report.lost > 0 { Tone::Busy } else { Tone::Plain }),
            text::count(report.written).into(),
            Cell::toned(text::count(report.unwritten), if report.unwritten > 0 { Tone::Busy } else { Tone::Plain }),
            state,
        ]);
    }
    table.render(style, "no devices")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::{node, usage};
    use sedge_protocol::api::FunctionUsage;

    #[test]
    fn the_fleet_is_a_few_numbers_and_a_table() {
        let by_function = vec![FunctionUsage { function: "hello".parse().unwrap(), usage: usage(), calls_per_second_milli: 12_340 }];
        let status = FleetStatus {
            version: "0.1.0".to_owned(),
            nodes: 3,
            online: 2,
            functions: 1,
            usage: usage(),
            by_function,
            ..FleetStatus::default()
        };
        let expected = "\
fleet      sedge-fleet 0.1.0
nodes      2 of 3 online
functions  1
calls      1,234, 0 per second
failed     4
cpu        2.50 s

FUNCTION  CALLS  FAILED  PER SECOND     CPU      MEMORY
hello     1,234       4        12.3  2.50 s  1.50 GiB·s";
        assert_eq!(of_fleet(&status, Style::PLAIN), expected);
    }

    #[test]
    fn a_store_that_cannot_write_is_shown() {
        let status = LocalStatus {
            version: "0.1.0".to_owned(),
            node: None,
            fleet: FleetLink::None,
            fleet_note: None,
            http: Some("127.0.0.1:80".to_owned()),
            mqtt: None,
            metrics: None,
            desired_epoch: 0,
            functions: Vec::new(),
            admission: Admission::default(),
            vitals: sedge_protocol::message::Vitals { store_trouble: Some("disk full".to_owned()), ..node().vitals },
            usage_unsent: 0,
            store_bytes_written: 2048,
            calls: CallCounts { waiting: 2, over: 1000, dropped: 3 },
            devices: vec![DeviceReport {
                name: "door".to_owned(),
                what: "line 3 of /dev/gpiochip0".to_owned(),
                trouble: Some("/dev/gpiochip0 is not there".to_owned()),
                events: 1234,
                lost: 5,
                ..DeviceReport::default()
            }],
        };
        let text = of_node(&status, Style::PLAIN);
        let shows = |label: &str, value: &str| text.lines().any(|line| line.strip_prefix(label).is_some_and(|rest| rest.trim() == value));
        assert!(shows("http", "127.0.0.1:80") && shows("mqtt", "-") && shows("store", "disk full"), "{text}");
        assert!(shows("invocations", "0 running, 0 waiting, at most 0 at a time"), "{text}");
        assert!(text.contains("2 waiting, 1,000 over, 3 dropped early\n"), "{text}");
        let door = "door    line 3 of /dev/gpiochip0   1,234     5        0            0  /dev/gpiochip0 is not there";
        assert!(text.lines().any(|line| line == door), "{text}");
    }
}
