//! Where the fleet is and what opens it.
//!
//! ```text
//! flags and SEDGE_* ──▶ --fleet-data DIR ──▶ config.toml of `sedge login`          the first that says it, wins
//! ```
//! The token and the pin of a file are used only for the fleet that the file names.

use crate::client::{Client, Token, Trust};
use crate::failure::Failure;
use clap::Args;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sedge_protocol::Digest;
use sedge_protocol::strict::{Faults, Reader};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, net};
use ureq::http::Uri;

/// The node's socket where nothing else is said.
pub(crate) const SOCKET: &str = "/run/sedged/sedged.sock";

const LOGIN: &str = "`sedge login --fleet URL --token-file FILE --ca-pin PIN` remembers it; SEDGE_FLEET, SEDGE_TOKEN and SEDGE_CA_PIN \
                     say it for one command, --fleet-data DIR reads it from a fleet on this machine";

/// Longest wait for a fleet on this machine that is just starting.
const FLEET_START_MAX: Duration = Duration::from_secs(3);
/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// The flags that say where the fleet is.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Fleet")]
pub(crate) struct Connection {
    /// Address of the fleet, `https://host:port`
    #[arg(long, global = true, env = "SEDGE_FLEET", value_name = "URL")]
    pub(crate) fleet: Option<String>,
    /// Admin token; better from a file or the environment, where other users do not see it
    #[arg(long, global = true, env = "SEDGE_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// File with the admin token; goes before --token and SEDGE_TOKEN
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Digest of the fleet's CA certificate, `sha256:…`, as the fleet prints it
    #[arg(long, global = true, env = "SEDGE_CA_PIN", value_name = "PIN")]
    pub(crate) ca_pin: Option<Digest>,
    /// Data directory of a fleet on this machine: says address, token and CA by itself
    #[arg(long, global = true, env = "SEDGE_FLEET_DATA", value_name = "DIR")]
    pub(crate) fleet_data: Option<OsString>,
}

/// All that a connection needs.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    /// Address without a slash at its end.
    pub(crate) url: String,
    /// What opens it.
    pub(crate) token: Token,
    /// Whom to believe.
    pub(crate) trust: Trust,
}

/// What one of the places knows.
#[derive(Debug, Default)]
struct Known {
    url: Option<String>,
    token: Option<String>,
    pin: Option<Digest>,
}

impl Known {
    /// Fills gaps from `other`, unless that speaks of another fleet.
    fn or(self, other: Self) -> Self {
        match (&self.url, &other.url) {
            (Some(mine), Some(theirs)) if mine.trim_end_matches('/') != theirs.trim_end_matches('/') => self,
            (Some(_) | None, Some(_) | None) => {
                Self { url: self.url.or(other.url), token: self.token.or(other.token), pin: self.pin.or(other.pin) }
            }
        }
    }
}

impl Connection {
    /// The fleet's API.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let fleet = self.resolve()?;
        Ok(Client::fleet(&fleet.url, fleet.token, fleet.trust)?)
    }

    /// What flags, environment and files say together.
    pub(crate) fn resolve(&self) -> anyhow::Result<Fleet> {
        Ok(complete(self.known()?)?)
    }

    /// Address and pin of the fleet, as a box has to know them. No token is needed for that.
    pub(crate) fn address(&self) -> anyhow::Result<(String, Digest)> {
        match address(self.known()?)? {
            (url, Trust::Pin(pin)) => Ok((url, pin)),
            (url, Trust::Loopback) => {
                Err(Failure::configuration(format!("{url} is an address without a certificate, and a node joins by https"), LOGIN).into())
            }
        }
    }

    fn known(&self) -> anyhow::Result<Known> {
        let mut known = self.flags()?;
        // A variable that is set to nothing is not set.
        if let Some(dir) = self.fleet_data.as_deref().filter(|dir| !dir.is_empty()) {
            known = known.or(of_data_dir(Path::new(dir))?);
        }
        if let Some(path) = config_path().filter(|path| path.exists()) {
            known = known.or(of_config(&path)?);
        }
        Ok(known)
    }

    fn flags(&self) -> Result<Known, Failure> {
        let token = match &self.token_file {
            Some(path) => Some(read(path, LOGIN)?.trim().to_owned()),
            None => self.token.clone(),
        };
        Ok(Known {
            url: self.fleet.clone().filter(|url| !url.is_empty()),
            token: token.filter(|token| !token.is_empty()),
            pin: self.ca_pin,
        })
    }
}

fn complete(mut known: Known) -> Result<Fleet, Failure> {
    let url = known.url.clone().ok_or_else(unnamed)?;
    let token = known.token.take().filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| Failure::configuration(format!("no token for the fleet at {url}"), LOGIN))?;
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::configuration("the token has characters that a token cannot have", LOGIN));
    }
    let (url, trust) = address(known)?;
    Ok(Fleet { url, token: Token(token), trust })
}

fn unnamed() -> Failure {
    Failure::configuration("no fleet is named", LOGIN)
}

fn address(known: Known) -> Result<(String, Trust), Failure> {
    let url = known.url.ok_or_else(unnamed)?;
    let wrong = || Failure::configuration(format!("`{url}` is not the address of a fleet"), "write it as https://host:port");
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let authority = uri.authority().ok_or_else(wrong)?;
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong());
    }
    let trust = match (uri.scheme_str(), known.pin) {
        (Some("https"), Some(pin)) => Trust::Pin(pin),
        (Some("https"), None) => {
            return Err(Failure::configuration(format!("no CA pin for the fleet at {url}"), LOGIN));
        }
        (Some("http"), _) if is_loopback(authority.host()) => Trust::Loopback,
        (Some("http"), _) => {
            return Err(Failure::configuration(format!("{url} would send the token in clear"), "write https://"));
        }
        (Some(_) | None, _) => return Err(wrong()),
    };
    Ok((format!("{}://{authority}", uri.scheme_str().unwrap_or("https")), trust))
}

/// Whether an address leads to the machine that uses it.
pub(crate) fn leads_home(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(is_loopback))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The part of `addresses.json` that matters here.
#[derive(Debug, Deserialize)]
struct Addresses {
    https: String,
}

fn of_data_dir(dir: &Path) -> Result<Known, Failure> {
    const HINT: &str = "see that `sedge-fleet` runs with this data directory";
    let read = |path: &Path| read(path, HINT);
    let path = dir.join("addresses.json");
    // A fleet that was started on the line before says where it is a moment later.
    let begin = Instant::now();
    while !path.exists() && begin.elapsed() < FLEET_START_MAX {
        thread::sleep(LOOK);
    }
    let strange = |what: String| Failure::configuration(what, HINT);
    let addresses: Addresses = serde_json::from_str(&read(&path)?).map_err(|cause| strange(format!("{}: {cause}", path.display())))?;
    let url = if addresses.https.contains("://") { addresses.https } else { format!("https://{}", addresses.https) };
    let token = read(&dir.join("admin-token"))?.trim().to_owned();
    let path = dir.join("ca.pem");
    let authority = CertificateDer::from_pem_slice(read(&path)?.as_bytes());
    let authority = authority.map_err(|cause| strange(format!("{}: {cause}", path.display())))?;
    Ok(Known { url: Some(url), token: Some(token), pin: Some(Digest::of(&authority)) })
}

fn of_config(path: &Path) -> anyhow::Result<Known> {
    let text = read(path, LOGIN)?;
    Ok(parse_config(&path.display().to_string(), &text)?)
}

fn parse_config(file: &str, text: &str) -> Result<Known, Faults> {
    let reader = Reader::new(file, text)?;
    let root = reader.root();
    let known = Known { url: root.text("fleet"), token: root.text("token"), pin: root.parse("ca_pin") };
    root.finish();
    reader.finish(Some(known))
}

fn read(path: &Path, hint: &str) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|cause| {
        let hint = match cause.kind() {
            io::ErrorKind::PermissionDenied => "try it as the user it belongs to, or with sudo",
            _ => hint,
        };
        Failure::configuration(format!("read {}: {cause}", path.display()), hint)
    })
}

/// Where `sedge login` keeps what it was told: `$XDG_CONFIG_HOME/sedge/config.toml`, else below `~/.config`.
pub(crate) fn config_path() -> Option<PathBuf> {
    let base = env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let base = base.or_else(|| env::home_dir().map(|home| home.join(".config")))?;
    Some(base.join("sedge").join("config.toml"))
}

#[derive(Debug, Serialize)]
struct Remembered<'a> {
    fleet: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_pin: Option<Digest>,
    token: &'a str,
}

/// Keeps `fleet` for later commands in a file that only its owner can read.
pub(crate) fn remember(path: &Path, fleet: &Fleet) -> io::Result<()> {
    let ca_pin = match fleet.trust {
        Trust::Pin(pin) => Some(pin),
        Trust::Loopback => None,
    };
    let remembered = Remembered { fleet: &fleet.url, ca_pin, token: &fleet.token.0 };
    let text = toml::to_string(&remembered).map_err(io::Error::other)?;
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let fresh = path.with_extension("toml.new");
    // A file left by a cut-off run may have other rights: begin with a new one.
    match fs::remove_file(&fresh) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn known(url: &str, token: &str, pin: Option<Digest>) -> Known {
        Known { url: Some(url.to_owned()), token: Some(token.to_owned()), pin }
    }

    #[test]
    fn a_token_is_never_lent_to_another_fleet() {
        let flags = Known { url: Some("https://b:1".to_owned()), ..Known::default() };
        assert!(flags.or(known("https://a:1", "secret", None)).token.is_none());
        let flags = Known { url: Some("https://a:1/".to_owned()), ..Known::default() };
        assert_eq!(flags.or(known("https://a:1", "secret", None)).token.as_deref(), Some("secret"));
    }

    #[test]
    fn an_address_is_https_or_on_this_machine() {
        let pin = Some(Digest::of(b"ca"));
        for (url, pin, fits) in [
            ("https://fleet.example:8443", pin, true),
            ("https://fleet.example:8443/", pin, true),
            ("https://fleet.example:8443", None, false),
            ("https://fleet.example/api", pin, false),
            ("http://127.0.0.1:80", None, true),
            ("http://[::1]:80", None, true),
            ("http://fleet.example", pin, false),
            ("ftp://fleet", pin, false),
            ("fleet", pin, false),
        ] {
            assert_eq!(complete(known(url, "t", pin)).is_ok(), fits, "{url}");
        }
        assert!(complete(known("https://a:1", "two words", pin)).is_err());
        assert_eq!(complete(known("https://a:1/", "t", pin)).unwrap().url, "https://a:1");
        assert!(leads_home("https://127.0.0.1:7443") && leads_home("https://localhost:1") && !leads_home("https://fleet.example"));
    }

    #[test]
    fn what_is_remembered_reads_back_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sedge/config.toml");
        let fleet = complete(known("https://a:1", "t", Some(Digest::of(b"ca")))).unwrap();
        for _ in 0..2 {
            remember(&path, &fleet).unwrap();
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = complete(of_config(&path).unwrap()).unwrap();
        assert_eq!((read.url, read.trust, read.token.0), (fleet.url, fleet.trust, fleet.token.0));
    }

    #[test]
    fn an_unknown_key_is_named() {
        let faults = parse_config("config.toml", "flet = 'https://a:1'").unwrap_err();
        assert!(faults.to_string().contains("did you mean `fleet`"), "{faults}");
    }
}
