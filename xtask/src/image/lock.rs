//! The versions of Debian's packages that the last image of a processor was made of, kept with the recipe: `packages/ARCH.lock`. A mirror moves
//! on by itself; a build that differs from the one before for that reason says so. It is no promise that the mirror still has the old ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Arch;
use super::recipe;

/// Packages that are named when they differ; of the rest it is said how many they are.
const NAMED_MAX: usize = 5;

/// Versions by name.
type Versions = BTreeMap<String, String>;

/// Compares the packages of `base` with the list, or writes the list anew. Answers what is to be said.
pub(super) fn compare(arch: Arch, base: &Path, write: bool) -> Result<String> {
    let path = recipe::root().join(format!("packages/{}.lock", arch.name()));
    let status = fs::read_to_string(base.join("var/lib/dpkg/status")).context("read the list of Debian's packages")?;
    let found = versions(&status);
    if write {
        let lines: String = found.iter().map(|(name, version)| format!("{name} {version}\n")).collect();
        fs::write(&path, lines).with_context(|| format!("write {}", path.display()))?;
        return Ok(format!("{} written to {}", found.len(), path.display()));
    }
    let Ok(text) = fs::read_to_string(&path) else {
        return Ok(format!("{}, and no list to compare with: --update-lock writes one", found.len()));
    };
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    let locked = pairs.map(|(name, version)| (name.to_owned(), version.to_owned())).collect();
    Ok(difference(&locked, &found).unwrap_or_else(|| format!("{}, as in {}.lock", found.len(), arch.name())))
}

/// From dpkg's own list.
fn versions(status: &str) -> Versions {
    let field = |entry: &str, name: &str| entry.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
    status.split("\n\n").filter_map(|entry| Some((field(entry, "Package:")?, field(entry, "Version:")?))).collect()
}

/// What differs, in words; nothing when all is the same.
fn difference(locked: &Versions, found: &Versions) -> Option<String> {
    let shown = |version: Option<&String>| version.map_or("none", String::as_str).to_owned();
    let mut names: Vec<&String> = locked.keys().chain(found.keys()).filter(|name| locked.get(*name) != found.get(*name)).collect();
    names.sort();
    names.dedup();
    let named =
        names.iter().take(NAMED_MAX).map(|name| format!("{name} {} instead of {}", shown(found.get(*name)), shown(locked.get(*name))));
    let named: Vec<String> = named.collect();
    let more = names.len().saturating_sub(NAMED_MAX);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!names.is_empty()).then(|| format!("not those of the last image: {}{rest}; --update-lock takes them over", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(pairs: &[(&str, &str)]) -> Versions {
        pairs.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect()
    }

    #[test]
    fn versions_are_those_of_dpkg() {
        let status =
            "Package: udev\nStatus: install ok installed\nVersion: 257.8-1\nDescription: x\n Version: no\n\nPackage: kmod\nVersion: 34-2\n";
        assert_eq!(versions(status), list(&[("kmod", "34-2"), ("udev", "257.8-1")]));
    }

    #[test]
    fn what_differs_is_named_and_the_rest_is_counted() {
        let locked = list(&[("gone", "1"), ("same", "1"), ("udev", "1")]);
        assert_eq!(difference(&locked, &locked), None);
        let said = difference(&locked, &list(&[("new", "3"), ("same", "1"), ("udev", "2")])).unwrap();
        assert!(said.contains("gone none instead of 1, new 3 instead of none, udev 2 instead of 1;"), "{said}");
        let many: Vec<String> = (0..NAMED_MAX + 2).map(|number| number.to_string()).collect();
        let many = many.iter().map(|name| (name.clone(), "1".to_owned())).collect();
        assert!(difference(&Versions::new(), &many).unwrap().contains(" and 2 more;"));
    }
}
