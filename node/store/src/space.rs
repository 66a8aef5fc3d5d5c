//! What the box has: memory and room on the partition.

use std::fs;
use std::path::Path;

use crate::config::StoreConfig;
use crate::limits::DATABASE_BYTES_MAX;
use crate::state::Room;

const MIB: u64 = 1024 * 1024;

/// Page cache for the database: 1/64 of the memory, between 8 MiB and 64 MiB.
pub(crate) fn default_cache_bytes() -> u64 {
    let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory_total(&text));
    (total.unwrap_or(0) / 64).clamp(8 * MIB, 64 * MIB)
}

fn memory_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Room on the partition of `directory` and what of it is kept. Never touches the disk.
pub(crate) fn room(directory: &Path, config: &StoreConfig, database: u64) -> Room {
    let Ok(found) = rustix::fs::statvfs(directory) else {
        return Room { free: u64::MAX, database, database_max: u64::MAX, ..Room::default() };
    };
    let total = found.f_blocks.saturating_mul(found.f_frsize);
    Room {
        free: found.f_bavail.saturating_mul(found.f_frsize),
        free_min: config.free_bytes_min.unwrap_or_else(|| (64 * MIB).min(total / 20)),
        database,
        database_used: database,
        database_max: config.database_bytes_max.unwrap_or_else(|| DATABASE_BYTES_MAX.min(total / 10)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_meminfo() {
        let text = "MemTotal:        1024000 kB\nMemFree: 1 kB\n";
        assert_eq!(memory_total(text), Some(1024 * 1_024_000));
        assert_eq!(memory_total("garbage"), None);
    }

    #[test]
    fn room_keeps_the_lesser_of_the_two_bounds() {
        let directory = tempfile::tempdir().unwrap();
        let room = room(directory.path(), &StoreConfig::default(), 0);
        assert!(room.free_min <= 64 * MIB && room.database_max <= DATABASE_BYTES_MAX);
    }
}
