//! `wasi:filesystem`: files of the artifact at `/assets`, and the scratch directory.
//!
//! ```text
//! descriptor ─┬─ Handle in the table: ours, in memory
//!             └─ anything else: wasmtime's, files of the system that can only be read
//! ```
//! Both kinds are descriptors to the guest. What they are is told by what lies in the table under their number.

mod stream;
mod words;

use crate::scratch::{Handle, SCRATCH, Scratch};
use crate::state::State;
use stream::{Reading, Writing};
use wasmtime::component::Resource;
use wasmtime_wasi::filesystem::WasiFilesystemView as _;
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, Advice, Descriptor, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, DirectoryEntryStream, ErrorCode, Filesize,
    HostDescriptor, HostDirectoryEntryStream, MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};
pub(super) use words::hash;
use words::{code, flags, open, time};

/// Most bytes that one call reads or writes; a guest that asks for more is answered less.
pub(super) const PIECE_BYTES_MAX: usize = 64 * 1024;

/// A list that is being read: the names come in their order, so the last one is all that has to be kept.
struct Listing {
    directory: Handle,
    last: Option<Box<str>>,
}

impl State {
    /// The open file or directory, if it is one in the scratch directory.
    pub(crate) fn scratch_handle(&mut self, fd: &Resource<Descriptor>) -> Option<&Handle> {
        self.table().get(&Resource::<Handle>::new_borrow(fd.rep())).ok()
    }

    /// The list, if it is one of a directory in the scratch directory.
    fn listing(&mut self, stream: &Resource<DirectoryEntryStream>) -> Option<&mut Listing> {
        self.table().get_mut(&Resource::<Listing>::new_borrow(stream.rep())).ok()
    }

    /// A descriptor of something in the scratch directory.
    pub(crate) fn push_handle(&mut self, handle: Handle) -> wasmtime::Result<Resource<Descriptor>> {
        Ok(Resource::new_own(self.table().push(handle)?.rep()))
    }

    /// Directories that are open from the start.
    pub(crate) fn directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let mut directories = preopens::Host::get_directories(&mut self.filesystem())?;
        if let Some(top) = self.scratch().map(Scratch::top) {
            directories.push((self.push_handle(top)?, SCRATCH.to_owned()));
        }
        Ok(directories)
    }
}

impl preopens::Host for State {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        self.directories()
    }
}

impl types::Host for State {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        types::Host::convert_error_code(&mut self.filesystem(), error)
    }

    fn filesystem_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        match self.table().get(&error)?.downcast_ref() {
            Some(error) => Ok(Some(code(*error))),
            None => types::Host::filesystem_error_code(&mut self.filesystem(), error),
        }
    }
}

impl HostDescriptor for State {
    async fn advise(&mut self, fd: Resource<Descriptor>, offset: Filesize, len: Filesize, advice: Advice) -> FsResult<()> {
        match self.scratch_handle(&fd) {
            Some(file) if file.is_directory() => Err(ErrorCode::BadDescriptor.into()),
            Some(_) => Ok(()),
            None => HostDescriptor::advise(&mut self.filesystem(), fd, offset, len, advice).await,
        }
    }

    async fn sync_data(&mut self, fd: Resource<Descriptor>) -> FsResult<()> {
        match self.scratch_handle(&fd) {
            Some(_) => Ok(()),
            None => HostDescriptor::sync_data(&mut self.filesystem(), fd).await,
        }
    }

    async fn get_flags(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorFlags> {
        match self.scratch_handle(&fd) {
            Some(handle) => Ok(flags(handle)),
            None => HostDescriptor::get_flags(&mut self.filesystem(), fd).await,
        }
    }

    async fn get_type(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorType> {
        match self.scratch_handle(&fd) {
            Some(handle) => Ok(words::kind(handle.is_directory())),
            None => HostDescriptor::get_type(&mut self.filesystem(), fd).await,
        }
    }

    async fn set_size(&mut self, fd: Resource<Descriptor>, size: Filesize) -> FsResult<()> {
        match self.scratch_handle(&fd) {
            Some(file) => Ok(file.set_size(size).map_err(code)?),
            None => HostDescriptor::set_size(&mut self.filesystem(), fd, size).await,
        }
    }

    async fn set_times(&mut self, fd: Resource<Descriptor>, accessed: NewTimestamp, modified: NewTimestamp) -> FsResult<()> {
        match self.scratch_handle(&fd) {
            Some(handle) => Ok(handle.set_times(None, time(accessed)?, time(modified)?).map_err(code)?),
            None => HostDescriptor::set_times(&mut self.filesystem(), fd, accessed, modified).await,
        }
    }

    async fn read(&mut self, fd: Resource<Descriptor>, len: Filesize, offset: Filesize) -> FsResult<(Vec<u8>, bool)> {
        let Some(file) = self.scratch_handle(&fd) else {
            return HostDescriptor::read(&mut self.filesystem(), fd, len, offset).await;
        };
        let length = usize::try_from(len).unwrap_or(usize::MAX).min(PIECE_BYTES_MAX);
        let bytes = file.read(offset, length).map_err(code)?;
        let end = bytes.is_empty() && length > 0;
        Ok((bytes, end))
    }

    async fn write(&mut self, fd: Resource<Descriptor>, buf: Vec<u8>, offset: Filesize) -> FsResult<Filesize> {
        match self.scratch_handle(&fd) {
            Some(file) => Ok(file.write(offset, &buf[..buf.len().min(PIECE_BYTES_MAX)]).map_err(code)? as Filesize),
            None => HostDescriptor::write(&mut self.filesystem(), fd, buf, offset).await,
        }
    }

    async fn read_directory(&mut self, fd: Resource<Descriptor>) -> FsResult<Resource<DirectoryEntryStream>> {
        let Some(directory) = self.scratch_handle(&fd) else {
            return HostDescriptor::read_directory(&mut self.filesystem(), fd).await;
        };
        if !directory.is_directory() {
            return Err(ErrorCode::NotDirectory.into());
        }
        let listing = Listing { directory: directory.clone(), last: None };
        Ok(Resource::new_own(self.table().push(listing)?.rep()))
    }

    async fn sync(&mut self, fd: Resource<Descriptor>) -> FsResult<()> {
        match self.scratch_handle(&fd) {
            Some(_) => Ok(()),
            None => HostDescriptor::sync(&mut self.filesystem(), fd).await,
        }
    }

    async fn create_directory_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        match self.scratch_handle(&fd) {
            Some(directory) => Ok(directory.create_directory(&path).map_err(code)?),
            None => HostDescriptor::create_directory_at(&mut self.filesystem(), fd, path).await,
        }
    }

    async fn stat(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorStat> {
        match self.scratch_handle(&fd) {
            Some(handle) => Ok(words::stat(&handle.stat())),
            None => HostDescriptor::stat(&mut self.filesystem(), fd).await,
        }
    }

    async fn stat_at(&mut self, fd: Resource<Descriptor>, follow: PathFlags, path: String) -> FsResult<DescriptorStat> {
        match self.scratch_handle(&fd) {
            Some(directory) => Ok(words::stat(&directory.stat_at(&path).map_err(code)?)),
            None => HostDescriptor::stat_at(&mut self.filesystem(), fd, follow, path).await,
        }
    }

    async fn set_times_at(
        &mut self,
        fd: Resource<Descriptor>,
        follow: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        match self.scratch_handle(&fd) {
            Some(directory) => Ok(directory.set_times(Some(&path), time(accessed)?, time(modified)?).map_err(code)?),
            None => HostDescriptor::set_times_at(&mut self.filesystem(), fd, follow, path, accessed, modified).await,
        }
    }

    async fn link_at(
        &mut self,
        fd: Resource<Descriptor>,
        follow: PathFlags,
        path: String,
        to: Resource<Descriptor>,
        new_path: String,
    ) -> FsResult<()> {
        match (self.scratch_handle(&fd).is_some(), self.scratch_handle(&to).is_some()) {
            (true, true) => Err(ErrorCode::Unsupported.into()),
            (true, false) | (false, true) => Err(ErrorCode::CrossDevice.into()),
            (false, false) => HostDescriptor::link_at(&mut self.filesystem(), fd, follow, path, to, new_path).await,
        }
    }

    async fn open_at(
        &mut self,
        fd: Resource<Descriptor>,
        follow: PathFlags,
        path: String,
        how: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Resource<Descriptor>> {
        let Some(directory) = self.scratch_handle(&fd) else {
            return HostDescriptor::open_at(&mut self.filesystem(), fd, follow, path, how, flags).await;
        };
        let opened = directory.open(&path, open(how, flags)).map_err(code)?;
        self.push_handle(opened).map_err(FsError::trap)
    }

    async fn readlink_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<String> {
        match self.scratch_handle(&fd) {
            // There are no links, so whatever is there is none.
            Some(directory) => Err(directory.stat_at(&path).map_or_else(code, |_| ErrorCode::Invalid).into()),
            None => HostDescriptor::readlink_at(&mut self.filesystem(), fd, path).await,
        }
    }

    async fn remove_directory_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        match self.scratch_handle(&fd) {
            Some(directory) => Ok(directory.remove_directory(&path).map_err(code)?),
            None => HostDescriptor::remove_directory_at(&mut self.filesystem(), fd, path).await,
        }
    }

    async fn rename_at(&mut self, fd: Resource<Descriptor>, path: String, to: Resource<Descriptor>, new_path: String) -> FsResult<()> {
        match (self.scratch_handle(&fd).cloned(), self.scratch_handle(&to)) {
            (Some(directory), Some(to)) => Ok(directory.rename(&path, to, &new_path).map_err(code)?),
            (Some(_), None) | (None, Some(_)) => Err(ErrorCode::CrossDevice.into()),
            (None, None) => HostDescriptor::rename_at(&mut self.filesystem(), fd, path, to, new_path).await,
        }
    }

    async fn symlink_at(&mut self, fd: Resource<Descriptor>, target: String, path: String) -> FsResult<()> {
        match self.scratch_handle(&fd) {
            Some(_) => Err(ErrorCode::Unsupported.into()),
            None => HostDescriptor::symlink_at(&mut self.filesystem(), fd, target, path).await,
        }
    }

    async fn unlink_file_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        match self.scratch_handle(&fd) {
            Some(directory) => Ok(directory.unlink(&path).map_err(code)?),
            None => HostDescriptor::unlink_file_at(&mut self.filesystem(), fd, path).await,
        }
    }

    fn read_via_stream(&mut self, fd: Resource<Descriptor>, offset: Filesize) -> FsResult<Resource<DynInputStream>> {
        let Some(file) = self.scratch_handle(&fd) else {
            return HostDescriptor::read_via_stream(&mut self.filesystem(), fd, offset);
        };
        file.read(offset, 0).map_err(code)?;
        let stream: DynInputStream = Box::new(Reading::new(file.clone(), offset));
        Ok(self.table().push(stream)?)
    }

    fn write_via_stream(&mut self, fd: Resource<Descriptor>, offset: Filesize) -> FsResult<Resource<DynOutputStream>> {
        let Some(file) = self.scratch_handle(&fd) else {
            return HostDescriptor::write_via_stream(&mut self.filesystem(), fd, offset);
        };
        file.room(Some(offset)).map_err(code)?;
        let stream: DynOutputStream = Box::new(Writing::new(file.clone(), Some(offset)));
        Ok(self.table().push(stream)?)
    }

    fn append_via_stream(&mut self, fd: Resource<Descriptor>) -> FsResult<Resource<DynOutputStream>> {
        let Some(file) = self.scratch_handle(&fd) else { return HostDescriptor::append_via_stream(&mut self.filesystem(), fd) };
        file.room(None).map_err(code)?;
        let stream: DynOutputStream = Box::new(Writing::new(file.clone(), None));
        Ok(self.table().push(stream)?)
    }

    async fn is_same_object(&mut self, a: Resource<Descriptor>, b: Resource<Descriptor>) -> wasmtime::Result<bool> {
        match (self.scratch_handle(&a).cloned(), self.scratch_handle(&b)) {
            (Some(a), Some(b)) => Ok(a.is_same(b)),
            (Some(_), None) | (None, Some(_)) => Ok(false),
            (None, None) => HostDescriptor::is_same_object(&mut self.filesystem(), a, b).await,
        }
    }

    async fn metadata_hash(&mut self, fd: Resource<Descriptor>) -> FsResult<MetadataHashValue> {
        match self.scratch_handle(&fd) {
            Some(handle) => Ok(hash(handle.number(None).map_err(code)?)),
            None => HostDescriptor::metadata_hash(&mut self.filesystem(), fd).await,
        }
    }

    async fn metadata_hash_at(&mut self, fd: Resource<Descriptor>, follow: PathFlags, path: String) -> FsResult<MetadataHashValue> {
        match self.scratch_handle(&fd) {
            Some(directory) => Ok(hash(directory.number(Some(&path)).map_err(code)?)),
            None => HostDescriptor::metadata_hash_at(&mut self.filesystem(), fd, follow, path).await,
        }
    }

    fn drop(&mut self, fd: Resource<Descriptor>) -> wasmtime::Result<()> {
        if self.scratch_handle(&fd).is_some() {
            self.table().delete(Resource::<Handle>::new_own(fd.rep()))?;
            return Ok(());
        }
        HostDescriptor::drop(&mut self.filesystem(), fd)
    }
}

impl HostDirectoryEntryStream for State {
    async fn read_directory_entry(&mut self, stream: Resource<DirectoryEntryStream>) -> FsResult<Option<DirectoryEntry>> {
        let Some(listing) = self.listing(&stream) else {
            return HostDirectoryEntryStream::read_directory_entry(&mut self.filesystem(), stream).await;
        };
        let Some((name, directory)) = listing.directory.name_after(listing.last.as_deref()).map_err(code)? else { return Ok(None) };
        listing.last = Some(name.clone());
        Ok(Some(DirectoryEntry { type_: words::kind(directory), name: name.into() }))
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        if self.listing(&stream).is_some() {
            self.table().delete(Resource::<Listing>::new_own(stream.rep()))?;
            return Ok(());
        }
        HostDirectoryEntryStream::drop(&mut self.filesystem(), stream)
    }
}
