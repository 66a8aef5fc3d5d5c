//! Checksums of what was built, as `sha256sum --check` reads them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sedge_protocol::Digest;

const ENDING: &str = "sha256";

/// Writes `BUILD.sha256` with a line for each file of that build in `out`, and one beside the image itself, which is what `sedge flash` reads.
pub(super) fn write(out: &Path, build: &str, image: &Path) -> Result<()> {
    let own = format!("{build}.");
    let entries = fs::read_dir(out).with_context(|| format!("read {}", out.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| name(path).starts_with(&own) && path.extension().is_none_or(|ending| ending != ENDING));
    files.sort();
    let lines = files.iter().map(|path| line(path)).collect::<Result<Vec<_>>>()?;
    let list = out.join(format!("{own}{ENDING}"));
    fs::write(&list, lines.concat()).with_context(|| format!("write {}", list.display()))?;
    let beside = image.with_file_name(format!("{}.{ENDING}", name(image)));
    fs::write(&beside, line(image)?).with_context(|| format!("write {}", beside.display()))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn line(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(format!("{}  {}\n", Digest::of(&bytes).hex(), name(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_this_build_are_listed_and_no_others() {
        let out = tempfile::tempdir().unwrap();
        let build = "sedge-test-x86-64-1.0.0";
        let image = out.path().join(format!("{build}.img.zst"));
        for file in [&image, &out.path().join(format!("{build}.cdx.json")), &out.path().join("sedge-test-x86-64-1.0.01.img.zst")] {
            fs::write(file, "x").unwrap();
        }
        write(out.path(), build, &image).unwrap();
        // Once more: the lists themselves are not listed.
        write(out.path(), build, &image).unwrap();
        let digest = Digest::of(b"x").hex();
        let list = fs::read_to_string(out.path().join("sedge-test-x86-64-1.0.0.sha256")).unwrap();
        assert_eq!(list, format!("{digest}  sedge-test-x86-64-1.0.0.cdx.json\n{digest}  sedge-test-x86-64-1.0.0.img.zst\n"));
        let beside = fs::read_to_string(out.path().join("sedge-test-x86-64-1.0.0.img.zst.sha256")).unwrap();
        assert_eq!(beside, format!("{digest}  sedge-test-x86-64-1.0.0.img.zst\n"));
    }
}
