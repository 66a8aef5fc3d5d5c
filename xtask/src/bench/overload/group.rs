//! A control group of two processors and a gibibyte, so that the proof means the same on every machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Of memory, bytes.
pub(super) const MEMORY_BYTES: u64 = 1 << 30;
/// Processors.
pub(super) const CORES: u64 = 2;
/// Length of a quota, microseconds.
const PERIOD_US: u64 = 100_000;
const NAME: &str = "sedge-bench";

/// The group: one directory in the unified hierarchy, or one for each controller in the older one. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Group {
    directories: Vec<PathBuf>,
    memory: PathBuf,
    events: &'static str,
}

impl Group {
    /// Makes it; needs root.
    pub(super) fn make() -> Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let unified = root.join("cgroup.controllers").is_file();
        let (memory, cpu) =
            if unified { (root.join(NAME), root.join(NAME)) } else { (root.join("memory").join(NAME), root.join("cpu").join(NAME)) };
        let group = Self {
            directories: vec![memory.clone(), cpu.clone()],
            memory,
            events: if unified { "memory.events" } else { "memory.oom_control" },
        };
        for directory in &group.directories {
            fs::create_dir_all(directory).with_context(|| format!("make the control group {} (as root)", directory.display()))?;
        }
        let quota_us = CORES * PERIOD_US;
        let settings = if unified {
            vec![(group.memory.join("memory.max"), MEMORY_BYTES.to_string()), (cpu.join("cpu.max"), format!("{quota_us} {PERIOD_US}"))]
        } else {
            vec![
                (group.memory.join("memory.limit_in_bytes"), MEMORY_BYTES.to_string()),
                (cpu.join("cpu.cfs_period_us"), PERIOD_US.to_string()),
                (cpu.join("cpu.cfs_quota_us"), quota_us.to_string()),
            ]
        };
        for (file, value) in settings {
            fs::write(&file, &value).with_context(|| format!("write {value} to {}", file.display()))?;
        }
        Ok(group)
    }

    /// A program that enters the group and becomes `sedged` with this way to limit concurrency. Nice is what the load has too much of.
    pub(super) fn program(&self, sedged: &Path, rival: Option<&str>, dir: &Path) -> Result<PathBuf> {
        let path = dir.join(format!("sedged-{}", rival.unwrap_or("ours")));
        let enter: Vec<String> =
            self.directories.iter().map(|directory| format!("echo $$ > {}/cgroup.procs\n", directory.display())).collect();
        let variable = rival.map_or_else(String::new, |rival| format!("export SEDGE_RIVAL={rival}\n"));
        let text =
            format!("#!/bin/sh\nset -e\n{}{variable}exec nice -n {} {} \"$@\"\n", enter.concat(), -super::LOAD_NICE, sedged.display());
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// Processes of the group that the kernel ended for want of memory, since it was made.
    pub(super) fn ended_for_memory(&self) -> Result<u64> {
        let path = self.memory.join(self.events);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.context("the kernel does not count what it ends for memory")?.trim().parse().context("a count")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for directory in &self.directories {
            drop(fs::remove_dir(directory));
        }
    }
}
