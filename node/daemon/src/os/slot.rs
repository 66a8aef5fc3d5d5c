//! The slot that does not run, and how a new version is written into it.
//!
//! ```text
//! │ root file system and hash tree │ … up to 1 MiB │ kernel image │ … │
//! ```
//! Every chunk has its place, so what was written before a power cut is found by looking, not remembered. The kernel image lies behind the root
//! until all is there and compared; only then it goes to the boot partition.

use anyhow::{Context as _, ensure};
use rustix::fs::{Advice, fadvise};
use sedge_bundle::{CHUNK_BYTES_MAX, Index, Manifest, Part, digest};
use sedge_protocol::Digest;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const MEGABYTE: u64 = 1 << 20;
/// The block in which starts are counted.
const BLOCK_BYTES: usize = 4096;

/// What a node has already and may copy from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: File,
    /// How much of it is of interest, bytes.
    pub(super) bytes: u64,
}

/// A version that is being written.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    device: File,
    manifest: &'a Manifest,
}

/// One chunk's place in the slot.
#[derive(Debug, Clone, Copy)]
struct Place {
    number: u32,
    at: u64,
    bytes: usize,
    digest: Digest,
}

impl<'a> Writing<'a> {
    /// Opens the slot, which has to be large enough.
    pub(super) fn open(device: &Path, manifest: &'a Manifest) -> anyhow::Result<Self> {
        let named = || format!("the slot {}", device.display());
        let mut file = File::options().read(true).write(true).open(device).with_context(named)?;
        let room = file.seek(SeekFrom::End(0)).with_context(named)?;
        let needed = kernel_at(manifest) + manifest.kernel.size + BLOCK_BYTES as u64;
        ensure!(needed <= room, "the version needs {needed} bytes, the slot has {room}");
        Ok(Self { device: file, manifest })
    }

    /// Copies what the node has to where it belongs; answers the chunks that are neither there nor in `sources`.
    pub(super) fn gather(&self, sources: &[Source]) -> anyhow::Result<Vec<u32>> {
        let mut index = Index::default();
        for (number, source) in sources.iter().enumerate() {
            let reader = source.file.try_clone().context("read what runs")?;
            index.add(number, At { file: reader, at: 0, end: source.bytes });
        }
        let mut missing = BTreeSet::new();
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        for place in self.places() {
            let chunk = &mut buffer[..place.bytes];
            if self.device.read_exact_at(chunk, place.at).is_ok() && Digest::of(chunk) == place.digest {
                continue;
            }
            let copied = index.place(&place.digest).is_some_and(|found| {
                let source = &sources[found.source].file;
                found.bytes == place.bytes && source.read_exact_at(chunk, found.offset).is_ok() && Digest::of(chunk) == place.digest
            });
            if copied {
                self.device.write_all_at(chunk, place.at).context("write the slot")?;
            } else {
                missing.insert(place.number);
            }
        }
        Ok(missing.into_iter().collect())
    }

    /// Takes the chunks `missing` one after the other from `from`, each checked before it is written.
    pub(super) fn receive(&self, missing: &[u32], from: &mut impl Read) -> anyhow::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        let mut places: Vec<Place> = self.places().collect();
        places.sort_by_key(|place| place.number);
        for number in missing {
            let first = places.partition_point(|place| place.number < *number);
            let here: Vec<&Place> = places[first..].iter().take_while(|place| place.number == *number).collect();
            let Some(place) = here.first() else { continue };
            let chunk = &mut buffer[..place.bytes];
            from.read_exact(chunk).context("read a chunk")?;
            ensure!(Digest::of(chunk) == place.digest, "a chunk came that is not what the manifest says");
            for place in here {
                self.device.write_all_at(chunk, place.at).context("write the slot")?;
            }
        }
        Ok(())
    }

    /// Brings everything to the disk, reads it back from there and compares it with the manifest.
    pub(super) fn compare(&self) -> anyhow::Result<()> {
        self.device.sync_all().context("sync the slot")?;
        // What the kernel remembers of it goes, so that the disk itself is read.
        fadvise(&self.device, 0, None, Advice::DontNeed).context("forget the slot's pages")?;
        for (name, part, at) in [("root", &self.manifest.root, 0), ("kernel", &self.manifest.kernel, kernel_at(self.manifest))] {
            let read = At { file: self.device.try_clone()?, at, end: at + part.size };
            ensure!(
                digest(read).context("read the slot back")? == part.digest,
                "the {name} in the slot is not what was written: the disk is failing"
            );
        }
        Ok(())
    }

    /// The kernel image, from its begin to its end.
    pub(super) fn kernel(&self) -> anyhow::Result<impl Read> {
        let at = kernel_at(self.manifest);
        Ok(At { file: self.device.try_clone().context("read the slot")?, at, end: at + self.manifest.kernel.size })
    }

    fn places(&self) -> impl Iterator<Item = Place> + '_ {
        let of = |part: &'a Part, begin: u64| {
            let places = self.manifest.places(part);
            places.map(move |(at, number, chunk)| Place { number, at: begin + at, bytes: chunk.bytes as usize, digest: chunk.digest })
        };
        of(&self.manifest.root, 0).chain(of(&self.manifest.kernel, kernel_at(self.manifest)))
    }
}

/// Notes that the version in a slot came up: its first program counts starts in the last block (`image/init`, `begun.rs`).
pub(super) fn came_up(device: &Path) -> anyhow::Result<()> {
    let named = || format!("the slot {}", device.display());
    let mut slot = File::options().write(true).open(device).with_context(named)?;
    let at = slot.seek(SeekFrom::End(0)).with_context(named)?.checked_sub(BLOCK_BYTES as u64).with_context(named)?;
    slot.write_all_at(&[0; BLOCK_BYTES], at).and_then(|()| slot.sync_data()).with_context(named)
}

/// Where the kernel image lies in the slot, bytes.
fn kernel_at(manifest: &Manifest) -> u64 {
    manifest.root.size.next_multiple_of(MEGABYTE)
}

/// A part of a file as a stream, without moving the file's own place.
#[derive(Debug)]
struct At {
    file: File,
    at: u64,
    end: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
