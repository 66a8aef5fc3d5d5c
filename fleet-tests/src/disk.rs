//! A small disk of a node's own: a file system in memory that only it sees, so that it can be filled.

use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Mounted as long as it lives; what is on it survives the end of the processes that use it.
#[derive(Debug)]
pub struct SmallDisk {
    /// Holds the mount: it ends when its standard input does.
    holder: Child,
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one of `mib` mebibytes at `path`.
    ///
    /// # Errors
    /// When this user may not have name spaces of its own.
    pub fn mount(path: &Path, mib: u32) -> Result<Self> {
        fs::create_dir_all(path)?;
        let script = format!("mount -t tmpfs -o size={mib}m none '{}' && echo mounted && exec cat", path.display());
        let mut holder = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("run unshare")?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take().context("read what unshare says")?).read_line(&mut line)?;
        ensure!(line == "mounted\n", "no disk could be mounted in a name space of its own");
        Ok(Self { holder, path: path.to_owned() })
    }

    /// `program`, run where the disk is mounted.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--preserve-credentials", "--user", "--mount", "--target", &self.holder.id().to_string()]).arg(program);
        command
    }

    /// The disk as seen from outside.
    #[must_use]
    pub fn outside(&self) -> PathBuf {
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(self.path.strip_prefix("/").unwrap_or(&self.path))
    }

    /// Fills it to the last byte; answers the file that does.
    ///
    /// # Errors
    /// When something else than the room stands in the way.
    pub fn fill(&self) -> Result<PathBuf> {
        let path = self.outside().join("ballast");
        let mut file = fs::File::create(&path)?;
        let filled = std::io::copy(&mut std::io::repeat(0), &mut file);
        let kind = filled.map_err(|error| error.kind());
        ensure!(kind == Err(std::io::ErrorKind::StorageFull), "the disk has no end: {kind:?}");
        Ok(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}
