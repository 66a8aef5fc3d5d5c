//! `[build] assets`: the files of a directory go into the artifact.

use std::path::{Path, PathBuf};
use std::{fs, io};

use sedge_protocol::assets::{self, AssetFile, AssetsError};
use sedge_protocol::limits::{ASSETS_BYTES_MAX, ASSETS_MAX};

/// Why the assets could not be added.
#[derive(Debug, thiserror::Error)]
pub enum AddAssetsError {
    /// A file or directory cannot be read or written.
    #[error("read or write {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Neither a file nor a directory; a link would bring files of this machine along.
    #[error("{} is neither a file nor a directory", .0.display())]
    NotAFile(PathBuf),
    /// The files break a rule.
    #[error("the assets in {}", dir.display())]
    Rule {
        /// Their directory.
        dir: PathBuf,
        /// Which rule.
        #[source]
        cause: AssetsError,
    },
}

/// Writes `artifact` with the files below `dir` inside to `out`. Hidden files are left out, `.well-known` excepted.
pub(crate) fn add(artifact: &Path, dir: &Path, out: &Path) -> Result<(), AddAssetsError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |cause| AddAssetsError::File { path, cause }
    };
    let rule = |cause| AddAssetsError::Rule { dir: dir.to_owned(), cause };
    let mut found = Found::default();
    collect(dir, dir, &mut found, &rule)?;
    let wasm = fs::read(artifact).map_err(at(artifact))?;
    let bytes = assets::append(&wasm, found.files).map_err(rule)?;
    if let Some(parent) = out.parent() {
        fs::create_dir_all(parent).map_err(at(parent))?;
    }
    fs::write(out, bytes).map_err(at(out))
}

#[derive(Default)]
struct Found {
    files: Vec<AssetFile<'static>>,
    bytes: u64,
}

fn collect(root: &Path, dir: &Path, found: &mut Found, rule: &dyn Fn(AssetsError) -> AddAssetsError) -> Result<(), AddAssetsError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |cause| AddAssetsError::File { path, cause }
    };
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let entry = entry.map_err(at(dir))?;
        let (path, name) = (entry.path(), entry.file_name());
        if name.as_encoded_bytes().starts_with(b".") && name != ".well-known" {
            continue;
        }
        let kind = entry.file_type().map_err(at(&path))?;
        if kind.is_dir() {
            collect(root, &path, found, rule)?;
            continue;
        }
        if !kind.is_file() {
            return Err(AddAssetsError::NotAFile(path));
        }
        // Before anything is read: a wrong directory may hold gigabytes.
        found.bytes = found.bytes.saturating_add(entry.metadata().map_err(at(&path))?.len());
        if found.bytes > ASSETS_BYTES_MAX {
            return Err(rule(AssetsError::TooLarge));
        }
        if found.files.len() == ASSETS_MAX {
            return Err(rule(AssetsError::TooMany));
        }
        let data = fs::read(&path).map_err(at(&path))?.into();
        let below = path.strip_prefix(root).unwrap_or(&path);
        found.files.push(AssetFile { path: below.to_string_lossy().into_owned(), data });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in ["page.wasm", "site/index.html", "site/css/a.css", "site/.draft", "site/.well-known/x"] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, if file == "page.wasm" { "\0asm\x01\0\0\0" } else { file }).unwrap();
        }
        dir
    }

    fn add_site(dir: &Path) -> Result<Vec<u8>, AddAssetsError> {
        let out = dir.join("out/page.wasm");
        add(&dir.join("page.wasm"), &dir.join("site"), &out)?;
        Ok(fs::read(out).unwrap())
    }

    #[test]
    fn the_files_are_inside_and_two_builds_are_one() {
        let (one, other) = (site(), site());
        let bytes = add_site(one.path()).unwrap();
        let paths: Vec<_> = assets::read(&bytes).unwrap().unwrap().into_iter().map(|file| file.path).collect();
        assert_eq!(paths, [".well-known/x", "css/a.css", "index.html"]);
        assert_eq!(add_site(other.path()).unwrap(), bytes);
    }

    #[test]
    fn a_link_and_too_much_are_refused() {
        let dir = site();
        let large = fs::File::create(dir.path().join("site/large")).unwrap();
        large.set_len(ASSETS_BYTES_MAX).unwrap();
        assert!(matches!(add_site(dir.path()), Err(AddAssetsError::Rule { cause: AssetsError::TooLarge, .. })));
        let dir = site();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("site/link")).unwrap();
        assert!(matches!(add_site(dir.path()), Err(AddAssetsError::NotAFile(_))));
        fs::remove_dir_all(dir.path().join("site")).unwrap();
        assert!(matches!(add_site(dir.path()), Err(AddAssetsError::File { .. })));
    }
}
