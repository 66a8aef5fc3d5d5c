//! The kernel image: kernel, first program and command line in one signed file that the firmware can start.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Build;
use super::keys::Keys;
use super::recipe::Recipe;
use super::stage::Stage;
use super::tools::{Tools, output};

/// What it is made of.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) base: &'a Path,
    pub(crate) stage: &'a Stage,
    pub(crate) initrd: &'a Path,
    pub(crate) keys: &'a Keys,
}

/// Makes it.
pub(crate) fn make(build: &Build, recipe: &Recipe, tools: &Tools, parts: &Parts<'_>) -> Result<PathBuf> {
    let image = build.work.join("kernel.efi");
    let boot = parts.base.join("boot");
    let entries = fs::read_dir(&boot).with_context(|| format!("read {}", boot.display()))?;
    let mut names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let kernel = names.find(|name| name.starts_with("vmlinuz-")).context("the base has no kernel")?;
    let version = kernel.trim_start_matches("vmlinuz-").to_owned();
    let root = [
        format!("sedge.version={}", build.version),
        format!("sedge.roothash={}", parts.stage.root_hash),
        format!("sedge.hash_offset={}", parts.stage.hash_offset),
    ];
    let command_line = recipe.command_line.iter().chain(&root).cloned().collect::<Vec<_>>().join(" ");
    let efi = build.arch.efi();
    let mut ukify = tools.command_at_commit("ukify");
    ukify.args(["build", "--efi-arch", efi, "--uname", &version, "--cmdline", &command_line]);
    ukify.arg("--linux").arg(boot.join(&kernel)).arg("--initrd").arg(parts.initrd);
    ukify.arg("--os-release").arg(format!("@{}", parts.stage.tree.join("usr/lib/os-release").display()));
    ukify.arg("--stub").arg(parts.base.join(format!("usr/lib/systemd/boot/efi/linux{efi}.efi.stub")));
    ukify.arg("--secureboot-private-key").arg(&parts.keys.key).arg("--secureboot-certificate").arg(&parts.keys.certificate);
    output(ukify.arg("--output").arg(&image)).context("make the kernel image")?;
    Ok(image)
}
