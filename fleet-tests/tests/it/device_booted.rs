//! Devices of a box that really boots: a GPIO line that the kernel simulates and a serial line out of the machine, used by the unprivileged daemon
//! through the groups and rules of the image.

use crate::support::{directory, function};
use anyhow::{Context as _, Result};
use fleet_tests::machine::HOST;
use fleet_tests::process::Process;
use fleet_tests::{Disk, Fleet, Line, Lines, Machine, artifact, wait};
use sedge_protocol::api::{Node, NodeState};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// From power to a node in the fleet, and anything that takes its time in there: emulated, on a machine that does other things beside.
const PATIENCE: Duration = Duration::from_secs(300);
/// Edges of a flood, an even number.
const FLOOD: u64 = 10_000;

/// Both lines answer, each through its trigger.
const MANIFEST: &str = "name = 'echo'\n[[trigger]]\nmqtt = 'device/door'\nreply = 'seen/door'\n[[trigger]]\nmqtt = 'device/scale'\nreply = 'device/scale/set'\n";

struct Site {
    ear: Option<Process>,
    machine: Machine,
    lines: Lines,
    fleet: Fleet,
}

impl Site {
    fn new(directory: &Path) -> Result<Self> {
        let fleet = Fleet::start_as(HOST, directory)?;
        let disk = Disk::new(fleet_tests::Board::Pc, directory, &fleet.membership()?)?;
        let lines = Lines::new(directory)?;
        let machine = Machine::boot_with(&disk, &lines.arguments())?;
        let mut site = Self { ear: None, machine, lines, fleet };
        site.node("the box is in the fleet", |_| true)?;
        site.fleet.roll_out(&artifact::manifest_of(MANIFEST)?, &wat::parse_str(artifact::ECHO)?)?;
        let (host, port) = (site.machine.mqtt.ip().to_string(), site.machine.mqtt.port().to_string());
        // Into a file it writes by blocks, unless told otherwise.
        let mut command = Command::new("stdbuf");
        command.args([
            "-oL",
            "mosquitto_sub",
            "-h",
            &host,
            "-p",
            &port,
            "-u",
            "sensor",
            "-P",
            "reading",
            "-q",
            "1",
            "-v",
            "-t",
            "device/#",
            "-t",
            "seen/#",
            "-d",
        ]);
        site.ear = Some(Process::start("mosquitto_sub", &mut command, &directory.join("ear"))?);
        site.heard("Subscribed (mid", 1)?;
        Ok(site)
    }

    /// Waits until what the fleet knows of the box, which is connected, fits.
    fn node(&mut self, what: &str, fits: impl Fn(&Node) -> bool) -> Result<Node> {
        wait::until_within(PATIENCE, what, || {
            self.machine.check()?;
            let online = self.fleet.nodes()?.into_iter().next().filter(|node| node.state == NodeState::Online);
            Ok(online.filter(|node| fits(node)))
        })
    }

    /// Does something inside the box, which answers when it is done.
    fn hand(&mut self, word: &str) -> Result<()> {
        let before = self.lines.hand.heard()?.lines().count();
        self.lines.hand.say(&format!("{word}\n"))?;
        let word = word.split(' ').next().unwrap_or_default();
        let answer = answer(&mut self.lines.hand, &format!("the hand has done {word}"), before)?;
        anyhow::ensure!(answer == format!("{word} done"), "{answer}");
        Ok(())
    }

    /// Waits until MQTT clients have got so many messages with `part` in them; answers them all.
    fn heard(&self, part: &str, count: usize) -> Result<Vec<String>> {
        let ear = self.ear.as_ref().context("nobody listens")?;
        wait::until_within(PATIENCE, &format!("{part} is heard {count} times"), || {
            let lines: Vec<String> = ear.log()?.lines().filter(|line| line.contains(part)).map(str::to_owned).collect();
            Ok((lines.len() >= count).then_some(lines))
        })
    }
}

fn answer(line: &mut Line, what: &str, before: usize) -> Result<String> {
    wait::until_within(PATIENCE, what, || {
        Ok(line.heard()?.split_inclusive('\n').nth(before).and_then(|line| line.strip_suffix('\n')).map(str::to_owned))
    })
}

#[test]
#[ignore = "boots the image: `cargo xtask test --all`"]
fn a_gpio_edge_and_a_serial_line_reach_a_function() -> Result<()> {
    let directory = directory()?;
    let mut site = Site::new(directory.path())?;
    assert_eq!(answer(&mut site.lines.hand, "the line is simulated", 0)?, "ready");
    site.node("both devices are ready", |node| node.vitals.device_trouble.is_none())?;
    site.hand("modules")?;

    // An edge each way: an event on the broker, and the reply of the function to it.
    site.hand("pull-up")?;
    site.hand("pull-down")?;
    for (topic, value, edge, sequence) in
        [("device", 1, "rising", 1), ("seen", 1, "rising", 1), ("device", 0, "falling", 2), ("seen", 0, "falling", 2)]
    {
        site.heard(&format!(r#"{topic}/door {{"value":{value},"edge":"{edge}","sequence":{sequence},"lost":0}}"#), 1)?;
    }

    // A line of text in, and out again as the function's reply.
    site.lines.serial.say("12.5 kg\r\n")?;
    site.heard("device/scale 12.5 kg", 1)?;
    wait::until_within(PATIENCE, "the reply is on the line", || Ok(site.lines.serial.heard()?.contains("12.5 kg").then_some(())))?;
    let echo = function("echo");
    wait::until("it is usage at the fleet", || Ok((site.fleet.usage(&echo, None)?.calls_ok >= 3).then_some(())))?;

    a_flood_is_bounded_and_counted(&mut site)?;
    an_unplugged_chip_is_shown_and_taken_again(&mut site)
}

/// The newest edge is told in the end, and what was not told is counted.
fn a_flood_is_bounded_and_counted(site: &mut Site) -> Result<()> {
    site.hand(&format!("flood {FLOOD}"))?;
    let last = site.heard(&format!(r#"device/door {{"value":0,"edge":"falling","sequence":{},"#, FLOOD + 2), 1)?;
    let told = site.heard("device/door {", 1)?;
    let lost: u64 = told.iter().filter_map(|line| line.rsplit_once(r#""lost":"#)?.1.trim_end_matches('}').parse::<u64>().ok()).sum();
    println!("of {FLOOD} edges {} were told and {lost} counted as lost; the last: {last:?}", told.len() - 2);
    assert!(told.len() as u64 + lost <= FLOOD + 2, "no edge is both");
    // The node goes on with everything else.
    site.hand("pull-up")?;
    site.heard(&format!(r#"seen/door {{"value":1,"edge":"rising","sequence":{},"lost":0}}"#, FLOOD + 3), 1)?;
    Ok(())
}

fn an_unplugged_chip_is_shown_and_taken_again(site: &mut Site) -> Result<()> {
    let begin = site.heard("device/door {", 1)?.len();
    site.hand("unplug")?;
    site.node("the fleet knows that the line is away", |node| {
        node.vitals.device_trouble.as_ref().is_some_and(|trouble| trouble.contains("door: no line is named `DOOR`"))
    })?;
    site.hand("plug")?;
    site.node("the line is ready again", |node| node.vitals.device_trouble.is_none())?;
    site.hand("pull-up")?;
    site.hand("pull-down")?;
    let heard = site.heard("device/door {", begin + 2)?;
    assert!(
        heard.last().is_some_and(|line| line.contains(r#""sequence":2,"lost":0"#)),
        "a line that was taken anew counts anew: {heard:?}"
    );
    Ok(())
}
