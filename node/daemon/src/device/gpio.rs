//! GPIO lines by the kernel's character devices: debounced and numbered by the kernel.

use super::settings::{Bias, EdgeChoice, Gpio, Line};
use super::watched::Watched;
use super::{Away, Port, Told, sleep_until};
use crate::clock;
use crate::limits::{EDGES_AT_ONCE, EDGES_WAITING_MAX};
use gpiocdev::line;
use gpiocdev::request::Request;
use gpiocdev::{Chip, Error};
use sedge_node_core::device::{Direction, Edge, Edges, Reading, wall_of};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Who has the line, as other programs see it.
const CONSUMER: &str = "sedged";

/// A line that was taken.
pub(super) struct Taken {
    request: Request,
    /// The same open line, to wait for.
    watched: Watched,
}

/// Takes the line.
pub(super) async fn open(gpio: Gpio) -> Result<Taken, Away> {
    let request = tokio::task::spawn_blocking(move || take(&gpio)).await;
    let request = request.map_err(|panic| failed("taking the line", io::Error::other(panic)))??;
    let watched = request.as_fd().try_clone_to_owned().and_then(Watched::new).map_err(|cause| failed("waiting for edges", cause))?;
    Ok(Taken { request, watched })
}

/// Reads until the line is gone.
pub(super) async fn follow(line: Taken, port: &mut Port) -> Away {
    let mut edges = Edges::default();
    let away = follow_edges(&line, &mut edges, port).await;
    port.shown.lost.fetch_add(edges.untold(), Ordering::Relaxed);
    away
}

async fn follow_edges(Taken { request, watched }: &Taken, edges: &mut Edges, port: &mut Port) -> Away {
    let size = request.edge_event_u64_size();
    let mut buffer = vec![0_u64; size * EDGES_AT_ONCE];
    loop {
        let wake = edges.poll_wake();
        tokio::select! {
            // A line that floods waits in the kernel, which keeps the newest edges.
            ready = watched.readable(), if wake.is_none() => {
                let Ok(mut guard) = ready else { return Away::Gone };
                let words = match guard.try_io(|_| read(request, &mut buffer)) {
                    Ok(Ok(words)) => words,
                    Ok(Err(cause)) => return Away::losing(cause),
                    Err(_not_ready) => continue,
                };
                for raw in buffer[..words].chunks_exact(size) {
                    match request.edge_event_from_slice(raw) {
                        Ok(event) => edges.handle_edge(edge_of(&event)),
                        Err(error) => return failed("reading an edge", io::Error::other(error)),
                    }
                    tell(edges, port);
                }
            }
            () = sleep_until(wake) => tell(edges, port),
        }
    }
}

fn tell(edges: &mut Edges, port: &mut Port) {
    while let Some(reading) = edges.poll_reading(clock::mono()) {
        port.shown.lost.fetch_add(reading.lost, Ordering::Relaxed);
        port.tell(told(&reading));
    }
}

fn told(reading: &Reading) -> Told {
    let data = serde_json::to_vec(reading).expect("numbers and words are JSON");
    let at = wall_of(reading.at_ns, monotonic_ns(), clock::wall());
    Told { kind: "sedge.device.edge", at, content_type: "application/json", data }
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

fn edge_of(event: &line::EdgeEvent) -> Edge {
    let direction = match event.kind {
        line::EdgeKind::Rising => Direction::Rising,
        line::EdgeKind::Falling => Direction::Falling,
    };
    Edge { direction, number: event.line_seqno, at_ns: event.timestamp_ns }
}

fn read(request: &Request, buffer: &mut [u64]) -> io::Result<usize> {
    match request.read_edge_events_into_slice(buffer) {
        Ok(0) => Err(rustix::io::Errno::NODEV.into()),
        Ok(words) => Ok(words),
        Err(error) => Err(io_error(error)),
    }
}

fn take(gpio: &Gpio) -> Result<Request, Away> {
    let (chip, offset) = find(&gpio.line)?;
    let mut builder = Request::builder();
    builder.on_chip(chip.path()).with_consumer(CONSUMER).with_kernel_event_buffer_size(EDGES_WAITING_MAX).with_line(offset).as_input();
    builder.with_edge_detection(match gpio.edge {
        EdgeChoice::Rising => line::EdgeDetection::RisingEdge,
        EdgeChoice::Falling => line::EdgeDetection::FallingEdge,
        EdgeChoice::Both => line::EdgeDetection::BothEdges,
    });
    builder.with_bias(match gpio.bias {
        Bias::AsIs => None,
        Bias::PullUp => Some(line::Bias::PullUp),
        Bias::PullDown => Some(line::Bias::PullDown),
        Bias::Disabled => Some(line::Bias::Disabled),
    });
    if let Some(debounce) = gpio.debounce {
        builder.with_debounce_period(debounce);
    }
    if gpio.active_low {
        builder.as_active_low();
    }
    let request = builder.request().map_err(|error| refused(gpio, (&chip, offset), error))?;
    let flags = rustix::fs::fcntl_getfl(&request).map_err(|cause| failed("taking the line", cause.into()))?;
    rustix::fs::fcntl_setfl(&request, flags | rustix::fs::OFlags::NONBLOCK).map_err(|cause| failed("taking the line", cause.into()))?;
    Ok(request)
}

/// The chip with the line, and the line's number on it.
fn find(line: &Line) -> Result<(Chip, u32), Away> {
    match line {
        Line::Number { chip, line } => Ok((open_chip(chip)?, *line)),
        Line::Name { chip: Some(chip), name } => {
            let chip = open_chip(chip)?;
            let info = chip.find_line_info(name).ok_or_else(|| Away::NoLine(name.clone()))?;
            Ok((chip, info.offset))
        }
        Line::Name { chip: None, name } => find_anywhere(name),
    }
}

/// Looks through all chips. One that may not be opened is only said when no other has the line.
fn find_anywhere(name: &str) -> Result<(Chip, u32), Away> {
    let mut closed = None;
    for path in gpiocdev::chip::chips().unwrap_or_default() {
        match open_chip(&path) {
            Ok(chip) => {
                if let Some(info) = chip.find_line_info(name) {
                    return Ok((chip, info.offset));
                }
            }
            Err(away) => closed = closed.or(Some(away)),
        }
    }
    Err(closed.unwrap_or_else(|| Away::NoLine(name.to_owned())))
}

fn open_chip(path: &Path) -> Result<Chip, Away> {
    Chip::from_path(path).map_err(|error| match error {
        Error::GpioChip(..) => Away::Kind { path: path.to_owned(), kind: "GPIO chip" },
        other => Away::opening(path, io_error(other)),
    })
}

/// Why the kernel did not give the line.
fn refused(gpio: &Gpio, (chip, offset): (&Chip, u32), error: Error) -> Away {
    use rustix::io::Errno;
    let (what, path): (String, PathBuf) = (gpio.line.to_string(), chip.path().to_owned());
    let cause = io_error(error);
    let is = |errno: Errno| cause.raw_os_error() == Some(errno.raw_os_error());
    if is(Errno::BUSY) {
        let consumer = chip.line_info(offset).map(|info| info.consumer).unwrap_or_default();
        let by = if consumer.is_empty() { "the kernel or another program".to_owned() } else { format!("`{consumer}`") };
        return Away::Taken { what, by };
    }
    if is(Errno::INVAL) && chip.info().is_ok_and(|info| offset >= info.num_lines) {
        return Away::NoNumber { chip: path, line: offset };
    }
    if is(Errno::INVAL) || is(Errno::NXIO) || is(Errno::OPNOTSUPP) {
        return Away::Unfit { what, asked: "edges with this `bias` and `debounce_ms`".to_owned() };
    }
    Away::opening(&path, cause)
}

/// The error of the operating system below.
fn io_error(error: Error) -> io::Error {
    match error {
        Error::Os(errno) | Error::Uapi(_, gpiocdev_uapi::Error::Os(errno)) => io::Error::from_raw_os_error(errno.0),
        other => io::Error::other(other),
    }
}

fn failed(what: &str, cause: io::Error) -> Away {
    Away::Failed { what: what.to_owned(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_of_an_event_is_as_the_documentation_says() {
        let reading = Reading { value: 1, edge: Direction::Rising, sequence: 17, lost: 0, at_ns: monotonic_ns() };
        let told = told(&reading);
        assert_eq!(String::from_utf8(told.data).unwrap(), r#"{"value":1,"edge":"rising","sequence":17,"lost":0}"#);
        assert!(clock::wall().0 - told.at.0 < 60_000, "{:?}", told.at);
    }

    #[test]
    fn a_chip_that_is_not_there_and_one_that_is_none_are_told_apart() {
        let said = |path: &str| open_chip(Path::new(path)).err().map(|away| away.to_string());
        assert_eq!(said("/dev/no-such-chip").as_deref(), Some("/dev/no-such-chip is not there"));
        assert_eq!(said("/dev/null").as_deref(), Some("/dev/null is no GPIO chip"));
        let missing = find(&Line::Name { chip: None, name: "NO-SUCH-LINE".to_owned() }).err().map(|away| away.to_string());
        assert!(missing.is_some(), "a line that nobody has");
    }
}
