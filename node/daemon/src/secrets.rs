//! Secrets of the node: set by an operator, read by the functions whose manifest names them, never shown again.
//!
//! ```text
//! sedge secret set NAME ─▶ local API ─▶ sealed (ChaCha20-Poly1305, the name is bound) ─▶ store        key: secrets.key, 0600
//! ```
//! The key lies beside the store, so this keeps a secret out of copies, backups and logs of the store, not from whoever has the
//! whole disk. Values are sealed in memory too, and opened for the moment that a function asks.

use crate::limits::{MISSING_SECRETS_MAX, SECRETS_MAX};
use anyhow::Context as _;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use sedge_protocol::Manifest;
use sedge_protocol::manifest::SecretName;
use sedge_runtime::{HostError, Secret};
use sedge_store::{Batch, Durability, Store, Tree, durable};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

const PREFIX: &[u8] = b"secret/";
const KEY_BYTES: usize = 32;

/// The secrets of this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Secrets(Arc<Parts>);

struct Parts {
    store: Store,
    key: LessSafeKey,
    random: SystemRandom,
    // A leaf lock, held for a look or a change in memory.
    sealed: RwLock<BTreeMap<SecretName, Vec<u8>>>,
}

impl Secrets {
    /// Reads what is kept; makes the key the first time. Blocks.
    pub(crate) fn open(data_dir: &Path, store: &Store) -> anyhow::Result<Self> {
        let random = SystemRandom::new();
        let mut sealed = BTreeMap::new();
        for (key, value) in store.scan(Tree::Meta, PREFIX, None, SECRETS_MAX).context("read the secrets")? {
            if let Some(name) = std::str::from_utf8(&key[PREFIX.len()..]).ok().and_then(|name| name.parse().ok()) {
                sealed.insert(name, value);
            }
        }
        let key = key(&data_dir.join("secrets.key"), &random, !sealed.is_empty())?;
        Ok(Self(Arc::new(Parts { store: store.clone(), key, random, sealed: RwLock::new(sealed) })))
    }

    /// Keeps a value, durably.
    pub(crate) async fn set(&self, name: &SecretName, value: &Secret<String>) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.0.sealed.read().unwrap_or_else(PoisonError::into_inner).len() < SECRETS_MAX || self.holds(name),
            "a node keeps at most {SECRETS_MAX} secrets"
        );
        let sealed = self.seal(name, value)?;
        let mut batch = Batch::new();
        batch.set(Tree::Meta, store_key(name), sealed.clone());
        self.0.store.commit(batch, Durability::Each)?.durable().await.context("keep a secret")?;
        self.0.sealed.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), sealed);
        Ok(())
    }

    /// Forgets a value, durably; answers whether there was one.
    pub(crate) async fn remove(&self, name: &SecretName) -> anyhow::Result<bool> {
        let mut batch = Batch::new();
        batch.delete(Tree::Meta, store_key(name));
        self.0.store.commit(batch, Durability::Each)?.durable().await.context("forget a secret")?;
        Ok(self.0.sealed.write().unwrap_or_else(PoisonError::into_inner).remove(name).is_some())
    }

    /// The value, for a function that may have it.
    pub(crate) fn get(&self, name: &SecretName) -> Result<Option<Secret<String>>, HostError> {
        let sealed = self.0.sealed.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let Some(sealed) = sealed else { return Ok(None) };
        let opened = self.unseal(name, sealed);
        opened.map(Some).ok_or_else(|| HostError::Failed(format!("the secret `{name}` is damaged: set it again")))
    }

    /// All names, ascending.
    pub(crate) fn names(&self) -> Vec<SecretName> {
        self.0.sealed.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// What a manifest names and is not here, the first few.
    pub(crate) fn missing(&self, manifest: &Manifest) -> Vec<SecretName> {
        manifest.access.secrets.iter().filter(|name| !self.holds(name)).take(MISSING_SECRETS_MAX).cloned().collect()
    }

    fn holds(&self, name: &SecretName) -> bool {
        self.0.sealed.read().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    /// Nonce and sealed value.
    fn seal(&self, name: &SecretName, value: &Secret<String>) -> anyhow::Result<Vec<u8>> {
        const FAILED: &str = "sealing a short value does not fail";
        let mut nonce = [0; NONCE_LEN];
        self.0.random.fill(&mut nonce).map_err(|_| anyhow::anyhow!("the system has no random numbers"))?;
        let mut bytes = value.reveal().clone().into_bytes();
        let sealing = self.0.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name.as_str()), &mut bytes);
        sealing.map_err(|_| anyhow::anyhow!(FAILED))?;
        Ok([nonce.as_slice(), &bytes].concat())
    }

    fn unseal(&self, name: &SecretName, mut sealed: Vec<u8>) -> Option<Secret<String>> {
        let (nonce, bytes) = sealed.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let value = self.0.key.open_in_place(nonce, Aad::from(name.as_str()), bytes).ok()?;
        String::from_utf8(value.to_vec()).ok().map(Secret::new)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

fn store_key(name: &SecretName) -> Vec<u8> {
    [PREFIX, name.as_str().as_bytes()].concat()
}

/// The node's key. One that is gone while there are secrets makes them unreadable, which is said once and at every use.
fn key(path: &Path, random: &SystemRandom, expected: bool) -> anyhow::Result<LessSafeKey> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) if bytes.len() == KEY_BYTES => bytes,
        Ok(_) => anyhow::bail!("{} is not a key of {KEY_BYTES} bytes: restore it, or remove it and set all secrets again", path.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if expected {
                log::error!(path:% = path.display(); "the key of the secrets is gone: they have to be set again");
            }
            let mut bytes = vec![0; KEY_BYTES];
            random.fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system has no random numbers"))?;
            durable::replace_private(path, &bytes).context("keep the key of the secrets")?;
            bytes
        }
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| anyhow::anyhow!("a key has {KEY_BYTES} bytes"))?;
    Ok(LessSafeKey::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_store::StoreConfig;
    use std::os::unix::fs::PermissionsExt as _;

    const VALUE: &str = "correct horse battery staple";

    fn name(text: &str) -> SecretName {
        text.parse().unwrap()
    }

    fn open(dir: &Path) -> Secrets {
        let (store, _) = Store::open(&dir.join("store"), StoreConfig::default()).unwrap();
        Secrets::open(dir, &store).unwrap()
    }

    fn value(secrets: &Secrets, of: &str) -> Option<String> {
        secrets.get(&name(of)).unwrap().map(|secret| secret.reveal().clone())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_secret_survives_a_restart_and_lies_nowhere_in_clear() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = open(dir.path());
        assert_eq!(value(&secrets, "api-key"), None);
        secrets.set(&name("api-key"), &Secret::new(VALUE.to_owned())).await.unwrap();
        secrets.0.store.close().unwrap();
        drop(secrets);
        let secrets = open(dir.path());
        assert_eq!(value(&secrets, "api-key").as_deref(), Some(VALUE));
        assert_eq!(secrets.names(), [name("api-key")]);
        let mode = std::fs::metadata(dir.path().join("secrets.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut open = vec![dir.path().to_owned()];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                let bytes = std::fs::read(&path).unwrap();
                assert!(!bytes.windows(VALUE.len()).any(|part| part == VALUE.as_bytes()), "{}", path.display());
            }
        }
        assert!(secrets.remove(&name("api-key")).await.unwrap() && !secrets.remove(&name("api-key")).await.unwrap());
        assert!(secrets.names().is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_secret_under_another_name_or_without_its_key_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = open(dir.path());
        secrets.set(&name("a"), &Secret::new(VALUE.to_owned())).await.unwrap();
        let sealed = secrets.0.sealed.read().unwrap()[&name("a")].clone();
        secrets.0.sealed.write().unwrap().insert(name("b"), sealed);
        assert!(secrets.get(&name("b")).is_err_and(|error| error.to_string().contains("`b` is damaged")));
        secrets.0.store.close().unwrap();
        drop(secrets);
        std::fs::remove_file(dir.path().join("secrets.key")).unwrap();
        let secrets = open(dir.path());
        assert!(secrets.get(&name("a")).is_err_and(|error| !error.to_string().contains(VALUE)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_manifest_names_and_is_not_here_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = open(dir.path());
        let manifest = Manifest::from_toml("f", "name = 'f'\n[access]\nsecrets = ['a', 'b']\n").unwrap().0;
        secrets.set(&name("a"), &Secret::new(String::new())).await.unwrap();
        assert_eq!(secrets.missing(&manifest), [name("b")]);
    }
}
