//! Whether the sources changed: told by the system, judged by their contents.

use super::Event;
use anyhow::Context as _;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::SyncSender;

/// Directories that builds write.
const RESULTS: [&str; 2] = ["target", "node_modules"];
/// Files that a build may write among the sources: what it settled on.
const LOCKS: [&str; 6] = ["Cargo.lock", "package-lock.json", "go.sum", "uv.lock", "build.zig.zon", "requirements.lock"];

/// Digests by path.
type Contents = BTreeMap<PathBuf, [u8; 32]>;

/// The sources of one function.
#[derive(Debug)]
pub(super) struct Sources {
    dir: PathBuf,
    /// Contents that were last built; none when they could not be read.
    built: Option<Contents>,
    /// Watches for as long as it lives.
    _watcher: RecommendedWatcher,
}

impl Sources {
    /// Sends [`Event::Changed`] whenever something below `dir` may have changed.
    pub(super) fn watch(dir: &Path, sender: SyncSender<Event>) -> anyhow::Result<Self> {
        let dir = dir.canonicalize().with_context(|| format!("read {}", dir.display()))?;
        let root = dir.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error means that events were lost: look at everything.
            let idle = |event: notify::Event| event.kind.is_access() || !event.paths.iter().any(|path| is_source(&root, path));
            if !event.is_ok_and(idle) {
                // Nobody listens any more when the loop is over.
                sender.send(Event::Changed).ok();
            }
        })
        .context("watch for changes")?;
        watcher.watch(&dir, RecursiveMode::Recursive).with_context(|| format!("watch {}", dir.display()))?;
        Ok(Self { built: contents(&dir), dir, _watcher: watcher })
    }

    /// Whether the contents differ from what they were when this was last asked.
    pub(super) fn differ(&mut self) -> bool {
        let now = contents(&self.dir);
        let differ = now.is_none() || now != self.built;
        self.built = now;
        differ
    }

    /// A build has ended that left `artifact`: what it wrote itself is no change. What somebody edited meanwhile still is.
    pub(super) fn built(&mut self, artifact: &Path) {
        let (Some(before), Some(now)) = (&mut self.built, contents(&self.dir)) else { return };
        let artifact = artifact.canonicalize().ok();
        let own = |path: &Path| {
            artifact.as_deref() == Some(&*self.dir.join(path))
                || LOCKS.iter().any(|lock| path.file_name().is_some_and(|name| name == *lock))
        };
        before.extend(now.into_iter().filter(|(path, _)| own(path)));
    }
}

fn contents(dir: &Path) -> Option<Contents> {
    sedge_build::contents(dir).ok()
}

/// Results of builds and hidden files are no sources.
fn is_source(root: &Path, path: &Path) -> bool {
    let below = path.strip_prefix(root).unwrap_or(path);
    below.components().all(|part| match part {
        Component::Normal(name) => !name.as_encoded_bytes().starts_with(b".") && !RESULTS.iter().any(|result| name == *result),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::sync::mpsc;

    #[test]
    fn results_and_hidden_files_are_no_sources() {
        let root = Path::new("/p");
        for (path, source) in [("/p/src/main.rs", true), ("/p/target/x", false), ("/p/.git/x", false), ("/p/a/node_modules/x", false)] {
            assert_eq!(is_source(root, Path::new(path)), source, "{path}");
        }
    }

    #[test]
    fn a_write_is_told_and_only_new_contents_count() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.rs");
        fs::write(&file, "one").unwrap();
        let (sender, events) = mpsc::sync_channel(64);
        let mut sources = Sources::watch(dir.path(), sender).unwrap();
        fs::write(&file, "one").unwrap();
        assert!(matches!(events.recv().unwrap(), Event::Changed));
        assert!(!sources.differ());
        fs::write(&file, "two").unwrap();
        assert!(sources.differ() && !sources.differ());
    }

    #[test]
    fn what_a_build_writes_is_no_change_and_what_somebody_edits_meanwhile_is() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("a.rs", "one");
        let (sender, _events) = mpsc::sync_channel(64);
        let mut sources = Sources::watch(dir.path(), sender).unwrap();
        // The first build settles on versions and leaves its artifact among the sources.
        write("Cargo.lock", "versions");
        write("a.wasm", "wasm");
        sources.built(&dir.path().join("a.wasm"));
        assert!(!sources.differ());
        write("Cargo.lock", "other versions");
        write("a.rs", "two");
        sources.built(&dir.path().join("a.wasm"));
        assert!(sources.differ() && !sources.differ());
    }
}
