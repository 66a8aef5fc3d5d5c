//! Tells the kernel that a disk has another partition table.

use rustix::ioctl::{NoArg, Opcode, ioctl, opcode};
use std::fs::File;
use std::io;

/// `BLKRRPART`.
const REREAD: Opcode = opcode::none(0x12, 95);

/// Has the kernel read the partition table of `disk` again.
#[expect(unsafe_code, reason = "the kernel is told of a partition table by an ioctl")]
pub(crate) fn reread(disk: &File) -> io::Result<()> {
    // SAFETY: BLKRRPART takes no argument and touches no memory of ours.
    unsafe { ioctl(disk, NoArg::<REREAD>::new()) }.map_err(io::Error::from)
}
