//! `wasi:config/store`: the settings of the manifest.

use super::bindings::config::store;
use crate::state::State;

impl store::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, store::Error>> {
        Ok(Ok(self.manifest().settings.get(&key).cloned()))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, store::Error>> {
        Ok(Ok(self.manifest().settings.clone().into_iter().collect()))
    }
}
