//! The hardware watchdog, armed before anything of the new system can hang. systemd takes it over; until then nobody feeds it.

use rustix::ioctl::{Updater, ioctl, opcode};
use std::fs::OpenOptions;
use std::io;

const DEVICE: &str = "/dev/watchdog0";
/// Time until systemd has to be there.
const SECONDS: i32 = 60;
const SET_TIMEOUT: rustix::ioctl::Opcode = opcode::read_write::<i32>(b'W', 6);

/// Starts it. Closing it without the farewell that its driver knows leaves it running.
#[expect(unsafe_code, reason = "the time of a watchdog is set by an ioctl")]
pub(crate) fn arm() -> io::Result<()> {
    let watchdog = OpenOptions::new().write(true).open(DEVICE)?;
    let mut seconds = SECONDS;
    // SAFETY: WDIOC_SETTIMEOUT reads and writes one `int`.
    let set = unsafe { ioctl(&watchdog, Updater::<SET_TIMEOUT, i32>::new(&mut seconds)) };
    // One whose time cannot be set runs with its own.
    set.or_else(|error| if error == rustix::io::Errno::OPNOTSUPP { Ok(()) } else { Err(error.into()) })
}
