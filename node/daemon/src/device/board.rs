//! What others see of the devices, and the way of what is written to them.

use super::settings::{Device, Kind};
use crate::fault::clip;
use crate::limits::SETS_WAITING_MAX;
use sedge_node_core::device::DeviceName;
use sedge_protocol::local::DeviceReport;
use sedge_protocol::{Event, Topic};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, watch};

/// All devices of the node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Board(Arc<[Arc<Shown>]>);

/// One device as others see it.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) name: DeviceName,
    pub(super) topic: Topic,
    /// Line or port, for people.
    what: String,
    /// Why it is away; none while it is ready.
    pub(super) trouble: watch::Sender<Option<String>>,
    pub(super) events: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) unwritten: AtomicU64,
    set: Set,
}

/// What becomes of an event on the topic for writing.
#[derive(Debug)]
struct Set {
    topic: Topic,
    /// None for what cannot be written to.
    line: Option<mpsc::Sender<Vec<u8>>>,
}

impl Shown {
    /// The device before it was taken, and what will be written to it.
    pub(super) fn of(device: &Device) -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (line, sets) = mpsc::channel(SETS_WAITING_MAX);
        let line = matches!(device.kind, Kind::Serial(_)).then_some(line);
        let shown = Self {
            name: device.name.clone(),
            topic: device.name.topic(),
            what: device.to_string(),
            trouble: watch::Sender::new(Some("has not been looked for yet".to_owned())),
            events: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            written: AtomicU64::new(0),
            unwritten: AtomicU64::new(0),
            set: Set { topic: device.name.set_topic(), line },
        };
        (shown, sets)
    }

    fn report(&self) -> DeviceReport {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        DeviceReport {
            name: self.name.to_string(),
            what: self.what.clone(),
            trouble: self.trouble.borrow().as_deref().map(clip),
            events: load(&self.events),
            lost: load(&self.lost),
            written: load(&self.written),
            unwritten: load(&self.unwritten),
        }
    }

    /// Puts bytes in line, unless the device is away: what is written hours later does harm.
    fn write(&self, bytes: &[u8]) {
        let ready = self.trouble.borrow().is_none();
        let taken = self.set.line.as_ref().is_some_and(|line| ready && line.try_send(bytes.to_vec()).is_ok());
        if !taken {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
            log::debug!(device:% = self.name; "what was to be written is dropped");
        }
    }
}

impl Board {
    pub(super) fn new(list: Vec<Arc<Shown>>) -> Self {
        Self(list.into())
    }

    /// How the devices are.
    pub(crate) fn reports(&self) -> Vec<DeviceReport> {
        self.0.iter().map(|shown| shown.report()).collect()
    }

    /// What is wrong with the first of those that are away, and how many others are.
    pub(crate) fn trouble(&self) -> Option<String> {
        let mut away = self.0.iter().filter_map(|shown| Some(format!("{}: {}", shown.name, shown.trouble.borrow().as_ref()?)));
        let first = away.next()?;
        let text = match away.count() {
            0 => first,
            1 => format!("{first}, and another device"),
            others => format!("{first}, and {others} other devices"),
        };
        Some(clip(&text))
    }

    /// Writes the data of an event on `device/<name>/set`; any other is none of ours.
    pub(crate) fn offer(&self, event: &Event) {
        if let Some(shown) = self.0.iter().find(|shown| shown.set.topic == event.topic) {
            shown.write(&event.data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::read;
    use super::*;
    use sedge_protocol::strict::Reader;
    use std::collections::BTreeMap;

    fn shown() -> (Vec<Arc<Shown>>, Vec<mpsc::Receiver<Vec<u8>>>) {
        let text =
            "[[device]]\nname = 'door'\ngpio = { line = 'DOOR' }\n[[device]]\nname = 'scale'\nserial = { path = '/dev/s', baud = 9600 }\n";
        let reader = Reader::new("c", text).unwrap();
        let devices = read(reader.root().sections("device"));
        devices.iter().map(Shown::of).map(|(shown, sets)| (Arc::new(shown), sets)).unzip()
    }

    fn event(topic: &str) -> Event {
        Event {
            id: "1".to_owned(),
            source: "/test".to_owned(),
            kind: "test".to_owned(),
            time_ms: None,
            topic: topic.parse().unwrap(),
            content_type: None,
            extensions: BTreeMap::new(),
            data: b"tare".to_vec(),
        }
    }

    #[test]
    fn what_is_written_goes_to_a_device_that_is_there_and_is_counted_otherwise() {
        let (list, mut sets) = shown();
        let board = Board::new(list.clone());
        let unwritten = || board.reports().iter().map(|report| report.unwritten).collect::<Vec<_>>();
        board.offer(&event("device/scale/set"));
        assert_eq!(unwritten(), [0, 1]);
        list.iter().for_each(|shown| drop(shown.trouble.send_replace(None)));
        for topic in ["device/scale/set", "device/scale", "device/scale/set/x", "device/door/set"] {
            board.offer(&event(topic));
        }
        assert_eq!(sets[1].try_recv(), Ok(b"tare".to_vec()));
        assert!(sets[1].try_recv().is_err() && sets[0].try_recv().is_err());
        assert_eq!(unwritten(), [1, 1]);
        (0..=SETS_WAITING_MAX).for_each(|_| board.offer(&event("device/scale/set")));
        assert_eq!(unwritten(), [1, 2]);
    }

    #[test]
    fn trouble_names_the_first_and_counts_the_others() {
        let (list, _sets) = shown();
        let board = Board::new(list.clone());
        assert_eq!(board.trouble().as_deref(), Some("door: has not been looked for yet, and another device"));
        list[0].trouble.send_replace(None);
        assert_eq!(board.trouble().as_deref(), Some("scale: has not been looked for yet"));
        list[1].trouble.send_replace(None);
        assert_eq!(board.trouble(), None);
    }
}
