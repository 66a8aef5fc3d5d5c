//! The first program and the modules it loads, as the archive that the kernel unpacks.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Build;
use super::recipe::Recipe;
use super::stage::Modules;
use super::tools::{Tools, output, overlay};

/// Packs the directory `$1` into `$2`.
const PACK: &str = r#"set -e
cd "$1"; find . -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
find . | LC_ALL=C sort | cpio --quiet --reproducible --owner=0:0 -o -H newc | zstd -q -19 -T1 -f -o "$2""#;

/// Makes the archive.
pub(crate) fn make(build: &Build, recipe: &Recipe, tools: &Tools, base: &Path, init: &Path) -> Result<PathBuf> {
    let (tree, archive) = (build.work.join("initrd"), build.work.join("initrd.zst"));
    let directory = tree.join("modules");
    fs::create_dir_all(&directory).context("create the initrd")?;
    fs::create_dir_all(tree.join("sysroot")).context("create the initrd")?;
    fs::copy(init, tree.join("init")).context("copy the first program")?;
    tools.run(&build.arch.tool("strip"), &[tree.join("init")])?;
    let modules = Modules::read(base)?;
    for (name, list) in ["watchdog", "root", "disks", "repair"].into_iter().zip(&recipe.initrd) {
        let order = order(&modules, list);
        for path in &order {
            unpack(tools, &modules.directory.join(path), &directory.join(file_name(path)))?;
        }
        let text: String = order.iter().map(|path| format!("{}\n", file_name(path))).collect();
        fs::write(directory.join(name), text).with_context(|| format!("write the list `{name}`"))?;
    }
    if let Some(over) = build.overlay.as_ref().map(|over| over.join("initrd")).filter(|over| over.exists()) {
        overlay(&over, &tree)?;
    }
    output(tools.command("sh").args(["-c", PACK, "sh"]).args([&tree, &archive])).context("pack the initrd")?;
    Ok(archive)
}

/// The modules of a list and what they need, each once, what is needed first. A name that the kernel does not have as a module is built in, or
/// of another processor.
fn order<'a>(modules: &'a Modules, names: &[String]) -> Vec<&'a str> {
    let mut order: Vec<&str> = Vec::new();
    for path in names.iter().filter_map(|name| modules.path(name)) {
        let needs = modules.needs.get(path).into_iter().flatten().rev().map(String::as_str);
        for path in needs.chain([path]) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    order
}

/// The name of an unpacked module.
fn file_name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".xz").unwrap_or(file)
}

/// Unpacks now what the first program would have to unpack at each boot.
fn unpack(tools: &Tools, from: &Path, to: &Path) -> Result<()> {
    if from.extension().is_none_or(|extension| extension != "xz") {
        return fs::copy(from, to).with_context(|| format!("copy {}", from.display())).map(drop);
    }
    output(tools.command("sh").args(["-c", r#"xz -dc "$1" > "$2""#, "sh"]).args([from, to])).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let needs = [
            ("kernel/drivers/md/dm-verity.ko.xz", vec!["kernel/drivers/md/dm-bufio.ko.xz", "kernel/drivers/md/dm-mod.ko.xz"]),
            ("kernel/drivers/md/dm-bufio.ko.xz", vec!["kernel/drivers/md/dm-mod.ko.xz"]),
            ("kernel/drivers/md/dm-mod.ko.xz", vec![]),
        ];
        let owned = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect();
        let needs = needs.into_iter().map(|(path, needs)| (path.to_owned(), owned(needs))).collect();
        let modules = Modules { version: "6".to_owned(), directory: PathBuf::new(), needs };
        let names = ["dm_verity", "dm_mod", "ext9"].map(str::to_owned);
        let order: Vec<&str> = order(&modules, &names).into_iter().map(file_name).collect();
        assert_eq!(order, ["dm-mod.ko", "dm-bufio.ko", "dm-verity.ko"]);
    }
}
