//! `wasi:blobstore`: containers of files that the manifest grants, streamed both ways.
//!
//! A container that is granted is there; making it again is no error, and deleting it removes its objects.

#![expect(unreachable_pub, reason = "the generated bindings re-export the resource types")]

use super::bindings::blobstore::{blobstore, container, types};
use super::blobstream::{Download, Upload, blocking};
use super::{BlobChange, HostError};
use crate::limits::{BLOB_NAMES_PER_PAGE, BLOB_WHOLE_BYTES_MAX, BLOBS_OPEN_MAX, MIB};
use crate::state::State;
use sedge_store::{BlobWriter, Container};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::pipe::AsyncReadStream;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream};

type Answer<T> = wasmtime::Result<Result<T, String>>;

/// An open container.
#[derive(Debug, Clone)]
pub struct OpenContainer {
    name: Arc<str>,
    files: Container,
}

/// Content on its way in.
#[derive(Debug)]
pub struct OutgoingValue {
    upload: Result<Upload, HostError>,
    streaming: bool,
    /// Where it is to be, once the guest has said so.
    target: Option<(OpenContainer, String)>,
    _open: Arc<()>,
}

/// Content on its way out: a part of a file.
#[derive(Debug)]
pub struct IncomingValue {
    file: File,
    size: u64,
    open: Arc<()>,
}

/// The names of a container, read page by page.
#[derive(Debug)]
pub struct Names {
    container: OpenContainer,
    after: Option<String>,
}

impl State {
    /// The container of this name, if it is granted.
    fn granted(&self, name: &str) -> Result<OpenContainer, String> {
        if !self.manifest().access.blobstore.iter().any(|granted| granted.as_str() == name) {
            let line = format!("blobstore = [\"{name}\"]");
            self.refuse("wasi:blobstore/blobstore", &format!("the container `{name}`"), &line);
            return Err(format!("not allowed: add `{line}` under [access] in function.toml"));
        }
        Ok(OpenContainer { name: name.into(), files: self.host.blobs().container(self.function().as_str(), name) })
    }

    fn open_container(&mut self, name: &str) -> Answer<Resource<OpenContainer>> {
        match self.granted(name) {
            Ok(container) => Ok(Ok(self.table().push(container)?)),
            Err(reason) => Ok(Err(reason)),
        }
    }

    fn container(&mut self, container: &Resource<OpenContainer>) -> wasmtime::Result<OpenContainer> {
        Ok(self.table().get(container)?.clone())
    }

    /// A place among the objects that are open.
    fn admit_blob(&mut self) -> Result<Arc<()>, HostError> {
        if Arc::strong_count(&self.blobs_open) > BLOBS_OPEN_MAX {
            return Err(HostError::Full(format!("{BLOBS_OPEN_MAX} objects are open: drop some first")));
        }
        let open = Arc::clone(&self.blobs_open);
        self.weigh();
        Ok(open)
    }

    async fn begin_upload(&mut self) -> (Result<Upload, HostError>, Arc<()>) {
        let open = match self.admit_blob() {
            Ok(open) => open,
            Err(error) => return (Err(error), Arc::default()),
        };
        let quota = u64::from(self.manifest().quota.blobstore_mb) * MIB;
        let (blobs, owner) = (self.host.blobs().clone(), self.function().clone());
        let writer = blocking(move || BlobWriter::begin(&blobs, owner.as_str(), quota)).await;
        (writer.map(|writer| Upload::new(writer, self.call.traffic())), open)
    }

    fn changed(&self, container: &str, name: &str, size: Option<u64>) -> Result<(), String> {
        let change = BlobChange { container: container.to_owned(), name: name.to_owned(), size };
        let told = self.host.blob_changed(self.call.info(), &change);
        told.map_err(|error| format!("`{name}` is {}, but nobody was told: {error}", if size.is_some() { "stored" } else { "deleted" }))
    }

    async fn delete(&mut self, container: &OpenContainer, name: String) -> Result<(), String> {
        let (files, object) = (container.files.clone(), name.clone());
        match blocking(move || files.delete(&object)).await {
            Ok(Some(_)) => self.changed(&container.name, &name, None),
            Ok(None) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Deletes every object; each is an event.
    async fn clear_all(&mut self, container: &OpenContainer) -> Result<(), String> {
        loop {
            let files = container.files.clone();
            let names = blocking(move || files.list(None, BLOB_NAMES_PER_PAGE)).await.map_err(|error| error.to_string())?;
            if names.is_empty() {
                return Ok(());
            }
            for name in names {
                self.delete(container, name).await?;
            }
        }
    }

    async fn copy(&mut self, from: &types::ObjectId, to: &types::ObjectId) -> Result<(), String> {
        let (source, target) = (self.granted(&from.container)?, self.granted(&to.container)?);
        let quota = u64::from(self.manifest().quota.blobstore_mb) * MIB;
        let (blobs, owner) = (self.host.blobs().clone(), self.function().clone());
        let (files, old, new) = (target.files.clone(), from.object.clone(), to.object.clone());
        let copied = blocking(move || {
            let (mut file, _) = source.files.read(&old)?;
            let mut writer = BlobWriter::begin(&blobs, owner.as_str(), quota)?;
            let mut chunk = vec![0; crate::limits::BLOB_CHUNK_BYTES];
            loop {
                let count = file.read(&mut chunk).map_err(|cause| sedge_store::FileError::Io { path: old.clone().into(), cause })?;
                if count == 0 {
                    return writer.finish(&files, &new);
                }
                writer.write(&chunk[..count])?;
            }
        });
        let size = copied.await.map_err(|error| error.to_string())?;
        self.changed(&target.name, &to.object, Some(size))
    }
}

impl blobstore::Host for State {
    fn create_container(&mut self, name: String) -> Answer<Resource<OpenContainer>> {
        self.open_container(&name)
    }

    fn get_container(&mut self, name: String) -> Answer<Resource<OpenContainer>> {
        self.open_container(&name)
    }

    async fn delete_container(&mut self, name: String) -> Answer<()> {
        match self.granted(&name) {
            Ok(container) => Ok(self.clear_all(&container).await),
            Err(reason) => Ok(Err(reason)),
        }
    }

    fn container_exists(&mut self, name: String) -> Answer<bool> {
        Ok(Ok(self.manifest().access.blobstore.iter().any(|granted| granted.as_str() == name)))
    }

    async fn copy_object(&mut self, from: types::ObjectId, to: types::ObjectId) -> Answer<()> {
        Ok(self.copy(&from, &to).await)
    }

    async fn move_object(&mut self, from: types::ObjectId, to: types::ObjectId) -> Answer<()> {
        if from.container == to.container && from.object == to.object {
            return Ok(Ok(()));
        }
        if let Err(reason) = self.copy(&from, &to).await {
            return Ok(Err(reason));
        }
        match self.granted(&from.container) {
            Ok(container) => Ok(self.delete(&container, from.object).await),
            Err(reason) => Ok(Err(reason)),
        }
    }
}

impl container::Host for State {}

impl container::HostContainer for State {
    fn name(&mut self, container: Resource<OpenContainer>) -> Answer<String> {
        Ok(Ok(self.container(&container)?.name.as_ref().to_owned()))
    }

    async fn info(&mut self, container: Resource<OpenContainer>) -> Answer<types::ContainerMetadata> {
        let OpenContainer { name, files } = self.container(&container)?;
        let info = blocking(move || files.info()).await;
        let metadata = |info: Option<sedge_store::BlobInfo>| types::ContainerMetadata {
            name: name.as_ref().to_owned(),
            created_at: info.map_or(0, |info| info.created_s),
        };
        Ok(info.map(metadata).map_err(|error| error.to_string()))
    }

    /// Both ends are inclusive; an end beyond the object is its last byte.
    async fn get_data(
        &mut self,
        container: Resource<OpenContainer>,
        name: String,
        start: u64,
        end: u64,
    ) -> Answer<Resource<IncomingValue>> {
        let container = self.container(&container)?;
        let open = match self.admit_blob() {
            Ok(open) => open,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if end < start {
            return Ok(Err(format!("no bytes from {start} to {end}: the end is before the start")));
        }
        let (files, object) = (container.files, name.clone());
        let opened = blocking(move || {
            let (mut file, size) = files.read(&object)?;
            // Beyond the object nothing is read; beyond what is the end of any file the system would call it an error of the disk.
            file.seek(SeekFrom::Start(start.min(size))).map_err(|cause| sedge_store::FileError::Io { path: object.into(), cause })?;
            Ok((file, size))
        });
        match opened.await {
            Ok((_, size)) if start > size => Ok(Err(format!("`{name}` has {size} bytes, none from {start}"))),
            Ok((file, size)) => {
                let size = end.saturating_add(1).min(size).saturating_sub(start);
                Ok(Ok(self.table().push(IncomingValue { file, size, open })?))
            }
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    fn write_data(&mut self, container: Resource<OpenContainer>, name: String, data: Resource<OutgoingValue>) -> Answer<()> {
        let container = self.container(&container)?;
        let value = self.table().get_mut(&data)?;
        if value.target.is_some() {
            return Ok(Err("this value is written to another object already: make a new one".to_owned()));
        }
        value.target = Some((container, name));
        Ok(value.upload.as_ref().map(|_| ()).map_err(ToString::to_string))
    }

    fn list_objects(&mut self, container: Resource<OpenContainer>) -> Answer<Resource<Names>> {
        let container = self.container(&container)?;
        Ok(Ok(self.table().push(Names { container, after: None })?))
    }

    async fn delete_object(&mut self, container: Resource<OpenContainer>, name: String) -> Answer<()> {
        let container = self.container(&container)?;
        Ok(self.delete(&container, name).await)
    }

    async fn delete_objects(&mut self, container: Resource<OpenContainer>, names: Vec<String>) -> Answer<()> {
        let container = self.container(&container)?;
        for name in names {
            if let Err(reason) = self.delete(&container, name).await {
                return Ok(Err(reason));
            }
        }
        Ok(Ok(()))
    }

    async fn has_object(&mut self, container: Resource<OpenContainer>, name: String) -> Answer<bool> {
        let files = self.container(&container)?.files;
        let found = blocking(move || files.object(&name)).await;
        Ok(found.map(|found| found.is_some()).map_err(|error| error.to_string()))
    }

    async fn object_info(&mut self, container: Resource<OpenContainer>, name: String) -> Answer<types::ObjectMetadata> {
        let OpenContainer { name: container, files } = self.container(&container)?;
        let object = name.clone();
        let found = blocking(move || files.object(&object)?.ok_or(sedge_store::BlobError::Missing(object))).await;
        let metadata = |info: sedge_store::BlobInfo| types::ObjectMetadata {
            name,
            container: container.as_ref().to_owned(),
            created_at: info.created_s,
            size: info.size,
        };
        Ok(found.map(metadata).map_err(|error| error.to_string()))
    }

    async fn clear(&mut self, container: Resource<OpenContainer>) -> Answer<()> {
        let container = self.container(&container)?;
        Ok(self.clear_all(&container).await)
    }

    fn drop(&mut self, container: Resource<OpenContainer>) -> wasmtime::Result<()> {
        self.table().delete(container)?;
        Ok(())
    }
}

impl Names {
    /// The next names, and whether they were the last.
    async fn page(&mut self, count: u64) -> Result<(Vec<String>, bool), HostError> {
        let limit = usize::try_from(count).unwrap_or(usize::MAX).min(BLOB_NAMES_PER_PAGE);
        let (files, after) = (self.container.files.clone(), self.after.clone());
        let mut names = blocking(move || files.list(after.as_deref(), limit.saturating_add(1))).await?;
        let last = names.len() <= limit;
        names.truncate(limit);
        if let Some(name) = names.last() {
            self.after = Some(name.clone());
        }
        Ok((names, last))
    }
}

impl container::HostStreamObjectNames for State {
    async fn read_stream_object_names(&mut self, names: Resource<Names>, count: u64) -> Answer<(Vec<String>, bool)> {
        Ok(self.table().get_mut(&names)?.page(count).await.map_err(|error| error.to_string()))
    }

    async fn skip_stream_object_names(&mut self, names: Resource<Names>, count: u64) -> Answer<(u64, bool)> {
        let names = self.table().get_mut(&names)?;
        let mut skipped = 0;
        loop {
            match names.page(count - skipped).await {
                Ok((page, last)) => {
                    skipped += page.len() as u64;
                    if last || skipped == count {
                        return Ok(Ok((skipped, last)));
                    }
                }
                Err(error) => return Ok(Err(error.to_string())),
            }
        }
    }

    fn drop(&mut self, names: Resource<Names>) -> wasmtime::Result<()> {
        self.table().delete(names)?;
        Ok(())
    }
}

impl types::Host for State {}

impl types::HostOutgoingValue for State {
    /// What is wrong comes to light when the value is used: this call has no way to say so.
    async fn new_outgoing_value(&mut self) -> wasmtime::Result<Resource<OutgoingValue>> {
        let (upload, open) = self.begin_upload().await;
        Ok(self.table().push(OutgoingValue { upload, streaming: false, target: None, _open: open })?)
    }

    fn outgoing_value_write_body(&mut self, value: Resource<OutgoingValue>) -> wasmtime::Result<Result<Resource<DynOutputStream>, ()>> {
        let value = self.table().get_mut(&value)?;
        match &value.upload {
            Ok(upload) if !value.streaming => {
                let stream: DynOutputStream = Box::new(upload.clone());
                value.streaming = true;
                Ok(Ok(self.table().push(stream)?))
            }
            Ok(_) | Err(_) => Ok(Err(())),
        }
    }

    async fn finish(&mut self, value: Resource<OutgoingValue>) -> Answer<()> {
        let OutgoingValue { upload, target, .. } = self.table().delete(value)?;
        let Some((container, name)) = target else {
            return Ok(Err("nothing was written: call write-data of a container before finish".to_owned()));
        };
        let finished = match upload {
            Ok(upload) => upload.finish(container.files, name.clone()).await,
            Err(error) => Err(error),
        };
        match finished {
            Ok(size) => Ok(self.changed(&container.name, &name, Some(size))),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    fn drop(&mut self, value: Resource<OutgoingValue>) -> wasmtime::Result<()> {
        self.table().delete(value)?;
        Ok(())
    }
}

impl types::HostIncomingValue for State {
    async fn incoming_value_consume_sync(&mut self, value: Resource<IncomingValue>) -> Answer<Vec<u8>> {
        let IncomingValue { file, size, .. } = self.table().delete(value)?;
        if size > BLOB_WHOLE_BYTES_MAX {
            return Ok(Err(format!("{size} bytes are too many for one piece of {BLOB_WHOLE_BYTES_MAX}: stream them")));
        }
        let read = blocking(move || {
            let mut bytes = Vec::new();
            file.take(size).read_to_end(&mut bytes).map_err(|cause| sedge_store::FileError::Io { path: "object".into(), cause })?;
            Ok(bytes)
        });
        match read.await {
            Ok(bytes) => {
                self.call.traffic().count_in(bytes.len());
                Ok(Ok(bytes))
            }
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    fn incoming_value_consume_async(&mut self, value: Resource<IncomingValue>) -> Answer<Resource<DynInputStream>> {
        let IncomingValue { file, size, open } = self.table().delete(value)?;
        let stream: DynInputStream = Box::new(AsyncReadStream::new(Download::new(file, size, self.call.traffic(), open)));
        Ok(Ok(self.table().push(stream)?))
    }

    fn size(&mut self, value: Resource<IncomingValue>) -> wasmtime::Result<u64> {
        Ok(self.table().get(&value)?.size)
    }

    fn drop(&mut self, value: Resource<IncomingValue>) -> wasmtime::Result<()> {
        self.table().delete(value)?;
        Ok(())
    }
}
