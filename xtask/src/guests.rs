//! Builds the example functions: `node/functions/<project>` to `target/guests/<name>.wasm`, only those whose sources changed.
//!
//! Beside each artifact lies `<name>.fingerprint`: the digest over sources, features and this program's way of building.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use anyhow::{Context, Result, bail};
use sedge_build::{Builder, Progress, Toolchain};

use crate::progress::Step;
use crate::tool::Log;
use crate::{toolchain, workspace};

/// Counts up when guests have to be built anew although no source changed.
const RECIPE: &str = "1";

/// Second artifacts of a project, by cargo features: name, project, features.
const VARIANTS: [(&str, &str, &[&str]); 1] = [("average-v2", "average", &["v2"])];

/// What to build.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Names of functions; all if none is given
    names: Vec<String>,
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
}

/// One artifact to make.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Guest {
    name: String,
    project: PathBuf,
    features: &'static [&'static str],
}

/// Builds what `options` ask for.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let guests = select(all(&workspace::root().join("node/functions"))?, &options.names)?;
    let out = workspace::guests();
    fs::create_dir_all(&out).with_context(|| format!("create {}", out.display()))?;
    let toolchain = toolchain::guests(options.private_toolchain);
    for guest in &guests {
        make(guest, &toolchain, &out, options)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Every guest of the directory, variants included, by name.
fn all(functions: &Path) -> Result<Vec<Guest>> {
    let mut guests = Vec::new();
    for entry in fs::read_dir(functions).with_context(|| format!("read {}", functions.display()))? {
        let project = entry?.path();
        if project.join("function.toml").is_file() {
            let name = project.file_name().unwrap_or_default().to_string_lossy().into_owned();
            guests.push(Guest { name, project, features: &[] });
        }
    }
    for (name, project, features) in VARIANTS {
        if let Some(base) = guests.iter().find(|guest| guest.name == project) {
            let project = base.project.clone();
            guests.push(Guest { name: name.to_owned(), project, features });
        }
    }
    guests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(guests)
}

fn select(guests: Vec<Guest>, names: &[String]) -> Result<Vec<Guest>> {
    if let Some(unknown) = names.iter().find(|name| guests.iter().all(|guest| guest.name != **name)) {
        let known: Vec<_> = guests.iter().map(|guest| guest.name.as_str()).collect();
        bail!("no function `{unknown}`; there are: {}", known.join(", "));
    }
    Ok(guests.into_iter().filter(|guest| names.is_empty() || names.contains(&guest.name)).collect())
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
    let built = builder.build(&guest.project, &mut |progress| match progress {
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
        let error = select(all(dir.path()).unwrap(), &["helo".into()]).unwrap_err().to_string();
        assert_eq!(error, "no function `helo`; there are: average, average-v2, hello");
        let chosen = select(all(dir.path()).unwrap(), &["hello".into()]).unwrap();
        assert_eq!(chosen.len(), 1);
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
        for guest in all(&functions).unwrap() {
            sedge_build::Project::open(&guest.project).unwrap();
        }
        for template in fs::read_dir(functions.join("templates")).unwrap() {
            let file = template.unwrap().path().join("function.toml");
            let text = fs::read_to_string(&file).unwrap().replace("{{name}}", "sample");
            sedge_protocol::Manifest::from_toml("function.toml", &text).unwrap();
        }
    }
}
