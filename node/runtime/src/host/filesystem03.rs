//! `wasi:filesystem` of WASI 0.3, under the rules of [`filesystem`](super::filesystem): what is in the scratch directory is ours.

mod stream;

use super::filesystem::PIECE_BYTES_MAX;
use crate::scratch::{Handle, Open, ScratchError, Stat};
use crate::state::State;
use std::iter;
use std::time::{Duration, SystemTime};
use stream::{Listing, Reading, Writing};
use tokio::sync::oneshot;
use wasmtime::AsContextMut as _;
use wasmtime::component::{Access, Accessor, FutureReader, HasData, Linker, Resource, StreamReader};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::filesystem::types as of_02;
use wasmtime_wasi::p3::bindings::clocks::system_clock::Instant;
use wasmtime_wasi::p3::bindings::filesystem::preopens;
use wasmtime_wasi::p3::bindings::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, ErrorCode, Filesize, HostDescriptorWithStore,
    MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p3::filesystem::{FilesystemError, FilesystemResult};

const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// How a stream ended, when it has.
type End = FutureReader<Result<(), ErrorCode>>;

/// Reaches files of both kinds.
pub(crate) struct Files;

impl HasData for Files {
    type Data<'a> = &'a mut State;
}

pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    types::add_to_linker::<State, Files>(linker, |state| state)?;
    preopens::add_to_linker::<State, Files>(linker, |state| state)
}

/// The open file or directory, if it is one in the scratch directory.
fn ours(store: &Accessor<State, Files>, fd: &Resource<Descriptor>) -> Option<Handle> {
    store.with(|mut access| access.get().scratch_handle(fd).cloned())
}

/// The way to files of the system.
fn theirs(store: &Accessor<State, Files>) -> Accessor<State, WasiFilesystem> {
    store.with_getter::<WasiFilesystem>(State::filesystem)
}

/// The same, where nothing may be waited for.
fn theirs_now<'a>(store: &'a mut Access<'_, State, Files>) -> Access<'a, State, WasiFilesystem> {
    Access::<State, WasiFilesystem>::new(store.as_context_mut(), State::filesystem)
}

impl preopens::Host for State {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        self.directories()
    }
}

impl types::Host for State {
    fn convert_error_code(&mut self, error: FilesystemError) -> wasmtime::Result<ErrorCode> {
        types::Host::convert_error_code(&mut self.filesystem(), error)
    }
}

impl types::HostDescriptor for State {
    fn drop(&mut self, fd: Resource<Descriptor>) -> wasmtime::Result<()> {
        of_02::HostDescriptor::drop(self, fd)
    }
}

impl HostDescriptorWithStore<State> for Files {
    fn read_via_stream(
        mut store: Access<'_, State, Self>,
        fd: Resource<Descriptor>,
        offset: Filesize,
    ) -> wasmtime::Result<(StreamReader<u8>, End)> {
        let Some(file) = store.get().scratch_handle(&fd).cloned() else {
            return WasiFilesystem::read_via_stream(theirs_now(&mut store), fd, offset);
        };
        let (ended, end) = oneshot::channel();
        let stream = StreamReader::new(&mut store, Reading::new(file, offset, ended))?;
        Ok((stream, FutureReader::new(&mut store, end)?))
    }

    fn write_via_stream(
        mut store: Access<'_, State, Self>,
        fd: Resource<Descriptor>,
        data: StreamReader<u8>,
        offset: Filesize,
    ) -> wasmtime::Result<End> {
        match store.get().scratch_handle(&fd).cloned() {
            Some(file) => take_in(store, file, data, Some(offset)),
            None => WasiFilesystem::write_via_stream(theirs_now(&mut store), fd, data, offset),
        }
    }

    fn append_via_stream(mut store: Access<'_, State, Self>, fd: Resource<Descriptor>, data: StreamReader<u8>) -> wasmtime::Result<End> {
        match store.get().scratch_handle(&fd).cloned() {
            Some(file) => take_in(store, file, data, None),
            None => WasiFilesystem::append_via_stream(theirs_now(&mut store), fd, data),
        }
    }

    async fn advise(
        store: &Accessor<State, Self>,
        fd: Resource<Descriptor>,
        offset: Filesize,
        length: Filesize,
        advice: Advice,
    ) -> FilesystemResult<()> {
        match ours(store, &fd) {
            Some(file) if file.is_directory() => Err(ErrorCode::BadDescriptor.into()),
            Some(_) => Ok(()),
            None => WasiFilesystem::advise(&theirs(store), fd, offset, length, advice).await,
        }
    }

    async fn sync_data(store: &Accessor<State, Self>, fd: Resource<Descriptor>) -> FilesystemResult<()> {
        match ours(store, &fd) {
            Some(_) => Ok(()),
            None => WasiFilesystem::sync_data(&theirs(store), fd).await,
        }
    }

    async fn get_flags(store: &Accessor<State, Self>, fd: Resource<Descriptor>) -> FilesystemResult<DescriptorFlags> {
        match ours(store, &fd) {
            Some(handle) => Ok(flags(&handle)),
            None => WasiFilesystem::get_flags(&theirs(store), fd).await,
        }
    }

    async fn get_type(store: &Accessor<State, Self>, fd: Resource<Descriptor>) -> FilesystemResult<DescriptorType> {
        match ours(store, &fd) {
            Some(handle) => Ok(kind(handle.is_directory())),
            None => WasiFilesystem::get_type(&theirs(store), fd).await,
        }
    }

    async fn set_size(store: &Accessor<State, Self>, fd: Resource<Descriptor>, size: Filesize) -> FilesystemResult<()> {
        match ours(store, &fd) {
            Some(file) => Ok(file.set_size(size).map_err(code)?),
            None => WasiFilesystem::set_size(&theirs(store), fd, size).await,
        }
    }

    async fn set_times(
        store: &Accessor<State, Self>,
        fd: Resource<Descriptor>,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FilesystemResult<()> {
        match ours(store, &fd) {
            Some(handle) => Ok(handle.set_times(None, time(accessed)?, time(modified)?).map_err(code)?),
            None => WasiFilesystem::set_times(&theirs(store), fd, accessed, modified).await,
        }
    }

    fn read_directory(
        mut store: Access<'_, State, Self>,
        fd: Resource<Descriptor>,
    ) -> wasmtime::Result<(StreamReader<DirectoryEntry>, End)> {
        let Some(directory) = store.get().scratch_handle(&fd).cloned() else {
            return WasiFilesystem::read_directory(theirs_now(&mut store), fd);
        };
        let (ended, end) = oneshot::channel();
        let stream = if directory.is_directory() {
            StreamReader::new(&mut store, Listing::new(directory, ended))?
        } else {
            drop(ended.send(Err(ErrorCode::NotDirectory)));
            StreamReader::new(&mut store, iter::empty())?
        };
        Ok((stream, FutureReader::new(&mut store, end)?))
    }

    async fn sync(store: &Accessor<State, Self>, fd: Resource<Descriptor>) -> FilesystemResult<()> {
        match ours(store, &fd) {
            Some(_) => Ok(()),
            None => WasiFilesystem::sync(&theirs(store), fd).await,
        }
    }

    async fn create_directory_at(store: &Accessor<State, Self>, fd: Resource<Descriptor>, path: String) -> FilesystemResult<()> {
        match ours(store, &fd) {
            Some(directory) => Ok(directory.create_directory(&path).map_err(code)?),
            None => WasiFilesystem::create_directory_at(&theirs(store), fd, path).await,
        }
    }

    async fn stat(store: &Accessor<State, Self>, fd: Resource<Descriptor>) -> FilesystemResult<DescriptorStat> {
        match ours(store, &fd) {
            Some(handle) => Ok(known(&handle.stat())),
            None => WasiFilesystem::stat(&theirs(store), fd).await,
        }
    }

    async fn stat_at(
        store: &Accessor<State, Self>,
        fd: Resource<Descriptor>,
        follow: PathFlags,
        path: String,
    ) -> FilesystemResult<DescriptorStat> {
        match ours(store, &fd) {
            Some(directory) => Ok(known(&directory.stat_at(&path).map_err(code)?)),
            None => WasiFilesystem::stat_at(&theirs(store), fd, follow, path).await,
        }
    }

    async fn set_times_at(
        store: &Accessor<State, Self>,
        fd: Resource<Descriptor>,
        follow: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FilesystemResult<()> {
        match ours(store, &fd) {
            Some(directory) => Ok(directory.set_times(Some(&path), time(accessed)?, time(modified)?).map_err(code)?),
            None => WasiFilesystem::set_times_at(&theirs(store), fd, follow, path, accessed, modified).await,
        }
    }

    async fn link_at(
        store: &Accessor<State, Self>,
        fd: Resource<Descriptor>,
        follow: PathFlags,
        path: String,
        to: Resource<Descriptor>,
        new_path: String,
    ) -> FilesystemResult<()> {
        match (ours(store, &fd), ours(store, &to)) {
            (Some(_), Some(_)) => Err(ErrorCode::Unsupported.into()),
            (Some(_), None) | (None, Some(_)) => Err(ErrorCode::CrossDevice.into()),
            (None, None) => WasiFilesystem::link_at(&theirs(store), fd, follow, path, to, new_path).await,
        }
    }

    async fn open_at(
        store: &Accessor<State, Self>,
        fd: Resource<Descriptor>,
        follow: PathFlags,
        path: String,
        how: OpenFlags,
        flags: DescriptorFlags,
    ) -> FilesystemResult<Resource<Descriptor>> {
        let Some(directory) = ours(store, &fd) else {
            return WasiFilesystem::open_at(&theirs(store), fd, follow, path, how, flags).await;
        };
        let opened = directory.open(&path, open(how, flags)).map_err(code)?;
        store.with(|mut access| access.get().push_handle(opened)).map_err(FilesystemError::trap)
    }

    async fn readlink_at(store: &Accessor<State, Self>, fd: Resource<Descriptor>, path: String) -> FilesystemResult<String> {
        match ours(store, &fd) {
            // There are no links, so whatever is there is none.
            Some(directory) => Err(directory.stat_at(&path).map_or_else(code, |_| ErrorCode::Invalid).into()),
            None => WasiFilesystem::readlink_at(&theirs(store), fd, path).await,
        }
    }

    async fn remove_directory_at(store: &Accessor<State, Self>, fd: Resource<Descriptor>, path: String) -> FilesystemResult<()> {
        match ours(store, &fd) {
            Some(directory) => Ok(directory.remove_directory(&path).map_err(code)?),
            None => WasiFilesystem::remove_directory_at(&theirs(store), fd, path).await,
        }
    }

    async fn rename_at(
        store: &Accessor<State, Self>,
        fd: Resource<Descriptor>,
        path: String,
        to: Resource<Descriptor>,
        new_path: String,
    ) -> FilesystemResult<()> {
        match (ours(store, &fd), ours(store, &to)) {
            (Some(directory), Some(to)) => Ok(directory.rename(&path, &to, &new_path).map_err(code)?),
            (Some(_), None) | (None, Some(_)) => Err(ErrorCode::CrossDevice.into()),
            (None, None) => WasiFilesystem::rename_at(&theirs(store), fd, path, to, new_path).await,
        }
    }

    async fn symlink_at(store: &Accessor<State, Self>, fd: Resource<Descriptor>, target: String, path: String) -> FilesystemResult<()> {
        match ours(store, &fd) {
            Some(_) => Err(ErrorCode::Unsupported.into()),
            None => WasiFilesystem::symlink_at(&theirs(store), fd, target, path).await,
        }
    }

    async fn unlink_file_at(store: &Accessor<State, Self>, fd: Resource<Descriptor>, path: String) -> FilesystemResult<()> {
        match ours(store, &fd) {
            Some(directory) => Ok(directory.unlink(&path).map_err(code)?),
            None => WasiFilesystem::unlink_file_at(&theirs(store), fd, path).await,
        }
    }

    async fn is_same_object(store: &Accessor<State, Self>, a: Resource<Descriptor>, b: Resource<Descriptor>) -> wasmtime::Result<bool> {
        match (ours(store, &a), ours(store, &b)) {
            (Some(a), Some(b)) => Ok(a.is_same(&b)),
            (Some(_), None) | (None, Some(_)) => Ok(false),
            (None, None) => WasiFilesystem::is_same_object(&theirs(store), a, b).await,
        }
    }

    async fn metadata_hash(store: &Accessor<State, Self>, fd: Resource<Descriptor>) -> FilesystemResult<MetadataHashValue> {
        match ours(store, &fd) {
            Some(handle) => Ok(hash(handle.number(None).map_err(code)?)),
            None => WasiFilesystem::metadata_hash(&theirs(store), fd).await,
        }
    }

    async fn metadata_hash_at(
        store: &Accessor<State, Self>,
        fd: Resource<Descriptor>,
        follow: PathFlags,
        path: String,
    ) -> FilesystemResult<MetadataHashValue> {
        match ours(store, &fd) {
            Some(directory) => Ok(hash(directory.number(Some(&path)).map_err(code)?)),
            None => WasiFilesystem::metadata_hash_at(&theirs(store), fd, follow, path).await,
        }
    }
}

/// Lets a stream flow into a file, at an offset or at its end.
fn take_in(mut store: Access<'_, State, Files>, file: Handle, mut data: StreamReader<u8>, offset: Option<u64>) -> wasmtime::Result<End> {
    let (ended, end) = oneshot::channel();
    match file.room(offset) {
        Ok(_) => data.pipe(&mut store, Writing::new(file, offset, ended))?,
        Err(error) => {
            data.close(&mut store)?;
            drop(ended.send(Err(code(error))));
        }
    }
    FutureReader::new(&mut store, end)
}

fn code(error: ScratchError) -> ErrorCode {
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

fn open(how: OpenFlags, flags: DescriptorFlags) -> Open {
    Open {
        create: how.contains(OpenFlags::CREATE),
        exclusive: how.contains(OpenFlags::EXCLUSIVE),
        truncate: how.contains(OpenFlags::TRUNCATE),
        directory: how.contains(OpenFlags::DIRECTORY),
        read: flags.contains(DescriptorFlags::READ),
        write: flags.contains(DescriptorFlags::WRITE),
    }
}

fn flags(handle: &Handle) -> DescriptorFlags {
    if handle.is_directory() {
        return DescriptorFlags::READ | DescriptorFlags::MUTATE_DIRECTORY;
    }
    let read = if handle.read { DescriptorFlags::READ } else { DescriptorFlags::empty() };
    let write = if handle.write { DescriptorFlags::WRITE } else { DescriptorFlags::empty() };
    read | write
}

fn hash(number: u64) -> MetadataHashValue {
    let of_02::MetadataHashValue { lower, upper } = super::filesystem::hash(number);
    MetadataHashValue { lower, upper }
}

const fn kind(directory: bool) -> DescriptorType {
    if directory { DescriptorType::Directory } else { DescriptorType::RegularFile }
}

fn known(stat: &Stat) -> DescriptorStat {
    DescriptorStat {
        type_: kind(stat.directory),
        link_count: stat.links,
        size: stat.size,
        data_access_timestamp: Some(instant(stat.accessed)),
        data_modification_timestamp: Some(instant(stat.modified)),
        status_change_timestamp: Some(instant(stat.changed)),
    }
}

fn time(wanted: NewTimestamp) -> Result<Option<SystemTime>, ErrorCode> {
    let Instant { seconds, nanoseconds } = match wanted {
        NewTimestamp::NoChange => return Ok(None),
        NewTimestamp::Now => return Ok(Some(SystemTime::now())),
        NewTimestamp::Timestamp(instant) => instant,
    };
    if nanoseconds >= NANOS_PER_SECOND {
        return Err(ErrorCode::Invalid);
    }
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let whole = if seconds < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) };
    let time = whole.and_then(|whole| whole.checked_add(Duration::from_nanos(nanoseconds.into())));
    time.ok_or(ErrorCode::Overflow).map(Some)
}

fn instant(time: SystemTime) -> Instant {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => Instant { seconds: seconds(since), nanoseconds: since.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            let (whole, part) = (-seconds(before), before.subsec_nanos());
            if part == 0 {
                Instant { seconds: whole, nanoseconds: 0 }
            } else {
                Instant { seconds: whole - 1, nanoseconds: NANOS_PER_SECOND - part }
            }
        }
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_stay_what_they_are() {
        for (seconds, nanoseconds) in [(0, 0), (1_000_000, 7), (-1, 999_999_999), (-5, 0), (-5, 1)] {
            let wanted = Instant { seconds, nanoseconds };
            let time = time(NewTimestamp::Timestamp(wanted)).unwrap().unwrap();
            let found = instant(time);
            assert_eq!((found.seconds, found.nanoseconds), (seconds, nanoseconds));
        }
        let odd = Instant { seconds: 0, nanoseconds: NANOS_PER_SECOND };
        assert!(matches!(time(NewTimestamp::Timestamp(odd)), Err(ErrorCode::Invalid)));
        let far = Instant { seconds: i64::MAX, nanoseconds: NANOS_PER_SECOND - 1 };
        assert!(time(NewTimestamp::Timestamp(far)).is_ok_and(|time| instant(time.unwrap()).seconds == i64::MAX));
    }
}
