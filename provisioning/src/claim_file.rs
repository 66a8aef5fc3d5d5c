//! `claim.toml`: what an operator writes to the boot partition of a box, so that it joins a fleet by itself.
//!
//! ```toml
//! [fleet]                          # as `sedge claim create --toml` prints it
//! url = "https://fleet.example:7443"
//! ca_pin = "sha256:…"
//! claim = "…"                      # blanked by the box once it has been used
//!
//! [network]                        # without it every wired port asks for an address by DHCP
//! address = ["192.168.1.20/24"]
//! gateway = "192.168.1.1"
//! dns = ["192.168.1.1"]
//!
//! [debug]                          # for the bench; without it nobody can sign in
//! login = "ssh-ed25519 AAAA… me@desk"
//! ```

use crate::ssh_key::SshKey;
use sedge_protocol::strict::{Faults, Reader, Section};
use sedge_protocol::{Digest, Labels, NodeId};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::str::FromStr;
use toml_edit::{Array, DocumentMut, Item, Table, value};

/// Its name on the boot partition.
pub const CLAIM_FILE: &str = "claim.toml";

/// How to reach and trust a fleet, and what to show it: the `[fleet]` table.
#[derive(Clone, PartialEq, Eq)]
pub struct Membership {
    /// `https://host:port`.
    pub url: String,
    /// Digest of the fleet's CA certificate.
    pub ca_pin: Digest,
    /// The claim token; needed until the node is enrolled.
    pub claim: Option<String>,
    /// The name the node would like.
    pub name: Option<NodeId>,
    /// Labels of the node.
    pub labels: Labels,
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("url", &self.url).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Membership {
    /// Reads the table; what is wrong is noted in it, what else its owner knows of it is read before.
    #[must_use]
    pub fn read(section: &Section<'_>) -> Option<Self> {
        let url: Option<String> = section.require("url");
        if let Some(url) = &url
            && !(url.starts_with("https://") && url.len() > 8)
        {
            section.reject("url", "write it as https://host:port");
        }
        let ca_pin = section.require("ca_pin");
        let labels = Labels::try_from(section.free("labels")).map_err(|fault| section.reject("labels", fault)).unwrap_or_default();
        let claim = section.text("claim").filter(|claim| !claim.trim().is_empty());
        let name = section.parse("name");
        Some(Self { url: url?, ca_pin: ca_pin?, claim, name, labels })
    }
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimFile {
    /// The fleet.
    pub fleet: Membership,
    /// Addresses that are not asked for by DHCP.
    pub network: Option<Network>,
    /// Whose key opens the box for its owner's eyes, on the bench; nobody's when absent.
    pub debug_login: Option<SshKey>,
}

/// Fixed settings of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Which ports, with `*` for any characters; every wired one when absent.
    pub interface: Option<Interface>,
    /// The box's own, with the length of the network's part; at least one.
    pub address: Vec<Address>,
    /// The way out.
    pub gateway: Option<IpAddr>,
    /// Servers that resolve names.
    pub dns: Vec<IpAddr>,
    /// Servers that tell the time.
    pub ntp: Vec<Host>,
}

/// An address and the number of bits that are the network's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Bits of it.
    pub prefix: u8,
}

/// Why a text is not an address with a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address with the length of its network, such as 192.168.1.20/24")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        // Rust reads `+24` as a number, the network's own tools do not.
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let parsed = text.split_once('/').and_then(|(ip, prefix)| Some(Self { ip: ip.parse().ok()?, prefix: number(prefix)? }));
        let most = |ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 };
        parsed.filter(|address| (1..=most(address.ip)).contains(&address.prefix)).ok_or_else(|| AddressError(text.to_owned()))
    }
}

impl Address {
    /// Why no box can have it.
    fn unfit(&self) -> Option<&'static str> {
        let host = self.host_bits();
        match self.ip {
            ip if ip.is_unspecified() => Some("no address"),
            ip if ip.is_loopback() => Some("the address of every machine for itself"),
            ip if ip.is_multicast() => Some("the address of a group"),
            // Networks of two addresses have neither.
            IpAddr::V4(_) if self.prefix <= 30 && bits(self.ip) & host == 0 => Some("the address of the network itself"),
            IpAddr::V4(_) if self.prefix <= 30 && bits(self.ip) & host == host => Some("the address of all in the network"),
            _ => None,
        }
    }

    /// Whether another address is in its network, and is another.
    fn reaches(&self, other: IpAddr) -> bool {
        let link_local = matches!(other, IpAddr::V6(other) if other.is_unicast_link_local());
        let near = self.ip.is_ipv4() == other.is_ipv4() && (bits(self.ip) ^ bits(other)) & !self.host_bits() == 0;
        link_local || (near && self.ip != other)
    }

    /// The bits that are not the network's.
    fn host_bits(&self) -> u128 {
        let length = if self.ip.is_ipv4() { 32 } else { 128 };
        1_u128.checked_shl(length - u32::from(self.prefix)).map_or(u128::MAX, |bit| bit - 1)
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// A word that cannot break out of the line of a unit file.
macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $what:literal, $allowed:literal, $bytes_max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(String);

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let good = |c: char| c.is_ascii_alphanumeric() || $allowed.contains(c);
                if (1..=$bytes_max).contains(&text.len()) && text.chars().all(good) {
                    return Ok(Self(text.to_owned()));
                }
                Err(format!("`{text}` is not {}: use 1 to {} of letters, digits and {}", $what, $bytes_max, $allowed))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

word! {
    /// Name of a network port, with `*` for any characters.
    Interface, "the name of a network port", "-_.*", 15
}
word! {
    /// Name or address of a server.
    Host, "the name or address of a server", "-_.:", 253
}

impl ClaimFile {
    /// What a box needs to use a claim, and nothing else.
    #[must_use]
    pub fn new(url: String, ca_pin: Digest, claim: String) -> Self {
        let fleet = Membership { url, ca_pin, claim: Some(claim), name: None, labels: Labels::default() };
        Self { fleet, network: None, debug_login: None }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// Everything that is wrong in it.
    pub fn parse(text: &str) -> Result<Self, Faults> {
        let reader = Reader::new(CLAIM_FILE, text)?;
        let root = reader.root();
        let section = root.section("fleet");
        let fleet = Membership::read(&section);
        section.finish();
        let section = root.section("network");
        let network = Network::read(&section);
        section.finish();
        let section = root.section("debug");
        let debug_login = if section.is_present() { section.require("login") } else { None };
        section.finish();
        root.finish();
        reader.finish(fleet.map(|fleet| Self { fleet, network, debug_login }))
    }

    /// The file's text.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut document = DocumentMut::new();
        let mut fleet = Table::new();
        fleet["url"] = value(&self.fleet.url);
        fleet["ca_pin"] = value(self.fleet.ca_pin.to_string());
        if let Some(claim) = &self.fleet.claim {
            fleet["claim"] = value(claim);
        }
        if let Some(name) = &self.fleet.name {
            fleet["name"] = value(name.as_str());
        }
        if !self.fleet.labels.is_empty() {
            let labels: BTreeMap<String, String> = self.fleet.labels.clone().into();
            fleet["labels"] = value(toml_edit::InlineTable::from_iter(labels));
        }
        document["fleet"] = Item::Table(fleet);
        if let Some(network) = &self.network {
            document["network"] = Item::Table(network.to_table());
        }
        if let Some(login) = &self.debug_login {
            let mut debug = Table::new();
            debug["login"] = value(login.to_string());
            document["debug"] = Item::Table(debug);
        }
        document.to_string()
    }

    /// The text with blanks in the place of the claim: as long as before, so that a power cut while it is written over cannot damage the rest.
    /// None when there is no claim in it.
    #[must_use]
    pub fn without_claim(text: &str) -> Option<String> {
        let document = toml_edit::Document::parse(text).ok()?;
        let claim = document.get("fleet")?.get("claim")?;
        claim.as_str().filter(|claim| !claim.trim().is_empty())?;
        // The quotes stay.
        let span = claim.span().filter(|span| span.len() >= 2)?;
        let (begin, end) = (span.start + 1, span.end - 1);
        Some(format!("{}{}{}", text.get(..begin)?, " ".repeat(end - begin), text.get(end..)?))
    }
}

impl Network {
    fn read(section: &Section<'_>) -> Option<Self> {
        if !section.is_present() {
            return None;
        }
        let network = Self {
            interface: section.parse("interface"),
            address: section.list("address"),
            gateway: section.parse("gateway"),
            dns: section.list("dns"),
            ntp: section.list("ntp"),
        };
        if network.address.is_empty() {
            section.reject("address", "name at least one, such as [\"192.168.1.20/24\"]; without [network] the box asks by DHCP");
        }
        for address in &network.address {
            if let Some(what) = address.unfit() {
                section.reject("address", format!("`{address}` is {what}, not one that a box can have"));
            }
        }
        if let Some(gateway) = network.gateway
            && !network.address.is_empty()
            && !network.address.iter().any(|address| address.reaches(gateway))
        {
            section.reject("gateway", format!("`{gateway}` is in none of the networks of `address`, so the box cannot reach it"));
        }
        Some(network)
    }

    fn to_table(&self) -> Table {
        let list = |items: Vec<String>| value(Array::from_iter(items));
        let texts = |items: &[IpAddr]| items.iter().map(IpAddr::to_string).collect();
        let mut table = Table::new();
        if let Some(interface) = &self.interface {
            table["interface"] = value(interface.to_string());
        }
        table["address"] = list(self.address.iter().map(Address::to_string).collect());
        if let Some(gateway) = self.gateway {
            table["gateway"] = value(gateway.to_string());
        }
        if !self.dns.is_empty() {
            table["dns"] = list(texts(&self.dns));
        }
        if !self.ntp.is_empty() {
            table["ntp"] = list(self.ntp.iter().map(Host::to_string).collect());
        }
        table
    }

    /// The same as a unit of systemd-networkd.
    #[must_use]
    pub fn unit(&self) -> String {
        let mut unit = match &self.interface {
            Some(interface) => format!("[Match]\nName={interface}\n"),
            None => "[Match]\nType=ether\nKind=!*\n".to_owned(),
        };
        unit.push_str("\n[Network]\nDHCP=no\n");
        let mut line = |key: &str, value: &dyn fmt::Display| {
            // Writing to a string does not fail.
            let _written = writeln!(unit, "{key}={value}");
        };
        self.address.iter().for_each(|address| line("Address", address));
        self.gateway.iter().for_each(|gateway| line("Gateway", gateway));
        self.dns.iter().for_each(|server| line("DNS", server));
        self.ntp.iter().for_each(|server| line("NTP", server));
        unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(more: &str) -> String {
        format!("[fleet]\nurl = 'https://f:1'\nca_pin = '{}'\nclaim = 'secret' # once\n{more}", Digest::of(b"ca"))
    }

    const NETWORK: &str =
        "[network]\naddress = ['192.168.1.20/24', 'fd00::2/64']\ngateway = '192.168.1.1'\ndns = ['192.168.1.1']\nntp = ['time.example']\n";

    const DEBUG: &str = "[debug]\nlogin = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@desk'\n";

    #[test]
    fn what_is_written_is_read_again() {
        let labels = "labels = { site = 'berlin', \"rack/row\" = '3' }\nname = 'gate-7'\n";
        for more in ["", NETWORK, DEBUG, labels, &format!("{labels}{NETWORK}interface = 'en*'\n{DEBUG}")] {
            let file = ClaimFile::parse(&text(more)).unwrap();
            assert_eq!(ClaimFile::parse(&file.to_toml()).unwrap(), file, "{}", file.to_toml());
        }
    }

    #[test]
    fn the_claim_goes_and_everything_else_stays() {
        let before = text(&format!("# mine\n{NETWORK}"));
        let after = ClaimFile::without_claim(&before).unwrap();
        assert!(!after.contains("secret") && after.contains("# mine") && after.len() == before.len(), "{after}");
        let (mut expected, found) = (ClaimFile::parse(&before).unwrap(), ClaimFile::parse(&after).unwrap());
        expected.fleet.claim = None;
        assert_eq!(found, expected);
        for none in [after.as_str(), "not = [toml", "fleet = 3", "[fleet]\nclaim = 7", ""] {
            assert_eq!(ClaimFile::without_claim(none), None, "{none}");
        }
        let inline = ClaimFile::without_claim("fleet = { claim = \"\"\"a\nb\"\"\", url = 'u' }").unwrap();
        assert_eq!(inline, "fleet = { claim = \"       \", url = 'u' }");
    }

    #[test]
    fn fixed_addresses_become_a_unit() {
        let unit = ClaimFile::parse(&text(NETWORK)).unwrap().network.unwrap().unit();
        let expected = "[Match]\nType=ether\nKind=!*\n\n[Network]\nDHCP=no\nAddress=192.168.1.20/24\nAddress=fd00::2/64\nGateway=192.168.1.1\nDNS=192.168.1.1\nNTP=time.example\n";
        assert_eq!(unit, expected);
    }

    #[test]
    fn every_fault_is_named_with_its_line() {
        for (debug, expected) in [("", "`debug.login` is missing"), ("login = 'root'", "claim.toml:6: "), ("password = 'x'", "password")] {
            let faults = ClaimFile::parse(&text(&format!("[debug]\n{debug}"))).unwrap_err().to_string();
            assert!(faults.contains(expected), "{expected} in {faults}");
        }
        let faults =
            ClaimFile::parse("[fleet]\nurl = 'http://f'\n[network]\naddress = ['1.2.3.4']\ninterface = \"a\\nb\"\ngatway = '1.2.3.4'\n");
        let text = faults.unwrap_err().to_string();
        for expected in ["claim.toml:2: ", "ca_pin", "claim.toml:4: ", "192.168.1.20/24", "claim.toml:5: ", "did you mean `gateway`"] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        assert!(ClaimFile::parse("").unwrap_err().to_string().contains("url"));
        for address in ["1.2.3.4/0", "1.2.3.4/33", "::1/129", "1.2.3/8", "/", ""] {
            assert!(address.parse::<Address>().is_err(), "{address}");
        }
    }

    #[test]
    fn the_claim_is_not_shown() {
        assert!(!format!("{:?}", ClaimFile::parse(&text("")).unwrap()).contains("secret"));
    }

    #[test]
    fn addresses_that_can_never_work_are_faults() {
        let read = |network: &str| {
            ClaimFile::parse(&format!("[fleet]\nurl = 'https://f:1'\nca_pin = '{}'\n[network]\n{network}", Digest::of(b"ca")))
        };
        for good in [
            "address = ['192.168.1.20/24']\ngateway = '192.168.1.1'\n",
            "address = ['10.0.0.0/31']\ngateway = '10.0.0.1'\n",
            "address = ['10.0.0.7/32']\n",
            "address = ['10.0.0.2/24', 'fd00::2/64']\ngateway = 'fd00::1'\n",
            "address = ['fd00::2/64']\ngateway = 'fe80::1'\n",
        ] {
            assert!(read(good).is_ok(), "{good}");
        }
        for (bad, expected) in [
            (
                "address = ['192.168.1.20/24']\ngateway = '10.0.0.1'\n",
                "claim.toml:6: `network.gateway`: `10.0.0.1` is in none of the networks",
            ),
            ("address = ['192.168.1.20/24']\ngateway = '192.168.1.20'\n", "in none of the networks"),
            ("address = ['10.0.0.2/24']\ngateway = 'fd00::1'\n", "in none of the networks"),
            ("address = ['192.168.1.0/24']\n", "claim.toml:5: `network.address`: `192.168.1.0/24` is the address of the network itself"),
            ("address = ['192.168.1.255/24']\n", "all in the network"),
            ("address = ['0.0.0.0/24']\n", "no address"),
            ("address = ['::1/64']\n", "every machine for itself"),
            ("address = ['224.0.0.5/24']\n", "a group"),
            ("address = ['1.2.3.4/+24']\n", "is not an address with the length"),
        ] {
            let faults = read(bad).unwrap_err().to_string();
            assert!(faults.contains(expected), "{bad}: {faults}");
        }
    }
}
