//! A disk that keeps what it was told in a memory of its own until it is told to flush, and loses a part of that when the power goes: an NBD
//! server over a file.
//!
//! ```text
//! QEMU ── write ──▶ pending (in order) ── flush ──▶ file
//!                     └─ power cut: any sector of it may have reached the file, or not
//! ```
//! A fuse blows after so many writes into a range: from then on nothing reaches the disk any more, as if the power had gone just there.

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// What is written as a whole or not at all, bytes.
const SECTOR: usize = 512;
/// Longest request, bytes.
const REQUEST_MAX: u32 = 64 << 20;
/// Words of the protocol.
const OPTION: &[u8; 8] = b"IHAVEOPT";
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;
const EXPORT_NAME: u32 = 1;
const UNSUPPORTED: u32 = 0x8000_0001;
/// Flags of the export: it has flags, can flush, knows writes that are not held back.
const FLAGS: u16 = 1 | 1 << 2 | 1 << 3;
/// Of a write: not held back.
const FORCED: u16 = 1;
const READ: u16 = 0;
const WRITE: u16 = 1;
const END: u16 = 2;
const FLUSH: u16 = 3;

/// The disk; its server ends with the process.
#[derive(Debug)]
pub struct LossyDisk {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
    random: StdRng,
}

#[derive(Debug)]
struct State {
    file: File,
    size: u64,
    /// What has been written since the last flush.
    pending: Vec<Pending>,
    fuse: Option<Fuse>,
    /// Writes and flushes come to nothing.
    dead: bool,
}

#[derive(Debug)]
struct Pending {
    at: u64,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Fuse {
    range: Range<u64>,
    writes: u32,
}

/// What a power cut did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Sectors that were written and not flushed.
    pub pending: usize,
    /// How many of them did not reach the disk.
    pub lost: usize,
}

impl LossyDisk {
    /// Serves `file` at `socket`. What is lost is drawn from `seed`.
    ///
    /// # Errors
    /// When one of them cannot be opened.
    pub fn start(file: &Path, socket: &Path, seed: u64) -> Result<Self> {
        let opened = File::options().read(true).write(true).open(file).with_context(|| format!("open {}", file.display()))?;
        let size = opened.metadata()?.len();
        let state = Arc::new(Mutex::new(State { file: opened, size, pending: Vec::new(), fuse: None, dead: false }));
        let listener = UnixListener::bind(socket).with_context(|| format!("listen at {}", socket.display()))?;
        let served = Arc::clone(&state);
        thread::Builder::new().name("disk".to_owned()).spawn(move || {
            for peer in listener.incoming().flatten() {
                let state = Arc::clone(&served);
                thread::spawn(move || serve(&peer, &state));
            }
        })?;
        Ok(Self { socket: socket.to_owned(), state, random: StdRng::seed_from_u64(seed) })
    }

    /// Where it is served.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The power goes after `writes` more writes into `range`.
    pub fn set_fuse(&self, range: Range<u64>, writes: u32) {
        self.state().fuse = Some(Fuse { range, writes });
    }

    /// Whether the fuse has blown.
    #[must_use]
    pub fn is_blown(&self) -> bool {
        self.state().dead
    }

    /// The power is cut: who used the disk is gone. Of what was not flushed, any part may be on the disk.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn cut_power(&mut self) -> Result<Lost> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let survives = self.random.random_range(0.0..=1.0);
        let (pending, mut sectors, mut lost) = (std::mem::take(&mut state.pending), 0, 0);
        for write in &pending {
            for (sector, at) in write.bytes.chunks(SECTOR).zip((write.at..).step_by(SECTOR)) {
                sectors += 1;
                if self.random.random_bool(survives) {
                    state.file.write_all_at(sector, at)?;
                } else {
                    lost += 1;
                }
            }
        }
        (state.fuse, state.dead) = (None, false);
        Ok(Lost { pending: sectors, lost })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, at)?;
        for write in &self.pending {
            write.lay_over(at, bytes);
        }
        Ok(())
    }

    fn write(&mut self, at: u64, bytes: Vec<u8>, forced: bool) -> io::Result<()> {
        if self.dead {
            return Ok(());
        }
        let end = at + bytes.len() as u64;
        self.pending.push(Pending { at, bytes });
        if let Some(fuse) = &mut self.fuse
            && at < fuse.range.end
            && fuse.range.start < end
        {
            fuse.writes = fuse.writes.saturating_sub(1);
            self.dead = fuse.writes == 0;
        }
        // Simpler than a part of it, and allowed.
        if forced { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.dead {
            return Ok(());
        }
        for write in self.pending.drain(..) {
            self.file.write_all_at(&write.bytes, write.at)?;
        }
        Ok(())
    }
}

impl Pending {
    fn lay_over(&self, at: u64, bytes: &mut [u8]) {
        let (begin, end) = (self.at.max(at), (self.at + self.bytes.len() as u64).min(at + bytes.len() as u64));
        if begin < end {
            let within = |base: u64| usize::try_from(begin - base).unwrap_or(usize::MAX)..usize::try_from(end - base).unwrap_or(usize::MAX);
            bytes[within(at)].copy_from_slice(&self.bytes[within(self.at)]);
        }
    }
}

/// Serves one connection until it ends.
fn serve(peer: &UnixStream, state: &Mutex<State>) {
    // A machine whose plug is pulled ends without a word; one that does not understand the disk does not boot.
    drop(greet(peer, state).and_then(|()| answer(peer, state)));
}

fn greet(mut peer: &UnixStream, state: &Mutex<State>) -> Result<()> {
    peer.write_all(&[b"NBDMAGIC".as_slice(), OPTION, &3_u16.to_be_bytes()].concat())?;
    let _flags: [u8; 4] = read(peer)?;
    loop {
        let magic: [u8; 8] = read(peer)?;
        ensure!(magic == *OPTION, "not an option");
        let (option, bytes) = (u32::from_be_bytes(read(peer)?), u32::from_be_bytes(read(peer)?));
        ensure!(bytes <= REQUEST_MAX, "an option of {bytes} bytes");
        io::copy(&mut peer.take(bytes.into()), &mut io::sink())?;
        if option == EXPORT_NAME {
            let size = state.lock().unwrap_or_else(PoisonError::into_inner).size;
            peer.write_all(&[size.to_be_bytes().as_slice(), &FLAGS.to_be_bytes()].concat())?;
            return Ok(());
        }
        peer.write_all(&OPTION_REPLY.to_be_bytes())?;
        peer.write_all(&[option, UNSUPPORTED, 0].map(u32::to_be_bytes).concat())?;
    }
}

fn answer(mut peer: &UnixStream, state: &Mutex<State>) -> Result<()> {
    loop {
        ensure!(u32::from_be_bytes(read(peer)?) == REQUEST, "not a request");
        let (flags, kind) = (u16::from_be_bytes(read(peer)?), u16::from_be_bytes(read(peer)?));
        let handle: [u8; 8] = read(peer)?;
        let (at, bytes) = (u64::from_be_bytes(read(peer)?), u32::from_be_bytes(read(peer)?));
        ensure!(bytes <= REQUEST_MAX, "a request of {bytes} bytes");
        let mut data = vec![0; if matches!(kind, READ | WRITE) { bytes as usize } else { 0 }];
        if kind == WRITE {
            let mut from = peer;
            from.read_exact(&mut data)?;
        }
        let mut disk = state.lock().unwrap_or_else(PoisonError::into_inner);
        let done = match kind {
            END => return Ok(()),
            READ => disk.read(at, &mut data),
            WRITE => disk.write(at, std::mem::take(&mut data), flags & FORCED != 0),
            FLUSH => disk.flush(),
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        drop(disk);
        if done.is_err() {
            data.clear();
        }
        let error = u32::from(done.is_err()) * 5;
        peer.write_all(&[REPLY.to_be_bytes().as_slice(), &error.to_be_bytes(), &handle, &data].concat())?;
    }
}

fn read<const N: usize>(mut peer: &UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    peer.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (tempfile::TempDir, LossyDisk) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("disk");
        std::fs::write(&file, vec![0; 64 * SECTOR]).unwrap();
        let disk = LossyDisk::start(&file, &directory.path().join("socket"), 7).unwrap();
        (directory, disk)
    }

    #[test]
    fn what_was_flushed_stays_and_of_the_rest_any_sector_may() {
        let (directory, mut disk) = disk();
        disk.state().write(0, vec![1; 8 * SECTOR], false).unwrap();
        disk.state().flush().unwrap();
        disk.state().write(4 * SECTOR as u64, vec![2; 40 * SECTOR], false).unwrap();
        let mut bytes = vec![0; 2 * SECTOR];
        disk.state().read(3 * SECTOR as u64, &mut bytes).unwrap();
        assert_eq!((bytes[0], bytes[SECTOR]), (1, 2), "what is pending is read");
        let lost = disk.cut_power().unwrap();
        assert!(lost.pending == 40 && (1..40).contains(&lost.lost), "{lost:?}");
        let after = std::fs::read(directory.path().join("disk")).unwrap();
        assert!(after[..4 * SECTOR].iter().all(|byte| *byte == 1));
        let whole = after.chunks(SECTOR).filter(|sector| sector.iter().all(|byte| *byte == 2)).count();
        assert_eq!(whole, 40 - lost.lost);
    }

    #[test]
    fn after_the_fuse_nothing_reaches_the_disk() {
        let (directory, mut disk) = disk();
        disk.set_fuse(0..SECTOR as u64, 2);
        let write = |sector: u64, forced| {
            disk.state().write(sector * SECTOR as u64, vec![1; SECTOR], forced).unwrap();
            disk.is_blown()
        };
        assert_eq!([(0, true), (8, true), (0, false), (1, true)].map(|(sector, forced)| write(sector, forced)), [false, false, true, true]);
        let lost = disk.cut_power().unwrap();
        assert_eq!(lost.pending, 1);
        assert!(!disk.is_blown());
        let after = std::fs::read(directory.path().join("disk")).unwrap();
        assert_eq!((after[0], after[8 * SECTOR], after[SECTOR]), (1, 1, 0));
    }
}
