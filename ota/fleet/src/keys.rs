//! What the fleet keeps secret: its authority's key and the admin token. Made at the first start, readable by nobody else.

use crate::durable;
use sedge_protocol::Digest;
use sedge_provisioning::issuer::AuthorityError;
use sedge_provisioning::{Authority, KeyPem};
use std::io;
use std::path::{Path, PathBuf};

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        cause: io::Error,
    },
    /// The authority.
    #[error("the certificate authority in {directory}")]
    Authority {
        /// Where.
        directory: PathBuf,
        /// Why.
        #[source]
        cause: AuthorityError,
    },
    /// The authority's certificate is gone, and nodes have pinned it.
    #[error("{certificate} is missing: bring it back from a copy; only to begin a fleet that no node knows, remove {key} too")]
    Lost {
        /// What is missing.
        certificate: PathBuf,
        /// What is there.
        key: PathBuf,
    },
    /// The admin token is not one.
    #[error("{path} does not hold a token; remove it to get a new one")]
    Token {
        /// Which file.
        path: PathBuf,
    },
}

/// The fleet's secrets.
pub(crate) struct Keys {
    pub(crate) authority: Authority,
    /// Digest of the admin token: what requests are compared with.
    pub(crate) admin: Digest,
    pub(crate) admin_file: PathBuf,
    /// Whether this was the first start.
    pub(crate) created: bool,
}

impl Keys {
    /// Reads the keys in `directory`, or makes them.
    pub(crate) fn open(directory: &Path, now_ms: u64) -> Result<Self, KeysError> {
        let (authority, created) = authority(directory, now_ms)?;
        let admin_file = directory.join("admin-token");
        let token = match read(&admin_file)? {
            Some(token) => token,
            None => {
                let token = new_token();
                write(&admin_file, &format!("{token}\n"), 0o600)?;
                token
            }
        };
        let token = token.trim();
        if token.len() < 32 {
            return Err(KeysError::Token { path: admin_file });
        }
        Ok(Self { authority, admin: Digest::of(token.as_bytes()), admin_file, created })
    }
}

/// A secret of 32 random bytes in 64 hexadecimal digits.
pub(crate) fn new_token() -> String {
    let mut bytes = [0_u8; 32];
    rand::fill(&mut bytes[..]);
    hex::encode(bytes)
}

/// What a fleet leaves in its directory once it has started.
const TRACES: [&str; 2] = ["fleet.db", "addresses.json"];

/// The certificate is written last: while nothing else is there nobody has pinned it, and a lone key can be replaced.
fn authority(directory: &Path, now_ms: u64) -> Result<(Authority, bool), KeysError> {
    let (certificate, key) = (directory.join("ca.pem"), directory.join("ca-key.pem"));
    let fault = |cause| KeysError::Authority { directory: directory.to_owned(), cause };
    if let Some(pem) = read(&certificate)? {
        let Some(key_pem) = read(&key)? else {
            return Err(KeysError::File { path: key, cause: io::ErrorKind::NotFound.into() });
        };
        return Ok((Authority::from_pem(&pem, &KeyPem::new(key_pem)).map_err(fault)?, false));
    }
    if key.exists() && TRACES.iter().any(|name| directory.join(name).exists()) {
        return Err(KeysError::Lost { certificate, key });
    }
    let authority = Authority::create(now_ms).map_err(fault)?;
    write(&key, authority.key_pem().secret(), 0o600)?;
    write(&certificate, authority.ca_pem(), 0o644)?;
    Ok((authority, true))
}

fn read(path: &Path) -> Result<Option<String>, KeysError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(KeysError::File { path: path.to_owned(), cause }),
    }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), KeysError> {
    durable::replace(path, text.as_bytes(), mode).map_err(|cause| KeysError::File { path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_made_once_and_readable_by_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let first = Keys::open(directory.path(), 1_800_000_000_000).unwrap();
        let second = Keys::open(directory.path(), 1_900_000_000_000).unwrap();
        assert!(first.created && !second.created);
        assert_eq!((first.authority.pin(), first.admin), (second.authority.pin(), second.admin));
        for secret in ["ca-key.pem", "admin-token"] {
            let mode = std::fs::metadata(directory.path().join(secret)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{secret}");
        }
    }

    #[test]
    fn a_lost_certificate_does_not_cost_the_key() {
        let directory = tempfile::tempdir().unwrap();
        drop(Keys::open(directory.path(), 1_800_000_000_000).unwrap());
        let key = std::fs::read(directory.path().join("ca-key.pem")).unwrap();
        std::fs::remove_file(directory.path().join("ca.pem")).unwrap();
        std::fs::write(directory.path().join("fleet.db"), "").unwrap();
        assert!(matches!(Keys::open(directory.path(), 1_800_000_000_000), Err(KeysError::Lost { .. })));
        assert_eq!(std::fs::read(directory.path().join("ca-key.pem")).unwrap(), key);
        // A first start that was cut between key and certificate.
        std::fs::remove_file(directory.path().join("fleet.db")).unwrap();
        assert!(Keys::open(directory.path(), 1_800_000_000_000).unwrap().created);
    }

    #[test]
    fn an_authority_that_lost_its_key_is_not_replaced_in_silence() {
        let directory = tempfile::tempdir().unwrap();
        drop(Keys::open(directory.path(), 1_800_000_000_000).unwrap());
        std::fs::remove_file(directory.path().join("ca-key.pem")).unwrap();
        assert!(matches!(Keys::open(directory.path(), 1_800_000_000_000), Err(KeysError::File { .. })));
    }
}
