//! What the box is told: the claim, and what else stands in `claim.toml`.

use crate::arguments::Context;
use crate::client::Client;
use crate::command::claim::{home_note, labels_of};
use crate::text;
use anyhow::Context as _;
use clap::Args;
use sedge_protocol::api::{CreatedClaim, NewClaim, Node, Status};
use sedge_protocol::label::Label;
use sedge_protocol::schedule::Interval;
use sedge_protocol::{Digest, NodeId};
use sedge_provisioning::claim_file::{Address, Host, Interface, Network};
use sedge_provisioning::ssh_key::SshKeyError;
use sedge_provisioning::{ClaimFile, SshKey};
use serde::Serialize;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use ureq::http::Method;

/// How long a new claim is good for: boards are flashed days before they are switched on.
const CLAIM_S: u64 = 7 * 24 * 3600;
/// Hexadecimal digits of a token.
const TOKEN_DIGITS: usize = 64;
/// Longest file with a public key that is read, bytes.
const KEY_FILE_BYTES_MAX: u64 = 16 * 1024;

/// What goes into `claim.toml`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Joining")]
pub(super) struct Joining {
    #[command(flatten)]
    right: Right,
    /// How long a new claim is good for [default: 7d]
    #[arg(long, conflicts_with_all = ["claim", "no_claim"])]
    ttl: Option<Interval>,
    /// The node whose place the box takes, with its name and its functions; the key it had before is let in no more
    #[arg(long, value_name = "NODE", conflicts_with_all = ["claim", "no_claim"])]
    replaces: Option<NodeId>,
    /// Label of the node; can be given several times
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "no_claim")]
    label: Vec<Label>,
    /// Name that the node would like
    #[arg(long, value_name = "NODE", conflicts_with = "no_claim")]
    name: Option<NodeId>,
    /// Address of the box with the length of its network, such as 192.168.1.20/24, instead of DHCP; can be given several times
    #[arg(long, value_name = "ADDRESS/PREFIX", conflicts_with = "no_claim")]
    static_ip: Vec<Address>,
    /// Its way out
    #[arg(long, value_name = "ADDRESS", requires = "static_ip", conflicts_with = "no_claim")]
    gateway: Option<IpAddr>,
    /// Server that resolves names; can be given several times
    #[arg(long, value_name = "ADDRESS", requires = "static_ip", conflicts_with = "no_claim")]
    dns: Vec<IpAddr>,
    /// Server that tells the time; can be given several times
    #[arg(long, value_name = "HOST", requires = "static_ip", conflicts_with = "no_claim")]
    ntp: Vec<Host>,
    /// Port with this address, such as eth0 or en* [default: every wired one]
    #[arg(long, value_name = "NAME", requires = "static_ip", conflicts_with = "no_claim")]
    interface: Option<Interface>,
    /// Public SSH key, or the file with it, that may sign in on the bench; without it nobody can
    #[arg(long, value_name = "KEY|FILE", value_parser = public_key, conflicts_with = "no_claim")]
    debug_login: Option<SshKey>,
}

/// The right to join.
#[derive(Clone, Args)]
#[group(required = true, multiple = false)]
struct Right {
    /// Make a claim at the fleet, for this box alone
    #[arg(long)]
    new_claim: bool,
    /// A claim that was made before (`sedge claim create`)
    #[arg(long, value_name = "TOKEN", value_parser = token)]
    claim: Option<String>,
    /// Write the image alone; the box waits for somebody who copies a claim.toml to its boot partition
    #[arg(long)]
    no_claim: bool,
}

impl std::fmt::Debug for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Right").field("new_claim", &self.new_claim).field("no_claim", &self.no_claim).finish_non_exhaustive()
    }
}

/// Where the claim comes from, once everything about it is known to be good.
#[derive(Debug)]
pub(super) enum Claims {
    /// The fleet.
    New(Box<Client>, NewClaim),
    /// The command line.
    Given(Box<ClaimFile>),
}

/// What the box is told.
#[derive(Serialize)]
pub(super) struct Made {
    #[serde(skip)]
    text: String,
    /// Public id, when it was made for this box.
    claim: Option<String>,
    claim_expires_ms: Option<u64>,
    fleet: String,
    name: Option<NodeId>,
    #[serde(skip)]
    debug_login: bool,
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Made").field("claim", &self.claim).field("fleet", &self.fleet).finish_non_exhaustive()
    }
}

impl Joining {
    /// Looks whether everything is there that a claim takes; none is wanted with `--no-claim`.
    pub(super) fn prepare(&self, context: &Context) -> anyhow::Result<Option<Claims>> {
        let labels = labels_of(&self.label)?;
        if let Some(token) = &self.right.claim {
            let (url, ca_pin) = context.connection.address()?;
            let mut file = self.file(url, ca_pin, token.clone());
            file.fleet.labels = labels;
            text_of(&file)?;
            return Ok(Some(Claims::Given(Box::new(file))));
        }
        if !self.right.new_claim {
            return Ok(None);
        }
        // All but what the fleet will say, and that it says something.
        text_of(&self.file("https://fleet".to_owned(), Digest::of(b""), "claim".to_owned()))?;
        let client = context.connection.client()?;
        let _status: Status = client.get("/api/v1/status")?;
        if let Some(node) = &self.replaces {
            let _known: Node = client.get(&format!("/api/v1/nodes/{node}"))?;
        }
        let ttl_s = self.ttl.map_or(CLAIM_S, |ttl| ttl.as_ms().div_ceil(1000));
        Ok(Some(Claims::New(Box::new(client), NewClaim { uses: 1, ttl_s, labels, approval: false, replaces: self.replaces.clone() })))
    }

    fn file(&self, url: String, ca_pin: Digest, claim: String) -> ClaimFile {
        let mut file = ClaimFile::new(url, ca_pin, claim);
        file.fleet.name.clone_from(&self.name);
        file.debug_login.clone_from(&self.debug_login);
        file.network = (!self.static_ip.is_empty()).then(|| Network {
            interface: self.interface.clone(),
            address: self.static_ip.clone(),
            gateway: self.gateway,
            dns: self.dns.clone(),
            ntp: self.ntp.clone(),
        });
        file
    }
}

impl Claims {
    /// The file, with a claim that is made now where one is wanted.
    pub(super) fn make(self, joining: &Joining) -> anyhow::Result<Made> {
        let (file, claim) = match self {
            Self::Given(file) => (*file, None),
            Self::New(client, new) => {
                let created: CreatedClaim = client
                    .send_json(Method::POST, "/api/v1/claims", &new)
                    .context("make a claim; what was written has no partition table yet and does not boot")?;
                if created.claim.replaces != new.replaces {
                    anyhow::bail!("the fleet is older than this command: its claim {} replaces no node", created.claim.id);
                }
                (joining.file(created.fleet, created.ca_pin, created.token), Some(created.claim))
            }
        };
        Ok(Made {
            text: text_of(&file)?,
            claim_expires_ms: claim.as_ref().map(|claim| claim.expires_ms),
            claim: claim.map(|claim| claim.id),
            fleet: file.fleet.url,
            name: file.fleet.name,
            debug_login: file.debug_login.is_some(),
        })
    }
}

impl Made {
    /// The content of `claim.toml`.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Public id of the claim that was made for it.
    pub(super) fn claim(&self) -> Option<&str> {
        self.claim.as_deref()
    }

    /// What people have to know of it.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let (Some(claim), Some(expires_ms)) = (&self.claim, self.claim_expires_ms) {
            notes.push(format!("its claim {claim} is good for one box and ends {}", text::until(text::now_ms(), expires_ms)));
        }
        notes.extend(home_note(&self.fleet));
        if self.debug_login {
            notes.push("whoever has the key of --debug-login can sign in: for the bench, not for the field".to_owned());
        }
        notes
    }
}

/// The text of the file, which the box reads as it is meant.
fn text_of(file: &ClaimFile) -> anyhow::Result<String> {
    let text = file.to_toml();
    let read = ClaimFile::parse(&text)?;
    anyhow::ensure!(read == *file, "what was given does not read back from claim.toml as it is");
    Ok(text)
}

fn token(text: &str) -> Result<String, String> {
    if text.len() == TOKEN_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "the token of a claim has {TOKEN_DIGITS} digits 0 to f, this one has {}; `sedge claim create` prints one",
        text.chars().count()
    ))
}

/// A key as it stands, or the file that holds one.
fn public_key(text: &str) -> Result<SshKey, String> {
    let fault = match text.parse::<SshKey>() {
        Ok(key) => return Ok(key),
        Err(fault) => fault,
    };
    let mut content = String::new();
    let read = File::open(text).and_then(|file| file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut content));
    match read.map(|_| content) {
        Ok(content) => content.parse().map_err(|fault: SshKeyError| format!("{text}: {fault}")),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && matches!(fault, SshKeyError::Kind(_)) => {
            Err(format!("{fault}; and there is no file of that name"))
        }
        Err(cause) if matches!(fault, SshKeyError::Kind(_)) => Err(format!("read {text}: {cause}")),
        Err(_) => Err(fault.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@desk";

    #[test]
    fn a_key_is_given_itself_or_by_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        fs::write(path("id.pub"), format!("{KEY}\n")).unwrap();
        fs::write(path("id"), "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
        assert_eq!(public_key(KEY).unwrap(), public_key(&path("id.pub")).unwrap());
        for (given, expected) in [
            (path("id"), "a private key"),
            (path("none"), "no file of that name"),
            (path(""), "read "),
            (format!("{KEY}\n{KEY}"), "one line"),
            ("ssh-ed25519 AAAA".to_owned(), "cut off"),
        ] {
            let found = public_key(&given).unwrap_err();
            assert!(found.contains(expected), "{given}: {found}");
        }
    }

    #[test]
    fn the_claim_is_not_shown() {
        let file = ClaimFile::new("https://127.0.0.1:1".to_owned(), Digest::of(b"ca"), "secret".to_owned());
        assert!(!format!("{:?}", Claims::Given(Box::new(file))).contains("secret"));
        let right = Right { new_claim: false, claim: Some("secret".to_owned()), no_claim: false };
        assert!(!format!("{right:?}").contains("secret"));
        for wrong in [String::new(), "two words".to_owned(), "a".repeat(63), "a".repeat(65), "g".repeat(64)] {
            assert!(token(&wrong).is_err(), "{wrong}");
        }
        assert!(token(&"0F".repeat(32)).is_ok());
    }
}
