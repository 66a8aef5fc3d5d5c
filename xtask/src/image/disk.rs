//! The disk: boot partition, two slots of which the first is filled, and room for what lasts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sedge_protocol::Digest;

use super::keys::Keys;
use super::stage::Stage;
use super::tools::{Tools, output, overlay};
use super::{Build, recipe};

/// How often a new version is tried before the one before it is taken again.
const TRIES: u32 = 3;
/// Sectors of a cluster of the boot partition. A directory that fills its only cluster grows when the firmware renames a kernel image in it, and takes
/// a cluster that a power cut has left in two minds; 2 KiB are room for twenty names.
const CLUSTER_SECTORS: u32 = 4;

/// The finished image.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) digest: Digest,
}

/// What it is made of.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) base: &'a Path,
    pub(crate) stage: &'a Stage,
    pub(crate) kernel: &'a Path,
    pub(crate) keys: &'a Keys,
}

/// Makes the disk and packs it.
pub(crate) fn make(build: &Build, tools: &Tools, parts: &Parts<'_>) -> Result<Image> {
    let Parts { base, stage, kernel, keys } = parts;
    let root = build.work.join("disk");
    let esp = root.join("esp");
    overlay(&recipe::root().join("esp"), &esp)?;
    for directory in ["EFI/BOOT", "EFI/Linux"] {
        fs::create_dir_all(esp.join(directory)).context("create the boot partition")?;
    }
    let efi = build.arch.efi();
    let loader = esp.join(format!("EFI/BOOT/BOOT{}.EFI", efi.to_uppercase()));
    let mut sign = tools.command_at_commit("sbsign");
    sign.arg("--key").arg(&keys.key).arg("--cert").arg(&keys.certificate).arg("--output").arg(&loader);
    output(sign.arg(base.join(format!("usr/lib/systemd/boot/efi/systemd-boot{efi}.efi")))).context("sign the boot loader")?;
    fs::copy(kernel, esp.join(format!("EFI/Linux/sedge_{}+{TRIES}.efi", build.version))).context("copy the kernel image")?;
    overlay(&keys.enrolment, &esp.join("loader/keys/sedge"))?;
    fs::hard_link(&stage.image, root.join("root.img")).context("link the root file system")?;
    let definitions = build.work.join("partitions");
    overlay(&recipe::root().join("partitions"), &definitions)?;
    let old = format!("@{}", build.epoch_s);
    output(tools.command("find").arg(&root).args(["-exec", "touch", "-h", "-d", &old, "{}", "+"])).context("set the time of files")?;
    let disk = build.work.join("disk.img");
    let mut repart = tools.command_at_commit("systemd-repart");
    repart.args(["--empty=create", "--size=auto", "--offline=yes", "--dry-run=no", "--no-pager", "--sector-size=512"]);
    repart.arg(format!("--architecture={}", build.arch.name())).arg(format!("--seed={}", build.uuid("disk")));
    repart.arg(format!("--root={}", root.display())).arg(format!("--definitions={}", definitions.display()));
    repart.env("SYSTEMD_REPART_MKFS_OPTIONS_VFAT", format!("-s {CLUSTER_SECTORS}"));
    output(repart.arg(&disk)).context("lay out the disk")?;
    let packed = build.work.join("disk.img.zst");
    output(tools.command("zstd").args(["-q", "-f", "-10", "-T2"]).arg(&disk).arg("-o").arg(&packed)).context("pack the disk")?;
    let packed = fs::read(&packed).context("read the packed disk")?;
    let path = build.out.join(format!("{}.img.zst", build.name()));
    fs::write(&path, &packed).with_context(|| format!("write {}", path.display()))?;
    Ok(Image { digest: Digest::of(&packed), bytes: packed.len() as u64, path })
}
