//! The versions that a booted box is updated to in tests: one that works, and one for each way not to.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Arch, Options, build};
use crate::{progress, workspace};

/// Lays the fault of a version below a directory.
type Fault = fn(&Path) -> Result<()>;

/// Every version with what is wrong with it. The image that is flashed has the version of the workspace, which is below all of them.
const SERIES: [(&str, Fault); 5] =
    [("1.0", works), ("2.0", daemon_fails), ("3.0", no_network), ("4.0", hangs_at_once), ("5.0", keeper_fails)];
/// How many of them are made for the processor that takes longest to emulate.
const ARM64: usize = 2;

/// Makes a bundle of each; answers the directory.
pub(crate) fn bundles(arch: Arch, sedged: &Path) -> Result<PathBuf> {
    let out = workspace::target().join("image/series").join(arch.name());
    let versions = match arch {
        Arch::X86_64 => SERIES.len(),
        Arch::Arm64 => ARM64,
    };
    for (version, fault) in &SERIES[..versions] {
        let overlay = out.join(format!("overlay-{version}"));
        if overlay.exists() {
            fs::remove_dir_all(&overlay).with_context(|| format!("remove {}", overlay.display()))?;
        }
        fs::create_dir_all(overlay.join("root")).context("create an overlay")?;
        fault(&overlay)?;
        progress::say(&format!("version {version}"));
        let (version, out, overlay) = (Some((*version).to_owned()), Some(out.clone()), Some(overlay));
        build(&Options { version, out, overlay, bundle_only: true, ..Options::test(arch, sedged.to_owned()) })?;
    }
    Ok(out)
}

/// The size of a library's update: some hundred kilobytes of other content.
fn works(overlay: &Path) -> Result<()> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    write(overlay, "root/usr/lib/sedge/library", &(0..600_000).map(|_| next()).collect::<Vec<u8>>())
}

fn daemon_fails(overlay: &Path) -> Result<()> {
    write(
        overlay,
        "root/usr/lib/systemd/system/sedged.service.d/90-fault.conf",
        b"[Service]\nExecStart=\nExecStart=/bin/false\nRestartSec=1\n",
    )
}

fn no_network(overlay: &Path) -> Result<()> {
    let link = overlay.join("root/etc/systemd/system/systemd-networkd.service");
    fs::create_dir_all(link.parent().context("a path without directory")?).context("create an overlay")?;
    symlink("/dev/null", link).context("mask the network")
}

/// The first program waits for ever for a module that nobody writes.
fn hangs_at_once(overlay: &Path) -> Result<()> {
    let module = overlay.join("initrd/modules/dm-mod.ko");
    fs::create_dir_all(module.parent().context("a path without directory")?).context("create an overlay")?;
    let made = std::process::Command::new("mkfifo").arg(&module).status().context("run mkfifo")?;
    anyhow::ensure!(made.success(), "mkfifo failed ({made})");
    Ok(())
}

/// Who gives a version up is not there.
fn keeper_fails(overlay: &Path) -> Result<()> {
    write(overlay, "root/usr/lib/systemd/system/sedge-os.service.d/90-fault.conf", b"[Service]\nExecStart=\nExecStart=/bin/false\n")
}

fn write(overlay: &Path, path: &str, bytes: &[u8]) -> Result<()> {
    let path = overlay.join(path);
    fs::create_dir_all(path.parent().context("a path without directory")?).context("create an overlay")?;
    fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))
}
