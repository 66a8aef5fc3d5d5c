//! Every bound of this crate, with its unit.

/// Longest key of a tree, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest value of a tree, in bytes. Bigger things are [`crate::Files`].
pub const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Longest queued item, in bytes: an MQTT packet of 256 KiB and its attributes.
pub const ITEM_BYTES_MAX: usize = 320 * 1024;
/// Records that one batch may hold.
pub const BATCH_RECORDS_MAX: usize = 4096;
/// Smallest journal segment, in bytes: a quarter of it holds the longest item.
pub const SEGMENT_BYTES_MIN: u64 = 2 * 1024 * 1024;
/// Biggest journal segment, in bytes. Recovery reads one segment into memory at a time.
pub const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Commits that wait at which a group is written before its time: under load acknowledgements keep flowing, and one client with a
/// window of 32 unacknowledged messages is not held to four windows a second.
pub const GROUP_WAITERS_MAX: usize = 16;
/// Recycled segments kept for later use; more are deleted.
pub const SPARE_SEGMENTS_MAX: usize = 2;
/// Attempts at a lock that a killed process may still hold.
pub const LOCK_ATTEMPTS_MAX: u32 = 10;
/// Pause between two attempts at a lock, in milliseconds.
pub const LOCK_PAUSE_MS: u64 = 100;
/// Directories set aside after damage that are kept for inspection; the oldest go.
pub const BROKEN_KEPT_MAX: usize = 2;
/// First pause after a failed write, in milliseconds; it doubles up to [`RETRY_MS_MAX`].
pub const RETRY_MS_MIN: u64 = 250;
/// Longest pause after failed writes, in milliseconds.
pub const RETRY_MS_MAX: u64 = 30_000;
/// Pause between two looks at the free space of the partition, in milliseconds.
pub const SPACE_CHECK_MS: u64 = 5_000;
/// A database file smaller than this is never compacted, in bytes.
pub const COMPACT_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// The database is compacted when its file is more than this many times its live data.
pub const COMPACT_RATIO: u64 = 8;
/// Of its file in eighths: at most as big a copy of a database must be that left functions no room.
pub const COMPACT_EIGHTHS_MAX: u64 = 7;
/// Of the bound of the database in eighths: may be used before what functions keep is refused. The rest is the node's own.
pub const FUNCTIONS_EIGHTHS: u64 = 5;
/// As [`FUNCTIONS_EIGHTHS`], with what is garbage. 5/6 is less than [`COMPACT_EIGHTHS_MAX`]: what is between them is always given back.
pub const GARBAGE_EIGHTHS: u64 = 6;
/// Bytes of the database that one byte of waiting changes is taken for: keys repeat, pages are rewritten.
pub const WAITING_FACTOR: u64 = 4;
/// Pause between two checkpoints that are begun because functions have no room, in milliseconds.
pub const ROOM_CHECKPOINT_MS: u64 = 10_000;
/// How often the database is copied for functions without room while nothing changes: the next copy may be tighter than the last.
pub const RECOPIES_MAX: u32 = 3;
/// Largest database file on any partition, in bytes.
pub const DATABASE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Largest content-addressed file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Longest name of an object, as it lies in the directory.
pub const OBJECT_NAME_BYTES_MAX: usize = 255;
/// What an object counts towards a quota beside its content, so that empty ones have a number too.
pub const OBJECT_OVERHEAD_BYTES: u64 = 1024;
