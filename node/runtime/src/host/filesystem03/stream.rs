//! Streams of files in the scratch directory, in the way of WASI 0.3: how one ended is said beside it.

use super::{PIECE_BYTES_MAX, code, kind};
use crate::scratch::{Handle, ScratchError};
use bytes::Bytes;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;
use wasmtime::StoreContextMut;
use wasmtime::component::{Destination, Source, StreamConsumer, StreamProducer, StreamResult};
use wasmtime_wasi::p3::bindings::filesystem::types::{DirectoryEntry, ErrorCode};

type Ended = oneshot::Sender<Result<(), ErrorCode>>;

/// Says once how it ended; one that is given up before has ended well.
struct End(Option<Ended>);

impl End {
    fn say(&mut self, result: Result<(), ScratchError>) -> Poll<wasmtime::Result<StreamResult>> {
        if let Some(ended) = self.0.take() {
            // A guest that does not want to know has dropped the other end.
            drop(ended.send(result.map_err(code)));
        }
        Poll::Ready(Ok(StreamResult::Dropped))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        drop(self.say(Ok(())));
    }
}

/// A file on its way out.
pub(super) struct Reading {
    file: Handle,
    offset: u64,
    end: End,
}

impl Reading {
    pub(super) const fn new(file: Handle, offset: u64, ended: Ended) -> Self {
        Self { file, offset, end: End(Some(ended)) }
    }
}

impl<D> StreamProducer<D> for Reading {
    type Item = u8;
    type Buffer = Bytes;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        mut out: Destination<'a, u8, Bytes>,
        _finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let wanted = out.remaining(&mut store).unwrap_or(PIECE_BYTES_MAX);
        match self.file.read(self.offset, wanted.min(PIECE_BYTES_MAX)) {
            Ok(bytes) if bytes.is_empty() && wanted > 0 => self.end.say(Ok(())),
            Ok(bytes) => {
                self.offset += bytes.len() as u64;
                out.set_buffer(bytes.into());
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Err(error) => self.end.say(Err(error)),
        }
    }
}

/// The names in a directory, in their order.
pub(super) struct Listing {
    directory: Handle,
    last: Option<Box<str>>,
    end: End,
}

impl Listing {
    pub(super) const fn new(directory: Handle, ended: Ended) -> Self {
        Self { directory, last: None, end: End(Some(ended)) }
    }
}

impl<D> StreamProducer<D> for Listing {
    type Item = DirectoryEntry;
    type Buffer = Option<DirectoryEntry>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        mut out: Destination<'a, DirectoryEntry, Option<DirectoryEntry>>,
        _finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        if out.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        match self.directory.name_after(self.last.as_deref()) {
            Ok(Some((name, directory))) => {
                out.set_buffer(Some(DirectoryEntry { type_: kind(directory), name: name.clone().into() }));
                self.last = Some(name);
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Ok(None) => self.end.say(Ok(())),
            Err(error) => self.end.say(Err(error)),
        }
    }
}

/// A file on its way in, from an offset or at its end.
pub(super) struct Writing {
    file: Handle,
    offset: Option<u64>,
    end: End,
}

impl Writing {
    pub(super) const fn new(file: Handle, offset: Option<u64>, ended: Ended) -> Self {
        Self { file, offset, end: End(Some(ended)) }
    }
}

impl<D> StreamConsumer<D> for Writing {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        store: StoreContextMut<'_, D>,
        from: Source<'_, u8>,
        _finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let mut from = from.as_direct(store);
        let bytes = from.remaining();
        let bytes = &bytes[..bytes.len().min(PIECE_BYTES_MAX)];
        let written = match self.offset {
            Some(offset) => self.file.write(offset, bytes),
            None => self.file.append(bytes),
        };
        match written {
            Ok(count) => {
                from.mark_read(count);
                self.offset = self.offset.map(|offset| offset + count as u64);
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Err(error) => self.end.say(Err(error)),
        }
    }
}
