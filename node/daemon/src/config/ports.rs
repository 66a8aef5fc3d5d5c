//! Ports of a box that runs the image: which ones can be listened on, and which of them the firewall has to open.

use super::Config;
use sedge_protocol::strict::Section;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

/// What the account of the daemon may listen on: `ip_unprivileged_port_start` of the kernel's command line.
const PORTS: RangeInclusive<u16> = 80..=u16::MAX;
/// What the firewall of the image lets in anyway (image/tree/etc/nftables.conf).
const OPEN: u16 = 8080;

/// Notes in the file's root what would keep the daemon from starting: nobody is at the box to see why.
pub(super) fn check(root: &Section<'_>, config: &Config) {
    let listeners = config.listeners();
    for (place, (table, address)) in listeners.iter().enumerate() {
        let section = root.section(table);
        let port = address.port();
        if !PORTS.contains(&port) {
            section.reject("listen", format!("port {port} cannot be taken: use {} to {}", PORTS.start(), PORTS.end()));
        }
        if let Some((other, _)) = listeners[place + 1..].iter().find(|(_, other)| other.port() == port) {
            section.reject("listen", format!("port {port} is that of `{other}.listen`: each needs its own"));
        }
    }
}

impl Config {
    /// Where it listens, by the tables that say so.
    fn listeners(&self) -> Vec<(&'static str, SocketAddr)> {
        let listeners = [("http", self.http), ("mqtt", self.mqtt.as_ref().map(|mqtt| mqtt.listen)), ("metrics", self.metrics)];
        listeners.into_iter().filter_map(|(table, address)| Some((table, address?))).collect()
    }

    /// Ports beyond loopback that the firewall of the image keeps shut unless it is told.
    pub(crate) fn ports_to_open(&self) -> Vec<u16> {
        let beyond = self.listeners().into_iter().map(|(_, address)| address).filter(|address| !address.ip().is_loopback());
        beyond.map(|address| address.port()).filter(|port| *port != OPEN).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[test]
    fn only_what_listens_beyond_the_box_on_a_port_of_its_own_is_opened() {
        let text =
            "[http]\nlisten = '0.0.0.0:80'\n[mqtt]\nlisten = '[::]:1883'\n[metrics]\nlisten = '127.0.0.1:9464'\n[mqtt.users]\na = 'b'\n";
        assert_eq!(parse("c", text).unwrap().ports_to_open(), [80, 1883]);
        assert_eq!(parse("c", "").unwrap().ports_to_open(), [0_u16; 0]);
    }
}
