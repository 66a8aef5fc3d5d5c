//! Streams of files in the scratch directory. They never wait: what they do is done in memory.

use super::PIECE_BYTES_MAX;
use crate::scratch::{Handle, ScratchError};
use bytes::Bytes;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

/// A file on its way out.
pub(super) struct Reading {
    file: Handle,
    offset: u64,
}

impl Reading {
    pub(super) const fn new(file: Handle, offset: u64) -> Self {
        Self { file, offset }
    }
}

#[async_trait]
impl Pollable for Reading {
    async fn ready(&mut self) {}
}

#[async_trait]
impl InputStream for Reading {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let length = size.min(PIECE_BYTES_MAX);
        let bytes = self.file.read(self.offset, length).map_err(failed)?;
        if bytes.is_empty() && length > 0 {
            return Err(StreamError::Closed);
        }
        self.offset += bytes.len() as u64;
        Ok(bytes.into())
    }
}

/// A file on its way in, from an offset or at its end, wherever that is by then.
pub(super) struct Writing {
    file: Handle,
    offset: Option<u64>,
    /// Something did not go in, so nothing more does.
    closed: bool,
}

impl Writing {
    pub(super) const fn new(file: Handle, offset: Option<u64>) -> Self {
        Self { file, offset, closed: false }
    }

    fn fail(&mut self, error: ScratchError) -> StreamError {
        self.closed = true;
        failed(error)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ScratchError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = match &mut self.offset {
                Some(offset) => {
                    let count = self.file.write(*offset, rest)?;
                    *offset += count as u64;
                    count
                }
                None => self.file.append(rest)?,
            };
            rest = &rest[count..];
        }
        Ok(())
    }
}

#[async_trait]
impl Pollable for Writing {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Writing {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if self.closed {
            return Err(StreamError::Closed);
        }
        if bytes.len() > PIECE_BYTES_MAX {
            return Err(StreamError::trap("a write that was not permitted by check-write"));
        }
        self.put(&bytes).map_err(|error| self.fail(error))
    }

    /// What was written is there already.
    fn flush(&mut self) -> StreamResult<()> {
        if self.closed { Err(StreamError::Closed) } else { Ok(()) }
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        if self.closed {
            return Err(StreamError::Closed);
        }
        match self.file.room(self.offset) {
            // A flush asks this too, and a file that fills the directory exactly has not failed: the next write says so.
            Ok(0) => Ok(PIECE_BYTES_MAX),
            Ok(room) => Ok(usize::try_from(room).unwrap_or(usize::MAX).min(PIECE_BYTES_MAX)),
            Err(error) => Err(self.fail(error)),
        }
    }
}

fn failed(error: ScratchError) -> StreamError {
    StreamError::LastOperationFailed(wasmtime::Error::new(error))
}
