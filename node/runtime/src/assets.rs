//! Files that travel inside artifacts, unpacked once for each artifact, for its instances to read at `/assets`.

use sedge_protocol::Digest;
use sedge_protocol::assets::{self, AssetsError};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

/// Why the files of an artifact cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The artifact holds something else than files.
    #[error(transparent)]
    Assets(#[from] AssetsError),
    /// The disk refused.
    #[error("unpack the files of the artifact to {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// There is not enough room.
    #[error("unpack the files of the artifact")]
    Room(#[source] sedge_store::FileError),
}

/// The directory of all unpacked files.
#[derive(Debug)]
pub struct Assets {
    directory: PathBuf,
    room: sedge_store::Files,
    // A leaf lock, held for a look-up.
    unpacked: RwLock<BTreeMap<Digest, PathBuf>>,
}

impl Assets {
    /// Opens or creates the directory. `free_bytes_min` is as in [`sedge_store::StoreConfig`].
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(directory: &Path, free_bytes_min: Option<u64>) -> Result<Self, sedge_store::FileError> {
        let room = sedge_store::Files::open(directory, free_bytes_min)?;
        Ok(Self { directory: directory.to_owned(), room, unpacked: RwLock::default() })
    }

    /// Makes the files of an artifact readable; does nothing if it has none, or if they are here. Blocks.
    ///
    /// # Errors
    /// When the artifact's section is not one of files, or the disk refuses.
    pub fn unpack(&self, digest: &Digest, artifact: &[u8]) -> Result<(), UnpackError> {
        let target = self.directory.join(digest.hex());
        if !target.is_dir() {
            let Some(files) = assets::read(artifact)? else { return Ok(()) };
            let bytes = files.iter().map(|file| file.data.len() as u64).sum();
            self.room.ensure_room(bytes).map_err(UnpackError::Room)?;
            let partial = target.with_extension("part");
            drop(fs::remove_dir_all(&partial));
            fs::create_dir_all(&partial).map_err(failed(&partial))?;
            for file in files {
                write(&partial.join(&file.path), &file.data)?;
            }
            // The name of the whole is given last, so what has it is whole.
            fs::rename(&partial, &target).map_err(failed(&target))?;
            File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(failed(&self.directory))?;
        }
        self.unpacked.write().unwrap_or_else(PoisonError::into_inner).insert(*digest, target);
        Ok(())
    }

    /// Where the files of an artifact are, if it has some.
    pub(crate) fn of(&self, digest: &Digest) -> Option<PathBuf> {
        self.unpacked.read().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    /// Removes the files of artifacts that are not needed any more, and what was half unpacked. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be read or something stays.
    pub fn keep_only(&self, needed: impl Fn(&Digest) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let digest = entry.file_name().to_str().and_then(|name| format!("sha256:{name}").parse::<Digest>().ok());
            if digest.as_ref().is_some_and(&needed) {
                continue;
            }
            if let Some(digest) = digest {
                self.unpacked.write().unwrap_or_else(PoisonError::into_inner).remove(&digest);
            }
            fs::remove_dir_all(entry.path())?;
        }
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), UnpackError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed(parent))?;
    }
    let mut file = File::create(path).map_err(failed(path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed(path))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> UnpackError {
    let path = path.to_owned();
    move |cause| UnpackError::Io { path, cause }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::assets::AssetFile;

    #[test]
    fn files_are_unpacked_once_and_go_with_their_artifact() {
        let dir = tempfile::tempdir().unwrap();
        let assets = Assets::open(&dir.path().join("assets"), None).unwrap();
        let file = |path: &str| AssetFile { path: path.to_owned(), data: b"hello".as_slice().into() };
        let artifact = assets::append(b"\0asm\x01\0\0\0", vec![file("index.html"), file("img/logo.svg")]).unwrap();
        let digest = Digest::of(&artifact);
        assert_eq!(assets.of(&digest), None);
        assets.unpack(&digest, &artifact).unwrap();
        let path = assets.of(&digest).unwrap();
        assert_eq!(fs::read(path.join("img/logo.svg")).unwrap(), b"hello");
        fs::write(path.join("index.html"), "kept").unwrap();
        assets.unpack(&digest, &artifact).unwrap();
        assert_eq!(fs::read(path.join("index.html")).unwrap(), b"kept", "a second time nothing is written");
        assets.unpack(&Digest::of(b"\0asm\x01\0\0\0"), b"\0asm\x01\0\0\0").unwrap();
        assets.keep_only(|other| *other == digest).unwrap();
        assert!(path.is_dir());
        assets.keep_only(|_| false).unwrap();
        assert!(!path.exists() && assets.of(&digest).is_none());
    }

    #[test]
    fn what_was_half_unpacked_is_unpacked_again() {
        let dir = tempfile::tempdir().unwrap();
        let assets = Assets::open(dir.path(), None).unwrap();
        let file = AssetFile { path: "a".to_owned(), data: b"hello".as_slice().into() };
        let artifact = assets::append(b"\0asm\x01\0\0\0", vec![file]).unwrap();
        let digest = Digest::of(&artifact);
        fs::create_dir(dir.path().join(format!("{}.part", digest.hex()))).unwrap();
        assets.unpack(&digest, &artifact).unwrap();
        assert_eq!(fs::read(assets.of(&digest).unwrap().join("a")).unwrap(), b"hello");
        let full = Assets::open(&dir.path().join("other"), Some(u64::MAX)).unwrap();
        assert!(matches!(full.unpack(&digest, &artifact), Err(UnpackError::Room(_))));
    }
}
