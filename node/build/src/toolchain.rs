//! The standard library that programs for another processor are compiled against, guests first of all, and where it comes from.
//!
//! ```text
//! in rustc's sysroot? ──yes──▶ use it
//!        │ no
//! private copy made before? ──yes──▶ use it (`--sysroot`)
//!        │ no
//! `rustup target add` works? ──yes──▶ use it
//!        │ no
//! make a private copy (sysroot.rs), then use it
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs, io};

use crate::archive::{self, ArchiveError, Wanted};
use crate::tool::{self, ToolError};
use crate::{Progress, sysroot};

/// The compilation target of every Rust guest.
pub const TARGET: &str = "wasm32-wasip2";

/// What links a component.
const LINKER: &str = "wasm-component-ld";

/// How long `rustup` may try: enough for a slow line, short for one that leads nowhere.
const RUSTUP_TIME_MAX: Duration = Duration::from_secs(90);

/// Where a toolchain for another target is looked for, and where private copies are kept.
#[derive(Debug, Clone)]
pub struct Toolchain {
    home: PathBuf,
    archives: Vec<PathBuf>,
    private: bool,
}

/// Why there is no toolchain for a target.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainError {
    /// There is no usable compiler at all.
    #[error("ask rustc for its version: install Rust from https://rustup.rs")]
    NoCompiler(#[source] ToolError),
    /// The compiler's answer lacks a line.
    #[error("rustc -vV says nothing of `{0}`")]
    StrangeCompiler(&'static str),
    /// The directory of the private copy cannot be written.
    #[error("write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The sources of the standard library could not be had.
    #[error("get the standard library's sources for rustc {release}; `rustup target add {target}` on a machine with network avoids this")]
    Sources {
        /// What is compiled for.
        target: &'static str,
        /// The compiler's version.
        release: String,
        /// What was tried.
        #[source]
        cause: ArchiveError,
    },
    /// The compiler cannot link components. That of rustup can; Debian's comes without.
    #[error("this compiler has no `{LINKER}`, which links components: install Rust from https://rustup.rs")]
    NoLinker,
    /// The standard library could not be compiled.
    #[error("compile the standard library for {target}")]
    Compile {
        /// What is compiled for.
        target: &'static str,
        /// How it ended.
        #[source]
        cause: ToolError,
    },
}

/// A compiler that can build for a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RustTarget {
    name: &'static str,
    /// The private copy to compile against; none if the compiler's own sysroot has the target.
    sysroot: Option<PathBuf>,
}

impl RustTarget {
    /// As the compiler names the target.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Makes `command`, or whatever cargo it starts, compile with this toolchain and with further `flags` of the compiler.
    pub fn apply(&self, command: &mut Command, flags: &[&str]) {
        let sysroot = self.sysroot.as_ref().map(|sysroot| format!("--sysroot={}", sysroot.display()));
        let flags: Vec<&str> = sysroot.as_deref().into_iter().chain(flags.iter().copied()).collect();
        if !flags.is_empty() {
            // Flags for all targets would hide these, and are meant for the machine at hand anyway.
            command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
            command.env(variable(self.name, "RUSTFLAGS"), flags.join(" "));
        }
    }
}

/// The environment variable by which cargo is told something of a target.
#[must_use]
pub fn variable(target: &str, what: &str) -> String {
    format!("CARGO_TARGET_{}_{what}", target.to_uppercase().replace('-', "_"))
}

/// The compiler at hand, as it describes itself.
#[derive(Debug, Clone)]
pub(crate) struct Rustc {
    pub(crate) release: String,
    pub(crate) commit: String,
    pub(crate) host: String,
    pub(crate) sysroot: PathBuf,
}

impl Toolchain {
    /// A toolchain whose private copies, if any are needed, are kept under `home`.
    #[must_use]
    pub fn new(home: &Path) -> Self {
        let archives = env::var_os("SEDGE_TOOLCHAIN_DIR").map(PathBuf::from);
        Self { home: home.to_owned(), archives: archives.into_iter().collect(), private: false }
    }

    /// The toolchain of the person who runs this: private copies lie in the user's cache.
    #[must_use]
    pub fn for_user() -> Self {
        let cache = env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")));
        Self::new(&cache.unwrap_or_else(env::temp_dir).join("sedge/toolchain"))
    }

    /// Where tools and private copies are kept.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Looks for `rust-src-*.tar.xz` and `wasi-libc-*.tar.xz` in `dir` too, after `$SEDGE_TOOLCHAIN_DIR`.
    #[must_use]
    pub fn archives(mut self, dir: &Path) -> Self {
        self.archives.push(dir.to_owned());
        self
    }

    /// Uses a private copy even where the target is installed.
    #[must_use]
    pub fn private(mut self) -> Self {
        self.private = true;
        self
    }

    /// A compiler for `target`, in the version that `project` is built with. Makes a private copy if nothing else helps: a minute.
    ///
    /// # Errors
    /// [`ToolchainError`]: no compiler, no sources, no room.
    pub fn target(
        &self,
        target: &'static str,
        project: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<RustTarget, ToolchainError> {
        let rustc = Rustc::ask(project)?;
        if !self.private && has_target(&rustc.sysroot, target) {
            return Ok(RustTarget { name: target, sysroot: None });
        }
        if target == TARGET && !has_linker(&rustc) {
            return Err(ToolchainError::NoLinker);
        }
        let copy = self.home.join(format!("{}-{}-{target}", rustc.release, rustc.commit));
        if !has_target(&copy, target) {
            if !self.private && rustup_adds_target(target, project, progress) && has_target(&rustc.sysroot, target) {
                return Ok(RustTarget { name: target, sysroot: None });
            }
            let wanted = Wanted { release: &rustc.release, libc: target == TARGET };
            let sources = |into: &Path, progress: &mut dyn FnMut(Progress<'_>)| archive::unpack(&self.archives, &wanted, into, progress);
            sysroot::make(&rustc, target, &copy, &sources, progress)?;
        }
        Ok(RustTarget { name: target, sysroot: Some(copy) })
    }
}

impl Rustc {
    fn ask(project: &Path) -> Result<Self, ToolchainError> {
        let program = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let ask = |arguments: &[&str]| {
            let mut rustc = Command::new(&program);
            tool::output(rustc.args(arguments).current_dir(project)).map_err(ToolchainError::NoCompiler)
        };
        let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?);
        Self::parse(&ask(&["-vV"])?, sysroot)
    }

    fn parse(version: &str, sysroot: PathBuf) -> Result<Self, ToolchainError> {
        let field = |name: &'static str| {
            let value = version.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.ok_or(ToolchainError::StrangeCompiler(name))
        };
        let commit = field("commit-hash")?;
        Ok(Self {
            release: field("release")?.to_owned(),
            commit: commit.get(..9).unwrap_or(commit).to_owned(),
            host: field("host")?.to_owned(),
            sysroot,
        })
    }
}

/// Whether `target` can be compiled for against `sysroot`.
fn has_target(sysroot: &Path, target: &str) -> bool {
    let libraries = sysroot.join("lib/rustlib").join(target).join("lib");
    let Ok(entries) = fs::read_dir(libraries) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        name.as_encoded_bytes().starts_with(b"libstd") && name.as_encoded_bytes().ends_with(b".rlib")
    })
}

/// Whether `rustc` finds what links components: among its own tools, or in PATH.
fn has_linker(rustc: &Rustc) -> bool {
    let own = rustc.sysroot.join("lib/rustlib").join(&rustc.host).join("bin");
    let path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(own).chain(env::split_paths(&path)).any(|dir| dir.join(LINKER).is_file())
}

/// A failure is no error: there are other ways, and they report their own.
fn rustup_adds_target(target: &str, project: &Path, progress: &mut dyn FnMut(Progress<'_>)) -> bool {
    progress(Progress::Step(&format!("adding the target {target} with rustup")));
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", target]).current_dir(project).env("RUSTUP_MAX_RETRIES", "1");
    tool::run_within(&mut rustup, RUSTUP_TIME_MAX, &mut |line| progress(Progress::Line(line))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: &str = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\ncommit-hash: 59807616e1fa2540\nhost: x86_64-unknown-linux-gnu\nrelease: 1.95.0\nLLVM version: 22.1.2";

    #[test]
    fn the_compiler_describes_itself() {
        let rustc = Rustc::parse(VERSION, "/s".into()).unwrap();
        assert_eq!((rustc.release.as_str(), rustc.commit.as_str()), ("1.95.0", "59807616e"));
        assert_eq!(rustc.host, "x86_64-unknown-linux-gnu");
        assert!(matches!(Rustc::parse("rustc 1", "/s".into()), Err(ToolchainError::StrangeCompiler(_))));
    }

    #[test]
    fn a_sysroot_without_std_has_no_target() {
        let sysroot = tempfile::tempdir().unwrap();
        let libraries = sysroot.path().join("lib/rustlib").join(TARGET).join("lib");
        assert!(!has_target(sysroot.path(), TARGET));
        fs::create_dir_all(&libraries).unwrap();
        fs::write(libraries.join("libcore-1.rlib"), "").unwrap();
        assert!(!has_target(sysroot.path(), TARGET));
        fs::write(libraries.join("libstd-1.rlib"), "").unwrap();
        assert!(has_target(sysroot.path(), TARGET));
    }

    #[test]
    fn only_a_private_copy_and_flags_change_the_environment() {
        let flags = |sysroot: Option<PathBuf>, flags: &[&str]| {
            let mut command = Command::new("cargo");
            RustTarget { name: TARGET, sysroot }.apply(&mut command, flags);
            command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect::<Vec<_>>()
        };
        assert!(flags(None, &[]).is_empty());
        let name = "CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS";
        assert_eq!(flags(Some("/copy".into()), &[]), [(name.into(), "--sysroot=/copy".into())]);
        assert_eq!(flags(Some("/copy".into()), &["-C x"]), [(name.into(), "--sysroot=/copy -C x".into())]);
        assert_eq!(flags(None, &["-C x"]), [(name.into(), "-C x".into())]);
    }
}
