//! The network between nodes and their fleet: a UDP relay that counts, and can be cut.
//!
//! ```text
//! node ─▶ Link::address ─▶ fleet          one socket towards the fleet for each node, so that answers find their way back
//! node ◀─────────────────── fleet
//! ```
//! Its address stays the same when the fleet behind it starts again on another port.

use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How often a relay looks whether it has to end.
const LOOK: Duration = Duration::from_millis(100);
/// Longest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// A relay, ended when dropped.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    fleet: Mutex<Option<SocketAddr>>,
    /// Bytes that went to nodes.
    down: AtomicU64,
    /// Nothing goes to nodes once `down` has reached this.
    cut_at: AtomicU64,
    ended: AtomicBool,
}

impl Link {
    /// A relay that leads nowhere yet.
    ///
    /// # Errors
    /// When there is no port.
    pub fn start() -> Result<Self> {
        let socket = open()?;
        let shared = Arc::new(Shared {
            fleet: Mutex::default(),
            down: AtomicU64::new(0),
            cut_at: AtomicU64::new(u64::MAX),
            ended: AtomicBool::new(false),
        });
        let (address, relay) = (socket.local_addr()?, Arc::clone(&shared));
        thread::spawn(move || relay.up(&socket));
        Ok(Self { address, shared })
    }

    /// Where nodes send to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads to `fleet` from now on.
    pub fn lead_to(&self, fleet: SocketAddr) {
        *self.shared.fleet.lock().unwrap_or_else(PoisonError::into_inner) = Some(fleet);
    }

    /// Bytes that went from the fleet to nodes so far.
    #[must_use]
    pub fn bytes_down(&self) -> u64 {
        self.shared.down.load(Ordering::Relaxed)
    }

    /// Loses everything towards the nodes after `bytes` more.
    pub fn cut_after(&self, bytes: u64) {
        self.shared.cut_at.store(self.bytes_down() + bytes, Ordering::Relaxed);
    }

    /// Whether the cut has come.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.shared.is_cut()
    }

    /// Loses nothing any more.
    pub fn mend(&self) {
        self.shared.cut_at.store(u64::MAX, Ordering::Relaxed);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn is_cut(&self) -> bool {
        self.down.load(Ordering::Relaxed) >= self.cut_at.load(Ordering::Relaxed)
    }

    /// From nodes to the fleet.
    fn up(self: &Arc<Self>, socket: &UdpSocket) {
        let mut ways: BTreeMap<SocketAddr, UdpSocket> = BTreeMap::new();
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        while !self.ended.load(Ordering::Relaxed) {
            let Ok((length, node)) = socket.recv_from(&mut datagram) else { continue };
            let fleet = *self.fleet.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(fleet) = fleet else { continue };
            if !ways.contains_key(&node)
                && let Some(way) = self.way(socket, node)
            {
                ways.insert(node, way);
            }
            if let Some(way) = ways.get(&node) {
                drop(way.send_to(&datagram[..length], fleet));
            }
        }
    }

    /// A socket towards the fleet whose answers go to `node`.
    fn way(self: &Arc<Self>, socket: &UdpSocket, node: SocketAddr) -> Option<UdpSocket> {
        let (way, back) = (open().ok()?, socket.try_clone().ok()?);
        let (answers, shared) = (way.try_clone().ok()?, Arc::clone(self));
        thread::spawn(move || {
            let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
            while !shared.ended.load(Ordering::Relaxed) {
                let Ok((length, _)) = answers.recv_from(&mut datagram) else { continue };
                if !shared.is_cut() {
                    shared.down.fetch_add(length as u64, Ordering::Relaxed);
                    drop(back.send_to(&datagram[..length], node));
                }
            }
        });
        Some(way)
    }
}

fn open() -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("open a UDP socket")?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}
