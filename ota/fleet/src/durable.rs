//! Files that survive a power cut: written beside, synced, renamed, directory synced.

use std::fs::{File, OpenOptions, rename};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces `path` with `bytes` as a whole; `mode` is that of the file. Blocks.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let beside = path.with_extension(format!("{:016x}.tmp", rand::random::<u64>()));
    let written = write(&beside, bytes, mode).and_then(|()| rename(&beside, path));
    if written.is_err() {
        // The error that matters is the one of the write.
        drop(std::fs::remove_file(&beside));
    }
    written?;
    File::open(directory)?.sync_all()
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
