//! What a project says about how it is built: `[build]` of its `function.toml`, or else the language of its files.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::language::Language;
use sedge_protocol::Manifest;
use sedge_protocol::strict::Faults;

/// The file that makes a directory a function's project.
const FILE: &str = "function.toml";

/// A directory with a `function.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// What its owner says about the function.
    pub manifest: Manifest,
    /// How it is built.
    pub recipe: Recipe,
    /// The directory of files that go into the artifact, relative to the project.
    pub assets: Option<PathBuf>,
}

/// How a project is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipe {
    /// By cargo, which also says where the artifact is.
    Cargo,
    /// By the tool of another language, which is brought if it is not there.
    Language {
        /// The language.
        language: Language,
        /// Where the artifact goes, relative to the project.
        artifact: PathBuf,
    },
    /// By a shell command in the project's directory.
    Command {
        /// The command.
        command: String,
        /// Where it leaves the Wasm file, relative to the project.
        artifact: PathBuf,
    },
}

/// Why a directory is not a project that can be built.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// There is no `function.toml`.
    #[error("{} has no {FILE}: `sedge new` creates one", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The manifest.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// It is not what a manifest should be.
    #[error(transparent)]
    Faulty(#[from] Faults),
    /// A command without an artifact.
    #[error("{}: [build] has a command, so it must also name the artifact", .0.display())]
    NoArtifact(PathBuf),
    /// The artifact is not inside the project.
    #[error("{}: artifact and assets must be paths inside the project", .0.display())]
    Outside(PathBuf),
    /// No command, and no language that is known.
    #[error(
        "{}: no [build] command, and no file to tell the language by: \
         Cargo.toml, go.mod, package.json, asconfig.json, build.zig, main.zig, app.py, *.c",
        .0.display()
    )]
    UnknownLanguage(PathBuf),
}

impl Project {
    /// Reads the manifest in `dir` and decides how to build.
    ///
    /// # Errors
    /// [`ProjectError`] says what is missing or wrong, and in which file.
    pub fn open(dir: &Path) -> Result<Self, ProjectError> {
        let path = dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                return Err(ProjectError::Missing(dir.to_owned()));
            }
            Err(cause) => return Err(ProjectError::Read { path, cause }),
        };
        let (manifest, build) = Manifest::from_toml(&path.to_string_lossy(), &text)?;
        let assets = build.assets.map(PathBuf::from);
        if assets.as_ref().is_some_and(|assets| !is_inside(assets)) {
            return Err(ProjectError::Outside(path));
        }
        let recipe = match (build.command, build.artifact.map(PathBuf::from)) {
            (Some(_), None) => return Err(ProjectError::NoArtifact(path)),
            (_, Some(artifact)) if !is_inside(&artifact) => {
                return Err(ProjectError::Outside(path));
            }
            (Some(command), Some(artifact)) => Recipe::Command { command, artifact },
            (None, artifact) => detect(dir, artifact, &manifest).ok_or(ProjectError::UnknownLanguage(path))?,
        };
        Ok(Self { manifest, recipe, assets })
    }

    /// Whether building it takes a Rust toolchain for guests.
    #[must_use]
    pub fn needs_rust(&self) -> bool {
        match &self.recipe {
            Recipe::Cargo => true,
            Recipe::Language { .. } => false,
            Recipe::Command { command, .. } => command.split_whitespace().any(|word| matches!(word, "cargo" | "rustc")),
        }
    }
}

fn detect(dir: &Path, artifact: Option<PathBuf>, manifest: &Manifest) -> Option<Recipe> {
    if dir.join("Cargo.toml").is_file() {
        return Some(match artifact {
            None => Recipe::Cargo,
            Some(artifact) => Recipe::Command { command: format!("cargo build --release --target {}", crate::TARGET), artifact },
        });
    }
    let language = Language::detect(dir)?;
    let artifact = artifact.unwrap_or_else(|| Path::new("target").join(format!("{}.wasm", manifest.name)));
    Some(Recipe::Language { language, artifact })
}

fn is_inside(artifact: &Path) -> bool {
    use std::path::Component::{CurDir, Normal};
    artifact.components().all(|part| matches!(part, Normal(_) | CurDir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(manifest: &str, files: &[&str]) -> Result<Project, ProjectError> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), manifest).unwrap();
        for file in files {
            fs::write(dir.path().join(file), "").unwrap();
        }
        Project::open(dir.path())
    }

    #[test]
    fn cargo_is_detected_by_its_manifest() {
        let project = open("name = \"a\"", &["Cargo.toml"]).unwrap();
        assert_eq!(project.recipe, Recipe::Cargo);
        assert!(project.needs_rust());
    }

    #[test]
    fn a_command_wins_over_detection() {
        let project = open("name = \"a\"\n[build]\ncommand = \"make\"\nartifact = \"a.wasm\"", &["Cargo.toml"]).unwrap();
        assert_eq!(project.recipe, Recipe::Command { command: "make".into(), artifact: "a.wasm".into() });
        assert!(!project.needs_rust());
    }

    #[test]
    fn an_artifact_alone_chooses_among_the_outputs_of_cargo() {
        let project = open("name = \"a\"\n[build]\nartifact = \"target/wasm32-wasip2/release/b.wasm\"", &["Cargo.toml"]).unwrap();
        assert!(matches!(&project.recipe, Recipe::Command { command, .. } if command.starts_with("cargo build")));
        assert!(project.needs_rust());
    }

    #[test]
    fn another_language_leaves_its_artifact_under_target() {
        let project = open("name = \"a\"\n[build]\nassets = \"site\"", &["go.mod"]).unwrap();
        assert_eq!(project.recipe, Recipe::Language { language: Language::Go, artifact: "target/a.wasm".into() });
        assert_eq!(project.assets, Some("site".into()));
        let project = open("name = \"a\"\n[build]\nartifact = \"b.wasm\"", &["app.py"]).unwrap();
        assert_eq!(project.recipe, Recipe::Language { language: Language::Python, artifact: "b.wasm".into() });
    }

    #[test]
    fn faults_are_told_apart() {
        let check = |manifest, expected: &str| {
            let error = open(manifest, &[]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("name = \"a\"", "no file to tell the language by");
        check("name = \"a\"\n[build]\ncommand = \"make\"", "must also name the artifact");
        check("name = \"a\"\n[build]\ncommand = \"make\"\nartifact = \"../a.wasm\"", "inside the project");
        check("name = \"a\"\n[build]\ncommand = \"make\"\nartifact = \"/a.wasm\"", "inside the project");
        check("name = \"a\"\n[build]\nassets = \"../a\"", "inside the project");
        check("name = \"a\"\nbuilt = 1", "built");
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(Project::open(empty.path()), Err(ProjectError::Missing(_))));
    }
}
