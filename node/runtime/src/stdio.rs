//! Standard output and error of a guest: lines for the log, or a reply that is kept.
//!
//! ```text
//!  guest write ─▶ Pipe ─┬─ Log:  cut into lines ─▶ Host::log      (the rest of a line when the guest ends)
//!                       └─ Kept: bytes up to a bound ─▶ reply
//! ```

use crate::failure::Failure;
use crate::host::{Host, LogLine, LogStream};
use crate::limits::LOG_LINE_BYTES_MAX;
use crate::usage::Call;
use bytes::{Bytes, BytesMut};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

/// How much a guest may write at a time.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// The writing end of a guest's output. Clones write to the same place.
#[derive(Clone)]
pub(crate) struct Pipe(Arc<Mutex<Sink>>);

enum Sink {
    Log(Lines),
    Kept { bytes: BytesMut, bytes_max: usize, passed: bool },
}

impl Pipe {
    /// Output that goes to the log.
    pub(crate) fn log(host: &Arc<dyn Host>, call: &Arc<Call>, stream: LogStream) -> Self {
        let lines = Lines { host: Arc::clone(host), call: Arc::clone(call), stream, rest: Vec::new() };
        Self(Arc::new(Mutex::new(Sink::Log(lines))))
    }

    /// Output that is kept, at most `bytes_max`.
    pub(crate) fn kept(bytes_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Sink::Kept { bytes: BytesMut::new(), bytes_max, passed: false })))
    }

    /// Lines from now on are of `call`; what is left of a line before was of the one before.
    pub(crate) fn enter(&self, call: &Arc<Call>) {
        if let Sink::Log(lines) = &mut *self.sink() {
            lines.flush();
            lines.call = Arc::clone(call);
        }
    }

    /// What was kept so far.
    ///
    /// # Errors
    /// When the guest wrote more than is kept, and went on although it was told so.
    pub(crate) fn take(&self) -> Result<Bytes, Failure> {
        match &mut *self.sink() {
            Sink::Log(_) => Ok(Bytes::new()),
            Sink::Kept { bytes_max, passed: true, .. } => Err(Failure::OutputTooLarge { limit_bytes: *bytes_max as u64 }),
            Sink::Kept { bytes, .. } => Ok(bytes.split().freeze()),
        }
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, new: &[u8]) -> Result<(), Failure> {
        match &mut *self.sink() {
            Sink::Log(lines) => lines.push(new),
            Sink::Kept { bytes, bytes_max, passed } if bytes.len() + new.len() > *bytes_max => {
                *passed = true;
                return Err(Failure::OutputTooLarge { limit_bytes: *bytes_max as u64 });
            }
            Sink::Kept { bytes, .. } => bytes.extend_from_slice(new),
        }
        Ok(())
    }
}

impl IsTerminal for Pipe {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Pipe {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl OutputStream for Pipe {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes).map_err(|failure| StreamError::Trap(wasmtime::Error::new(failure)))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[async_trait]
impl Pollable for Pipe {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.push(bytes).map(|()| bytes.len()).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Cuts output into lines of bounded length.
struct Lines {
    host: Arc<dyn Host>,
    call: Arc<Call>,
    stream: LogStream,
    rest: Vec<u8>,
}

impl Lines {
    fn push(&mut self, new: &[u8]) {
        let mut pieces = new.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            self.extend(piece);
            if pieces.peek().is_some() {
                self.emit();
            }
        }
    }

    fn extend(&mut self, mut piece: &[u8]) {
        while self.rest.len() + piece.len() > LOG_LINE_BYTES_MAX {
            let (now, later) = piece.split_at(LOG_LINE_BYTES_MAX - self.rest.len());
            self.rest.extend_from_slice(now);
            self.emit();
            piece = later;
        }
        self.rest.extend_from_slice(piece);
    }

    /// What has no line end yet.
    fn flush(&mut self) {
        if !self.rest.is_empty() {
            self.emit();
        }
    }

    fn emit(&mut self) {
        let line = self.rest.strip_suffix(b"\r").unwrap_or(&self.rest);
        let text = String::from_utf8_lossy(line).into_owned();
        self.rest.clear();
        if self.stream == LogStream::Stderr {
            self.call.hear(&text);
        }
        self.host.log(self.call.info(), LogLine { stream: self.stream, text });
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.flush();
    }
}
