//! A cable into a machine: frames of Ethernet in and out, for what no socket of this machine could see, such as an answer that does not come.

use crate::wait;
use anyhow::{Context as _, Result};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::Ipv6Addr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Of the machine's end, and the address that follows from it.
const MACHINE: Station = Station { mac: [0x52, 0x54, 0, 0, 0, 2], address: Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe00, 2) };
/// Of this end.
const HERE: Station = Station { mac: [0x52, 0x54, 0, 0, 0, 1], address: Ipv6Addr::new(0xfe80, 0, 0, 0, 0x5054, 0xff, 0xfe00, 1) };
/// How long one look at the cable takes.
const LOOK: Duration = Duration::from_millis(200);
const FRAME_BYTES_MAX: usize = 2048;
const IPV6: [u8; 2] = [0x86, 0xdd];
const TCP: u8 = 6;
const ICMPV6: u8 = 58;
const SYN: u8 = 2;

#[derive(Debug, Clone, Copy)]
struct Station {
    mac: [u8; 6],
    address: Ipv6Addr,
}

/// The cable.
#[derive(Debug)]
pub struct Wire {
    socket: UnixDatagram,
    here: PathBuf,
    machine: PathBuf,
}

impl Wire {
    /// Lays it below `directory`.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn new(directory: &Path) -> Result<Self> {
        let (here, machine) = (directory.join("wire-here"), directory.join("wire-machine"));
        let socket = UnixDatagram::bind(&here).with_context(|| format!("bind {}", here.display()))?;
        socket.set_read_timeout(Some(LOOK))?;
        Ok(Self { socket, here, machine })
    }

    /// What QEMU is told.
    #[must_use]
    pub fn arguments(&self) -> [String; 4] {
        let mac = MACHINE.mac.map(|byte| format!("{byte:02x}")).join(":");
        let ends = format!("local.type=unix,local.path={},remote.type=unix,remote.path={}", self.machine.display(), self.here.display());
        let device = format!("virtio-net-pci,netdev=wire,mac={mac},romfile=");
        ["-netdev".to_owned(), format!("dgram,id=wire,{ends}"), "-device".to_owned(), device]
    }

    /// Asks for connections to `other` and to `open` over IPv6 until `open` has answered twice, `other` being asked in between; answers
    /// all ports that said anything, a refusal included.
    ///
    /// # Errors
    /// When `open` does not answer.
    pub fn answering(&self, other: u16, open: u16) -> Result<BTreeSet<u16>> {
        let mut answered = BTreeSet::new();
        for from in [40_001, 40_002] {
            wait::until(&format!("port {open} answers on the cable"), || {
                self.send(&connect(from, other))?;
                self.send(&connect(from, open))?;
                let mut seen = false;
                while let Some((port, to)) = self.look()? {
                    answered.insert(port);
                    seen |= (port, to) == (open, from);
                }
                Ok(seen.then_some(()))
            })?;
        }
        Ok(answered)
    }

    /// Ports of the next answer, from and to; none when the cable is silent. Whoever asks for this end's address is told.
    fn look(&self) -> Result<Option<(u16, u16)>> {
        let mut frame = [0; FRAME_BYTES_MAX];
        loop {
            let frame = match self.socket.recv(&mut frame) {
                Ok(bytes) => &frame[..bytes],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(error) => return Err(error).context("read from the cable"),
            };
            match frame.get(12..) {
                Some([0x86, 0xdd, packet @ ..]) if packet.len() > 44 && packet[6] == TCP && packet[24..40] == HERE.address.octets() => {
                    let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
                    return Ok(Some((port(40), port(42))));
                }
                Some([0x86, 0xdd, packet @ ..]) if packet.len() >= 64 && is_question(packet) => self.send(&neighbour())?,
                _other => {}
            }
        }
    }

    fn send(&self, frame: &[u8]) -> Result<()> {
        match self.socket.send_to(frame, &self.machine) {
            // Nobody there yet, or too much on the way: asked again.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::WouldBlock) => Ok(()),
            sent => sent.map(drop).context("write to the cable"),
        }
    }
}

/// Whether a packet asks who has this end's address.
fn is_question(packet: &[u8]) -> bool {
    packet[6] == ICMPV6 && packet[40] == 135 && packet[48..64] == HERE.address.octets()
}

/// Asks for a connection.
fn connect(from: u16, to: u16) -> Vec<u8> {
    let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, SYN, 0xff, 0xff, 0, 0, 0, 0]);
    frame(TCP, 64, 16, segment)
}

/// Says where this end's address is.
fn neighbour() -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    message.extend(HERE.address.octets());
    message.extend([2, 1]);
    message.extend(HERE.mac);
    frame(ICMPV6, 255, 2, message)
}

/// A frame to the machine; the checksum goes into `content` at `checksum_at`.
fn frame(protocol: u8, hops: u8, checksum_at: usize, mut content: Vec<u8>) -> Vec<u8> {
    let bytes = u16::try_from(content.len()).unwrap_or_default();
    let addresses = [HERE.address.octets(), MACHINE.address.octets()].concat();
    let pseudo = [addresses.as_slice(), &[0, 0], &bytes.to_be_bytes(), &[0, 0, 0, protocol], &content].concat();
    content[checksum_at..checksum_at + 2].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    let head = [0x60, 0, 0, 0, bytes.to_be_bytes()[0], bytes.to_be_bytes()[1], protocol, hops];
    [MACHINE.mac.as_slice(), &HERE.mac, &IPV6, &head, &addresses, &content].concat()
}

/// That of the Internet: the complement of the sum of words, its carries added.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}
