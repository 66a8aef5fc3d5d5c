//! Builds a function's project into the Wasm file that is published.
//!
//! ```text
//! function.toml ───┐
//!                  ├─▶ Project ──▶ Builder ──commands──▶ cargo / go / npm / zig / … / sh ──▶ *.wasm ──assets──▶ artifact
//! Cargo.toml, ─────┘                  │
//! go.mod, app.py, …                   ├─ Toolchain::target: target installed → rustup → private copy
//!                                     └─ bring: in PATH → installed before → pip into the user's cache
//! ```
//!
//! Invariants: the user's own toolchain directory is only ever changed by the user's own `rustup`; a private copy or tool becomes
//! visible under its name only when it is complete; every command is said before it runs, and its output is handed to the caller line
//! by line while it runs.
//!
//! Absent on purpose: judging the artifact (that is `sedge-protocol`), and optimising it (the guest's release profile does).

mod archive;
mod assets;
mod bring;
mod fingerprint;
mod language;
mod project;
mod sysroot;
pub mod tool;
mod toolchain;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

pub use archive::ArchiveError;
pub use assets::AddAssetsError;
pub use bring::BringError;
pub use fingerprint::{contents, fingerprint};
pub use language::Language;
pub use project::{Project, ProjectError, Recipe};
use serde::Deserialize;
pub use toolchain::{RustTarget, TARGET, Toolchain, ToolchainError, variable};

/// What a build says while it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A new step began.
    Step(&'a str),
    /// A tool of the current step printed a line.
    Line(&'a str),
}

/// Why a project could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The project itself is at fault.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// There is no standard library for guests.
    #[error("no toolchain for {TARGET}")]
    Toolchain(#[source] ToolchainError),
    /// A language's own tool could not be had.
    #[error(transparent)]
    Bring(#[from] BringError),
    /// The files that go into the artifact.
    #[error(transparent)]
    Assets(#[from] AddAssetsError),
    /// The project lacks something that its language's tool asks for.
    #[error("{} is missing: {why}", missing.display())]
    Needs {
        /// What is missing.
        missing: PathBuf,
        /// What for, and where it comes from.
        why: &'static str,
    },
    /// The build command failed; the source carries the end of its output.
    #[error("build {}", project.display())]
    Command {
        /// The project.
        project: PathBuf,
        /// What the tool said.
        #[source]
        cause: tool::ToolError,
    },
    /// The place of the artifact cannot be made.
    #[error("create {}", path.display())]
    Write {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The command succeeded and left no such file.
    #[error("the build left no artifact at {}", .0.display())]
    NoArtifact(PathBuf),
    /// Cargo built no Wasm file.
    #[error("{} builds no .wasm: it needs a binary, or a library with crate-type = [\"cdylib\"]", .0.display())]
    NoWasm(PathBuf),
    /// Cargo built several Wasm files.
    #[error("{} builds several .wasm files: name one as artifact in [build] of function.toml", .0.display())]
    ManyWasm(PathBuf),
}

/// Builds the project in `dir` with the user's toolchain and cache. See [`Builder::build`].
///
/// # Errors
/// Whatever [`Builder::build`] returns.
pub fn build(dir: &Path, progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf, BuildError> {
    Builder::for_user().build(dir, progress)
}

/// How projects are built. `build` is the short way; this one is for those who keep the outputs elsewhere or ask for variants.
#[derive(Debug, Clone)]
pub struct Builder {
    toolchain: Toolchain,
    target_dir: Option<PathBuf>,
    features: Vec<String>,
    debugger: bool,
}

impl Builder {
    /// A builder that leaves cargo's outputs where cargo puts them.
    #[must_use]
    pub fn new(toolchain: Toolchain) -> Self {
        Self { toolchain, target_dir: None, features: Vec::new(), debugger: false }
    }

    /// A builder with the user's toolchain and cache.
    #[must_use]
    pub fn for_user() -> Self {
        Self::new(Toolchain::for_user())
    }

    /// Cargo's outputs go to `dir`, so that several projects can share what they depend on.
    #[must_use]
    pub fn target_dir(mut self, dir: &Path) -> Self {
        self.target_dir = Some(dir.to_owned());
        self
    }

    /// Cargo features to turn on.
    #[must_use]
    pub fn features(mut self, features: &[&str]) -> Self {
        self.features = features.iter().map(ToString::to_string).collect();
        self
    }

    /// Keeps files, lines and variables for a native debugger, and moves nothing about. For Rust; other languages have their own ways.
    #[must_use]
    pub fn debugger(mut self, debugger: bool) -> Self {
        self.debugger = debugger;
        self
    }

    /// Builds the project in `dir` and says where its Wasm file is. May take minutes; `progress` hears of every step and line.
    ///
    /// # Errors
    /// [`BuildError`] names the project's fault, the missing toolchain, or the command and the end of its output.
    pub fn build(&self, dir: &Path, progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf, BuildError> {
        let project = Project::open(dir)?;
        let guest =
            if project.needs_rust() { Some(self.toolchain.target(TARGET, dir, progress).map_err(BuildError::Toolchain)?) } else { None };
        let built = match &project.recipe {
            Recipe::Command { command, artifact } => {
                progress(Progress::Step(command));
                let mut shell = Command::new("sh");
                shell.args(["-c", command]).current_dir(dir);
                guest.iter().for_each(|guest| guest.apply(&mut shell, &[]));
                run(dir, &mut shell, &mut |line| progress(Progress::Line(line)))?;
                left(dir.join(artifact))?
            }
            Recipe::Language { language, artifact } => self.language(dir, *language, artifact, progress)?,
            Recipe::Cargo => self.cargo(dir, guest.as_ref(), progress)?,
        };
        let Some(assets) = &project.assets else { return Ok(built) };
        progress(Progress::Step(&format!("adding the files of {}", assets.display())));
        // Not in place: the language's tool would find its own result changed.
        let target = self.target_dir.clone().unwrap_or_else(|| dir.join("target"));
        let artifact = target.join("with-assets").join(format!("{}.wasm", project.manifest.name));
        assets::add(&built, &dir.join(assets), &artifact)?;
        Ok(artifact)
    }

    fn language(
        &self,
        dir: &Path,
        language: Language,
        artifact: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf, BuildError> {
        language::check(language, dir)?;
        let out = dir.join(artifact);
        if let Some(parent) = out.parent() {
            let cause = fs::create_dir_all(parent).err();
            cause.map_or(Ok(()), |cause| Err(BuildError::Write { path: parent.to_owned(), cause }))?;
        }
        for mut command in language.commands(dir, artifact, self.toolchain.home(), progress)? {
            progress(Progress::Step(&language::shown(&command)));
            run(dir, command.current_dir(dir), &mut |line| progress(Progress::Line(line)))?;
        }
        left(out)
    }

    fn cargo(&self, dir: &Path, guest: Option<&RustTarget>, progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf, BuildError> {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(dir).args(["build", "--release", "--target", TARGET]).arg("--message-format=json-render-diagnostics");
        if !self.features.is_empty() {
            cargo.args(["--features", &self.features.join(",")]);
        }
        self.target_dir.iter().for_each(|target| {
            cargo.env("CARGO_TARGET_DIR", target);
        });
        guest.into_iter().for_each(|guest| guest.apply(&mut cargo, &[]));
        if self.debugger {
            cargo.envs([
                ("CARGO_PROFILE_RELEASE_DEBUG", "2"),
                ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
                ("CARGO_PROFILE_RELEASE_LTO", "off"),
                ("CARGO_PROFILE_RELEASE_STRIP", "none"),
            ]);
        }

        progress(Progress::Step(&format!("cargo build --release --target {TARGET}")));
        let manifest = fs::canonicalize(dir.join("Cargo.toml")).unwrap_or_else(|_| dir.join("Cargo.toml"));
        let mut artifacts =
            artifacts_of(&mut cargo, &manifest, progress).map_err(|cause| BuildError::Command { project: dir.to_owned(), cause })?;
        match artifacts.len() {
            0 => Err(BuildError::NoWasm(dir.to_owned())),
            1 => Ok(artifacts.remove(0)),
            _ => Err(BuildError::ManyWasm(dir.to_owned())),
        }
    }
}

/// Runs cargo; what it says to programs names the artifacts of the project, and what it says to people goes to `progress` and into an
/// error.
fn artifacts_of(cargo: &mut Command, manifest: &Path, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Vec<PathBuf>, tool::ToolError> {
    let mut artifacts = Vec::new();
    let mut data = |line: &str| {
        let Some(message) = CargoMessage::parse(line) else { return false };
        artifacts.extend(message.wasm(manifest));
        true
    };
    tool::run_reading(cargo, &mut data, &mut |line| progress(Progress::Line(line)))?;
    Ok(artifacts)
}

/// The artifact, if it is there.
fn left(artifact: PathBuf) -> Result<PathBuf, BuildError> {
    if artifact.is_file() { Ok(artifact) } else { Err(BuildError::NoArtifact(artifact)) }
}

fn run(dir: &Path, command: &mut Command, line: &mut dyn FnMut(&str)) -> Result<(), BuildError> {
    tool::run(command, line).map_err(|cause| BuildError::Command { project: dir.to_owned(), cause })
}

/// The two fields that matter of a line of cargo's JSON output.
#[derive(Debug, Deserialize)]
struct CargoMessage {
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

impl CargoMessage {
    fn parse(line: &str) -> Option<Self> {
        line.starts_with('{').then(|| serde_json::from_str(line).ok())?
    }

    fn wasm(self, manifest: &Path) -> impl Iterator<Item = PathBuf> {
        let ours = self.manifest_path == manifest;
        self.filenames.into_iter().filter(move |file| ours && file.extension().is_some_and(|ext| ext == "wasm"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wasm_of(line: &str) -> Vec<PathBuf> {
        CargoMessage::parse(line).map(|message| message.wasm(Path::new("/p/Cargo.toml")).collect()).unwrap_or_default()
    }

    #[test]
    fn only_wasm_of_the_project_itself_is_an_artifact() {
        let ours = r#"{"reason":"compiler-artifact","manifest_path":"/p/Cargo.toml","filenames":["/t/a.wasm","/t/a.d"]}"#;
        assert_eq!(wasm_of(ours), [PathBuf::from("/t/a.wasm")]);
        let other = r#"{"reason":"compiler-artifact","manifest_path":"/q/Cargo.toml","filenames":["/t/b.wasm"]}"#;
        assert!(wasm_of(other).is_empty());
        assert!(wasm_of(r#"{"reason":"build-finished","success":true}"#).is_empty());
        assert!(CargoMessage::parse("   Compiling hello v0.1.0").is_none());
    }

    #[test]
    fn an_error_of_the_compiler_is_shown_as_it_was_rendered_and_without_the_json() {
        let message = r#"{"reason":"compiler-artifact","manifest_path":"/q/Cargo.toml","filenames":["/t/b.wasm"]}"#;
        let finished = r#"{"reason":"build-finished","success":false}"#;
        let mut cargo = Command::new("sh");
        cargo.args(["-c", &format!("echo '{message}'; echo 'error[E0425]: cannot find value' >&2; echo '{finished}'; exit 101")]);
        let mut lines = Vec::new();
        let error = artifacts_of(&mut cargo, Path::new("/p/Cargo.toml"), &mut |progress| lines.push(format!("{progress:?}"))).unwrap_err();
        assert!(matches!(error, tool::ToolError::Failed { said, .. } if said == "error[E0425]: cannot find value"));
        assert_eq!(lines, ["Line(\"error[E0425]: cannot find value\")"]);
    }

    #[test]
    fn a_build_command_of_any_language_yields_its_artifact() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = "name = \"shell\"\n[build]\ncommand = \"echo working; printf x > out.wasm\"\nartifact = \"out.wasm\"\n";
        fs::write(dir.path().join("function.toml"), manifest).unwrap();
        let mut said = Vec::new();
        let wasm = build(dir.path(), &mut |progress| said.push(format!("{progress:?}"))).unwrap();
        assert_eq!(wasm, dir.path().join("out.wasm"));
        assert_eq!(said, ["Step(\"echo working; printf x > out.wasm\")", "Line(\"working\")"]);
    }

    #[test]
    fn a_command_that_leaves_nothing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = "name = \"shell\"\n[build]\ncommand = \"true\"\nartifact = \"out.wasm\"\n";
        fs::write(dir.path().join("function.toml"), manifest).unwrap();
        let error = build(dir.path(), &mut |_| {}).unwrap_err();
        assert!(matches!(error, BuildError::NoArtifact(path) if path.ends_with("out.wasm")));
    }

    #[test]
    fn a_failing_command_carries_the_end_of_its_output() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = "name = \"shell\"\n[build]\ncommand = \"echo nonsense >&2; exit 3\"\nartifact = \"out.wasm\"\n";
        fs::write(dir.path().join("function.toml"), manifest).unwrap();
        let BuildError::Command { cause, .. } = build(dir.path(), &mut |_| {}).unwrap_err() else { panic!("not a command error") };
        assert!(cause.to_string().contains("nonsense"), "{cause}");
    }
}
