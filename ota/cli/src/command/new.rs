//! `sedge new`

mod templates;

use crate::arguments::Context;
use crate::failure::Failure;
use crate::style::Tone;
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use sedge_protocol::FunctionName;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};
use templates::File;

/// Start a project for a function
#[derive(Debug, Args)]
pub(crate) struct New {
    /// The function's name: a-z, 0-9 and -
    name: FunctionName,
    /// What to start from
    #[arg(long, short, value_enum, default_value_t = Template::RustHttp)]
    template: Template,
    /// Where to put it [default: a new directory with the function's name]
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Template {
    /// Rust, answers HTTP requests and handles events
    RustHttp,
    /// Rust on WASI 0.3: async, answers HTTP requests and handles events
    #[value(name = "rust-http-03")]
    RustHttp03,
    /// Rust, a plain command: event on standard input, reply on standard output
    RustCommand,
    /// Go, a WASI command: HTTP requests and events
    Go,
    /// JavaScript, answers HTTP requests and handles events
    Javascript,
    /// TypeScript, answers HTTP requests and handles events
    Typescript,
    /// Python, answers HTTP requests and handles events
    Python,
    /// C, a WASI command: HTTP requests and events
    C,
    /// Zig, a WASI command: HTTP requests and events
    Zig,
    /// AssemblyScript, a WASI command: HTTP requests and events
    Assemblyscript,
    /// Ruby, a WASI command: HTTP requests and events
    Ruby,
}

impl Template {
    fn files(self) -> &'static [File] {
        match self {
            Self::RustHttp => templates::RUST_HTTP,
            Self::RustHttp03 => templates::RUST_HTTP_03,
            Self::RustCommand => templates::RUST_COMMAND,
            Self::Go => templates::GO,
            Self::Javascript => templates::JAVASCRIPT,
            Self::Typescript => templates::TYPESCRIPT,
            Self::Python => templates::PYTHON,
            Self::C => templates::C,
            Self::Zig => templates::ZIG,
            Self::Assemblyscript => templates::ASSEMBLYSCRIPT,
            Self::Ruby => templates::RUBY,
        }
    }
}

impl New {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let dir = self.path.clone().unwrap_or_else(|| PathBuf::from(self.name.as_str()));
        if !is_free(&dir).with_context(|| format!("read {}", dir.display()))? {
            let what = format!("{} exists and is not empty", dir.display());
            return Err(Failure::usage(what, "name another directory with --path").into());
        }
        for (path, text) in self.template.files() {
            let path = dir.join(path);
            write(&path, &text.replace("{{name}}", self.name.as_str())).with_context(|| format!("write {}", path.display()))?;
        }
        if context.output.is_json() {
            context.output.show(&json!({ "function": self.name, "path": dir }), |_| String::new())?;
        }
        context.output.said("created", Tone::Good, &format!("{} in {}", self.name, dir.display()));
        context
            .output
            .note(&format!("next: `sedge test {0}` runs its cases, `sedge run {0}` starts a node for it on this machine", dir.display()));
        Ok(ExitCode::SUCCESS)
    }
}

fn is_free(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(cause) => Err(cause),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    fs::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::Manifest;

    #[test]
    fn every_template_has_a_manifest_that_is_right() {
        for template in Template::value_variants() {
            let (_, text) = template.files().iter().find(|(path, _)| *path == "function.toml").unwrap();
            let (manifest, _) = Manifest::from_toml("function.toml", &text.replace("{{name}}", "my-name")).unwrap();
            assert_eq!(manifest.name.as_str(), "my-name");
        }
    }

    #[test]
    fn no_file_of_a_template_is_left_out() {
        for template in Template::value_variants() {
            let name = template.to_possible_value().unwrap();
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../node/functions/templates").join(name.get_name());
            assert_eq!(files_in(&dir), template.files().len(), "{}", name.get_name());
        }
    }

    fn files_in(dir: &Path) -> usize {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| if path.is_dir() { files_in(&path) } else { 1 }).sum()
    }
}
