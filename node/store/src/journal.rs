//! The journal on the disk: one segment that is written, older ones, and spares.
//!
//! ```text
//! journal-0007.seg  journal-0008.seg ◀── append        spare-0005.seg
//!        │ recycle (rename) ───────────────────────────────▲ │ rotate (rename): becomes journal-0009.seg
//! ```
//!
//! Invariant: a sector that was acknowledged is never written again before its segment is recycled.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::batch::Record;
use crate::durable::sync_directory;
use crate::limits::SPARE_SEGMENTS_MAX;
use crate::segment::{Aligned, Label, SECTOR_BYTES_MAX};

/// How groups reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalMode {
    /// `O_DIRECT`, in sectors of 512 bytes.
    Direct512,
    /// `O_DIRECT`, in sectors of 4096 bytes.
    Direct4096,
    /// Through the page cache, in whole pages.
    Buffered,
}

impl JournalMode {
    fn sector(self) -> usize {
        match self {
            Self::Direct512 => 512,
            Self::Direct4096 | Self::Buffered => SECTOR_BYTES_MAX,
        }
    }

    fn flags(self) -> i32 {
        let flags = match self {
            Self::Direct512 | Self::Direct4096 => OFlags::DIRECT,
            Self::Buffered => OFlags::empty(),
        };
        i32::try_from(flags.bits()).expect("open flags fit in a C int")
    }
}

#[derive(Debug)]
struct Segment {
    id: u64,
    file: File,
    offset: u64,
}

/// Where a journal goes on after recovery.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Resume {
    pub(crate) segment: u64,
    pub(crate) seq: u64,
    pub(crate) epoch: u64,
}

#[derive(Debug)]
pub(crate) struct Journal {
    directory: PathBuf,
    segment_bytes: u64,
    mode: JournalMode,
    next: Resume,
    current: Option<Segment>,
    sealed: Vec<u64>,
    spares: Vec<PathBuf>,
    scratch: Aligned,
    written: u64,
}

impl Journal {
    /// Opens a new segment in `directory`; what is there already is left to [`Journal::adopt`].
    pub(crate) fn open(directory: &Path, segment_bytes: u64, direct: bool, next: Resume) -> io::Result<Self> {
        let mode = if direct { probe(directory)? } else { JournalMode::Buffered };
        let mut journal = Self {
            directory: directory.to_path_buf(),
            segment_bytes,
            mode,
            next,
            current: None,
            sealed: Vec::new(),
            spares: spares(directory)?,
            scratch: Aligned::default(),
            written: 0,
        };
        journal.append(&[])?;
        Ok(journal)
    }

    pub(crate) fn mode(&self) -> JournalMode {
        self.mode
    }

    /// Bytes written since the journal was opened, zeros of new segments included.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Segment of the last group.
    pub(crate) fn current(&self) -> u64 {
        self.current.as_ref().map_or(self.next.segment, |segment| segment.id)
    }

    /// Segments before it, oldest first.
    pub(crate) fn sealed(&self) -> &[u64] {
        &self.sealed
    }

    /// Writes one group and syncs it. After an error the group may be there or not, and the next one
    /// goes to a new segment.
    pub(crate) fn append(&mut self, records: &[(u64, Record)]) -> io::Result<()> {
        let mut segment = match self.current.take() {
            Some(segment) => segment,
            None => self.open_segment()?,
        };
        self.encode(segment.id, records);
        let length = self.scratch.as_slice().len() as u64;
        assert!(length <= self.segment_bytes, "admission bounds a group to less than a segment");
        if segment.offset + length > self.segment_bytes {
            self.sealed.push(segment.id);
            segment = self.open_segment()?;
            self.encode(segment.id, records);
        }
        let outcome = segment.file.write_all_at(self.scratch.as_slice(), segment.offset).and_then(|()| segment.file.sync_data());
        match outcome {
            Ok(()) => {
                segment.offset += length;
                self.written += length;
                self.next.seq += 1;
                self.current = Some(segment);
                Ok(())
            }
            Err(cause) => {
                self.give_up(&segment);
                Err(cause)
            }
        }
    }

    /// Turns a sealed segment into a spare. Oldest first: a segment that outlived a younger one would bring
    /// old values back.
    pub(crate) fn recycle(&mut self, id: u64) -> io::Result<()> {
        let path = segment_path(&self.directory, id);
        let fits = fs::metadata(&path)?.len() == self.segment_bytes;
        if fits && self.spares.len() < SPARE_SEGMENTS_MAX {
            let spare = self.directory.join(format!("spare-{id:016}.seg"));
            fs::rename(path, &spare)?;
            self.spares.push(spare);
        } else {
            fs::remove_file(path)?;
        }
        self.sealed.retain(|sealed| *sealed != id);
        sync_directory(&self.directory)
    }

    /// Takes over segments of an earlier life whose content is elsewhere by now.
    pub(crate) fn adopt(&mut self, segments: &[u64]) -> io::Result<()> {
        segments.iter().try_for_each(|id| self.recycle(*id))
    }

    fn encode(&mut self, segment: u64, records: &[(u64, Record)]) {
        let label = Label { segment, seq: self.next.seq, epoch: self.next.epoch };
        self.scratch.encode(label, records, self.mode.sector());
    }

    /// A segment that failed is not written again; without any good group it is not even kept.
    fn give_up(&mut self, segment: &Segment) {
        if segment.offset > 0 {
            self.sealed.push(segment.id);
        } else if let Err(cause) = fs::remove_file(segment_path(&self.directory, segment.id)) {
            log::debug!(segment = segment.id, cause:% = cause; "failed segment stays");
        }
    }

    fn open_segment(&mut self) -> io::Result<Segment> {
        let id = self.next.segment;
        let path = segment_path(&self.directory, id);
        let source = match self.usable_spare() {
            Some(spare) => spare,
            None => self.create_zeroed()?,
        };
        fs::rename(source, &path)?;
        sync_directory(&self.directory)?;
        let file = open_file(&path, self.mode)?;
        self.next.segment += 1;
        Ok(Segment { id, file, offset: 0 })
    }

    fn usable_spare(&mut self) -> Option<PathBuf> {
        while let Some(spare) = self.spares.pop() {
            if fs::metadata(&spare).is_ok_and(|found| found.len() == self.segment_bytes) {
                return Some(spare);
            }
            fs::remove_file(&spare).ok();
        }
        None
    }

    /// A file full of zeros, so that later writes allocate nothing and sync no metadata.
    fn create_zeroed(&mut self) -> io::Result<PathBuf> {
        let path = self.directory.join("new.seg");
        let outcome = self.fill_with_zeros(&path);
        if outcome.is_err() {
            fs::remove_file(&path).ok();
        }
        outcome.map(|()| path)
    }

    fn fill_with_zeros(&mut self, path: &Path) -> io::Result<()> {
        File::create(path)?;
        let file = open_file(path, self.mode)?;
        let zeros = Aligned::zeros(256 * 1024);
        let mut offset = 0;
        while offset < self.segment_bytes {
            let left = usize::try_from(self.segment_bytes - offset).unwrap_or(usize::MAX);
            let chunk = &zeros.as_slice()[..left.min(zeros.as_slice().len())];
            file.write_all_at(chunk, offset)?;
            offset += chunk.len() as u64;
        }
        self.written += self.segment_bytes;
        file.sync_all()?;
        // The zeros lie in the page cache as folios of 256 KiB, each of which a write of one page would dirty.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(())
    }
}

/// Ids of the segments in `directory`, oldest first.
pub(crate) fn segments(directory: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        found.extend(segment_id(&entry?.path()));
    }
    found.sort_unstable();
    Ok(found)
}

pub(crate) fn segment_path(directory: &Path, id: u64) -> PathBuf {
    directory.join(format!("journal-{id:016}.seg"))
}

fn segment_id(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("journal-")?.strip_suffix(".seg")?.parse().ok()
}

fn spares(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("spare-") && name.ends_with(".seg") {
            found.push(path);
        }
    }
    Ok(found)
}

fn open_file(path: &Path, mode: JournalMode) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(mode.flags()).open(path)
}

/// The most direct way that this file system takes.
fn probe(directory: &Path) -> io::Result<JournalMode> {
    let path = directory.join("probe.tmp");
    File::create(&path)?;
    let takes = |mode: &JournalMode| {
        let zeros = Aligned::zeros(mode.sector());
        open_file(&path, *mode).and_then(|file| file.write_all_at(zeros.as_slice(), 0)).is_ok()
    };
    let mode = [JournalMode::Direct512, JournalMode::Direct4096].into_iter().find(takes);
    fs::remove_file(&path)?;
    Ok(mode.unwrap_or(JournalMode::Buffered))
}
