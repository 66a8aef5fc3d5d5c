//! A private copy of the compiler's sysroot that has another target in addition: that of guests, or another processor's.
//!
//! ```text
//! <copy>/lib/rustlib/<host>                        symlink into the real sysroot (host library, linkers)
//! <copy>/lib/rustlib/<target>/lib/*.rlib           the standard library, compiled here once
//! <copy>/lib/rustlib/<target>/lib/self-contained   for guests: start-up objects and libc.a of wasi-libc
//! ```
//! Compiled once, it serves every program: each is then an ordinary `cargo build --target`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Progress;
use crate::archive::{ArchiveError, Sources};
use crate::tool;
use crate::toolchain::{Rustc, ToolchainError, variable};

/// What the linker needs of wasi-libc.
const OBJECTS: [&str; 3] = ["crt1-command.o", "crt1-reactor.o", "libc.a"];

/// Gets the sources into a directory.
type Fetch<'a> = &'a dyn Fn(&Path, &mut dyn FnMut(Progress<'_>)) -> Result<Sources, ArchiveError>;

/// Makes the copy with `target` for `rustc` at `copy`. It appears there complete or not at all; of two processes one works, the other waits.
pub(crate) fn make(
    rustc: &Rustc,
    target: &'static str,
    copy: &Path,
    fetch: Fetch<'_>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), ToolchainError> {
    let home = copy.parent().unwrap_or(copy);
    create_dir(home)?;
    let lock_path = beside(copy, ".lock");
    let lock = at(&lock_path, File::create(&lock_path))?;
    at(&lock_path, lock.lock())?;
    if copy.exists() {
        return Ok(());
    }
    let work = beside(copy, ".partial");
    remove_dir(&work)?;
    create_dir(&work)?;
    let sources = fetch(&work, progress).map_err(|cause| ToolchainError::Sources { target, release: rustc.release.clone(), cause })?;
    let sysroot = work.join("sysroot");
    link_host(rustc, &sysroot)?;
    let built = compile(target, &sysroot, &sources, progress)?;
    install(&built, &sources, &sysroot.join("lib/rustlib").join(target).join("lib"))?;
    at(copy, fs::rename(&sysroot, copy))?;
    remove_dir(&work)
}

/// The copy's own path with `suffix` appended; its name has dots that are no extension.
fn beside(copy: &Path, suffix: &str) -> PathBuf {
    let mut path = copy.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn link_host(rustc: &Rustc, sysroot: &Path) -> Result<(), ToolchainError> {
    let libraries = sysroot.join("lib/rustlib");
    create_dir(&libraries)?;
    let link = libraries.join(&rustc.host);
    at(&link, std::os::unix::fs::symlink(rustc.sysroot.join("lib/rustlib").join(&rustc.host), &link))
}

/// Compiles the standard library and returns the directory with its `.rlib` files.
fn compile(
    target: &'static str,
    sysroot: &Path,
    sources: &Sources,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, ToolchainError> {
    progress(Progress::Step(&format!("compiling the standard library for {target} (once)")));
    let built = sysroot.with_file_name("target");
    // As the compiler's own build does it: unmarked crates are unstable, and bitcode is kept for guests that ask for LTO.
    let flags = format!("--sysroot={} -Zforce-unstable-if-unmarked -Cembed-bitcode=yes", sysroot.display());
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(&sources.library)
        .args(["build", "--locked", "--release", "--target", target, "--manifest-path", "sysroot/Cargo.toml"])
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", &built)
        .env(variable(target, "RUSTFLAGS"), flags);
    tool::run(&mut cargo, &mut |line| progress(Progress::Line(line))).map_err(|cause| ToolchainError::Compile { target, cause })?;
    Ok(built.join(target).join("release/deps"))
}

fn install(built: &Path, sources: &Sources, libraries: &Path) -> Result<(), ToolchainError> {
    create_dir(libraries)?;
    for entry in at(built, fs::read_dir(built))?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "rlib") {
            let to = libraries.join(entry.file_name());
            at(&to, fs::copy(&path, &to))?;
        }
    }
    let Some(wasi_libc) = &sources.wasi_libc else { return Ok(()) };
    let objects = libraries.join("self-contained");
    create_dir(&objects)?;
    for name in OBJECTS {
        let to = objects.join(name);
        at(&to, fs::copy(wasi_libc.join(name), &to))?;
    }
    Ok(())
}

fn create_dir(path: &Path) -> Result<(), ToolchainError> {
    at(path, fs::create_dir_all(path))
}

fn remove_dir(path: &Path) -> Result<(), ToolchainError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => at(path, result),
    }
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, ToolchainError> {
    result.map_err(|cause| ToolchainError::Write { path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::TARGET;

    fn rustc(sysroot: &Path) -> Rustc {
        Rustc { release: "1.0.0".into(), commit: "abc".into(), host: "host".into(), sysroot: sysroot.to_owned() }
    }

    #[test]
    fn a_copy_that_could_not_be_made_is_not_there() {
        let home = tempfile::tempdir().unwrap();
        let copy = home.path().join("1.0.0-abc");
        let fetch = |_: &Path, _: &mut dyn FnMut(Progress<'_>)| Err(ArchiveError::NoArchive { name: "rust-src".into() });
        let error = make(&rustc(home.path()), TARGET, &copy, &fetch, &mut |_| {}).unwrap_err();
        assert!(matches!(error, ToolchainError::Sources { .. }));
        assert!(!copy.exists());
    }

    #[test]
    fn libraries_and_objects_are_installed_where_the_linker_looks() {
        let work = tempfile::tempdir().unwrap();
        let (built, libc) = (work.path().join("built"), work.path().join("libc"));
        create_dir(&built).unwrap();
        create_dir(&libc).unwrap();
        fs::write(built.join("libstd.rlib"), "").unwrap();
        fs::write(built.join("libstd.rmeta"), "").unwrap();
        OBJECTS.iter().for_each(|name| fs::write(libc.join(name), "").unwrap());
        let sources = Sources { library: work.path().into(), wasi_libc: Some(libc) };
        let libraries = work.path().join("sysroot/lib");
        install(&built, &sources, &libraries).unwrap();
        assert!(libraries.join("libstd.rlib").is_file());
        assert!(!libraries.join("libstd.rmeta").exists());
        assert!(libraries.join("self-contained/libc.a").is_file());
    }
}
