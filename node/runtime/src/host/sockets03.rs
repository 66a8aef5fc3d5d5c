//! `wasi:sockets` of WASI 0.3, under the rules of [`sockets`](super::sockets): what makes a socket or looks up a name is ours.

use super::sockets::NoSocket;
use crate::state::State;
use std::net::IpAddr;
use wasmtime::component::{Accessor, HasData, Linker, Resource};
use wasmtime::{Result, StoreContextMut};
use wasmtime_wasi::p3::bindings::sockets::ip_name_lookup::{self, ErrorCode as LookupError};
use wasmtime_wasi::p3::bindings::sockets::types::{
    self, ErrorCode, Host as _, HostTcpSocket, HostUdpSocket, IpAddress, IpAddressFamily, TcpSocket, UdpSocket,
};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView as _};

const TYPES: &str = "wasi:sockets/types@0.3.0";

/// What WASI answers: a value or its own error code; the outer error is a trap.
type Answer<T, E> = Result<(std::result::Result<T, E>,)>;

/// The interfaces as wasmtime has them, but for what has to be asked first.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> Result<()> {
    types::add_to_linker::<State, WasiSockets>(linker, State::sockets)?;
    ip_name_lookup::add_to_linker::<State, Lookups>(linker, |state| state)?;
    linker.allow_shadowing(true);
    let mut instance = linker.instance(TYPES)?;
    instance.func_wrap("[static]tcp-socket.create", create_tcp)?;
    instance.func_wrap_async("[static]udp-socket.create", |mut store: StoreContextMut<'_, State>, (family,)| {
        Box::new(async move { create_udp(store.data_mut(), family).await })
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

impl From<NoSocket> for ErrorCode {
    fn from(reason: NoSocket) -> Self {
        match reason {
            NoSocket::Denied => Self::AccessDenied,
            NoSocket::TooMany => Self::Other(Some("as many sockets as an invocation may have".to_owned())),
        }
    }
}

fn create_tcp(mut store: StoreContextMut<'_, State>, (family,): (IpAddressFamily,)) -> Answer<Resource<TcpSocket>, ErrorCode> {
    let state = store.data_mut();
    if let Err(reason) = state.admit_socket("tcp") {
        return Ok((Err(reason.into()),));
    }
    let mut sockets = state.sockets();
    match HostTcpSocket::create(&mut sockets, family) {
        Ok(socket) => Ok((Ok(socket),)),
        Err(error) => Ok((Err(sockets.convert_error_code(error)?),)),
    }
}

async fn create_udp(state: &mut State, family: IpAddressFamily) -> Answer<Resource<UdpSocket>, ErrorCode> {
    if let Err(reason) = state.admit_socket("udp") {
        return Ok((Err(reason.into()),));
    }
    let mut sockets = state.sockets();
    match HostUdpSocket::create(&mut sockets, family).await {
        Ok(socket) => Ok((Ok(socket),)),
        Err(error) => Ok((Err(sockets.convert_error_code(error)?),)),
    }
}

/// Looks up the names that the manifest has.
struct Lookups;

impl HasData for Lookups {
    type Data<'a> = &'a mut State;
}

impl ip_name_lookup::Host for State {}

impl ip_name_lookup::HostWithStore<State> for Lookups {
    async fn resolve_addresses(accessor: &Accessor<State, Self>, name: String) -> Result<std::result::Result<Vec<IpAddress>, LookupError>> {
        let Some(plain) = accessor.with(|mut access| access.get().admit_lookup(&name)) else { return Ok(Err(LookupError::AccessDenied)) };
        let found = WasiSockets::resolve_addresses(&accessor.with_getter::<WasiSockets>(State::sockets), name).await?;
        if let Ok(addresses) = &found {
            accessor.with(|mut access| addresses.iter().for_each(|address| access.get().learn_address(&plain, plain_address(address))));
        }
        Ok(found)
    }
}

fn plain_address(address: &IpAddress) -> IpAddr {
    match *address {
        IpAddress::Ipv4((a, b, c, d)) => IpAddr::from([a, b, c, d]),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => IpAddr::from([a, b, c, d, e, f, g, h]),
    }
}
