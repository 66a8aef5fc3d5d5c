//! The recipe: lists and files below `image/`, one for each concern, one for each processor.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{Arch, Variant};
use crate::workspace;

/// What an image is made of.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// Packages of the tool root.
    pub(crate) tools: Vec<String>,
    /// Packages of the image.
    pub(crate) packages: Vec<String>,
    /// Kernel modules that are kept; see `image/modules/common.list`.
    pub(crate) modules: Vec<String>,
    /// Kernel modules of the first program: those of the watchdog, of the root, of disks, and those that change the boot partition.
    pub(crate) initrd: Vec<Vec<String>>,
    /// Paths that are left out.
    pub(crate) remove: Vec<String>,
    /// Units that never start.
    pub(crate) mask: Vec<String>,
    /// The kernel's command line, word by word.
    pub(crate) command_line: Vec<String>,
    /// Files that are laid over the root.
    pub(crate) trees: Vec<PathBuf>,
}

/// The recipe's directory.
pub(crate) fn root() -> PathBuf {
    workspace::root().join("image")
}

impl Recipe {
    /// Reads what is common, then what is of this processor and of this variant.
    pub(crate) fn read(arch: Arch, variant: Variant) -> Result<Self> {
        let special = [arch.name(), variant.name()];
        let lists = |directory: &str, extension: &str| -> Result<Vec<String>> {
            let mut lines = read(&format!("{directory}/common{extension}"))?;
            for name in special {
                let file = format!("{directory}/{name}{extension}");
                if root().join(&file).exists() {
                    lines.extend(read(&file)?);
                }
            }
            Ok(lines)
        };
        let words = |lines: Vec<String>| lines.iter().flat_map(|line| line.split_ascii_whitespace().map(str::to_owned)).collect();
        let of_variant = format!("tree-{}", variant.name());
        let trees = ["tree".to_owned(), of_variant.clone(), format!("{of_variant}-{}", arch.name())].map(|name| root().join(name));
        Ok(Self {
            tools: read("packages/tools.list")?,
            packages: lists("packages", ".list")?,
            modules: lists("modules", ".list")?,
            initrd: ["watchdog", "root", "disks", "repair"]
                .map(|name| read(&format!("initrd/{name}.list")))
                .into_iter()
                .collect::<Result<_>>()?,
            remove: lists("remove", ".list")?,
            mask: read("mask.list")?,
            command_line: words(lists("cmdline", "")?),
            trees: trees.into_iter().filter(|tree| tree.exists()).collect(),
        })
    }
}

/// The lines of a list, without comments and empty ones.
fn read(file: &str) -> Result<Vec<String>> {
    let path = root().join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_has_a_recipe() {
        for arch in [Arch::X86_64, Arch::Arm64] {
            let gateway = Recipe::read(arch, Variant::Gateway).unwrap();
            let test = Recipe::read(arch, Variant::Test).unwrap();
            assert!(gateway.packages.iter().any(|name| name == &format!("linux-image-{}", arch.debian())), "{gateway:?}");
            assert!(test.modules.len() > gateway.modules.len() && test.command_line.len() > gateway.command_line.len());
        }
    }
}
