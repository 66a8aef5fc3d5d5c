//! What guests may import. The list is `sedge_protocol::artifact::GRANTED`; a test holds the two together.

use crate::host::bindings::{blobstore, config, keyvalue, logging, messaging};
use crate::state::State;
use wasmtime::component::HasSelf;
use wasmtime::{Engine, Result};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::p2::bindings::{cli, filesystem, random, sockets};
use wasmtime_wasi::random::{WasiRandom, WasiRandomView as _};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView as _};

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
    // Standard libraries import the file system; without files or a scratch directory there is nothing to reach.
    filesystem::types::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    filesystem::preopens::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    keyvalue::store::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    keyvalue::atomics::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    keyvalue::batch::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    blobstore::types::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    blobstore::container::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    blobstore::blobstore::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    config::store::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    messaging::types::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    messaging::producer::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    logging::logging::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    add_sockets(l)?;
    Ok(linker)
}

/// Sockets are linked for all, because toolkits import them, and granted by the manifest when they are used. What makes a socket or
/// looks up a name is ours.
fn add_sockets(l: &mut wasmtime::component::Linker<State>) -> Result<()> {
    sockets::network::add_to_linker::<State, HasSelf<State>>(l, &sockets::network::LinkOptions::default(), |state| state)?;
    sockets::instance_network::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    sockets::ip_name_lookup::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    sockets::tcp_create_socket::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    sockets::udp_create_socket::add_to_linker::<State, HasSelf<State>>(l, |state| state)?;
    sockets::tcp::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    sockets::udp::add_to_linker::<State, WasiSockets>(l, State::sockets)
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

    /// Something that the interface has in this version: a resource, or a function (whose type does not matter here).
    fn item(interface: &str, version: &str) -> &'static str {
        match interface {
            "wasi:cli/stdin" if version.starts_with("0.3.") => r#""read-via-stream" (func)"#,
            "wasi:cli/stdout" | "wasi:cli/stderr" if version.starts_with("0.3.") => r#""write-via-stream" (func)"#,
            "wasi:cli/environment" => r#""get-arguments" (func)"#,
            "wasi:cli/exit" => r#""exit" (func)"#,
            "wasi:cli/stdin" => r#""get-stdin" (func)"#,
            "wasi:cli/stdout" => r#""get-stdout" (func)"#,
            "wasi:cli/stderr" => r#""get-stderr" (func)"#,
            "wasi:cli/terminal-input" => r#""terminal-input" (type (sub resource))"#,
            "wasi:cli/terminal-output" => r#""terminal-output" (type (sub resource))"#,
            "wasi:cli/terminal-stdin" => r#""get-terminal-stdin" (func)"#,
            "wasi:cli/terminal-stdout" => r#""get-terminal-stdout" (func)"#,
            "wasi:cli/terminal-stderr" => r#""get-terminal-stderr" (func)"#,
            "wasi:clocks/monotonic-clock" | "wasi:clocks/wall-clock" => r#""now" (func)"#,
            "wasi:random/random" => r#""get-random-u64" (func)"#,
            "wasi:random/insecure" => r#""get-insecure-random-u64" (func)"#,
            "wasi:random/insecure-seed" if version.starts_with("0.3.") => r#""get-insecure-seed" (func)"#,
            "wasi:random/insecure-seed" => r#""insecure-seed" (func)"#,
            "wasi:io/error" => r#""error" (type (sub resource))"#,
            "wasi:io/poll" => r#""pollable" (type (sub resource))"#,
            "wasi:io/streams" => r#""input-stream" (type (sub resource))"#,
            "wasi:http/types" => r#""fields" (type (sub resource))"#,
            "wasi:http/outgoing-handler" => r#""handle" (func)"#,
            "wasi:filesystem/types" => r#""descriptor" (type (sub resource))"#,
            "wasi:filesystem/preopens" => r#""get-directories" (func)"#,
            "wasi:sockets/network" => r#""network" (type (sub resource))"#,
            "wasi:sockets/instance-network" => r#""instance-network" (func)"#,
            "wasi:sockets/tcp-create-socket" => r#""create-tcp-socket" (func)"#,
            "wasi:sockets/udp-create-socket" => r#""create-udp-socket" (func)"#,
            "wasi:blobstore/types" => r#""outgoing-value" (type (sub resource))"#,
            "wasi:blobstore/container" => r#""container" (type (sub resource))"#,
            "wasi:blobstore/blobstore" => r#""get-container" (func)"#,
            "wasi:sockets/tcp" => r#""tcp-socket" (type (sub resource))"#,
            "wasi:sockets/udp" => r#""udp-socket" (type (sub resource))"#,
            "wasi:sockets/ip-name-lookup" => r#""resolve-addresses" (func)"#,
            "wasi:keyvalue/store" => r#""bucket" (type (sub resource))"#,
            "wasi:keyvalue/atomics" => r#""cas" (type (sub resource))"#,
            "wasi:keyvalue/batch" => r#""get-many" (func)"#,
            "wasi:config/store" => r#""get" (func)"#,
            "wasi:messaging/types" => r#""message" (type (sub resource))"#,
            "wasi:messaging/producer" => r#""send" (func)"#,
            "wasi:logging/logging" => r#""log" (func)"#,
            // Types only, which nobody has to bring.
            "wasi:cli/types" | "wasi:clocks/types" => "",
            "wasi:clocks/system-clock" => r#""now" (func)"#,
            "wasi:http/client" => r#""send" (func)"#,
            "wasi:sockets/types" => r#""tcp-socket" (type (sub resource))"#,
            other => panic!("say here what {other} has"),
        }
    }

    /// Whether the linker knows the interface in some version that begins with `version`.
    fn is_linked(interface: &str, version: &str) -> bool {
        let engine = Engine::default();
        let linker = if version.starts_with("0.3.") { crate::wasi03::linker_of_03(&engine) } else { component(&engine) }.unwrap();
        let version = if version.ends_with('.') { format!("{version}0") } else { version.to_owned() };
        let item =
            Some(item(interface, &version)).filter(|item| !item.is_empty()).map(|item| format!("(export {item})")).unwrap_or_default();
        let text = format!(r#"(component (import "{interface}@{version}" (instance {item})))"#);
        let guest = Component::new(&engine, text).unwrap();
        match linker.instantiate_pre(&guest) {
            Ok(_) => true,
            // A function that is there has another type than the one without parameters that we asked for.
            Err(error) => !format!("{error:?}").contains("implementation is missing"),
        }
    }

    #[test]
    fn everything_that_is_granted_is_linked() {
        for (interface, version) in GRANTED {
            assert!(is_linked(interface, version), "{interface} is granted but not linked");
        }
    }

    #[test]
    fn what_is_not_granted_is_not_linked() {
        assert!(!is_linked("wasi:keyvalue/store", "0.2.0-draft"), "only one draft is served");
    }
}
