//! Puts the disk image of a node onto a disk, or into a file that a virtual machine boots.
//!
//! ```text
//!  sedge-….img.zst ─▶ Opened ── check() ─▶ Image ──────────┐           all of it was read once: a bad one costs no disk its content
//!      .sha256 ───────────────────┘                        ▼
//!  /dev/sdb | FILE ─▶ look() ─▶ Place ── open() ─▶ Target.write() ─▶ Written.put(claim.toml) ─▶ Written.finish()
//!                       └ refusal (pure): system disk, mounted, swap, held,
//!                         a partition, read-only, too small
//! ```
//!
//! Invariants: a disk has no partition table, neither at its begin nor at its end, from the first byte that is written until all else is
//! written, was read back from the medium and found equal: what was cut off never looks finished. A file gets its name when it is complete.
//! What a disk is used for is decided by one pure function over a snapshot; the kernel's own exclusive claim (`O_EXCL`) stands behind it.
//!
//! Absent on purpose: claims and fleets (the caller brings the file), questions to people, the making of images, mounting anything.

mod boot_partition;
mod chunk;
mod error;
mod image;
mod machine;
mod overlay;
mod place;
mod read_back;
mod refusal;
mod reread;
mod size;
mod stream;
mod table;
mod target;

pub use boot_partition::{FileError, read_file};
pub use error::FlashError;
pub use image::{Checksum, Image, ImageError, Opened};
pub use machine::Disk;
pub use place::{Place, PlaceError, look};
pub use refusal::Refusal;
pub use size::{Size, SizeError};
pub use table::TableError;
pub use target::{Finished, Target, WriteError, Written};

use std::ops::ControlFlow;

/// Least room beyond the image, for the data partition that a node makes at its first boot; `image/tree/usr/lib/repart.d` says the same.
pub const DATA_BYTES_MIN: u64 = 128 << 20;

/// What takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The image is read; bytes of its file.
    Check,
    /// It is written; bytes of the disk.
    Write,
    /// What was written is read back; bytes of the disk.
    Verify,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Which one.
    pub step: Step,
    /// Bytes that are done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Hears of progress, and breaks to have the work stopped at the next safe moment.
pub type Watch<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;
