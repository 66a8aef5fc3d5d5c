//! Between the words of `wasi:filesystem` and those of the scratch directory.

use crate::scratch::{Handle, Open, ScratchError, Stat};
use std::time::{Duration, SystemTime};
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorStat, DescriptorType, ErrorCode, MetadataHashValue, NewTimestamp, OpenFlags,
};

const NANOS_PER_SECOND: u32 = 1_000_000_000;
/// The other half of every hash, which keeps what is in memory apart from what is on a disk.
const HASH_UPPER: u64 = 0x7365_6467_6573_6372;

pub(super) const fn code(error: ScratchError) -> ErrorCode {
    match error {
        ScratchError::BadDescriptor => ErrorCode::BadDescriptor,
        ScratchError::Busy => ErrorCode::Busy,
        ScratchError::Exist => ErrorCode::Exist,
        ScratchError::FileTooLarge => ErrorCode::FileTooLarge,
        ScratchError::InsufficientSpace => ErrorCode::InsufficientSpace,
        ScratchError::Invalid => ErrorCode::Invalid,
        ScratchError::IsDirectory => ErrorCode::IsDirectory,
        ScratchError::Loop => ErrorCode::Loop,
        ScratchError::NameTooLong => ErrorCode::NameTooLong,
        ScratchError::NoEntry => ErrorCode::NoEntry,
        ScratchError::NotDirectory => ErrorCode::NotDirectory,
        ScratchError::NotEmpty => ErrorCode::NotEmpty,
        ScratchError::NotPermitted => ErrorCode::NotPermitted,
    }
}

pub(super) fn open(how: OpenFlags, flags: DescriptorFlags) -> Open {
    Open {
        create: how.contains(OpenFlags::CREATE),
        exclusive: how.contains(OpenFlags::EXCLUSIVE),
        truncate: how.contains(OpenFlags::TRUNCATE),
        directory: how.contains(OpenFlags::DIRECTORY),
        read: flags.contains(DescriptorFlags::READ),
        write: flags.contains(DescriptorFlags::WRITE),
    }
}

pub(super) fn flags(handle: &Handle) -> DescriptorFlags {
    if handle.is_directory() {
        return DescriptorFlags::READ | DescriptorFlags::MUTATE_DIRECTORY;
    }
    let read = if handle.read { DescriptorFlags::READ } else { DescriptorFlags::empty() };
    let write = if handle.write { DescriptorFlags::WRITE } else { DescriptorFlags::empty() };
    read | write
}

pub(in crate::host) const fn hash(number: u64) -> MetadataHashValue {
    MetadataHashValue { lower: number, upper: HASH_UPPER }
}

/// The new time; none is no change.
pub(super) fn time(wanted: NewTimestamp) -> Result<Option<SystemTime>, ErrorCode> {
    match wanted {
        NewTimestamp::NoChange => Ok(None),
        NewTimestamp::Now => Ok(Some(SystemTime::now())),
        NewTimestamp::Timestamp(time) if time.nanoseconds >= NANOS_PER_SECOND => Err(ErrorCode::Invalid),
        NewTimestamp::Timestamp(time) => {
            let since = Duration::new(time.seconds, time.nanoseconds);
            SystemTime::UNIX_EPOCH.checked_add(since).ok_or(ErrorCode::Overflow).map(Some)
        }
    }
}

pub(super) const fn kind(directory: bool) -> DescriptorType {
    if directory { DescriptorType::Directory } else { DescriptorType::RegularFile }
}

pub(super) fn stat(stat: &Stat) -> DescriptorStat {
    DescriptorStat {
        type_: kind(stat.directory),
        link_count: stat.links,
        size: stat.size,
        data_access_timestamp: Some(datetime(stat.accessed)),
        data_modification_timestamp: Some(datetime(stat.modified)),
        status_change_timestamp: Some(datetime(stat.changed)),
    }
}

fn datetime(time: SystemTime) -> Datetime {
    // Only a clock that was never set is before 1970.
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Datetime { seconds: since.as_secs(), nanoseconds: since.subsec_nanos() }
}
