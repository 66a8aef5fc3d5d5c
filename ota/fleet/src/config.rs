//! The configuration: one TOML, strict, every fault at once. Every key has a default.

use crate::limits::{CERTIFICATE_LIFE_S, CERTIFICATE_LIFE_S_RANGE, RETURN_DAYS};
use sedge_protocol::strict::{Faults, Reader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// How a fleet runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where the API, enrolment and the console listen. Port 0 takes a free one.
    pub https_listen: SocketAddr,
    /// Where nodes connect over QUIC (UDP). Port 0 takes a free one.
    pub sync_listen: SocketAddr,
    /// What nodes and people are told as the address of `https`, `https://host:port`; the first name and the real port when absent.
    pub public_https: Option<HttpsAddress>,
    /// What nodes are told as the address of `sync`, `host:port`; the first name and the real port when absent.
    pub public_sync: Option<HostPort>,
    /// DNS names and addresses under which the fleet is reached, beside this machine's own.
    pub names: Vec<String>,
    /// A PostgreSQL database, `postgres://…`; a file in `data_dir` when absent.
    pub database: Option<DatabaseUrl>,
    /// Certificates of nodes.
    pub certificates: Certificates,
}

/// How long certificates of nodes are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificates {
    /// From their making; nodes ask for the next at two thirds of it.
    pub life: Duration,
    /// How many days after its end a node whose key is known gets another; none when zero.
    pub return_days: u32,
}

impl Default for Certificates {
    fn default() -> Self {
        Self { life: Duration::from_secs(CERTIFICATE_LIFE_S), return_days: RETURN_DAYS }
    }
}

impl Default for Config {
    fn default() -> Self {
        let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Self {
            data_dir: PathBuf::from("/var/lib/sedge-fleet"),
            https_listen: local(8443),
            sync_listen: local(8444),
            public_https: None,
            public_sync: None,
            names: Vec::new(),
            database: None,
            certificates: Certificates::default(),
        }
    }
}

impl Config {
    /// Reads a configuration; `file` is the name that faults are reported under.
    ///
    /// # Errors
    /// Everything that is wrong in it.
    pub fn from_toml(file: &str, text: &str) -> Result<Self, Faults> {
        let reader = Reader::new(file, text)?;
        let default = Self::default();
        let root = reader.root();
        let (https, sync, certificates) = (root.section("https"), root.section("sync"), root.section("certificates"));
        let config = Self {
            data_dir: root.parse("data_dir").unwrap_or(default.data_dir),
            https_listen: https.parse("listen").unwrap_or(default.https_listen),
            sync_listen: sync.parse("listen").unwrap_or(default.sync_listen),
            public_https: root.parse("public_https"),
            public_sync: root.parse("public_sync"),
            names: root.list::<ServerName>("names").into_iter().map(|name| name.0).collect(),
            database: root.parse("database"),
            certificates: Certificates {
                life: certificates.integer("life_s", CERTIFICATE_LIFE_S_RANGE).map_or(default.certificates.life, Duration::from_secs),
                return_days: certificates
                    .integer("return_days", 0..=36_600)
                    .and_then(|days| u32::try_from(days).ok())
                    .unwrap_or(RETURN_DAYS),
            },
        };
        certificates.finish();
        https.finish();
        sync.finish();
        root.finish();
        reader.finish(Some(config))
    }

    /// All names of the server's certificate.
    pub(crate) fn server_names(&self) -> Vec<String> {
        let listens = [self.https_listen.ip(), self.sync_listen.ip()].into_iter().filter(|ip| !ip.is_unspecified());
        let publics = [self.public_https.as_ref().map(|address| address.0.host()), self.public_sync.as_ref().map(HostPort::host)];
        let mut names = self.names.clone();
        names.extend(publics.into_iter().flatten().map(str::to_owned));
        names.extend(listens.map(|ip| ip.to_string()));
        names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }

    /// The host that others are told for a socket that listens on `ip`.
    pub(crate) fn public_host(&self, ip: IpAddr) -> String {
        match self.names.first() {
            Some(name) if name.contains(':') => format!("[{name}]"),
            Some(name) => name.clone(),
            None if ip.is_unspecified() => "localhost".to_owned(),
            None if ip.is_ipv6() => format!("[{ip}]"),
            None => ip.to_string(),
        }
    }
}

/// `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort(String);

impl HostPort {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn host(&self) -> &str {
        self.0.rsplit_once(':').map_or("", |(host, _)| host.trim_matches(['[', ']']))
    }
}

impl FromStr for HostPort {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "write `host:port`";
        let (host, port) = text.rsplit_once(':').ok_or(WRONG)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if port.parse::<u16>().is_ok_and(|port| port > 0) && bare.parse::<ServerName>().is_ok() {
            Ok(Self(text.to_owned()))
        } else {
            Err(WRONG)
        }
    }
}

/// `https://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpsAddress(HostPort);

impl HttpsAddress {
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.0.0)
    }
}

impl FromStr for HttpsAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = text.strip_prefix("https://").map(|rest| rest.trim_end_matches('/').parse());
        match address {
            Some(Ok(address)) => Ok(Self(address)),
            Some(Err(_)) | None => Err("write `https://host:port`"),
        }
    }
}

/// `postgres://…`. Its debug output shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DatabaseUrl(..)")
    }
}

impl FromStr for DatabaseUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Ok(Self(text.to_owned()))
        } else {
            Err("write `postgres://user:password@host/database`, or leave it out for a file in data_dir")
        }
    }
}

/// A DNS name or an address.
struct ServerName(String);

impl FromStr for ServerName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.parse::<IpAddr>().is_ok() || (text.len() <= 253 && text.split('.').all(label)) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a name is a DNS name or an IP address, without scheme and port")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(Config::from_toml("fleet.toml", ""), Ok(Config::default()));
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let text = "data_dir = '/x'\nname = ['a']\npublic_https = 'http://a'\ndatabase = 'mysql://'\n[https]\nlisten = 'nowhere'\n[sync]\nlistn = '1'\n";
        let faults = Config::from_toml("fleet.toml", text).unwrap_err().to_string();
        for part in [
            "fleet.toml:2: unknown key `name`; did you mean `names`?",
            "fleet.toml:3:",
            "fleet.toml:4:",
            "fleet.toml:6:",
            "fleet.toml:8: unknown key `sync.listn`; did you mean `listen`?",
        ] {
            assert!(faults.contains(part), "{part} in\n{faults}");
        }
    }

    #[test]
    fn certificates_live_as_long_as_it_says() {
        let read = |text: &str| Config::from_toml("f", &format!("[certificates]\n{text}")).map(|config| config.certificates);
        assert_eq!(read("life_s = 60\nreturn_days = 0"), Ok(Certificates { life: Duration::from_secs(60), return_days: 0 }));
        assert_eq!(read(""), Ok(Certificates::default()));
        assert!(read("life_s = 9").is_err() && read("days = 1").is_err());
    }

    #[test]
    fn the_names_of_the_certificate_hold_what_others_are_told() {
        let text = "names = ['10.1.2.3', 'fleet.example']\npublic_sync = 'sync.example:9'\n[https]\nlisten = '0.0.0.0:8443'";
        let config = Config::from_toml("f", text).unwrap();
        let names = config.server_names();
        assert_eq!(names[..3], ["10.1.2.3", "fleet.example", "sync.example"]);
        assert!(names.contains(&"localhost".to_owned()) && !names.contains(&"0.0.0.0".to_owned()));
        assert_eq!(config.public_host(config.https_listen.ip()), "10.1.2.3");
    }
}
