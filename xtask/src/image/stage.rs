//! The root file system of a node: the base less what no node needs, with ours laid over it, packed and given its hash tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::keys::Keys;
use super::recipe::{self, Recipe};
use super::tools::{Tools, output, overlay};
use super::{Build, gpio_sim};

/// Units that the image has from elsewhere in the repository.
const UNIT: &str = "units/sedged.service";

/// A packed root file system.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Its files.
    pub(crate) tree: PathBuf,
    /// Data and hash tree.
    pub(crate) image: PathBuf,
    /// Where the hash tree begins, bytes.
    pub(crate) hash_offset: u64,
    /// What the hash tree ends in.
    pub(crate) root_hash: String,
}

/// What it is made of.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) base: &'a Path,
    pub(crate) sedged: &'a Path,
    pub(crate) keys: &'a Keys,
    /// A kernel module that Debian has not built.
    pub(crate) module: Option<&'a Path>,
}

/// Makes it.
pub(crate) fn make(build: &Build, recipe: &Recipe, tools: &Tools, parts: &Parts<'_>) -> Result<Stage> {
    let Parts { base, sedged, keys, module } = parts;
    let tree = build.work.join("root");
    tools.run("cp", &["-a".as_ref(), "-T".as_ref(), base.as_os_str(), tree.as_os_str()])?;
    if let Some(module) = module {
        install(module, &Modules::read(&tree)?.directory.join(gpio_sim::PLACE))?;
    }
    keep_modules(&tree, &recipe.modules, tools)?;
    for pattern in &recipe.remove {
        for path in expand(&tree, pattern)? {
            remove(&path)?;
        }
    }
    for over in &recipe.trees {
        overlay(over, &tree)?;
    }
    for directory in ["data", "efi"] {
        fs::create_dir_all(tree.join(directory)).with_context(|| format!("create /{directory}"))?;
    }
    install(&recipe::root().join(UNIT), &tree.join("usr/lib/systemd/system/sedged.service"))?;
    install(sedged, &tree.join("usr/bin/sedged"))?;
    tools.run(&build.arch.tool("strip"), &[tree.join("usr/bin/sedged")])?;
    trust(&tree, keys)?;
    fs::write(tree.join("usr/lib/os-release"), os_release(build)).context("write os-release")?;
    // Empty: each boot gets a number of its own, and none is the first.
    fs::write(tree.join("etc/machine-id"), "").context("write /etc/machine-id")?;
    if let Some(over) = build.overlay.as_ref().map(|over| over.join("root")).filter(|over| over.exists()) {
        overlay(&over, &tree)?;
    }
    let root = format!("--root={}", tree.display());
    tools.run("systemd-sysusers", &[&root])?;
    tools.run("systemctl", &[&root, "preset-all"])?;
    output(tools.command("systemctl").args([&root, "mask"]).args(&recipe.mask))?;
    pack(build, tools, tree)
}

/// Whom the node believes that a new version is one.
fn trust(tree: &Path, keys: &Keys) -> Result<()> {
    let (name, text) = keys.bundle()?.public_file();
    let directory = tree.join("usr/lib/sedge/trust");
    fs::create_dir_all(&directory).and_then(|()| fs::write(directory.join(name), text)).context("write the keys that are trusted")
}

fn os_release(build: &Build) -> String {
    let (id, version) = (format!("sedge-{}", build.board()), &build.version);
    format!(
        "ID=sedge\nID_LIKE=debian\nNAME=Sedge\nPRETTY_NAME=\"Sedge {version}\"\nVERSION_ID={version}\nIMAGE_ID={id}\nIMAGE_VERSION={version}\n"
    )
}

/// Packs the tree and adds its hash tree.
fn pack(build: &Build, tools: &Tools, tree: PathBuf) -> Result<Stage> {
    let image = build.work.join("root.img");
    let (uuid, epoch) = (build.uuid("root"), build.epoch_s.to_string());
    let options = ["--quiet", "-zlz4hc", "-C65536", "-Efragments,dedupe", "-T", &epoch, "-U", &uuid];
    let mut command = tools.command("mkfs.erofs");
    output(command.args(options).args([&image, &tree])).context("pack the root file system")?;
    let hash_offset = fs::metadata(&image).context("the packed root")?.len();
    let mut command = tools.command("veritysetup");
    command.args(["format", "--salt=-", &format!("--uuid={}", build.uuid("hash tree")), &format!("--hash-offset={hash_offset}")]);
    let said = output(command.args([&image, &image])).context("make the hash tree")?;
    let root_hash = said.lines().find_map(|line| line.strip_prefix("Root hash:")).context("veritysetup named no root hash")?;
    Ok(Stage { tree, image, hash_offset, root_hash: root_hash.trim().to_owned() })
}

fn install(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display())).map(drop)
}

fn remove(path: &Path) -> Result<()> {
    let gone = if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    gone.with_context(|| format!("remove {}", path.display()))
}

/// The paths below `tree` that a pattern names; `*` stands for anything but `/`.
fn expand(tree: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let mut found = vec![tree.to_owned()];
    for part in pattern.split('/') {
        let mut next = Vec::new();
        for directory in found {
            match part.split_once('*') {
                None => next.extend(Some(directory.join(part)).filter(|path| path.symlink_metadata().is_ok())),
                Some((begin, end)) => {
                    for entry in fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))? {
                        let entry = entry?;
                        let name = entry.file_name().to_string_lossy().into_owned();
                        if name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end) {
                            next.push(entry.path());
                        }
                    }
                }
            }
        }
        found = next;
    }
    Ok(found)
}

/// Leaves only the modules of the recipe and what they need.
fn keep_modules(tree: &Path, patterns: &[String], tools: &Tools) -> Result<()> {
    let modules = Modules::read(tree)?;
    let kept = modules.closure(modules.needs.keys().filter(|path| keeps(patterns, path)));
    for path in modules.needs.keys().filter(|path| !kept.contains(path.as_str())) {
        remove(&modules.directory.join(path))?;
    }
    // Packed once more they would be unpacked at each boot, and the root file system is packed anyway.
    output(tools.command("find").arg(&modules.directory).args(["-name", "*.ko.xz", "-exec", "xz", "-d", "{}", "+"]))?;
    tools.run("depmod", &["-b".as_ref(), tree.as_os_str(), modules.version.as_ref()])?;
    Ok(())
}

/// Whether a module, such as `kernel/fs/ext4/ext4.ko.xz`, is kept: the last pattern that names it decides.
fn keeps(patterns: &[String], path: &str) -> bool {
    let below = |directory: &str| {
        let rest = path.strip_prefix("kernel/").and_then(|path| path.strip_prefix(directory));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let verdict = |pattern: &String| match pattern.strip_prefix('!') {
        Some(left_out) => below(left_out).then_some(false),
        None => below(pattern).then_some(true),
    };
    patterns.iter().filter_map(verdict).next_back().unwrap_or(false)
}

/// The modules of a kernel.
#[derive(Debug)]
pub(crate) struct Modules {
    pub(crate) version: String,
    pub(crate) directory: PathBuf,
    /// What each needs, by paths below the directory; the last is to be loaded first.
    pub(crate) needs: BTreeMap<String, Vec<String>>,
}

impl Modules {
    /// Those of the one kernel of a root file system.
    pub(crate) fn read(tree: &Path) -> Result<Self> {
        let all = tree.join("usr/lib/modules");
        let entry = fs::read_dir(&all).with_context(|| format!("read {}", all.display()))?.next().context("there is no kernel")??;
        let text = fs::read_to_string(entry.path().join("modules.dep")).context("read modules.dep")?;
        let list = |text: &str| text.split_ascii_whitespace().map(str::to_owned).collect();
        let needs = text.lines().filter_map(|line| line.split_once(':')).map(|(path, needs)| (path.to_owned(), list(needs))).collect();
        Ok(Self { version: entry.file_name().to_string_lossy().into_owned(), directory: entry.path(), needs })
    }

    fn closure<'a>(&'a self, paths: impl Iterator<Item = &'a String>) -> BTreeSet<&'a str> {
        let with_needs = |path: &'a String| self.needs.get(path).into_iter().flatten().chain([path]).map(String::as_str);
        // The file names everything that is needed, not the next step only.
        paths.flat_map(with_needs).collect()
    }

    /// The path of a module by its name, in which `-` and `_` are the same; none when it is part of the kernel or absent.
    pub(crate) fn path(&self, name: &str) -> Option<&str> {
        let plain = |name: &str| name.replace('-', "_");
        let stem = |path: &str| path.rsplit('/').next().and_then(|file| file.split_once(".ko")).map(|(stem, _)| plain(stem));
        self.needs.keys().find(|path| stem(path).is_some_and(|stem| stem == plain(name))).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pattern_decides() {
        let patterns = ["drivers/net".to_owned(), "!drivers/net/wireless".to_owned(), "fs/ext4".to_owned()];
        for (path, expected) in [
            ("kernel/drivers/net/a.ko.xz", true),
            ("kernel/drivers/net/wireless/b.ko.xz", false),
            ("kernel/drivers/network/c.ko.xz", false),
            ("kernel/fs/ext4/ext4.ko.xz", true),
            ("kernel/fs/btrfs/btrfs.ko.xz", false),
        ] {
            assert_eq!(keeps(&patterns, path), expected, "{path}");
        }
    }

    #[test]
    fn a_star_stands_for_one_part_of_a_path() {
        let directory = tempfile::tempdir().unwrap();
        for file in ["boot/vmlinuz-1", "boot/grub/x", "usr/bin/dpkg", "usr/bin/dpkg-deb", "usr/bin/sh"] {
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let count = |pattern| expand(directory.path(), pattern).unwrap().len();
        assert_eq!([count("boot/*"), count("usr/bin/dpkg*"), count("usr/*/sh"), count("usr/none"), count("boot")], [2, 2, 1, 0, 1]);
    }
}
