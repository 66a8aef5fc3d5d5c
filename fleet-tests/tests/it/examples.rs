//! The examples of the field, as `cargo xtask guests` built them, pass the cases that lie beside them.

use crate::support::directory;
use anyhow::{Context as _, Result};
use fleet_tests::artifact;
use fleet_tests::cli::sedge;
use std::fs;
use std::path::Path;

/// The function's own project, but for its build: that only takes what is built already, so nothing of it needs a compiler.
fn check(name: &str) -> Result<()> {
    let directory = directory()?;
    let dir = directory.path().join(name);
    fs::create_dir_all(dir.join("tests"))?;
    let manifest = artifact::manifest_path(name);
    let source = manifest.parent().context("a manifest lies in a directory")?;
    for entry in fs::read_dir(source.join("tests")).with_context(|| format!("{name} has no cases"))? {
        let entry = entry?;
        fs::copy(entry.path(), dir.join("tests").join(entry.file_name()))?;
    }
    fs::copy(artifact::guest_path(name)?, dir.join("source"))?;
    fs::write(dir.join("function.toml"), built_already(&manifest)?)?;
    let done = sedge(None, &["test", &dir.to_string_lossy()])?;
    assert!(done.code == Some(0) && done.stderr.contains(" passed, 0 failed"), "{name}: {done:?}");
    Ok(())
}

/// The manifest with a build that copies, in the place of its own if it has one. Assets are in the artifact already.
fn built_already(manifest: &Path) -> Result<String> {
    let text = fs::read_to_string(manifest).with_context(|| format!("read {}", manifest.display()))?;
    let build = "[build]\ncommand = 'mkdir -p target && cp source target/a.wasm'\nartifact = 'target/a.wasm'\n";
    let (before, after) = text.split_once("[build]\nassets = \"site\"\n").unwrap_or((&text, ""));
    Ok(if after.is_empty() { format!("{before}\n{build}") } else { format!("{before}{build}{after}") })
}

#[test]
fn a_moving_average_with_an_alarm() -> Result<()> {
    check("average")
}

#[test]
fn a_decoder_of_modbus_registers() -> Result<()> {
    check("modbus")
}

#[test]
fn a_roll_up_of_csv() -> Result<()> {
    check("rollup")
}

#[test]
fn a_thumbnail() -> Result<()> {
    check("thumbnail")
}

#[test]
fn a_web_page_with_its_assets() -> Result<()> {
    check("page")
}

#[test]
#[ignore = "needs `cargo xtask guests --all`: tools of a hundred megabytes, a minute of compilation"]
fn a_translator_of_protocols() -> Result<()> {
    check("translate")
}
