//! Serial lines: raw, exclusive, read without waiting and written beside it.

use super::settings::{Format, Parity, Serial};
use super::watched::Watched;
use super::{Away, Port, Told, sleep_until};
use crate::clock;
use crate::limits::SERIAL_READ_BYTES;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{ControlModes, InputModes, OptionalActions, QueueSelector, Termios};
use sedge_node_core::Mono;
use sedge_node_core::device::{Allowance, Framer};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

/// A line whose speed differs by more than this many percent is not understood.
const SPEED_PERCENT_MAX: u32 = 3;

/// Takes the line.
pub(super) async fn open(serial: Serial) -> Result<Watched, Away> {
    let line = tokio::task::spawn_blocking(move || take(&serial)).await;
    let line = line.map_err(|panic| failed("taking the line", io::Error::other(panic)))??;
    Watched::new(line).map_err(|cause| failed("waiting for bytes", cause))
}

fn take(serial: &Serial) -> Result<OwnedFd, Away> {
    let path = &serial.path;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let line = rustix::fs::open(path, flags, Mode::empty()).map_err(|cause| Away::opening(path, cause.into()))?;
    let mut settings = rustix::termios::tcgetattr(&line).map_err(|cause| match cause {
        Errno::NOTTY | Errno::INVAL => Away::Kind { path: path.clone(), kind: "serial line" },
        // A place for a port without one behind it.
        Errno::IO => Away::Missing(path.clone()),
        other => Away::opening(path, other.into()),
    })?;
    rustix::termios::ioctl_tiocexcl(&line).map_err(|cause| Away::opening(path, cause.into()))?;
    adjust(&mut settings, serial.format);
    let unfit = |asked: String| Away::Unfit { what: path.display().to_string(), asked };
    settings.set_speed(serial.baud).map_err(|_| unfit(format!("{} bits a second", serial.baud)))?;
    rustix::termios::tcsetattr(&line, OptionalActions::Now, &settings).map_err(|_| unfit(format!("{} {}", serial.baud, serial.format)))?;
    let now = rustix::termios::tcgetattr(&line).map_err(|cause| failed("reading the settings of the line", cause.into()))?;
    if now.output_speed().abs_diff(serial.baud) > serial.baud / 100 * SPEED_PERCENT_MAX {
        return Err(unfit(format!("{} bits a second, only {}", serial.baud, now.output_speed())));
    }
    // What came before somebody listened is of another time.
    rustix::termios::tcflush(&line, QueueSelector::IOFlush).map_err(|cause| failed("emptying the line", cause.into()))?;
    Ok(line)
}

/// Raw bytes, no lines of a modem; a byte whose parity is wrong is left out.
fn adjust(settings: &mut Termios, format: Format) {
    settings.make_raw();
    settings.input_modes |= InputModes::IGNBRK;
    settings.input_modes.set(InputModes::INPCK | InputModes::IGNPAR, format.parity != Parity::None);
    let modes = &mut settings.control_modes;
    modes.remove(ControlModes::CSIZE | ControlModes::CRTSCTS);
    modes.insert(ControlModes::CREAD | ControlModes::CLOCAL);
    modes.insert(match format.data_bits {
        5 => ControlModes::CS5,
        6 => ControlModes::CS6,
        7 => ControlModes::CS7,
        _eight => ControlModes::CS8,
    });
    modes.set(ControlModes::PARENB, format.parity != Parity::None);
    modes.set(ControlModes::PARODD, format.parity == Parity::Odd);
    modes.set(ControlModes::CSTOPB, format.stop_bits == 2);
}

/// What is read and not told yet.
struct Incoming {
    framer: Framer,
    allowance: Allowance,
    /// A frame that is told as soon as it may be; until then nothing is read.
    held: Option<Vec<u8>>,
}

/// Reads and writes until the line is gone.
pub(super) async fn follow(line: Watched, serial: &Serial, port: &mut Port) -> Away {
    let framer = Framer::new(serial.framing, serial.bytes_max);
    let mut incoming = Incoming { framer, allowance: Allowance::default(), held: None };
    let mut outgoing = Outgoing::default();
    let mut buffer = vec![0_u8; SERIAL_READ_BYTES];
    let away = loop {
        let wake = tell(&mut incoming, port);
        let done = tokio::select! {
            ready = line.readable(), if incoming.held.is_none() => match ready {
                Ok(mut guard) => guard.try_io(|line| read(line.get_ref(), &mut buffer)).map(|result| {
                    result.map(|bytes| incoming.framer.handle_bytes(&buffer[..bytes], clock::mono()))
                }),
                Err(cause) => Ok(Err(cause)),
            },
            ready = line.writable(), if !outgoing.is_done() => match ready {
                Ok(mut guard) => guard.try_io(|line| outgoing.write(line.get_ref())),
                Err(cause) => Ok(Err(cause)),
            },
            Some(bytes) = port.sets.recv(), if outgoing.is_done() => { outgoing.begin(bytes); continue }
            () = sleep_until(wake) => continue,
        };
        match done {
            Ok(Err(cause)) => break Away::losing(cause),
            Ok(Ok(())) => outgoing.count(port),
            Err(_not_ready) => {}
        }
        // A line that never falls silent leaves its turn to others.
        tokio::task::coop::consume_budget().await;
    };
    if !outgoing.is_done() {
        port.shown.unwritten.fetch_add(1, Ordering::Relaxed);
    }
    away
}

/// Tells what is whole, as far as it may; answers when to look again.
fn tell(incoming: &mut Incoming, port: &mut Port) -> Option<Mono> {
    let now = clock::mono();
    port.shown.lost.fetch_add(incoming.framer.poll_dropped(), Ordering::Relaxed);
    loop {
        if incoming.held.is_none() {
            incoming.held = incoming.framer.poll_frame(now);
            port.shown.lost.fetch_add(incoming.framer.poll_dropped(), Ordering::Relaxed);
        }
        let Some(frame) = incoming.held.take_if(|_| incoming.allowance.take(now)) else { break };
        let content_type = if std::str::from_utf8(&frame).is_ok() { "text/plain" } else { "application/octet-stream" };
        port.tell(Told { kind: "sedge.device.frame", at: clock::wall(), content_type, data: frame });
    }
    if incoming.held.is_some() { Some(incoming.allowance.next()) } else { incoming.framer.poll_wake() }
}

/// What is being written.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
}

impl Outgoing {
    fn begin(&mut self, bytes: Vec<u8>) {
        *self = Self { bytes, written: 0 };
    }

    fn is_done(&self) -> bool {
        self.written == self.bytes.len()
    }

    fn write(&mut self, line: &OwnedFd) -> io::Result<()> {
        self.written += rustix::io::write(line, &self.bytes[self.written..])?;
        Ok(())
    }

    /// Counts what is written to its end, once.
    fn count(&mut self, port: &Port) {
        if self.is_done() && !self.bytes.is_empty() {
            port.shown.written.fetch_add(1, Ordering::Relaxed);
            *self = Self::default();
        }
    }
}

fn read(line: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    match rustix::io::read(line, buffer)? {
        0 => Err(Errno::NODEV.into()),
        bytes => Ok(bytes),
    }
}

fn failed(what: &str, cause: io::Error) -> Away {
    Away::Failed { what: what.to_owned(), cause }
}
