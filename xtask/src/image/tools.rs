//! The tool root of a recipe, and copies of trees.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
pub(crate) use sedge_image_tools::{Tools, output};

use super::{Build, base, recipe::Recipe};
use crate::install::{self, Need};
use crate::progress::Step;

/// What the host has to bring.
const NEEDS: [Need; 1] = [Need { program: "mmdebstrap", package: "mmdebstrap" }];

/// The tool root of this recipe, made if it is not there yet.
pub(crate) fn ensure(build: &Build, recipe: &Recipe) -> Result<Tools> {
    let step = Step::begin("tools");
    install::ensure(&NEEDS)?;
    let root = build.cache.join(base::keyed("tools", base::SUITE, &recipe.tools));
    let tools = Tools::new(&root, &build.cache, build.epoch_s);
    if root.exists() {
        step.skipped(&format!("{} (kept)", root.display()));
        return Ok(tools);
    }
    step.now(&format!("{} packages of Debian {}", recipe.tools.len(), base::SUITE));
    base::bootstrap(&mut Command::new("mmdebstrap"), &base::Wanted { build, arch: None, packages: &recipe.tools, to: &root })?;
    step.done(&root.display().to_string());
    Ok(tools)
}

/// Copies files and links of a directory into another, over what is there.
pub(crate) fn overlay(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    let mut copy = Command::new("cp");
    copy.args(["-a", "--no-preserve=ownership", "--remove-destination", "-T"]).args([from, to]);
    let output = copy.output().context("run cp")?;
    ensure!(output.status.success(), "copy {} to {}: {}", from.display(), to.display(), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
