//! The daemon in a control group of its own, as a unit with `MemoryMax` is.

use crate::support::directory;
use anyhow::{Context as _, Result};
use fleet_tests::Node;
use std::fs;
use std::path::{Path, PathBuf};

const MIB: u64 = 1024 * 1024;

/// A group with so much memory, which this process has entered and so has what it starts. Dropping it leaves and removes the group.
struct Group {
    directory: PathBuf,
    above: PathBuf,
}

impl Group {
    fn enter(bytes: u64) -> Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let (above, limit) = if root.join("cgroup.controllers").is_file() {
            (root.to_owned(), "memory.max")
        } else {
            (root.join("memory"), "memory.limit_in_bytes")
        };
        let group = Self { directory: above.join(format!("sedge-test-{}", std::process::id())), above };
        fs::create_dir(&group.directory).with_context(|| format!("make {}", group.directory.display()))?;
        fs::write(group.directory.join(limit), bytes.to_string())?;
        fs::write(group.directory.join("cgroup.procs"), std::process::id().to_string())?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(fs::write(self.above.join("cgroup.procs"), std::process::id().to_string()));
        drop(fs::remove_dir(&self.directory));
    }
}

#[test]
#[ignore = "needs root and a memory controller; `cargo xtask test --all`"]
fn the_memory_of_the_unit_is_what_the_daemon_hands_out() -> Result<()> {
    let directory = directory()?;
    let _group = Group::enter(512 * MIB)?;
    let mut node = Node::start(directory.path(), "node-1", None)?;
    // Half of it is for instances.
    assert_eq!(node.status()?.admission.memory_free_bytes, 256 * MIB);
    assert_eq!(node.stop()?.code(), Some(0));
    Ok(())
}
