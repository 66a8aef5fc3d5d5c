//! Builds the example functions, `node/functions/<project>` to `target/guests/<name>.wasm`, and a project of each template of
//! `sedge new` to `target/guests/template-<template>.wasm`; only those whose sources changed.
//!
//! Python, JavaScript and Ruby take minutes and a hundred megabytes of tools: they are built with `--all`, or by name.
//!
//! Beside each artifact lies `<name>.fingerprint`: the digest over sources, features and this program's way of building.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use anyhow::{Context, Result, bail};
use sedge_build::{Builder, Language, Progress, Toolchain};

use crate::progress::Step;
use crate::tool::Log;
use crate::{toolchain, workspace};

/// Counts up when guests have to be built anew although no source changed.
const RECIPE: &str = "1";

/// Second artifacts of a project, by cargo features: name, project, features.
const VARIANTS: [(&str, &str, &[&str]); 1] = [("average-v2", "average", &["v2"])];

/// Functions that take long for another reason: many dependencies, each compiled.
const SLOW: [&str; 2] = ["sdk-spin", "sdk-spin-7"];

/// What to build.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Names of functions; all if none is given
    names: Vec<String>,
    /// Also those that take minutes: Python, JavaScript, TypeScript, Ruby, and a large SDK
    #[arg(long)]
    all: bool,
    /// Compile against a private copy of the toolchain even if the target is installed
    #[arg(long)]
    private_toolchain: bool,
    /// Build also what did not change
    #[arg(long)]
    force: bool,
}

impl Options {
    /// These functions, as they are built by default.
    pub(crate) fn of(names: &[&str]) -> Self {
        Self { names: names.iter().map(|name| (*name).to_owned()).collect(), ..Self::default() }
    }

    /// Every function; those of large tools if `all` says so.
    pub(crate) fn every(all: bool) -> Self {
        Self { all, ..Self::default() }
    }
}

/// One artifact to make.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Guest {
    name: String,
    project: PathBuf,
    features: &'static [&'static str],
    /// Whether the project is a template, whose files still have to be given a name.
    template: bool,
}

impl Guest {
    fn of(name: String, project: PathBuf) -> Self {
        Self { name, project, features: &[], template: false }
    }

    fn is_heavy(&self) -> bool {
        SLOW.contains(&self.name.as_str()) || Language::detect(&self.project).is_some_and(Language::is_heavy)
    }
}

/// Builds what `options` ask for.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let guests = select(all(&workspace::root().join("node/functions"))?, options)?;
    let out = workspace::guests();
    fs::create_dir_all(&out).with_context(|| format!("create {}", out.display()))?;
    let toolchain = toolchain::guests(options.private_toolchain);
    for guest in &guests {
        make(guest, &toolchain, &out, options)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Every guest of the directory, variants and templates included, by name.
fn all(functions: &Path) -> Result<Vec<Guest>> {
    let projects = projects(functions)?;
    let templates = projects_if_there(&functions.join("templates"))?;
    let mut guests: Vec<_> = projects.into_iter().map(|(name, project)| Guest::of(name, project)).collect();
    for (name, project, features) in VARIANTS {
        if let Some(base) = guests.iter().find(|guest| guest.name == project) {
            guests.push(Guest { features, ..Guest::of(name.to_owned(), base.project.clone()) });
        }
    }
    let named = |(name, project): (String, PathBuf)| Guest { template: true, ..Guest::of(format!("template-{name}"), project) };
    guests.extend(templates.into_iter().map(named));
    guests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(guests)
}

/// The projects in a directory, by name.
fn projects(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut projects = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let project = entry?.path();
        if project.join("function.toml").is_file() {
            projects.push((project.file_name().unwrap_or_default().to_string_lossy().into_owned(), project));
        }
    }
    Ok(projects)
}

fn projects_if_there(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    if dir.is_dir() { projects(dir) } else { Ok(Vec::new()) }
}

fn select(guests: Vec<Guest>, options: &Options) -> Result<Vec<Guest>> {
    let names = &options.names;
    if let Some(unknown) = names.iter().find(|name| guests.iter().all(|guest| guest.name != **name)) {
        let known: Vec<_> = guests.iter().map(|guest| guest.name.as_str()).collect();
        bail!("no function `{unknown}`; there are: {}", known.join(", "));
    }
    let wanted = |guest: &Guest| if names.is_empty() { options.all || !guest.is_heavy() } else { names.contains(&guest.name) };
    Ok(guests.into_iter().filter(wanted).collect())
}

/// The project to build: a template's files with a name in them, written where they differ, so that what its tools installed stays.
fn project(guest: &Guest, out: &Path) -> Result<PathBuf> {
    if !guest.template {
        return Ok(guest.project.clone());
    }
    let project = out.join("templates").join(&guest.name);
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        let dir = guest.project.join(&below);
        for entry in fs::read_dir(&dir).with_context(|| format!("read {}", dir.display()))? {
            let entry = entry?;
            let name = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                open.push(name);
                continue;
            }
            let text = fs::read_to_string(entry.path()).with_context(|| format!("read {}", entry.path().display()))?;
            write(&project.join(name), &text.replace("{{name}}", &guest.name))?;
        }
    }
    Ok(project)
}

fn write(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let written = fs::create_dir_all(path.parent().unwrap_or(path)).and_then(|()| fs::write(path, text));
    written.with_context(|| format!("write {}", path.display()))
}

fn make(guest: &Guest, toolchain: &Toolchain, out: &Path, options: &Options) -> Result<()> {
    let step = Step::begin(&guest.name);
    let artifact = out.join(format!("{}.wasm", guest.name));
    let mark = artifact.with_extension("fingerprint");
    let fingerprint = fingerprint(guest, options)?;
    if !options.force && artifact.is_file() && fs::read_to_string(&mark).is_ok_and(|old| old == fingerprint) {
        step.skipped(&format!("{} unchanged", size(&artifact)?));
        return Ok(());
    }
    let mut log = Log::create(&format!("guest-{}", guest.name))?;
    // The features of a variant change what cargo calls up to date, so each keeps its own outputs.
    let target = out.join("build").join(guest.features.join("-"));
    let builder = Builder::new(toolchain.clone()).features(guest.features).target_dir(&target);
    let project = project(guest, out)?;
    let built = builder.build(&project, &mut |progress| match progress {
        Progress::Step(what) => step.now(what),
        Progress::Line(line) => {
            log.line(line);
            step.detail(line);
        }
    });
    let built = log.explain(built, &format!("build the function {}", guest.name))?;
    inspect(&built)?;
    install(&built, &artifact)?;
    fs::write(&mark, fingerprint).with_context(|| format!("write {}", mark.display()))?;
    step.done(&size(&artifact)?);
    Ok(())
}

fn fingerprint(guest: &Guest, options: &Options) -> Result<String> {
    let compiler = env::var("RUSTUP_TOOLCHAIN").unwrap_or_default();
    let library = if options.private_toolchain { "private" } else { "any" };
    let mut salt = vec![RECIPE, compiler.as_str(), library];
    salt.extend(guest.features);
    sedge_build::fingerprint(&guest.project, &salt).with_context(|| format!("read {}", guest.project.display()))
}

/// What the fleet and the node would refuse is refused here already.
fn inspect(built: &Path) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("read {}", built.display()))?;
    sedge_protocol::artifact::inspect(&bytes).with_context(|| format!("inspect {}", built.display()))?;
    Ok(())
}

/// Copies beside the target and renames: who reads `artifact` meanwhile sees the old one or the new one.
fn install(built: &Path, artifact: &Path) -> Result<()> {
    let temporary = artifact.with_extension("wasm.new");
    fs::copy(built, &temporary).with_context(|| format!("copy {}", built.display()))?;
    fs::rename(&temporary, artifact).with_context(|| format!("rename to {}", artifact.display()))
}

fn size(artifact: &Path) -> Result<String> {
    let bytes = fs::metadata(artifact).with_context(|| format!("look at {}", artifact.display()))?.len();
    Ok(format!("{:>5} KiB", bytes.div_ceil(1024)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["hello", "average", "templates"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("hello/function.toml"), "").unwrap();
        fs::write(dir.path().join("average/function.toml"), "").unwrap();
        dir
    }

    #[test]
    fn projects_and_their_variants_are_found() {
        let dir = functions();
        let names: Vec<_> = all(dir.path()).unwrap().into_iter().map(|guest| guest.name).collect();
        assert_eq!(names, ["average", "average-v2", "hello"]);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let dir = functions();
        let error = select(all(dir.path()).unwrap(), &Options::of(&["helo"])).unwrap_err().to_string();
        assert_eq!(error, "no function `helo`; there are: average, average-v2, hello");
        let chosen = select(all(dir.path()).unwrap(), &Options::of(&["hello"])).unwrap();
        assert_eq!(chosen.len(), 1);
    }

    #[test]
    fn large_tools_are_not_fetched_unasked() {
        let dir = functions();
        fs::write(dir.path().join("hello/app.py"), "").unwrap();
        let chosen = |options: &Options| select(all(dir.path()).unwrap(), options).unwrap().len();
        assert_eq!((chosen(&Options::every(false)), chosen(&Options::every(true)), chosen(&Options::of(&["hello"]))), (2, 3, 1));
    }

    #[test]
    fn a_template_becomes_a_project_that_has_a_name() {
        let dir = functions();
        fs::create_dir_all(dir.path().join("templates/go/src")).unwrap();
        fs::write(dir.path().join("templates/go/function.toml"), "name = '{{name}}'").unwrap();
        fs::write(dir.path().join("templates/go/src/a.go"), "package main").unwrap();
        let guest = all(dir.path()).unwrap().into_iter().find(|guest| guest.template).unwrap();
        assert_eq!(guest.name, "template-go");
        let project = project(&guest, dir.path()).unwrap();
        assert_eq!(fs::read_to_string(project.join("function.toml")).unwrap(), "name = 'template-go'");
        assert!(project.join("src/a.go").is_file());
    }

    #[test]
    fn a_variant_has_a_fingerprint_of_its_own() {
        let dir = functions();
        let guests = all(dir.path()).unwrap();
        let prints: Vec<_> = guests.iter().map(|guest| fingerprint(guest, &Options::default()).unwrap()).collect();
        assert_ne!(prints[0], prints[1]);
        let private = Options { private_toolchain: true, ..Options::default() };
        assert_ne!(fingerprint(&guests[0], &private).unwrap(), prints[0]);
    }

    #[test]
    fn an_artifact_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (built, artifact) = (dir.path().join("a.wasm"), dir.path().join("b.wasm"));
        fs::write(&built, "new").unwrap();
        fs::write(&artifact, "the old one").unwrap();
        install(&built, &artifact).unwrap();
        assert_eq!(fs::read_to_string(&artifact).unwrap(), "new");
        assert!(install(&dir.path().join("none.wasm"), &artifact).is_err());
    }

    #[test]
    fn what_the_node_would_refuse_is_not_installed() {
        let dir = tempfile::tempdir().unwrap();
        let built = dir.path().join("a.wasm");
        fs::write(&built, "no wasm").unwrap();
        assert!(inspect(&built).is_err());
    }

    #[test]
    fn every_project_and_template_has_a_valid_manifest() {
        let functions = workspace::root().join("node/functions");
        for guest in all(&functions).unwrap().into_iter().filter(|guest| !guest.template) {
            sedge_build::Project::open(&guest.project).unwrap();
        }
        for template in fs::read_dir(functions.join("templates")).unwrap() {
            let file = template.unwrap().path().join("function.toml");
            let text = fs::read_to_string(&file).unwrap().replace("{{name}}", "sample");
            sedge_protocol::Manifest::from_toml("function.toml", &text).unwrap();
        }
    }
}
