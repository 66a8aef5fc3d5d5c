//! `wasi:config/store`: the settings of the manifest, and the secrets of the node that it names.
//!
//! A secret is given to whoever asks for it by name; the list of everything holds settings only, because lists get logged.

use super::bindings::config::store;
use crate::state::State;

impl store::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, store::Error>> {
        let Some(name) = self.manifest().access.secrets.iter().find(|name| name.as_str() == key) else {
            return Ok(Ok(self.manifest().settings.get(&key).cloned()));
        };
        Ok(match self.host.secret(name) {
            Ok(Some(secret)) => Ok(Some(secret.reveal().clone())),
            Ok(None) => {
                Err(store::Error::Upstream(format!("the secret `{key}` is not on this node yet: run `sedge secret set {key}` there")))
            }
            Err(error) => Err(store::Error::Io(error.to_string())),
        })
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, store::Error>> {
        Ok(Ok(self.manifest().settings.clone().into_iter().collect()))
    }
}
