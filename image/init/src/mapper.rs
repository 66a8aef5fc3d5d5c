//! Device-mapper, by its ioctls: the library would be larger than this program.

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use std::fs::File;
use std::io;

const CONTROL: &str = "/dev/mapper/control";
/// Size of `struct dm_ioctl`.
const HEAD_BYTES: usize = 312;
/// Size of `struct dm_target_spec`.
const TARGET_BYTES: usize = 40;
/// Room for head, target and its parameters.
const MESSAGE_BYTES: usize = 1024;
const VERSION: [u32; 3] = [4, 0, 0];
const READ_ONLY: u32 = 1;

const fn code(number: u8) -> Opcode {
    opcode::read_write::<[u8; HEAD_BYTES]>(0xfd, number)
}
const CREATE: Opcode = code(3);
const REMOVE: Opcode = code(4);
const RESUME: Opcode = code(6);
const LOAD: Opcode = code(9);

/// `struct dm_ioctl` and what follows it.
#[derive(Debug)]
#[repr(C, align(8))]
struct Message([u8; MESSAGE_BYTES]);

/// Creates the device `name` with one line of a table and answers its path.
pub(crate) fn map(name: &str, table: &str) -> io::Result<String> {
    let control = File::open(CONTROL)?;
    let mut create = Message::about(name);
    send::<CREATE>(&control, &mut create)?;
    send::<LOAD>(&control, &mut Message::load(name, table)?)?;
    send::<RESUME>(&control, &mut Message::about(name))?;
    Ok(format!("/dev/dm-{}", minor(create.device())))
}

/// Takes the device `name` away again.
pub(crate) fn remove(name: &str) -> io::Result<()> {
    send::<REMOVE>(&File::open(CONTROL)?, &mut Message::about(name))
}

#[expect(unsafe_code, reason = "there is no other way to device-mapper")]
fn send<const CODE: Opcode>(control: &File, message: &mut Message) -> io::Result<()> {
    // SAFETY: the codes are those of device-mapper; the message begins with `struct dm_ioctl`, whose `data_size` is that of the whole
    // message, and the kernel writes no further.
    unsafe { ioctl(control, Updater::<CODE, Message>::new(message)) }.map_err(Into::into)
}

/// The low and the high part of a minor number as the kernel packs them.
fn minor(device: u64) -> u64 {
    (device & 0xff) | ((device >> 12) & 0x000f_ff00)
}

impl Message {
    fn about(name: &str) -> Self {
        let mut message = Self([0; MESSAGE_BYTES]);
        for (at, word) in VERSION.into_iter().enumerate() {
            message.put(4 * at, &word.to_ne_bytes());
        }
        let (size, head) = (u32::try_from(MESSAGE_BYTES).unwrap_or_default(), u32::try_from(HEAD_BYTES).unwrap_or_default());
        message.put(12, &size.to_ne_bytes());
        message.put(16, &head.to_ne_bytes());
        // 127 bytes and a zero.
        message.put(48, name.as_bytes().get(..127).unwrap_or(name.as_bytes()));
        message
    }

    fn load(name: &str, table: &str) -> io::Result<Self> {
        let mut words = table.splitn(4, ' ');
        let mut next = || words.next().ok_or_else(|| io::Error::other("the table has no four words"));
        let number = |word: &str| word.parse::<u64>().map_err(io::Error::other);
        let (begin, sectors, kind, parameters) = (number(next()?)?, number(next()?)?, next()?, next()?);
        if parameters.len() >= MESSAGE_BYTES - HEAD_BYTES - TARGET_BYTES || kind.len() > 15 {
            return Err(io::Error::other("the table is too long"));
        }
        let mut message = Self::about(name);
        message.put(20, &1_u32.to_ne_bytes());
        message.put(28, &READ_ONLY.to_ne_bytes());
        message.put(HEAD_BYTES, &begin.to_ne_bytes());
        message.put(HEAD_BYTES + 8, &sectors.to_ne_bytes());
        message.put(HEAD_BYTES + 24, kind.as_bytes());
        message.put(HEAD_BYTES + TARGET_BYTES, parameters.as_bytes());
        Ok(message)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// The number of the device that was created.
    fn device(&self) -> u64 {
        self.0.get(40..48).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_becomes_one_target() {
        let message = Message::load("root", "0 80 verity 1 8:2 8:2 4096").unwrap();
        assert_eq!(&message.0[48..53], b"root\0");
        assert_eq!(&message.0[HEAD_BYTES + 8..HEAD_BYTES + 16], &80_u64.to_ne_bytes());
        assert_eq!(&message.0[HEAD_BYTES + 24..HEAD_BYTES + 31], b"verity\0");
        assert!(message.0[HEAD_BYTES + TARGET_BYTES..].starts_with(b"1 8:2 8:2 4096\0"));
        assert!(Message::load("root", "0 80 verity").is_err());
        assert!(Message::load("root", &format!("0 80 verity {}", "x".repeat(2000))).is_err());
    }

    #[test]
    fn minors_above_255_are_put_together() {
        assert_eq!((minor(0x0000_fd00), minor(0x0010_fd01)), (0, 0x101));
    }
}
