//! The bundle that brings this version to boxes that run another one.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sedge_bundle::{About, write};

use super::Build;
use super::keys::Keys;
use super::stage::Stage;

/// A finished bundle.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// Makes it beside the image.
pub(crate) fn make(build: &Build, stage: &Stage, kernel: &Path, keys: &Keys) -> Result<Bundle> {
    let path = build.out.join(format!("{}.sedge-os", build.name()));
    let open = |path: &Path| File::open(path).map(BufReader::new).with_context(|| format!("open {}", path.display()));
    let about = About { board: build.board(), version: build.version.parse()?, minimum: build.minimum.clone() };
    let mut file = BufWriter::new(File::create(&path).with_context(|| format!("create {}", path.display()))?);
    let written = write(&mut file, &about, (open(kernel)?, open(&stage.image)?), &[keys.bundle()?])?;
    file.flush().with_context(|| format!("write {}", path.display()))?;
    Ok(Bundle { path, bytes: written.bytes })
}
