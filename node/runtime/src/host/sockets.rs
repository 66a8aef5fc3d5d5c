//! `wasi:sockets`: connections and datagrams to what the manifest names. Nothing listens, nothing is bound to a port of its choice.
//!
//! A name in the manifest stands for the addresses that it has when the function looks it up or connects.

use super::{CallInfo, Host};
use crate::limits::SOCKETS_MAX;
use crate::state::{State, refusal};
use crate::usage::Call;
use sedge_protocol::manifest::Socket;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use wasmtime::component::Resource;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddress, IpAddressFamily, Network};
use wasmtime_wasi::p2::bindings::sockets::{ip_name_lookup, tcp, tcp_create_socket, udp, udp_create_socket};
use wasmtime_wasi::p2::{DynPollable, SocketError, SocketResult};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSocketsView as _};

/// What one instance may reach, and what it has made.
#[derive(Debug)]
pub(crate) struct Sockets {
    grant: Arc<Grant>,
    made: u32,
    /// Which name each running look-up is about.
    lookups: BTreeMap<u32, String>,
}

struct Grant {
    allowed: Vec<Socket>,
    /// Addresses that allowed names were found to have.
    // A leaf lock, held for a look-up in memory.
    learned: Mutex<BTreeSet<(String, IpAddr)>>,
    /// On whose behalf the instance works now.
    info: Mutex<CallInfo>,
    host: Arc<dyn Host>,
}

impl Sockets {
    /// Opens what the manifest grants.
    pub(crate) fn grant(wasi: &mut WasiCtxBuilder, call: &Call, host: &Arc<dyn Host>) -> Self {
        let info = call.info().clone();
        let allowed = info.revision.manifest.access.sockets.clone();
        let grant = Arc::new(Grant { allowed, learned: Mutex::default(), info: Mutex::new(info), host: Arc::clone(host) });
        if !grant.allowed.is_empty() {
            let check = Arc::clone(&grant);
            wasi.allow_tcp(true).allow_udp(true).allow_ip_name_lookup(true).socket_addr_check(move |address, usage| {
                let grant = Arc::clone(&check);
                Box::pin(async move { grant.allows(address, usage).await })
            });
        }
        Self { grant, made: 0, lookups: BTreeMap::new() }
    }

    /// From now on everything is on behalf of `call`, which may make sockets of its own.
    pub(crate) fn enter(&mut self, call: &Call) {
        *self.grant.info.lock().unwrap_or_else(PoisonError::into_inner) = call.info().clone();
        self.made = 0;
    }
}

impl Grant {
    async fn allows(&self, address: SocketAddr, usage: SocketAddrUse) -> bool {
        let protocol = match usage {
            SocketAddrUse::TcpListen | SocketAddrUse::TcpAccept => return false,
            // Every connection begins with an address of the system's choice.
            SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => return address.ip().is_unspecified() && address.port() == 0,
            SocketAddrUse::TcpConnect => "tcp",
            SocketAddrUse::UdpSend | SocketAddrUse::UdpReceive => "udp",
        };
        let granted = self.names(protocol, address).await;
        if !granted && !matches!(usage, SocketAddrUse::UdpReceive) {
            let target = format!("{protocol}://{address}");
            let line = format!("sockets = [\"{target}\"]");
            let info = self.info.lock().unwrap_or_else(PoisonError::into_inner).clone();
            self.host.log(&info, refusal(&format!("wasi:sockets/{protocol}"), &format!("the way to {target}"), &line));
        }
        granted
    }

    /// Whether the manifest names this address, itself or by a name that it has.
    async fn names(&self, protocol: &str, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let mut named = Vec::new();
        for socket in &self.allowed {
            let (own, host, port) = socket.parts();
            if own != protocol || port != address.port() {
                continue;
            }
            match host.parse::<IpAddr>() {
                Ok(allowed) if allowed.to_canonical() == ip => return true,
                Ok(_) => {}
                Err(_) if self.has_learned(host, ip) => return true,
                Err(_) => named.push(host.to_owned()),
            }
        }
        for host in named {
            // On a task of its own: what asks here must not be moved between threads while it waits.
            let found = tokio::spawn(async move { tokio::net::lookup_host((host.as_str(), 0)).await.map(Iterator::collect::<Vec<_>>) });
            if matches!(found.await, Ok(Ok(found)) if found.iter().any(|found| found.ip().to_canonical() == ip)) {
                return true;
            }
        }
        false
    }

    fn has_learned(&self, host: &str, ip: IpAddr) -> bool {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).contains(&(host.to_owned(), ip))
    }

    fn learn(&self, host: &str, ip: IpAddr) {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).insert((host.to_owned(), ip.to_canonical()));
    }

    fn may_look_up(&self, name: &str) -> bool {
        self.allowed.iter().any(|socket| socket.parts().1 == name)
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

/// Why there is no socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSocket {
    /// The manifest grants none of its kind.
    Denied,
    /// The invocation has as many as it may have.
    TooMany,
}

impl From<NoSocket> for SocketError {
    fn from(reason: NoSocket) -> Self {
        match reason {
            NoSocket::Denied => ErrorCode::AccessDenied.into(),
            NoSocket::TooMany => ErrorCode::NewSocketLimit.into(),
        }
    }
}

impl State {
    /// One more socket, if any is granted and there are not too many.
    pub(super) fn admit_socket(&mut self, protocol: &str) -> Result<(), NoSocket> {
        if !self.sockets.grant.allowed.iter().any(|socket| socket.parts().0 == protocol) {
            let line = format!("sockets = [\"{protocol}://host:port\"]");
            self.refuse(&format!("wasi:sockets/{protocol}"), &format!("a {protocol} socket"), &line);
            return Err(NoSocket::Denied);
        }
        if self.sockets.made >= SOCKETS_MAX {
            return Err(NoSocket::TooMany);
        }
        self.sockets.made += 1;
        Ok(())
    }

    /// The name as the manifest writes it, if it may be looked up; an address is no question to anybody.
    pub(super) fn admit_lookup(&self, name: &str) -> Option<String> {
        let plain = name.trim_end_matches('.').to_ascii_lowercase();
        let is_address = plain.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        if !is_address && !self.sockets.grant.may_look_up(&plain) {
            let line = format!("sockets = [\"tcp://{plain}:port\"]");
            self.refuse("wasi:sockets/ip-name-lookup", &format!("the name `{plain}`"), &line);
            return None;
        }
        Some(plain)
    }

    /// The name was found to have this address.
    pub(super) fn learn_address(&self, name: &str, address: IpAddr) {
        self.sockets.grant.learn(name, address);
    }
}

impl tcp_create_socket::Host for State {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<tcp::TcpSocket>> {
        self.admit_socket("tcp")?;
        self.sockets().create_tcp_socket(family)
    }
}

impl udp_create_socket::Host for State {
    async fn create_udp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<udp::UdpSocket>> {
        self.admit_socket("udp")?;
        self.sockets().create_udp_socket(family).await
    }
}

impl network::Host for State {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        network::Host::convert_error_code(&mut self.sockets(), error)
    }

    fn network_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        network::Host::network_error_code(&mut self.sockets(), error)
    }
}

impl network::HostNetwork for State {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.sockets(), network)
    }
}

impl ip_name_lookup::Host for State {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ip_name_lookup::ResolveAddressStream>> {
        let plain = self.admit_lookup(&name).ok_or(ErrorCode::AccessDenied)?;
        let stream = self.sockets().resolve_addresses(network, name)?;
        self.sockets.lookups.insert(stream.rep(), plain);
        Ok(stream)
    }
}

impl ip_name_lookup::HostResolveAddressStream for State {
    fn resolve_next_address(&mut self, stream: Resource<ip_name_lookup::ResolveAddressStream>) -> SocketResult<Option<IpAddress>> {
        let name = self.sockets.lookups.get(&stream.rep()).cloned();
        let found = ip_name_lookup::HostResolveAddressStream::resolve_next_address(&mut self.sockets(), stream)?;
        if let (Some(name), Some(found)) = (name, found) {
            self.sockets.grant.learn(&name, plain_address(found));
        }
        Ok(found)
    }

    fn subscribe(&mut self, stream: Resource<ip_name_lookup::ResolveAddressStream>) -> wasmtime::Result<Resource<DynPollable>> {
        ip_name_lookup::HostResolveAddressStream::subscribe(&mut self.sockets(), stream)
    }

    fn drop(&mut self, stream: Resource<ip_name_lookup::ResolveAddressStream>) -> wasmtime::Result<()> {
        self.sockets.lookups.remove(&stream.rep());
        ip_name_lookup::HostResolveAddressStream::drop(&mut self.sockets(), stream)
    }
}

fn plain_address(address: IpAddress) -> IpAddr {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => IpAddr::from([a, b, c, d]),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => IpAddr::from([a, b, c, d, e, f, g, h]),
    }
}
