//! A public key of SSH, as `~/.ssh/id_ed25519.pub` holds it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use std::str::FromStr;

/// Longest line that is taken, bytes; the key of an RSA pair of 16,384 bits fits.
const LINE_BYTES_MAX: usize = 4096;

/// Kinds of keys, and of how many parts each consists beside its name.
const KINDS: [(&str, usize); 7] = [
    ("ssh-ed25519", 1),
    ("ssh-rsa", 2),
    ("ecdsa-sha2-nistp256", 2),
    ("ecdsa-sha2-nistp384", 2),
    ("ecdsa-sha2-nistp521", 2),
    ("sk-ssh-ed25519@openssh.com", 2),
    ("sk-ecdsa-sha2-nistp256@openssh.com", 3),
];

/// One line: kind, key, and what its owner calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshKey(String);

/// Why a text is not a public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshKeyError {
    /// The other half of the pair.
    #[error("this is a private key, and it stays with its owner: give the file that ends in .pub")]
    Private,
    /// More than one line, or characters that no line has.
    #[error("a public key is one line of at most {LINE_BYTES_MAX} bytes without control characters")]
    Line,
    /// Another kind, or options before it.
    #[error("`{0}` is not a kind of public key: a line begins with ssh-ed25519, ssh-rsa, ecdsa-sha2-… or sk-…")]
    Kind(String),
    /// What follows the kind is not a key of it.
    #[error("the key after `{0}` is cut off or damaged")]
    Key(&'static str),
}

impl FromStr for SshKey {
    type Err = SshKeyError;

    fn from_str(text: &str) -> Result<Self, SshKeyError> {
        let line = text.trim();
        if line.contains("PRIVATE KEY") {
            return Err(SshKeyError::Private);
        }
        if line.len() > LINE_BYTES_MAX || line.chars().any(char::is_control) {
            return Err(SshKeyError::Line);
        }
        let mut words = line.split(' ');
        let first = words.next().unwrap_or_default();
        let kind = KINDS.iter().find(|(name, _)| *name == first);
        let (name, parts) = kind.ok_or_else(|| SshKeyError::Kind(first.chars().take(40).collect()))?;
        let key = words.next().and_then(|word| STANDARD.decode(word).ok());
        if !key.is_some_and(|key| is_of(&key, name, *parts)) {
            return Err(SshKeyError::Key(name));
        }
        Ok(Self(line.to_owned()))
    }
}

impl fmt::Display for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `key` is `name` and so many parts more, each behind its length, and nothing after them.
fn is_of(key: &[u8], name: &str, parts: usize) -> bool {
    let mut rest = key;
    let mut part = || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (part, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        rest = after;
        Some(part)
    };
    let named = part() == Some(name.as_bytes());
    let first = part();
    let sized = first.is_some_and(|first| !first.is_empty() && (!name.contains("ed25519") || first.len() == 32));
    let others = (1..parts).all(|_| part().is_some_and(|part| !part.is_empty()));
    named && sized && others && rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, parts: &[&[u8]]) -> String {
        let mut bytes = Vec::new();
        for part in [name.as_bytes()].iter().chain(parts) {
            bytes.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
            bytes.extend(*part);
        }
        format!("{name} {}", STANDARD.encode(bytes))
    }

    #[test]
    fn keys_of_every_kind_are_taken_as_they_are() {
        for (name, parts) in KINDS {
            let parts: Vec<&[u8]> = vec![&[7; 32]; parts];
            for line in [key(name, &parts), format!("{} me@desk and more", key(name, &parts))] {
                assert_eq!(line.parse::<SshKey>().unwrap().to_string(), line);
                assert_eq!(format!(" {line}\n").parse::<SshKey>().unwrap().to_string(), line);
            }
        }
        // Made by ssh-keygen.
        let real = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl github";
        assert!(real.parse::<SshKey>().is_ok());
    }

    #[test]
    fn what_could_be_more_than_a_key_is_refused() {
        let good = key("ssh-ed25519", &[&[7; 32]]);
        for (text, expected) in [
            ("", "is not a kind"),
            ("ssh-ed25519", "cut off"),
            (&good[..good.len() - 4], "cut off"),
            (&format!("{good}AAAA"), "cut off"),
            (&key("ssh-ed25519", &[&[7; 31]]), "cut off"),
            (&key("ssh-ed25519", &[&[7; 32], &[7; 32]]), "cut off"),
            (&key("ssh-rsa", &[&[7; 32]]), "cut off"),
            (&good.replace("ssh-ed25519 ", "ssh-rsa "), "cut off"),
            (&format!("command=\"sh\" {good}"), "is not a kind"),
            (&format!("{good} a\n{good}"), "one line"),
            (&format!("{good} a\u{1b}[2J"), "one line"),
            (&format!("{good} {}", "a".repeat(LINE_BYTES_MAX)), "one line"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blb", "private key"),
            ("ssh-dss AAAA", "is not a kind"),
        ] {
            let found = text.parse::<SshKey>().unwrap_err().to_string();
            assert!(found.contains(expected), "{text}: {found}");
        }
    }
}
