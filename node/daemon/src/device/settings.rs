//! `[[device]]` of `sedged.toml`.

use crate::limits::DEVICES_MAX;
use sedge_node_core::device::{DeviceName, Framing};
use sedge_protocol::limits::EVENT_BYTES_MAX;
use sedge_protocol::strict::Section;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Bytes of a frame, unless the configuration says otherwise.
const FRAME_BYTES_MAX: usize = 4096;
/// Speeds of a serial line, bits in a second.
const BAUD: RangeInclusive<u32> = 50..=4_000_000;

/// A device of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) name: DeviceName,
    pub(crate) kind: Kind,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Gpio(Gpio),
    Serial(Serial),
}

/// A line of a GPIO chip whose edges are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gpio {
    pub(super) line: Line,
    pub(super) edge: EdgeChoice,
    /// Bounces that are shorter than this are left out by the kernel.
    pub(super) debounce: Option<Duration>,
    pub(super) bias: Bias,
    pub(super) active_low: bool,
}

/// Which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// By its number on a chip.
    Number { chip: PathBuf, line: u32 },
    /// By the name that the board gave it, on a chip or on any.
    Name { chip: Option<PathBuf>, name: String },
}

/// Which edges are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EdgeChoice {
    Rising,
    Falling,
    Both,
}

/// What holds a line that nothing drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bias {
    AsIs,
    PullUp,
    PullDown,
    Disabled,
}

/// A serial line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Serial {
    pub(super) path: PathBuf,
    pub(super) baud: u32,
    pub(super) format: Format,
    pub(super) framing: Framing,
    pub(super) bytes_max: usize,
}

/// How a byte travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) data_bits: u8,
    pub(super) parity: Parity,
    pub(super) stop_bits: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parity {
    None,
    Even,
    Odd,
}

/// Reads all devices; what is wrong becomes faults of the file.
pub(crate) fn read(sections: Vec<Section<'_>>) -> Vec<Device> {
    let (mut devices, mut names, mut places) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for (number, section) in sections.into_iter().enumerate() {
        if number == DEVICES_MAX {
            section.reject("name", format!("a node has at most {DEVICES_MAX} devices"));
        }
        let Some(device) = read_device(&section) else {
            section.finish();
            continue;
        };
        if !names.insert(device.name.clone()) {
            section.reject("name", format!("two devices are called `{}`", device.name));
        }
        if !places.insert(device.place()) {
            let key = if matches!(device.kind, Kind::Gpio(_)) { "gpio" } else { "serial" };
            section.reject(key, "another device has it already; several functions can listen to the topic of one");
        }
        section.finish();
        devices.push(device);
    }
    devices
}

fn read_device(section: &Section<'_>) -> Option<Device> {
    let name = section.require("name");
    let (gpio, serial) = (section.section("gpio"), section.section("serial"));
    let kind = match (gpio.is_present(), serial.is_present()) {
        (true, false) => read_gpio(section, &gpio).map(Kind::Gpio),
        (false, true) => read_serial(section, &serial).map(Kind::Serial),
        (true, true) => {
            section.reject("serial", "a device is either `gpio` or `serial`");
            read_gpio(section, &gpio);
            read_serial(section, &serial);
            None
        }
        (false, false) => {
            section.reject(
                "gpio",
                "say what it is: `gpio = { chip = \"gpiochip0\", line = 3 }` or `serial = { path = \"/dev/ttyS1\", baud = 9600 }`",
            );
            None
        }
    };
    gpio.finish();
    serial.finish();
    Some(Device { name: name?, kind: kind? })
}

fn read_gpio(section: &Section<'_>, gpio: &Section<'_>) -> Option<Gpio> {
    let line = read_line(gpio);
    let edge = section.parse("edge");
    let debounce = section.integer("debounce_ms", 0..=10_000).filter(|ms| *ms > 0).map(Duration::from_millis);
    let bias = section.parse("bias");
    let active_low = section.boolean("active_low").unwrap_or_default();
    Some(Gpio { line: line?, edge: edge.unwrap_or(EdgeChoice::Both), debounce, bias: bias.unwrap_or(Bias::AsIs), active_low })
}

fn read_line(gpio: &Section<'_>) -> Option<Line> {
    let chip = gpio.text("chip").map(|chip| Path::new("/dev").join(chip));
    if gpio.is_text("line") {
        let name = gpio.text("line").filter(|name| !name.is_empty());
        return name.map(|name| Line::Name { chip, name }).or_else(|| {
            gpio.reject("line", "a name must not be empty");
            None
        });
    }
    if !gpio.has("line") {
        gpio.require::<String>("line");
        return None;
    }
    let line = gpio.number("line", 0..=65_535)?;
    let Some(chip) = chip else {
        gpio.reject("line", "a number is that of a line of a chip: name the chip too, `chip = \"gpiochip0\"`");
        return None;
    };
    Some(Line::Number { chip, line })
}

fn read_serial(section: &Section<'_>, serial: &Section<'_>) -> Option<Serial> {
    let path = serial.require::<PathBuf>("path");
    if path.as_ref().is_some_and(|path| !path.is_absolute()) {
        serial.reject("path", "a path from the root, such as `/dev/ttyS1` or `/dev/serial/by-id/…`");
    }
    if !serial.has("baud") {
        serial.reject("baud", "is missing: how many bits a second, such as 9600");
    }
    let baud = serial.number("baud", BAUD);
    let format = serial.parse("format");
    let framing = read_framing(section);
    let most = u64::try_from(EVENT_BYTES_MAX).unwrap_or(u64::MAX);
    let bytes_max = section.integer("max_bytes", 1..=most).and_then(|bytes| usize::try_from(bytes).ok());
    let bytes_max = match framing {
        Framing::Length(bytes) if bytes_max.is_some_and(|most| most < bytes) => {
            section.reject("max_bytes", format!("every frame has {bytes} bytes"));
            bytes
        }
        Framing::Length(bytes) => bytes,
        Framing::Line | Framing::Idle(_) => bytes_max.unwrap_or(FRAME_BYTES_MAX),
    };
    Some(Serial { path: path?, baud: baud?, format: format.unwrap_or_default(), framing, bytes_max })
}

fn read_framing(section: &Section<'_>) -> Framing {
    const FORMS: &str = "one of \"line\", { bytes = 8 } and { idle_ms = 20 }";
    if section.is_text("frame") || !section.has("frame") {
        if section.text("frame").is_some_and(|frame| frame != "line") {
            section.reject("frame", FORMS);
        }
        return Framing::Line;
    }
    let frame = section.section("frame");
    let most = u64::try_from(EVENT_BYTES_MAX).unwrap_or(u64::MAX);
    let bytes = frame.integer("bytes", 1..=most).and_then(|bytes| usize::try_from(bytes).ok());
    let idle = frame.integer("idle_ms", 1..=60_000).map(Duration::from_millis);
    if frame.is_present() && frame.has("bytes") == frame.has("idle_ms") {
        section.reject("frame", FORMS);
    }
    frame.finish();
    bytes.map(Framing::Length).or(idle.map(Framing::Idle)).unwrap_or(Framing::Line)
}

impl Device {
    /// What no other device can have as well.
    fn place(&self) -> String {
        match &self.kind {
            Kind::Gpio(gpio) => gpio.line.to_string(),
            Kind::Serial(serial) => serial.path.display().to_string(),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Gpio(gpio) => gpio.line.fmt(f),
            Kind::Serial(Serial { path, baud, format, .. }) => write!(f, "{}, {baud} {format}", path.display()),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { chip, line } => write!(f, "line {line} of {}", chip.display()),
            Self::Name { chip: Some(chip), name } => write!(f, "line `{name}` of {}", chip.display()),
            Self::Name { chip: None, name } => write!(f, "line `{name}`"),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parity = match self.parity {
            Parity::None => 'N',
            Parity::Even => 'E',
            Parity::Odd => 'O',
        };
        write!(f, "{}{parity}{}", self.data_bits, self.stop_bits)
    }
}

impl Default for Format {
    fn default() -> Self {
        Self { data_bits: 8, parity: Parity::None, stop_bits: 1 }
    }
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORMS: &str = "data bits (5 to 8), parity (N, E or O) and stop bits (1 or 2), such as `8N1`";
        let [data @ b'5'..=b'8', parity, stop @ b'1'..=b'2'] = text.as_bytes() else { return Err(FORMS) };
        let parity = match parity {
            b'N' => Parity::None,
            b'E' => Parity::Even,
            b'O' => Parity::Odd,
            _other => return Err(FORMS),
        };
        Ok(Self { data_bits: data - b'0', parity, stop_bits: stop - b'0' })
    }
}

impl FromStr for EdgeChoice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "rising" => Ok(Self::Rising),
            "falling" => Ok(Self::Falling),
            "both" => Ok(Self::Both),
            _other => Err("one of `rising`, `falling` and `both`"),
        }
    }
}

impl FromStr for Bias {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "as-is" => Ok(Self::AsIs),
            "pull-up" => Ok(Self::PullUp),
            "pull-down" => Ok(Self::PullDown),
            "disabled" => Ok(Self::Disabled),
            _other => Err("one of `as-is`, `pull-up`, `pull-down` and `disabled`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::strict::{Faults, Reader};

    fn devices(text: &str) -> Result<Vec<Device>, Faults> {
        let reader = Reader::new("c", text)?;
        let root = reader.root();
        let devices = read(root.sections("device"));
        root.finish();
        reader.finish(Some(devices))
    }

    #[test]
    fn the_devices_of_the_documentation_are_read() {
        let text = "[[device]]\nname = 'door'\ngpio = { chip = 'gpiochip0', line = 3 }\nedge = 'rising'\ndebounce_ms = 5\nbias = 'pull-up'\n\
                    active_low = true\n[[device]]\nname = 'bell'\ngpio = { line = 'BELL' }\n[[device]]\nname = 'scale'\n\
                    serial = { path = '/dev/ttyS1', baud = 9600, format = '7E2' }\nframe = { idle_ms = 20 }\n[[device]]\nname = 'meter'\n\
                    serial = { path = '/dev/ttyS2', baud = 300 }\nframe = { bytes = 8 }\n";
        let devices = devices(text).unwrap();
        let shown: Vec<String> = devices.iter().map(|device| format!("{}: {device}", device.name)).collect();
        assert_eq!(
            shown,
            ["door: line 3 of /dev/gpiochip0", "bell: line `BELL`", "scale: /dev/ttyS1, 9600 7E2", "meter: /dev/ttyS2, 300 8N1"]
        );
        let Kind::Gpio(door) = &devices[0].kind else { panic!("not a line") };
        assert_eq!((door.edge, door.debounce, door.bias), (EdgeChoice::Rising, Some(Duration::from_millis(5)), Bias::PullUp));
        let framing = |at: usize| match &devices[at].kind {
            Kind::Serial(serial) => (serial.framing, serial.bytes_max),
            Kind::Gpio(_) => panic!("not a serial line"),
        };
        assert_eq!(framing(2), (Framing::Idle(Duration::from_millis(20)), FRAME_BYTES_MAX));
        assert_eq!(framing(3), (Framing::Length(8), 8));
    }

    #[test]
    fn every_fault_of_every_device_is_listed() {
        let text = "[[device]]\nname = 'Door'\ngpio = { line = 3 }\nedge = 'up'\nbias = 'none'\nbaud = 1\n[[device]]\nname = 'a'\n[[device]]\nname = 'b'\n\
                    serial = { path = 'ttyS1', format = '9N1', speed = 3 }\nframe = 'packet'\nmax_bytes = 0\n[[device]]\nname = 'c'\n\
                    gpio = { chip = 'gpiochip0', line = 3 }\nserial = { path = '/dev/x', baud = 9600 }\nframe = { bytes = 4, idle_ms = 3 }\n";
        let faults = devices(text).unwrap_err().to_string();
        for part in [
            "c:2: `device[0].name`: a name of a device has",
            "c:3: `device[0].gpio.line`: a number is that of a line of a chip",
            "c:4: `device[0].edge`: one of",
            "c:5: `device[0].bias`: one of",
            "c:6: unknown key `device[0].baud`",
            "c:7: `device[1].gpio`: say what it is",
            "c:11: `device[2].serial.path`: a path from the root",
            "`device[2].serial.baud`: is missing",
            "c:11: `device[2].serial.format`: data bits",
            "c:11: unknown key `device[2].serial.speed`",
            "c:12: `device[2].frame`: one of \"line\"",
            "c:13: `device[2].max_bytes` must be",
            "c:17: `device[3].serial`: a device is either",
            "c:18: `device[3].frame`: one of \"line\"",
        ] {
            assert!(faults.contains(part), "{part}: {faults}");
        }
    }

    #[test]
    fn two_devices_share_neither_name_nor_place() {
        let line = |name: &str, line: u32| format!("[[device]]\nname = '{name}'\ngpio = {{ chip = 'gpiochip0', line = {line} }}\n");
        assert!(devices(&(line("a", 1) + &line("b", 2))).is_ok());
        assert!(devices(&(line("a", 1) + &line("a", 2))).unwrap_err().to_string().contains("two devices are called `a`"));
        assert!(devices(&(line("a", 1) + &line("b", 1))).unwrap_err().to_string().contains("another device has it already"));
        let many = |count: u32| (0..count).map(|number| line(&format!("d{number}"), number)).collect::<String>();
        assert!(devices(&many(64)).is_ok() && devices(&many(65)).unwrap_err().to_string().contains("at most 64 devices"));
    }
}
