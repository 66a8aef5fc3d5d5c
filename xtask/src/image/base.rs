//! The base: Debian's packages unpacked and configured, before anything is taken away or laid over.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::recipe::Recipe;
use super::tools::Tools;
use super::{Arch, Build};
use crate::progress::Step;

/// Debian's release, for the tools as well.
pub(crate) const SUITE: &str = "trixie";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What nobody reads on a node.
const NOT_UNPACKED: [&str; 7] = ["man", "doc", "locale", "info", "i18n", "bash-completion", "zsh"];

/// Runs what follows `$1` with programs of that processor emulated: the kernel is told by whom, unless it knows. It forgets when nobody is left
/// that has mounted this.
const EMULATED: &str = r#"set -e
known=/proc/sys/fs/binfmt_misc
mount -t binfmt_misc binfmt_misc $known
[ -e "$known/qemu-$1" ] || cat "/usr/lib/binfmt.d/qemu-$1.conf" >$known/register
shift; exec "$@""#;

/// What a root file system is bootstrapped of.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) build: &'a Build,
    /// The processor; the host's own when absent, with a package manager.
    pub(crate) arch: Option<Arch>,
    pub(crate) packages: &'a [String],
    pub(crate) to: &'a Path,
}

/// A directory's name that says what goes into it.
pub(crate) fn keyed(name: &str, suite: &str, inputs: &[String]) -> String {
    let digest = sedge_protocol::Digest::of(format!("{suite}\n{}", inputs.join("\n")).as_bytes()).hex();
    format!("{name}-{}", &digest[..16])
}

/// The base of this recipe, made if it is not there yet.
pub(crate) fn ensure(build: &Build, recipe: &Recipe, tools: &Tools) -> Result<PathBuf> {
    let step = Step::begin("base");
    let base = build.cache.join(keyed(&format!("base-{}", build.arch.name()), SUITE, &recipe.packages));
    if base.exists() {
        step.skipped(&format!("{} (kept)", base.display()));
        return Ok(base);
    }
    step.now(&format!("{} packages of Debian {SUITE} for {}, and what they need", recipe.packages.len(), build.arch.name()));
    bootstrap(&mut command(build.arch, tools), &Wanted { build, arch: Some(build.arch), packages: &recipe.packages, to: &base })?;
    step.done(&base.display().to_string());
    Ok(base)
}

/// mmdebstrap, which runs programs of what it unpacks.
fn command(arch: Arch, tools: &Tools) -> Command {
    if arch == Arch::host() {
        return tools.command("mmdebstrap");
    }
    let mut command = tools.command("sh");
    // It would ask a package of its own whether such programs run; if they do not, the first of them says so.
    command.args(["-c", EMULATED, "sh", arch.machine(), "mmdebstrap", "--skip=check/qemu"]);
    command
}

/// Runs mmdebstrap. What it makes appears under its name only when it is whole.
pub(crate) fn bootstrap(command: &mut Command, wanted: &Wanted<'_>) -> Result<()> {
    let partial = wanted.to.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
    }
    fs::create_dir_all(&wanted.build.cache).with_context(|| format!("create {}", wanted.build.cache.display()))?;
    command.args([
        "--mode=root",
        "--format=directory",
        "--aptopt=Acquire::Languages \"none\"",
        "--aptopt=APT::Install-Recommends \"false\"",
    ]);
    command.args(NOT_UNPACKED.map(|name| format!("--dpkgopt=path-exclude=/usr/share/{name}/*")));
    match wanted.arch {
        Some(arch) => command.args(["--variant=essential", &format!("--architectures={}", arch.debian())]),
        None => command.arg("--variant=apt"),
    };
    // A memory disk of Debian's own is not used, and takes minutes where the processor is emulated.
    command.env("INITRD", "No");
    command.arg(format!("--include={}", wanted.packages.join(","))).arg(SUITE).arg(&partial);
    command.arg(format!("deb [signed-by={KEYRING}] {} {SUITE} main", wanted.build.mirror));
    let output = command.output().context("run mmdebstrap")?;
    let last: Vec<String> = String::from_utf8_lossy(&output.stderr).lines().rev().take(12).map(str::to_owned).collect();
    ensure!(output.status.success(), "mmdebstrap: {}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
    fs::rename(&partial, wanted.to).with_context(|| format!("name {}", wanted.to.display()))
}

/// The mirror that the host itself uses.
pub(crate) fn mirror_of_host() -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    files.extend(fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path()));
    files.sort();
    let texts = files.iter().filter_map(|path| fs::read_to_string(path).ok());
    let found = texts.flat_map(|text| mirrors(&text)).find(|url| url.trim_end_matches('/').ends_with("/debian"));
    found.context("the host's apt sources name no mirror of Debian: name one with --mirror")
}

/// The addresses in a file of sources, of either form.
fn mirrors(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"));
    let words = lines.flat_map(str::split_ascii_whitespace).filter(|word| word.starts_with("http://") || word.starts_with("https://"));
    words.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_sources_are_read() {
        let text = "Types: deb\nURIs: http://a.example/debian\nSuites: trixie\n# deb http://no.example/debian\ndeb [arch=amd64] https://b.example/debian trixie main\n";
        assert_eq!(mirrors(text), ["http://a.example/debian", "https://b.example/debian"]);
    }

    #[test]
    fn a_directory_is_named_by_its_inputs() {
        let (one, other) = (keyed("base", SUITE, &["a".into()]), keyed("base", SUITE, &["b".into()]));
        assert!(one.starts_with("base-") && one.len() == 21 && one != other, "{one} {other}");
    }
}
