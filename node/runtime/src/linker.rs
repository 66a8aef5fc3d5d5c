//! What guests may import. The list is `sedge_protocol::artifact::GRANTED`; a test holds the two together.

use crate::host::bindings::{config, keyvalue, logging, messaging};
use crate::state::State;
use wasmtime::component::HasSelf;
use wasmtime::{Engine, Result};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::{cli, filesystem, random};
use wasmtime_wasi::random::{WasiRandom, WasiRandomView as _};

/// The imports of components.
pub(crate) fn component(engine: &Engine) -> Result<wasmtime::component::Linker<State>> {
    let mut linker = wasmtime::component::Linker::new(engine);
    let l = &mut linker;
    wasmtime_wasi::p2::add_to_linker_proxy_interfaces_async(l)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(l)?;
    cli::environment::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::exit::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    random::insecure::add_to_linker::<State, WasiRandom>(l, State::random)?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(l, State::random)?;
    // Standard libraries import the file system; nothing is pre-opened, so there is nothing to reach.
    filesystem::types::add_to_linker::<State, WasiFilesystem>(l, State::filesystem)?;
    filesystem::preopens::add_to_linker::<State, WasiFilesystem>(l, State::filesystem)?;
    keyvalue::store::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    keyvalue::atomics::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    keyvalue::batch::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    config::store::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    messaging::types::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    messaging::producer::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    logging::logging::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    Ok(linker)
}

/// The imports of core modules: preview 1.
pub(crate) fn module(engine: &Engine) -> Result<wasmtime::Linker<State>> {
    let mut linker = wasmtime::Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, State::preview1)?;
    Ok(linker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::artifact::GRANTED;
    use wasmtime::component::Component;

    /// A version of the interface that a guest may well ask for.
    fn version(prefix: &str) -> String {
        if prefix.ends_with('.') { format!("{prefix}0") } else { prefix.to_owned() }
    }

    #[test]
    fn everything_that_is_granted_is_linked() {
        let engine = Engine::default();
        let linker = component(&engine).unwrap();
        for (name, prefix) in GRANTED {
            let text = format!(r#"(component (import "{name}@{}" (instance)))"#, version(prefix));
            let guest = Component::new(&engine, text).unwrap();
            assert!(linker.instantiate_pre(&guest).is_ok(), "{name} is granted but not linked");
        }
    }

    #[test]
    fn what_is_not_granted_is_not_linked() {
        let engine = Engine::default();
        let linker = component(&engine).unwrap();
        for name in ["wasi:sockets/tcp@0.2.0", "wasi:sockets/udp@0.2.0", "wasi:blobstore/container@0.2.0-draft"] {
            let text = format!(r#"(component (import "{name}" (instance)))"#);
            let guest = Component::new(&engine, text).unwrap();
            assert!(linker.instantiate_pre(&guest).is_err(), "{name} is linked but not granted");
        }
    }
}
