//! Where the sources of the standard library and the objects of wasi-libc come from: archives at hand, or Debian's packages.
//!
//! ```text
//! <dir>/rust-src-1.95.0-library.tar.xz ─▶ library/          Debian rust-src (same version) ─▶ usr/src/rustc-1.95.0/library/
//! <dir>/wasi-libc-20260423.tar.xz      ─▶ wasm32-wasip2/    Debian wasi-libc               ─▶ usr/lib/wasm32-wasip2/
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use crate::Progress;
use crate::tool::{self, ToolError};
use crate::toolchain::TARGET;

/// Begin of the one source that is used; the mirror of the host and the suite follow.
const DEBIAN_SOURCE: &str = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";

/// What a private copy is made of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sources {
    /// `library/` of the compiler's sources.
    pub(crate) library: PathBuf,
    /// The objects of wasi-libc, for the guest target alone: others have the C library of their linker.
    pub(crate) wasi_libc: Option<PathBuf>,
}

/// What is looked for.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// The version of the compiler.
    pub(crate) release: &'a str,
    /// Whether wasi-libc is needed too.
    pub(crate) libc: bool,
}

/// Why the sources could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Neither an archive nor a package.
    #[error("no archive {name} in the toolchain directory (SEDGE_TOOLCHAIN_DIR), and no Debian package of that version")]
    NoArchive {
        /// What was looked for.
        name: String,
    },
    /// A tool that fetches or unpacks failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A file could not be read or written.
    #[error("unpack into {}", path.display())]
    Write {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// An archive unpacked well and lacks what it should hold.
    #[error("the archive holds no {}", .0.display())]
    Incomplete(PathBuf),
}

/// Unpacks what is wanted into `into`: from archives in `dirs` if they are there, else from Debian.
pub(crate) fn unpack(
    dirs: &[PathBuf],
    wanted: &Wanted<'_>,
    into: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Sources, ArchiveError> {
    let Wanted { release, libc } = *wanted;
    let names = [Some(format!("rust-src-{release}")), libc.then(|| "wasi-libc-".to_owned())];
    let archives: Option<Vec<PathBuf>> = names.iter().flatten().map(|name| find(dirs, name)).collect();
    let (library, objects) = if let Some(archives) = archives {
        progress(Progress::Step("unpacking the standard library's sources"));
        archives.iter().try_for_each(|archive| untar(archive, into))?;
        (into.join("library"), into.join(TARGET))
    } else {
        progress(Progress::Step("downloading the standard library's sources from Debian"));
        Debian::new(into)?.fetch(wanted, progress)?;
        let library = into.join("usr/src").join(format!("rustc-{release}")).join("library");
        accept_vendored(&library.join("vendor"))?;
        (library, into.join("usr/lib").join(TARGET))
    };
    let sources = Sources { library, wasi_libc: libc.then_some(objects) };
    std::iter::once(&sources.library)
        .chain(&sources.wasi_libc)
        .find(|dir| !dir.is_dir())
        .map_or(Ok(()), |missing| Err(ArchiveError::Incomplete(missing.strip_prefix(into).unwrap_or(missing).to_owned())))?;
    Ok(sources)
}

/// The archive whose name begins with `prefix`; of several the last by name.
fn find(dirs: &[PathBuf], prefix: &str) -> Option<PathBuf> {
    dirs.iter().find_map(|dir| {
        let matches = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // The next character ends the version: 1.95.0 is not 1.95.01.
            name.ends_with(".tar.xz") && name.strip_prefix(prefix).is_some_and(|rest| prefix.ends_with('-') || rest.starts_with(['-', '.']))
        };
        fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).filter(matches).max()
    })
}

fn untar(archive: &Path, into: &Path) -> Result<(), ArchiveError> {
    let mut tar = Command::new("tar");
    tar.args(["-xJf"]).arg(archive).arg("-C").arg(into);
    Ok(tool::run(&mut tar, &mut |_| {})?)
}

/// Debian rewrites a prebuilt object among the crates that the standard library brings along, and leaves their lists of checksums as
/// they were. The package's signature stands for all of it: the lists are emptied.
fn accept_vendored(vendor: &Path) -> Result<(), ArchiveError> {
    let write = |path: &Path| {
        let path = path.to_owned();
        move |cause| ArchiveError::Write { path, cause }
    };
    for entry in fs::read_dir(vendor).map_err(write(vendor))? {
        let list = entry.map_err(write(vendor))?.path().join(".cargo-checksum.json");
        let Ok(text) = fs::read(&list) else { continue };
        let mut checksums: serde_json::Value = serde_json::from_slice(&text).map_err(|cause| write(&list)(cause.into()))?;
        checksums["files"] = serde_json::json!({});
        fs::write(&list, checksums.to_string()).map_err(write(&list))?;
    }
    Ok(())
}

/// The Debian mirror that the host itself uses.
fn mirror() -> Option<String> {
    let folder = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    let texts = std::iter::once(PathBuf::from("/etc/apt/sources.list")).chain(folder).filter_map(|path| fs::read_to_string(path).ok());
    texts.flat_map(|text| text.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>()).find(|word| is_mirror(word))
}

fn is_mirror(word: &str) -> bool {
    word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian")
}

/// `apt-get` with lists and caches of its own, so that the system's are not touched and no privilege is needed.
struct Debian {
    dir: PathBuf,
    into: PathBuf,
}

impl Debian {
    fn new(into: &Path) -> Result<Self, ArchiveError> {
        let dir = into.join("apt");
        let write = |cause| ArchiveError::Write { path: dir.clone(), cause };
        fs::create_dir_all(dir.join("state/lists/partial")).map_err(write)?;
        fs::create_dir_all(dir.join("cache/archives/partial")).map_err(write)?;
        let mirror = mirror().ok_or_else(|| ArchiveError::NoArchive { name: "a Debian mirror in /etc/apt".to_owned() })?;
        fs::write(dir.join("sources.list"), format!("{DEBIAN_SOURCE} {mirror} sid main\n")).map_err(write)?;
        Ok(Self { dir, into: into.to_owned() })
    }

    fn fetch(&self, wanted: &Wanted<'_>, progress: &mut dyn FnMut(Progress<'_>)) -> Result<(), ArchiveError> {
        let Wanted { release, libc } = *wanted;
        let mut line = |text: &str| progress(Progress::Line(text));
        tool::run(self.apt("apt-get").arg("update"), &mut line)?;
        let versions = tool::output(self.apt("apt-cache").args(["madison", "rust-src"]))?;
        let version =
            package_version(&versions, release).ok_or_else(|| ArchiveError::NoArchive { name: format!("rust-src-{release}.tar.xz") })?;
        let packages = [Some(format!("rust-src={version}")), libc.then(|| "wasi-libc".to_owned())];
        tool::run(self.apt("apt-get").arg("download").args(packages.iter().flatten()), &mut line)?;
        let packages = fs::read_dir(&self.dir).map_err(|cause| ArchiveError::Write { path: self.dir.clone(), cause })?;
        for package in packages.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|ext| ext == "deb")) {
            tool::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&self.into), &mut line)?;
        }
        Ok(())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let dir = self.dir.display();
        command.current_dir(&self.dir);
        for option in [
            format!("Dir::State={dir}/state"),
            format!("Dir::Cache={dir}/cache"),
            format!("Dir::Etc::SourceList={dir}/sources.list"),
            "Dir::Etc::SourceParts=-".to_owned(),
            "APT::Sandbox::User=".to_owned(),
            "Acquire::Languages=none".to_owned(),
            // The version is exact and the signature checked: a mirror that stands still, or a clock that runs ahead, is no harm.
            "Acquire::Check-Valid-Until=false".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }
}

/// The package version of upstream version `release` in the output of `apt-cache madison`.
fn package_version<'a>(madison: &'a str, release: &str) -> Option<&'a str> {
    madison
        .lines()
        .filter_map(|line| line.split('|').nth(1).map(str::trim))
        .find(|version| version.strip_prefix(release).is_some_and(|rest| rest.starts_with(['+', '-', '~'])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_found_by_the_exact_version() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["rust-src-1.95.0-library.tar.xz", "rust-src-1.95.01.tar.xz", "wasi-libc-20260423.tar.xz", "README.md"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let dirs = [PathBuf::from("/no/such/dir"), dir.path().to_owned()];
        let name = |prefix| find(&dirs, prefix).and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
        assert_eq!(name("rust-src-1.95.0").as_deref(), Some("rust-src-1.95.0-library.tar.xz"));
        assert_eq!(name("wasi-libc-").as_deref(), Some("wasi-libc-20260423.tar.xz"));
        assert_eq!(name("rust-src-1.96.0"), None);
    }

    #[test]
    fn vendored_crates_are_taken_as_the_package_brings_them() {
        let vendor = tempfile::tempdir().unwrap();
        let list = vendor.path().join("wit-bindgen-0.57.1/.cargo-checksum.json");
        fs::create_dir_all(list.parent().unwrap()).unwrap();
        fs::write(&list, r#"{"files":{"src/rt.a":"00"},"package":"ab"}"#).unwrap();
        fs::create_dir(vendor.path().join("without-a-list")).unwrap();
        accept_vendored(vendor.path()).unwrap();
        assert_eq!(fs::read_to_string(&list).unwrap(), r#"{"files":{},"package":"ab"}"#);
    }

    #[test]
    fn a_package_is_found_by_its_upstream_version() {
        let madison = " rust-src | 1.97.1+dfsg1-1 | http://mirror.example/debian sid/main amd64 Packages\n rust-src | 1.9+dfsg1-2 | x";
        assert_eq!(package_version(madison, "1.97.1"), Some("1.97.1+dfsg1-1"));
        assert_eq!(package_version(madison, "1.97"), None);
        assert_eq!(package_version(madison, "1.95.0"), None);
    }

    #[test]
    fn an_archive_without_a_library_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["rust-src-1.0.0.tar.xz", "wasi-libc-1.tar.xz"] {
            let mut tar = Command::new("tar");
            tool::run(tar.arg("-cJf").arg(dir.path().join(name)).args(["-T", "/dev/null"]), &mut |_| {}).unwrap();
        }
        let into = tempfile::tempdir().unwrap();
        for libc in [true, false] {
            let wanted = Wanted { release: "1.0.0", libc };
            let error = unpack(&[dir.path().to_owned()], &wanted, into.path(), &mut |_| {}).unwrap_err();
            assert!(matches!(error, ArchiveError::Incomplete(path) if path == Path::new("library")));
        }
    }
}
