//! What an image is made of, for who has to know: CycloneDX, one file, the same from two builds of one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::base::SUITE;
use super::{Arch, Build};
use crate::workspace;

/// What of this repository is inside an image.
const OURS: [&str; 2] = ["sedged", "sedge-init"];

/// The package whose files are on the boot partition instead.
const BOOT_LOADER: &str = "systemd-boot-efi";

/// A part, in the order in which parts are listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Part {
    /// Names it among all packages of the world.
    purl: String,
    #[serde(rename = "type")]
    kind: &'static str,
    name: String,
    version: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<License>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct License {
    expression: String,
}

/// Writes the list beside the image: Debian's packages of `base` of which something is left in `tree`, and what our programs are linked of.
pub(super) fn write(build: &Build, base: &Path, tree: &Path) -> Result<PathBuf> {
    let mut parts = debian(base, tree)?;
    parts.extend(cargo(build.arch)?);
    let system = json!({ "type": "operating-system", "name": format!("sedge-{}-{}", build.variant.name(), build.arch.name()), "version": build.version });
    let text = serde_json::to_string_pretty(&json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": system },
        "components": parts,
    }))?;
    let path = build.out.join(format!("{}.cdx.json", build.name()));
    fs::write(&path, format!("{text}\n")).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Debian's packages.
fn debian(base: &Path, tree: &Path) -> Result<BTreeSet<Part>> {
    let database = base.join("var/lib/dpkg");
    let status = fs::read_to_string(database.join("status")).context("read the list of Debian's packages")?;
    let mut parts = BTreeSet::new();
    for entry in status.split("\n\n") {
        let field = |name: &str| entry.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let (Some(name), Some(version), Some(architecture)) = (field("Package:"), field("Version:"), field("Architecture:")) else {
            continue;
        };
        if name == BOOT_LOADER || is_left(&database, tree, name, architecture)? {
            let purl = format!("pkg:deb/debian/{name}@{}?arch={architecture}&distro={SUITE}", encoded(version));
            parts.insert(Part { purl, kind: "library", name: name.to_owned(), version: version.to_owned(), licenses: Vec::new() });
        }
    }
    Ok(parts)
}

/// Whether a file of the package is in the image.
fn is_left(database: &Path, tree: &Path, name: &str, architecture: &str) -> Result<bool> {
    let lists = [format!("info/{name}.list"), format!("info/{name}:{architecture}.list")].map(|file| database.join(file));
    let Some(list) = lists.iter().find(|list| list.exists()) else { return Ok(false) };
    let text = fs::read_to_string(list).with_context(|| format!("read {}", list.display()))?;
    let file = |path: &str| tree.join(path.trim_start_matches('/')).symlink_metadata().is_ok_and(|found| !found.is_dir());
    // Modules were packed in the package.
    Ok(text.lines().any(|path| file(path) || file(path.trim_end_matches(".xz"))))
}

/// As `purl` has versions: `+`, `~` and `:` stand for themselves nowhere else.
fn encoded(version: &str) -> String {
    version.replace('%', "%25").replace('+', "%2B").replace(':', "%3A").replace('~', "%7E")
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    kind: Option<String>,
}

/// What our programs are linked of.
fn cargo(arch: Arch) -> Result<BTreeSet<Part>> {
    let mut command = workspace::cargo();
    command.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", arch.target()]);
    let said = command.output().context("run cargo")?;
    ensure!(said.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&said.stderr).trim());
    linked(&serde_json::from_slice(&said.stdout).context("read what cargo says about dependencies")?)
}

/// Follows dependencies that end up in a program: those of build scripts and tests do not.
fn linked(metadata: &Metadata) -> Result<BTreeSet<Part>> {
    let packages: BTreeMap<&str, &Package> = metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
    let nodes: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let ours = packages.values().filter(|package| OURS.contains(&package.name.as_str()));
    let mut open: Vec<&str> = ours.map(|package| package.id.as_str()).collect();
    ensure!(open.len() == OURS.len(), "the workspace lacks one of {}", OURS.join(", "));
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            let dependencies = nodes.get(id).map(|node| node.deps.as_slice()).unwrap_or_default();
            let normal = |dependency: &&Dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
            open.extend(dependencies.iter().filter(normal).map(|dependency| dependency.pkg.as_str()));
        }
    }
    Ok(seen.into_iter().filter_map(|id| packages.get(id)).map(|package| part(package)).collect())
}

fn part(package: &Package) -> Part {
    let Package { name, version, license, .. } = package;
    let kind = if OURS.contains(&name.as_str()) { "application" } else { "library" };
    // Older crates separate licences with a slash.
    let licenses = license.iter().map(|license| License { expression: license.replace('/', " OR ") }).collect();
    Part { purl: format!("pkg:cargo/{name}@{}", encoded(version)), kind, name: name.clone(), version: version.clone(), licenses }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_which_nothing_is_left_are_not_listed() {
        let (base, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let info = base.path().join("var/lib/dpkg/info");
        fs::create_dir_all(&info).unwrap();
        let entry = |name, arch| format!("Package: {name}\nStatus: install ok installed\nArchitecture: {arch}\nVersion: 1:2.0+b1\n");
        fs::write(
            base.path().join("var/lib/dpkg/status"),
            ["systemd-boot-efi", "udev", "libc6", "perl"].map(|name| entry(name, "amd64")).join("\n"),
        )
        .unwrap();
        fs::write(info.join("udev.list"), "/.\n/usr\n/usr/bin/udevadm\n").unwrap();
        fs::write(info.join("libc6:amd64.list"), "/usr/lib/a.ko.xz\n").unwrap();
        fs::write(info.join("perl.list"), "/usr\n/usr/bin/perl\n").unwrap();
        fs::create_dir_all(tree.path().join("usr/bin")).unwrap();
        fs::create_dir_all(tree.path().join("usr/lib")).unwrap();
        fs::write(tree.path().join("usr/bin/udevadm"), "").unwrap();
        fs::write(tree.path().join("usr/lib/a.ko"), "").unwrap();
        let purls: Vec<String> = debian(base.path(), tree.path()).unwrap().into_iter().map(|part| part.purl).collect();
        assert_eq!(
            purls,
            ["libc6", "systemd-boot-efi", "udev"].map(|name| format!("pkg:deb/debian/{name}@1%3A2.0%2Bb1?arch=amd64&distro=trixie"))
        );
    }

    #[test]
    fn what_is_linked_is_listed_and_what_builds_is_not() {
        let package = |id: &str| json!({ "id": id, "name": id, "version": "1.0.0", "license": "MIT/Apache-2.0" });
        let dep = |pkg: &str, kind: Option<&str>| json!({ "pkg": pkg, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [package("sedged"), package("sedge-init"), package("tokio"), package("cc"), package("proptest"), package("mio")],
            "resolve": { "nodes": [
                { "id": "sedged", "deps": [dep("tokio", None), dep("cc", Some("build")), dep("proptest", Some("dev"))] },
                { "id": "tokio", "deps": [dep("mio", None)] },
            ] },
        });
        let parts = linked(&serde_json::from_value(metadata).unwrap()).unwrap();
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["mio", "sedge-init", "sedged", "tokio"]);
        assert_eq!(parts.first().unwrap().licenses[0].expression, "MIT OR Apache-2.0");
    }
}
