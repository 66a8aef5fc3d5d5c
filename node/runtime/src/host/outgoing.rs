//! `wasi:http/outgoing-handler` and the limits of `wasi:http/types`: nothing may be sent yet, and every request says so.

use crate::limits::{BODY_CHUNK_BYTES_MAX, BODY_CHUNKS_WAITING};
use wasmtime_wasi_http::{Error, RequestOptions, Result, WasiBody, WasiHttpHooks};

type Io = Box<dyn Future<Output = Result<()>> + Send>;

/// Refuses every outgoing request with `HTTP-request-denied`.
#[derive(Debug)]
pub(crate) struct Outgoing;

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        _request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _sent: Io,
    ) -> Box<dyn Future<Output = Result<(http::Response<WasiBody>, Io)>> + Send> {
        Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        BODY_CHUNKS_WAITING
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES_MAX
    }
}
