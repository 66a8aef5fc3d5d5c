//! The kernel's modules that are needed before the root file system, in lists whose order is that of what they need.

use rustix::system::finit_module;
use std::fs::{self, File};
use std::path::Path;

/// Where the builder put them, unpacked.
pub(crate) const DIRECTORY: &str = "/modules";

/// Loads those of the list `name`. A module that is refused is for hardware that this board lacks, or the root will be missed and that error says more.
pub(crate) fn load(name: &str) {
    let _all = load_until(name, || None::<()>);
}

/// [`load`], one after the other, until `found` has something: what most boards lack is not loaded.
pub(crate) fn load_until<T>(name: &str, mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let directory = Path::new(DIRECTORY);
    for name in fs::read_to_string(directory.join(name)).unwrap_or_default().lines() {
        let loaded = File::open(directory.join(name)).and_then(|file| Ok(finit_module(file, c"", 0)?));
        if let Err(error) = loaded {
            crate::say(&format!("<6>sedge-init: {name}: {error}"));
        }
        if let Some(found) = found() {
            return Some(found);
        }
    }
    None
}
