//! The streams of objects. Their disk work runs where blocking is allowed, one piece at a time.

use super::HostError;
use crate::limits::BLOB_CHUNK_BYTES;
use crate::usage::Traffic;
use bytes::Bytes;
use sedge_store::{BlobError, BlobWriter, Container};
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::JoinHandle;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// What a store of files says, in the words that functions get.
pub(crate) fn blob_error(error: &BlobError) -> HostError {
    match error {
        BlobError::Quota { .. } => HostError::Full(error.to_string()),
        BlobError::File(sedge_store::FileError::NoRoom { .. }) => HostError::Full("the disk of the node".to_owned()),
        // Where the node keeps its files is not the function's business.
        BlobError::File(sedge_store::FileError::Io { cause, .. }) => HostError::Failed(format!("the node's disk: {cause}")),
        BlobError::File(_) | BlobError::Name | BlobError::Missing(_) => HostError::Failed(error.to_string()),
    }
}

/// Runs disk work and waits for it.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, BlobError> + Send + 'static) -> Result<T, HostError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| blob_error(&error)),
        Err(panic) => Err(HostError::Failed(panic.to_string())),
    }
}

/// An object on its way in. The value and its stream hold it together.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    // A leaf lock; what waits for the disk waits outside of it.
    work: Arc<Mutex<Work>>,
    traffic: Arc<Traffic>,
}

type Written = (BlobWriter, Result<(), BlobError>);

#[derive(Debug)]
enum Work {
    Idle(BlobWriter),
    Writing(JoinHandle<Written>),
    Failed(HostError),
    /// Finished: what still comes is refused.
    Taken,
}

impl Upload {
    pub(crate) fn new(writer: BlobWriter, traffic: &Arc<Traffic>) -> Self {
        Self { work: Arc::new(Mutex::new(Work::Idle(writer))), traffic: Arc::clone(traffic) }
    }

    /// Waits for what is being written and gives the object its name.
    ///
    /// # Errors
    /// The first thing that went wrong since it was begun.
    pub(crate) async fn finish(&self, container: Container, name: String) -> Result<u64, HostError> {
        poll_fn(|cx| self.poll_idle(cx)).await;
        let work = std::mem::replace(&mut *self.lock(), Work::Taken);
        match work {
            Work::Idle(writer) => blocking(move || writer.finish(&container, &name)).await,
            Work::Failed(error) => Err(error),
            Work::Writing(_) | Work::Taken => Err(HostError::Failed("the object is finished already".to_owned())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut work = self.lock();
        if let Work::Writing(running) = &mut *work {
            *work = match ready!(Pin::new(running).poll(cx)) {
                Ok((writer, Ok(()))) => Work::Idle(writer),
                Ok((_, Err(error))) => Work::Failed(blob_error(&error)),
                Err(panic) => Work::Failed(HostError::Failed(panic.to_string())),
            };
        }
        Poll::Ready(())
    }
}

#[async_trait]
impl Pollable for Upload {
    async fn ready(&mut self) {
        poll_fn(|cx| self.poll_idle(cx)).await;
    }
}

#[async_trait]
impl OutputStream for Upload {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut work = self.lock();
        match std::mem::replace(&mut *work, Work::Taken) {
            Work::Idle(mut writer) => {
                self.traffic.count_out(bytes.len());
                *work = Work::Writing(tokio::task::spawn_blocking(move || {
                    let result = writer.write(&bytes);
                    (writer, result)
                }));
                Ok(())
            }
            Work::Failed(error) => {
                *work = Work::Failed(error.clone());
                Err(StreamError::LastOperationFailed(wasmtime::Error::new(error)))
            }
            Work::Writing(running) => {
                *work = Work::Writing(running);
                Err(StreamError::Trap(wasmtime::Error::msg("a write that was not permitted by check-write")))
            }
            Work::Taken => Err(StreamError::Closed),
        }
    }

    /// What was written is on its way; the object is durable when it is finished.
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        match &*self.lock() {
            Work::Idle(_) => Ok(BLOB_CHUNK_BYTES),
            Work::Writing(_) => Ok(0),
            Work::Failed(error) => Err(StreamError::LastOperationFailed(wasmtime::Error::new(error.clone()))),
            Work::Taken => Err(StreamError::Closed),
        }
    }
}

/// An object on its way out: a part of a file, counted. Holds its place among the objects that are open.
#[derive(Debug)]
pub(crate) struct Download {
    file: tokio::fs::File,
    left: u64,
    traffic: Arc<Traffic>,
    _open: Arc<()>,
}

impl Download {
    /// `file` stands where reading begins.
    pub(crate) fn new(file: File, left: u64, traffic: &Arc<Traffic>, open: Arc<()>) -> Self {
        Self { file: tokio::fs::File::from_std(file), left, traffic: Arc::clone(traffic), _open: open }
    }
}

impl AsyncRead for Download {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.left == 0 {
            return Poll::Ready(Ok(()));
        }
        let most = usize::try_from(this.left).unwrap_or(usize::MAX).min(out.remaining());
        let mut part = ReadBuf::new(out.initialize_unfilled_to(most));
        ready!(Pin::new(&mut this.file).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        out.advance(count);
        this.left -= count as u64;
        this.traffic.count_in(count);
        Poll::Ready(Ok(()))
    }
}
