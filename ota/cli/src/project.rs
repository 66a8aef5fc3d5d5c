//! From a directory or a `.wasm` file to an artifact and its manifest, checked as the fleet and the node will check them.

use crate::failure::Failure;
use crate::output::Output;
use crate::style::Tone;
use crate::text;
use anyhow::Context as _;
use sedge_build::{Builder, Progress};
use sedge_protocol::artifact::{self, Kind};
use sedge_protocol::limits::ARTIFACT_BYTES_MAX;
use sedge_protocol::{Digest, Manifest};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The file that makes a directory a project.
pub(crate) const MANIFEST: &str = "function.toml";

/// A function as it can be published.
#[derive(Debug, Clone)]
pub(crate) struct Artifact {
    /// Where the Wasm lies.
    pub(crate) path: PathBuf,
    /// The Wasm.
    pub(crate) wasm: Vec<u8>,
    /// Its digest.
    pub(crate) digest: Digest,
    /// What it is.
    pub(crate) kind: Kind,
    /// What `function.toml` says.
    pub(crate) manifest: Manifest,
    /// How long the compiler took, or the command that builds; nothing for a file that was taken as it is.
    pub(crate) compiler: Duration,
}

impl Artifact {
    /// Size, bytes.
    pub(crate) fn size(&self) -> u64 {
        self.wasm.len() as u64
    }

    /// `sha256:0123…, 62.1 KiB, HTTP component`
    pub(crate) fn describe(&self) -> String {
        let short = &self.digest.hex()[..12];
        format!("{short}, {}, {}", text::bytes(self.size()), text::kind(self.kind))
    }
}

/// The function at `source`: a project's directory, which is built, or a `.wasm` file, which is taken as it is.
pub(crate) fn load(source: &Path, manifest: Option<&Path>, output: &Output) -> anyhow::Result<Artifact> {
    load_by(&Builder::for_user(), source, manifest, output)
}

/// As [`load`], built in a way of its own.
pub(crate) fn load_by(builder: &Builder, source: &Path, manifest: Option<&Path>, output: &Output) -> anyhow::Result<Artifact> {
    let is_dir = fs::metadata(source).with_context(|| format!("read {}", source.display()))?.is_dir();
    let manifest_path = match (manifest, is_dir) {
        (Some(path), _) => path.to_owned(),
        (None, true) => source.join(MANIFEST),
        (None, false) => source.parent().unwrap_or(Path::new("")).join(MANIFEST),
    };
    let manifest = read_manifest(&manifest_path)?;
    let (path, compiler) = if is_dir { build(builder, source, &manifest, output)? } else { (source.to_owned(), Duration::ZERO) };
    let metadata = fs::metadata(&path).with_context(|| format!("read {}", path.display()))?;
    anyhow::ensure!(metadata.is_file(), "{} is not a file", path.display());
    let size = metadata.len();
    anyhow::ensure!(size <= ARTIFACT_BYTES_MAX, artifact::ArtifactError::TooLarge { size, max: ARTIFACT_BYTES_MAX });
    let wasm = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let kind = artifact::inspect_for(&wasm, &manifest).with_context(|| format!("{} cannot be published", path.display()))?;
    Ok(Artifact { path, digest: Digest::of(&wasm), wasm, kind, manifest, compiler })
}

fn read_manifest(path: &Path) -> anyhow::Result<Manifest> {
    let text = fs::read_to_string(path).map_err(|cause| {
        let what = format!("read {}: {cause}", path.display());
        Failure::configuration(what, "`sedge new` makes a project; `--manifest FILE` names a manifest that lies elsewhere")
    })?;
    Ok(Manifest::from_toml(&path.display().to_string(), &text)?.0)
}

fn build(builder: &Builder, dir: &Path, manifest: &Manifest, output: &Output) -> anyhow::Result<(PathBuf, Duration)> {
    let bar = output.spinner(&format!("building {}", manifest.name));
    let mut step = String::new();
    let mut begin = Instant::now();
    let built = builder.build(dir, &mut |progress| match progress {
        Progress::Step(text) => {
            text.clone_into(&mut step);
            // The last step is the compiler's own; looking for it is ours.
            begin = Instant::now();
            bar.set_message(text.to_owned());
            // Stays when the line that changes is gone: what was run is part of the result.
            bar.suspend(|| output.said("build", Tone::Dim, text));
        }
        Progress::Line(line) => bar.set_message(format!("{step}: {}", text::clean(line.trim()))),
    });
    let compiler = begin.elapsed();
    bar.finish_and_clear();
    Ok((built?, compiler))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn a_wasm_file_takes_the_manifest_beside_it_or_the_named_one() {
        let dir = tempfile::tempdir().unwrap();
        let wasm = write(dir.path(), "a.wasm", wat::parse_str(r#"(module (func (export "_start")))"#).unwrap());
        let output = Output::new(false);
        assert!(load(&wasm, None, &output).is_err());
        write(dir.path(), MANIFEST, "name = 'beside'");
        assert_eq!(load(&wasm, None, &output).unwrap().manifest.name.as_str(), "beside");
        let named = write(dir.path(), "other.toml", "name = 'named'");
        let artifact = load(&wasm, Some(&named), &output).unwrap();
        assert_eq!((artifact.manifest.name.as_str(), artifact.kind), ("named", Kind::CoreCommand));
    }

    #[test]
    fn what_is_not_granted_is_refused_before_any_upload() {
        let dir = tempfile::tempdir().unwrap();
        let wat = r#"(module (import "env" "steal" (func)) (func (export "_start")))"#;
        let wasm = write(dir.path(), "a.wasm", wat::parse_str(wat).unwrap());
        write(dir.path(), MANIFEST, "name = 'a'");
        let error = load(&wasm, None, &Output::new(false)).unwrap_err();
        assert!(format!("{error:#}").contains("env.steal"), "{error:#}");
    }
}
