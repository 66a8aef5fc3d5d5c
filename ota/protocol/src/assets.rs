//! Files that travel inside an artifact, so that one digest covers code and files.
//!
//! ```text
//! files ─▶ sorted, no times, no owners ─▶ tar ─▶ custom section `sedge:assets` after the last of the component or module
//! artifact ─▶ that section ─▶ tar ─▶ Vec<AssetFile>, borrowed from the artifact
//! ```
//!
//! Runtimes skip custom sections, so an artifact with assets runs anywhere. The same files always give the same bytes.
//! [`read`] is meant for hostile bytes: it copies nothing but names, and what it returns can be joined to a directory as it is.

use crate::limits::{ASSET_PATH_BYTES_MAX, ASSETS_BYTES_MAX, ASSETS_MAX};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::Read as _;
use wasm_encoder::Section as _;
use wasmparser::{Parser, Payload};

/// The name of the custom section.
pub const SECTION: &str = "sedge:assets";

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetFile<'a> {
    /// Where it is below the directory of the assets: relative, parts separated by `/`, none of them `.` or `..`.
    pub path: String,
    /// Its contents.
    pub data: Cow<'a, [u8]>,
}

/// What is wrong with the assets of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssetsError {
    /// Too many files.
    #[error("more than {ASSETS_MAX} assets")]
    TooMany,
    /// Too many bytes.
    #[error("the assets have more than {ASSETS_BYTES_MAX} bytes together")]
    TooLarge,
    /// A path that could lead elsewhere, or that not every file system takes.
    #[error("the asset `{}` has a path that is {what}", path.escape_debug())]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Two files of one name, or a file where another needs a directory.
    #[error("the asset `{}` is in the way of another", .0.escape_debug())]
    Twice(String),
    /// Something else than a file: a link, a device, a directory.
    #[error("the asset `{}` is not a plain file", .0.escape_debug())]
    NotAFile(String),
    /// The artifact has assets already, or twice.
    #[error("the artifact has more than one section `{SECTION}`")]
    Again,
    /// The section is not what this module writes.
    #[error("the section `{SECTION}` is damaged: {0}")]
    Damaged(String),
    /// The artifact itself cannot be read.
    #[error("not valid WebAssembly: {0}")]
    Invalid(String),
}

/// `wasm` with `files` inside, in whatever order they are given. Without files it stays as it is.
///
/// # Errors
/// A rule that [`read`] would hold against it, or an artifact that is broken or has assets already.
pub fn append(wasm: &[u8], mut files: Vec<AssetFile<'_>>) -> Result<Vec<u8>, AssetsError> {
    if section(wasm)?.is_some() {
        return Err(AssetsError::Again);
    }
    let mut bytes = wasm.to_vec();
    if files.is_empty() {
        return Ok(bytes);
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut seen = Seen::default();
    for file in &files {
        seen.admit(&file.path, file.data.len() as u64)?;
    }
    let data = pack(&files).map_err(|cause| AssetsError::Damaged(cause.to_string()))?;
    let section = wasm_encoder::CustomSection { name: SECTION.into(), data: data.into() };
    // The kinds of sections of modules and components differ, that of custom sections is one.
    section.append_to(&mut bytes);
    Ok(bytes)
}

/// The assets of an artifact; `None` if it has no such section.
///
/// # Errors
/// The first rule that is broken.
pub fn read(wasm: &[u8]) -> Result<Option<Vec<AssetFile<'_>>>, AssetsError> {
    let Some(tar) = section(wasm)? else { return Ok(None) };
    let damaged = |cause: std::io::Error| AssetsError::Damaged(cause.to_string());
    let mut archive = tar::Archive::new(tar);
    let mut files = Vec::new();
    let mut seen = Seen::default();
    // Raw: no entry changes what the next one means, and none makes the reader take memory.
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        let entry = entry.map_err(damaged)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err(AssetsError::NotAFile(path));
        }
        let size = entry.header().entry_size().map_err(damaged)?;
        seen.admit(&path, size)?;
        let data = slice(tar, entry.raw_file_position(), size).ok_or_else(|| AssetsError::Damaged(format!("`{path}` is cut off")))?;
        files.push(AssetFile { path, data: data.into() });
    }
    Ok(Some(files))
}

fn slice(bytes: &[u8], position: u64, size: u64) -> Option<&[u8]> {
    let begin = usize::try_from(position).ok()?;
    bytes.get(begin..begin.checked_add(usize::try_from(size).ok()?)?)
}

/// The section's contents, of the outermost component or module.
fn section(wasm: &[u8]) -> Result<Option<&[u8]>, AssetsError> {
    let mut found = None;
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(|cause| AssetsError::Invalid(cause.to_string()))? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if depth == 1 && section.name() == SECTION && found.is_some() => {
                return Err(AssetsError::Again);
            }
            Payload::CustomSection(section) if depth == 1 && section.name() == SECTION => found = Some(section.data()),
            _ => {}
        }
    }
    Ok(found)
}

fn pack(files: &[AssetFile<'_>]) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_ustar();
        header.set_path(&file.path)?;
        header.set_size(file.data.len() as u64);
        header.set_mode(0o444);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        archive.append(&header, file.data.as_ref().take(file.data.len() as u64))?;
    }
    archive.into_inner()
}

/// What was admitted so far.
#[derive(Default)]
struct Seen {
    files: BTreeSet<String>,
    directories: BTreeSet<String>,
    bytes: u64,
}

impl Seen {
    fn admit(&mut self, path: &str, size: u64) -> Result<(), AssetsError> {
        if let Some(what) = fault(path) {
            return Err(AssetsError::Path { path: path.to_owned(), what });
        }
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > ASSETS_BYTES_MAX {
            return Err(AssetsError::TooLarge);
        }
        if self.files.len() == ASSETS_MAX {
            return Err(AssetsError::TooMany);
        }
        let parents = || path.match_indices('/').map(|(end, _)| path[..end].to_owned());
        let clash = self.directories.contains(path) || parents().any(|parent| self.files.contains(&parent));
        if clash || !self.files.insert(path.to_owned()) {
            return Err(AssetsError::Twice(path.to_owned()));
        }
        self.directories.extend(parents());
        Ok(())
    }
}

/// What is wrong with a path, if anything.
fn fault(path: &str) -> Option<&'static str> {
    let part_is_bad = |part: &str| part.is_empty() || part == "." || part == "..";
    if path.len() > ASSET_PATH_BYTES_MAX {
        Some("longer than 100 bytes")
    } else if path.starts_with('/') {
        Some("absolute")
    } else if path.split('/').any(part_is_bad) {
        Some("empty in one part, or leads elsewhere by `.` or `..`")
    } else if path.chars().any(|letter| letter.is_control() || matches!(letter, '\\' | ':' | char::REPLACEMENT_CHARACTER)) {
        Some("not plain: a control character, `\\`, `:` or bytes that are not UTF-8")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wasm() -> Vec<u8> {
        wat::parse_str(r#"(component (core module (func (export "a"))))"#).unwrap()
    }

    fn file(path: &str, data: &str) -> AssetFile<'static> {
        AssetFile { path: path.to_owned(), data: data.as_bytes().to_vec().into() }
    }

    /// An artifact whose section holds `data`, whatever it is.
    fn with_section(data: &[u8]) -> Vec<u8> {
        let mut bytes = wasm();
        wasm_encoder::CustomSection { name: SECTION.into(), data: data.into() }.append_to(&mut bytes);
        bytes
    }

    /// A tar with one entry, written without any of our rules.
    fn entry(kind: tar::EntryType, path: &[u8], size: u64, data: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o777);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
        bytes
    }

    #[test]
    fn files_come_back_and_their_order_does_not_matter() {
        let files = || vec![file("index.html", "<p>"), file("css/style.css", "p {}"), file("empty", "")];
        let packed = append(&wasm(), files()).unwrap();
        let mut turned = files();
        turned.reverse();
        assert_eq!(append(&wasm(), turned).unwrap(), packed, "the same files give the same bytes");
        let mut sorted = files();
        sorted.sort_by(|a, b| a.path.cmp(&b.path));
        assert_eq!(read(&packed).unwrap().unwrap(), sorted);
        assert!(packed.starts_with(&wasm()), "the code is left as it is");
        wasmparser::validate(&packed).unwrap();
        let module = wat::parse_str(r#"(module (func (export "_start")))"#).unwrap();
        assert_eq!(read(&append(&module, files()).unwrap()).unwrap().unwrap().len(), 3);
    }

    #[test]
    fn without_assets_nothing_is_added() {
        assert_eq!(append(&wasm(), Vec::new()).unwrap(), wasm());
        assert_eq!(read(&wasm()), Ok(None));
    }

    #[test]
    fn assets_are_added_once_and_belong_to_the_outermost_part() {
        let packed = append(&wasm(), vec![file("a", "")]).unwrap();
        assert_eq!(append(&packed, vec![file("a", "")]), Err(AssetsError::Again));
        let twice = [packed.as_slice(), &with_section(b"")[wasm().len()..]].concat();
        assert_eq!(read(&twice), Err(AssetsError::Again));
        let inner = wat::parse_str(r#"(component (core module (@custom "sedge:assets" "x")))"#).unwrap();
        assert_eq!(read(&inner), Ok(None));
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused_both_ways() {
        let long = "a".repeat(ASSET_PATH_BYTES_MAX + 1);
        for path in ["", "/etc/passwd", "../a", "a/../b", "./a", "a//b", "a/", "a\\b", "c:a", "a\nb", &long] {
            assert!(matches!(append(&wasm(), vec![file(path, "")]), Err(AssetsError::Path { .. })), "{path:?}");
            let name = &path.as_bytes()[..path.len().min(100)];
            let hostile = with_section(&entry(tar::EntryType::Regular, name, 0, b""));
            let expected_good = path.len() > ASSET_PATH_BYTES_MAX;
            assert_eq!(read(&hostile).is_ok(), expected_good, "{path:?}: the format itself holds no longer name");
        }
        append(&wasm(), vec![file(&"a".repeat(ASSET_PATH_BYTES_MAX), "")]).unwrap();
        assert!(matches!(read(&with_section(&entry(tar::EntryType::Regular, b"a\xff", 0, b""))), Err(AssetsError::Path { .. })));
    }

    #[test]
    fn one_name_is_one_file() {
        for paths in [["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"]] {
            let files = paths.iter().map(|path| file(path, "")).collect();
            assert!(matches!(append(&wasm(), files), Err(AssetsError::Twice(_))), "{paths:?}");
        }
    }

    #[test]
    fn counts_and_sizes_are_bounded_whatever_the_headers_say() {
        let many = |count: usize| (0..count).map(|number| file(&number.to_string(), "")).collect();
        assert_eq!(append(&wasm(), many(ASSETS_MAX + 1)), Err(AssetsError::TooMany));
        append(&wasm(), many(ASSETS_MAX)).unwrap();
        let large = AssetFile { path: "a".to_owned(), data: vec![0; usize::try_from(ASSETS_BYTES_MAX).unwrap() + 1].into() };
        assert_eq!(append(&wasm(), vec![large]), Err(AssetsError::TooLarge));
        for (size, expected) in [(u64::MAX / 2, AssetsError::TooLarge), (4096, AssetsError::Damaged("`a` is cut off".to_owned()))] {
            let lies = with_section(&entry(tar::EntryType::Regular, b"a", size, b""));
            assert_eq!(read(&lies), Err(expected));
        }
    }

    #[test]
    fn only_plain_files_are_read() {
        use tar::EntryType as E;
        for kind in [E::Symlink, E::Link, E::Directory, E::Char, E::Fifo, E::GNULongName, E::GNUSparse, E::XHeader, E::XGlobalHeader] {
            let hostile = with_section(&entry(kind, b"a", 0, b""));
            assert_eq!(read(&hostile), Err(AssetsError::NotAFile("a".to_owned())), "{kind:?}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..2048), at in 0_usize..2048, byte: u8) {
            drop(read(&data));
            drop(read(&with_section(&data)));
            let mut flipped = append(&wasm(), vec![file("a/b", "data"), file("c", "more")]).unwrap();
            let at = at % flipped.len();
            flipped[at] = byte;
            drop(read(&flipped));
        }
    }
}
