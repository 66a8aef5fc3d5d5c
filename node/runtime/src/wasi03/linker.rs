//! What components of WASI 0.3 may import: all that those of 0.2 may, and the interfaces of 0.3.

use crate::host::{filesystem03, sockets03};
use crate::state::State;
use wasmtime::component::Linker;
use wasmtime::{Engine, Result};
use wasmtime_wasi::p3;

/// The imports of components of 0.3.
pub(crate) fn concurrent(engine: &Engine) -> Result<Linker<State>> {
    let mut linker = crate::linker::component(engine)?;
    p3::cli::add_to_linker(&mut linker)?;
    p3::clocks::add_to_linker(&mut linker)?;
    p3::random::add_to_linker(&mut linker)?;
    filesystem03::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    sockets03::add_to_linker(&mut linker)?;
    Ok(linker)
}
