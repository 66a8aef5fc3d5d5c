//! One digest of everything a build depends on, to know whether it has to run again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use sha2::{Digest as _, Sha256};

/// Directories that hold results, not sources.
const RESULTS: [&str; 2] = ["target", "node_modules"];

/// Digest (hex) over the names and contents of all files of the project in `dir`, and `salt` (compiler version, features…).
/// Hidden files and results of earlier builds do not count.
///
/// # Errors
/// A directory or file could not be read.
pub fn fingerprint(dir: &Path, salt: &[&str]) -> io::Result<String> {
    let mut files = Vec::new();
    collect(dir, &mut files)?;
    files.sort();
    let mut digest = Sha256::new();
    for text in salt {
        feed(&mut digest, text.as_bytes());
    }
    for file in &files {
        feed(&mut digest, file.strip_prefix(dir).unwrap_or(file).as_os_str().as_encoded_bytes());
        feed(&mut digest, &fs::read(file)?);
    }
    Ok(hex::encode(digest.finalize()))
}

/// The digest of each file that counts for [`fingerprint`], by its path below `dir`.
///
/// # Errors
/// A directory or file could not be read.
pub fn contents(dir: &Path) -> io::Result<BTreeMap<PathBuf, [u8; 32]>> {
    let mut files = Vec::new();
    collect(dir, &mut files)?;
    let digest = |file: PathBuf| {
        let name = file.strip_prefix(dir).unwrap_or(&file).to_owned();
        Ok((name, Sha256::digest(fs::read(&file)?).into()))
    };
    files.into_iter().map(digest).collect()
}

/// Length first, so that no two sequences of parts look alike.
fn feed(digest: &mut Sha256, part: &[u8]) {
    digest.update((part.len() as u64).to_le_bytes());
    digest.update(part);
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let kind = entry.file_type()?;
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if kind.is_file() {
            files.push(entry.path());
        } else if kind.is_dir() && !RESULTS.iter().any(|result| name == *result) {
            collect(&entry.path(), files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        fs::create_dir(dir.path().join("target")).unwrap();
        fs::write(dir.path().join("src/main.rs"), "fn main() {}").unwrap();
        fs::write(dir.path().join("function.toml"), "name = \"a\"").unwrap();
        dir
    }

    fn of(dir: &tempfile::TempDir) -> String {
        fingerprint(dir.path(), &["rustc 1"]).unwrap()
    }

    #[test]
    fn the_same_sources_elsewhere_have_the_same_fingerprint() {
        assert_eq!(of(&project()), of(&project()));
    }

    #[test]
    fn contents_names_and_salt_count() {
        let base = of(&project());
        let edited = project();
        fs::write(edited.path().join("src/main.rs"), "fn main() { }").unwrap();
        assert_ne!(of(&edited), base);
        let renamed = project();
        fs::rename(renamed.path().join("src/main.rs"), renamed.path().join("src/lib.rs")).unwrap();
        assert_ne!(of(&renamed), base);
        assert_ne!(fingerprint(project().path(), &["rustc 2"]).unwrap(), base);
    }

    #[test]
    fn each_file_has_its_own_digest() {
        let project = project();
        let before = contents(project.path()).unwrap();
        fs::write(project.path().join("src/main.rs"), "fn main() { }").unwrap();
        let after = contents(project.path()).unwrap();
        let changed: Vec<_> = after.iter().filter(|(file, digest)| before.get(*file) != Some(*digest)).map(|(file, _)| file).collect();
        assert_eq!(changed, [Path::new("src/main.rs")]);
        assert_eq!(after.keys().map(PathBuf::as_path).collect::<Vec<_>>(), [Path::new("function.toml"), Path::new("src/main.rs")]);
    }

    #[test]
    fn results_and_hidden_files_do_not_count() {
        let dir = project();
        let base = of(&dir);
        fs::write(dir.path().join("target/a.wasm"), "x").unwrap();
        fs::write(dir.path().join(".editor"), "x").unwrap();
        assert_eq!(of(&dir), base);
    }
}
