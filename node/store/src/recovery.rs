//! From a directory that a power cut may have left in any state to a store that runs.
//!
//! ```text
//! lock ─▶ read segments ─▶ replay ─▶ open database ─▶ changes into it, sync ─▶ live items into a new segment ─▶ recycle
//! ```
//!
//! Every step may be cut and repeated: values are absolute, and old segments go last.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use thiserror::Error;

use crate::batch::{ItemId, Record};
use crate::config::StoreConfig;
use crate::database::{Database, DatabaseError};
use crate::durable::sync_directory;
use crate::generation;
use crate::journal::{self, Journal, Resume};
use crate::limits::{LOCK_ATTEMPTS_MAX, LOCK_PAUSE_MS};
use crate::memtable::Memtable;
use crate::queue::{Home, Item, Queue};
use crate::segment;
use crate::space;

/// Bits of an item id that count within one life of the store; those above count the lives.
const EPOCH_SHIFT: u32 = 40;
const EPOCH_NAME: &str = "epoch";
/// Where recovered items live until they are written again; real segments start at 1.
const NOWHERE: u64 = 0;

/// An item that was accepted and not finished when the store was last open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its number.
    pub id: ItemId,
    /// How often it had been tried.
    pub attempts: u32,
    /// What was accepted.
    pub bytes: Vec<u8>,
}

/// What was found when the store was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Items to go on with, by ascending id.
    pub pending: Vec<Pending>,
    /// What was damaged and moved out of the way: state in it has to be fetched again.
    pub set_aside: Vec<PathBuf>,
    /// Records read from the journal.
    pub replayed: u64,
    /// Groups that are missing between groups that were read: damage, not a power cut.
    pub groups_lost: u64,
    /// Whether the database opened, but without what was last written to it.
    pub rolled_back: bool,
    /// Whether the journal ended in a group that was being written when the power went.
    pub torn: bool,
}

/// Why the store cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{path} is in use by another process")]
    InUse {
        /// Directory of the store.
        path: PathBuf,
    },
    /// The directory cannot be made or read.
    #[error("prepare {path}")]
    Directory {
        /// Directory of the store.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
    /// The journal cannot be written.
    #[error("open the journal in {path}")]
    Journal {
        /// Directory of the store.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        cause: io::Error,
    },
    /// The database cannot be opened, and not because it is damaged.
    #[error("open the database in {path}")]
    Database {
        /// Directory of the store.
        path: PathBuf,
        /// What the database said.
        #[source]
        cause: DatabaseError,
    },
    /// A thread cannot be started.
    #[error("start a thread")]
    Thread(#[source] io::Error),
}

/// A store that is ready to run.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) lock: File,
    pub(crate) queue: Queue,
    pub(crate) next_item: u64,
    pub(crate) journal: Journal,
    pub(crate) database: Database,
    pub(crate) cache_bytes: u64,
    pub(crate) recovery: Recovery,
}

pub(crate) fn open(directory: &Path, config: &StoreConfig) -> Result<Opened, OpenError> {
    let path = || directory.to_path_buf();
    let mut recovery = Recovery::default();
    let in_directory = |cause| OpenError::Directory { path: path(), cause };
    let in_journal = |cause| OpenError::Journal { path: path(), cause };
    let in_database = |cause| OpenError::Database { path: path(), cause };

    prepare(directory, &mut recovery).map_err(in_directory)?;
    let lock = lock(directory)?;
    let journal_path = directory.join("journal");
    prepare(&journal_path, &mut recovery).map_err(in_directory)?;
    let mut replay = Replay::default();
    let old = replay.read(&journal_path, &mut recovery).map_err(in_journal)?;

    let cache_bytes = config.cache_bytes.unwrap_or_else(space::default_cache_bytes);
    let known = replay.resume.epoch;
    let (database, stored) = open_database(directory, cache_bytes, known, &mut recovery)?;
    recovery.rolled_back = stored < known;
    replay.resume.epoch = known.max(stored) + 1;
    database.set_number(EPOCH_NAME, replay.resume.epoch).map_err(in_database)?;
    database.apply(&replay.changes).map_err(in_database)?;

    let segment_bytes = config.segment_bytes();
    let mut journal = Journal::open(&journal_path, segment_bytes, config.direct, replay.resume).map_err(in_journal)?;
    rewrite(&mut journal, &mut replay.queue, config.buffer_bytes_max()).map_err(in_journal)?;
    journal.adopt(&old).map_err(in_journal)?;

    recovery.pending = pending(&replay.queue);
    let next_item = replay.resume.epoch << EPOCH_SHIFT;
    Ok(Opened { lock, queue: replay.queue, next_item, journal, database, cache_bytes, recovery })
}

/// Makes a directory; a file in its place, or a directory that cannot be read, is set aside.
fn prepare(path: &Path, recovery: &mut Recovery) -> io::Result<()> {
    let made = fs::create_dir_all(path).and_then(|()| fs::read_dir(path).map(drop));
    let Err(cause) = made else { return Ok(()) };
    if path.symlink_metadata().is_err() {
        return Err(cause);
    }
    recovery.set_aside.push(generation::set_aside(path)?);
    log::warn!(path:% = path.display(), cause:% = cause; "unreadable directory set aside");
    fs::create_dir_all(path)?;
    sync_directory(crate::durable::parent(path))
}

/// A killed process may hold the lock for a moment.
fn lock(directory: &Path) -> Result<File, OpenError> {
    let in_directory = |cause| OpenError::Directory { path: directory.to_path_buf(), cause };
    let file = File::options().create(true).truncate(false).write(true).open(directory.join("lock")).map_err(in_directory)?;
    for attempt in 1..=LOCK_ATTEMPTS_MAX {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if attempt < LOCK_ATTEMPTS_MAX => {
                thread::sleep(Duration::from_millis(LOCK_PAUSE_MS));
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(cause)) => return Err(in_directory(cause)),
        }
    }
    Err(OpenError::InUse { path: directory.to_path_buf() })
}

/// What the journal holds, folded.
#[derive(Debug, Default)]
struct Replay {
    changes: Memtable,
    queue: Queue,
    resume: Resume,
    seq_last: Option<u64>,
}

impl Replay {
    /// Reads all segments; answers their ids.
    fn read(&mut self, directory: &Path, recovery: &mut Recovery) -> io::Result<Vec<u64>> {
        let ids = journal::segments(directory)?;
        self.resume.segment = 1;
        for id in &ids {
            let bytes = read_segment(&journal::segment_path(directory, *id));
            let scan = segment::scan(&bytes, *id);
            recovery.torn |= scan.torn;
            for (label, records) in scan.groups {
                let expected = self.seq_last.map_or(label.seq, |seq| seq + 1);
                recovery.groups_lost += label.seq.saturating_sub(expected);
                recovery.replayed += records.len() as u64;
                self.seq_last = Some(label.seq);
                self.resume.epoch = self.resume.epoch.max(label.epoch);
                records.into_iter().for_each(|record| self.apply(record));
            }
            self.resume.segment = id + 1;
        }
        self.resume.seq = self.seq_last.map_or(1, |seq| seq + 1);
        Ok(ids)
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Set { tree, key, value } => self.changes.put(tree, key, Some(value)),
            Record::Delete { tree, key } => self.changes.put(tree, key, None),
            Record::Accept { id, attempts, bytes } => {
                self.queue.remove(id);
                self.queue.insert(id, Item { attempts, bytes, home: Home::Segment(NOWHERE) });
            }
            Record::Attempt { id, attempts } => {
                if let Some(item) = self.queue.item_mut(id) {
                    item.attempts = attempts;
                }
            }
            Record::Finish { id } => drop(self.queue.remove(id)),
        }
    }
}

/// The readable part of a segment: a bad sector ends it like a power cut would.
fn read_segment(path: &Path) -> Vec<u8> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    if let Err(cause) = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        log::warn!(path:% = path.display(), cause:% = cause; "segment is not readable to its end");
    }
    bytes
}

/// Opens the database and reads its epoch. One that is damaged, or empty though the journal has known a
/// life of the store before, is set aside.
fn open_database(directory: &Path, cache_bytes: u64, known: u64, recovery: &mut Recovery) -> Result<(Database, u64), OpenError> {
    let in_database = |cause| OpenError::Database { path: directory.to_path_buf(), cause };
    let in_directory = |cause| OpenError::Directory { path: directory.to_path_buf(), cause };
    let path = generation::current(directory).map_err(in_directory)?;
    let opened = Database::open(&path, cache_bytes).and_then(|database| Ok((database.number(EPOCH_NAME)?, database)));
    match opened {
        Ok((Some(epoch), database)) => return Ok((database, epoch)),
        Ok((None, database)) if known == 0 => {
            sync_directory(directory).map_err(in_directory)?;
            return Ok((database, 0));
        }
        Err(error) if !error.is_damage() => return Err(in_database(error)),
        Ok((None, _)) | Err(_) => {}
    }
    let aside = generation::set_aside(&path).map_err(in_directory)?;
    log::warn!(path:% = aside.display(); "damaged database set aside");
    recovery.set_aside.push(aside);
    let database = Database::open(&path, cache_bytes).map_err(in_database)?;
    sync_directory(directory).map_err(in_directory)?;
    Ok((database, known))
}

/// Writes the live items into the new journal, so that the old segments are not needed any more.
fn rewrite(journal: &mut Journal, queue: &mut Queue, bytes_max: usize) -> io::Result<()> {
    loop {
        let residents = queue.residents(NOWHERE, bytes_max);
        if residents.is_empty() {
            return Ok(());
        }
        journal.append(&residents)?;
        queue.settle(&residents, journal.current());
    }
}

fn pending(queue: &Queue) -> Vec<Pending> {
    queue.iter().map(|(id, item)| Pending { id, attempts: item.attempts, bytes: Arc::as_ref(&item.bytes).to_vec() }).collect()
}
