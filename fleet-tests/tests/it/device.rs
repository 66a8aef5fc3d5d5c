//! Devices of a node: serial lines with a test at their other end. GPIO lines are shown on the booted image (`image.rs`): they need a kernel
//! that can simulate them.

use crate::support::{directory, function};
use anyhow::{Context as _, Result};
use fleet_tests::cli::sedge;
use fleet_tests::node::sedged_with;
use fleet_tests::process::run;
use fleet_tests::{Node, Subscriber, Tty, artifact, until};
use sedge_protocol::local::DeviceReport;
use std::path::Path;
use std::process::Command;

/// A node of its own with the device `scale` on a line that is not plugged in yet.
fn node_with_scale(directory: &Path, keys: &str) -> Result<(Node, Tty)> {
    let line = Tty::new(directory.join("tty"));
    let device = format!("[[device]]\nname = 'scale'\nserial = {{ path = '{}', baud = 9600 }}\n{keys}\n", line.path().display());
    let node = Node::start_with_tables(directory, "node-1", &device)?;
    Ok((node, line))
}

fn scale(node: &Node) -> Result<DeviceReport> {
    node.status()?.devices.into_iter().find(|device| device.name == "scale").context("the device is not shown")
}

fn ready(node: &Node) -> Result<()> {
    until("the device is ready", || Ok(scale(node)?.trouble.is_none().then_some(())))
}

fn away(node: &Node, part: &str) -> Result<()> {
    until(&format!("the device is away: {part}"), || Ok(scale(node)?.trouble.filter(|trouble| trouble.contains(part)).map(drop)))
}

/// Publishes as a client of the broker.
fn publish(node: &Node, topic: &str, text: &str) -> Result<()> {
    let (host, port) = (node.mqtt().ip().to_string(), node.mqtt().port().to_string());
    let mut command = Command::new("mosquitto_pub");
    anyhow::ensure!(run(command.args(["-h", &host, "-p", &port, "-q", "1", "-t", topic, "-m", text]))?.status.success(), "{topic}");
    Ok(())
}

fn give_echo(node: &Node, reply: &str) -> Result<()> {
    let manifest = artifact::manifest_of(&format!("name = 'echo'\n[[trigger]]\nmqtt = 'device/scale'\nreply = '{reply}'\n"))?;
    node.give(&manifest, &wat::parse_str(artifact::ECHO)?).map(drop)
}

fn texts(subscriber: &Subscriber) -> Vec<String> {
    subscriber.received().into_iter().map(|(_, text)| text).collect()
}

#[test]
fn a_serial_line_reaches_a_function_whose_reply_is_written_to_it() -> Result<()> {
    let directory = directory()?;
    let (node, mut line) = node_with_scale(directory.path(), "")?;
    give_echo(&node, "device/scale/set")?;
    let (frames, sets) = (Subscriber::start(node.mqtt(), "device/scale")?, Subscriber::start(node.mqtt(), "device/scale/set")?);
    line.plug()?;
    ready(&node)?;
    line.say(b"12.5 ")?;
    line.say(b"kg\r\n\r\n13 kg\n")?;
    until("both readings have come", || Ok((texts(&frames) == ["12.5 kg", "13 kg"]).then_some(())))?;
    until("both replies are seen", || Ok((texts(&sets) == ["12.5 kg", "13 kg"]).then_some(())))?;
    until("both replies are on the line", || Ok((line.heard() == "12.5 kg13 kg").then_some(())))?;
    assert_eq!(node.totals(&function("echo"))?.calls_ok, 2);
    // What others publish there is written as it is.
    publish(&node, "device/scale/set", "tare\r\n")?;
    until("the command is on the line", || Ok(line.heard().ends_with("13 kgtare\r\n").then_some(())))?;
    let report = scale(&node)?;
    assert_eq!((report.events, report.lost, report.written, report.unwritten), (2, 0, 3, 0));
    let socket = node.socket();
    let shown = sedge(None, &["status", "--node", &socket.to_string_lossy()])?.success()?;
    assert!(shown.contains("scale") && shown.contains("9600 8N1") && shown.contains("ready"), "{shown}");
    let metrics = node.ask(http::Method::GET, "/v1/metrics", "")?.text();
    assert!(metrics.contains(r#"sedge_device_events_total{sedge_device="scale"} 2"#), "{metrics}");
    Ok(())
}

#[test]
fn a_device_may_come_and_go_and_the_node_goes_on() -> Result<()> {
    let directory = directory()?;
    let (node, mut line) = node_with_scale(directory.path(), "")?;
    let frames = Subscriber::start(node.mqtt(), "device/scale")?;
    away(&node, "is not there")?;
    let trouble = node.status()?.vitals.device_trouble.unwrap_or_default();
    assert!(trouble.starts_with("scale: ") && trouble.contains("is not there"), "{trouble}");
    publish(&node, "device/scale/set", "of another time")?;
    until("what cannot be written is counted", || Ok((scale(&node)?.unwritten == 1).then_some(())))?;

    line.plug()?;
    ready(&node)?;
    assert_eq!(node.status()?.vitals.device_trouble, None);
    line.say(b"one\nhalf a line")?;
    until("it is heard", || Ok((texts(&frames) == ["one"]).then_some(())))?;
    line.unplug()?;
    until("it is away", || Ok(scale(&node)?.trouble))?;
    away(&node, "is not there")?;

    line.plug()?;
    ready(&node)?;
    line.say(b"two\n")?;
    until("it is heard again", || Ok((texts(&frames) == ["one", "two"]).then_some(())))?;
    assert_eq!(line.heard(), "", "nothing of before is written");
    Ok(())
}

#[test]
fn frames_that_are_too_long_and_hostile_bytes_cost_themselves_alone() -> Result<()> {
    let directory = directory()?;
    let (node, mut line) = node_with_scale(directory.path(), "max_bytes = 16")?;
    let frames = Subscriber::start(node.mqtt(), "device/scale")?;
    line.plug()?;
    ready(&node)?;
    line.say(b"0123456789abcdef\n0123456789abcdefg\nok\n")?;
    until("the one that fits is heard", || Ok((texts(&frames) == ["0123456789abcdef", "ok"]).then_some(())))?;
    assert_eq!(scale(&node)?.lost, 1);
    // A megabyte without an end, in every byte there is but that one.
    let noise: Vec<u8> = (0..1_u32 << 20).map(|number| (number.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    line.say(&noise.into_iter().filter(|byte| *byte != b'\n').collect::<Vec<_>>())?;
    line.say(b"\n\xff\xfe\0\ngood\n")?;
    until("what comes after is heard", || Ok((texts(&frames).last().map(String::as_str) == Some("good")).then_some(())))?;
    let report = scale(&node)?;
    assert_eq!((report.events, report.lost, report.trouble), (4, 2, None));
    Ok(())
}

#[test]
fn a_line_that_never_falls_silent_is_slowed_and_nothing_of_it_is_lost() -> Result<()> {
    const LINES: u64 = 3000;
    let directory = directory()?;
    let (node, mut line) = node_with_scale(directory.path(), "")?;
    node.give(&artifact::manifest("hello")?, &artifact::guest("hello")?)?;
    line.plug()?;
    ready(&node)?;
    let text: String = (0..LINES).map(|number| format!("{number}\n")).collect();
    line.say(text.as_bytes())?;
    let answer = node.fetch("/hello")?;
    assert_eq!(answer.status.as_u16(), 200, "others are served meanwhile");
    until("all lines are events", || Ok((scale(&node)?.events == LINES).then_some(())))?;
    assert_eq!(scale(&node)?.lost, 0);
    Ok(())
}

#[test]
fn silence_and_length_end_frames_as_well() -> Result<()> {
    for (keys, said, expected) in
        [("frame = { bytes = 4 }", &b"abcdefgh"[..], &["abcd", "efgh"][..]), ("frame = { idle_ms = 50 }", b"a\nb", &["a\nb"])]
    {
        let directory = directory()?;
        let (node, mut line) = node_with_scale(directory.path(), keys)?;
        let frames = Subscriber::start(node.mqtt(), "device/scale")?;
        line.plug()?;
        ready(&node)?;
        line.say(said)?;
        until("the frames have come", || Ok((texts(&frames) == expected).then_some(())))?;
    }
    Ok(())
}

#[test]
fn every_fault_of_a_device_is_listed_and_what_is_no_serial_line_is_said() -> Result<()> {
    let directory = directory()?;
    let text =
        "[[device]]\nname = 'Door'\ngpio = { line = 3 }\nedge = 'up'\n[[device]]\nname = 'scale'\nserial = { path = '/dev/ttyS1' }\n";
    let done = sedged_with(directory.path(), text, &["check-config"])?;
    assert_eq!(done.code, Some(78), "{done:?}");
    for part in [
        "sedged.toml:2: `device[0].name`",
        "sedged.toml:3: `device[0].gpio.line`",
        "sedged.toml:4: `device[0].edge`",
        "sedged.toml:7: `device[1].serial.baud`",
    ] {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
    let devices = "[[device]]\nname = 'scale'\nserial = { path = '/dev/null', baud = 9600 }\n[[device]]\nname = 'door'\ngpio = { chip = 'null', line = 3 }\n";
    let node = Node::start_with_tables(directory.path(), "node-1", devices)?;
    away(&node, "/dev/null is no serial line")?;
    let trouble = node.status()?.vitals.device_trouble.unwrap_or_default();
    assert!(trouble.ends_with(", and another device"), "{trouble}");
    assert!(node.status()?.devices[1].trouble.as_deref() == Some("/dev/null is no GPIO chip"), "{:?}", node.status()?.devices);
    Ok(())
}
