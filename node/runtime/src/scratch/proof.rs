//! What a scratch directory does, beside what a directory of the system does, and where it has to differ.

use super::content::{PAGE_BYTES, PAGE_COST};
use super::tree::{ENTRY_COST, Tree};
use super::{NodeId, Open, ScratchError};
use crate::limits::SCRATCH_DEPTH_MAX;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::SystemTime;

const TOP: NodeId = Tree::TOP;
const CREATE: Open = Open { create: true, exclusive: false, truncate: false, directory: false, read: true, write: true };
const READ: Open = Open { create: false, write: false, ..CREATE };
/// Handles that are open at one time.
const HANDLES: usize = 3;

fn now() -> SystemTime {
    SystemTime::now()
}

fn tree(limit: u64) -> Tree {
    Tree::new(limit, now())
}

/// One thing that a program does.
#[derive(Debug, Clone)]
enum Step {
    Open { handle: usize, path: String, create: bool, exclusive: bool, truncate: bool },
    Close(usize),
    Write { handle: usize, offset: u64, bytes: Vec<u8> },
    SetSize { handle: usize, size: u64 },
    Read { handle: usize, offset: u64, length: usize },
    Create(String),
    RemoveDirectory(String),
    Unlink(String),
    Rename(String, String),
    List(String),
}

fn path() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "c", ".", ".."]);
    let tail = prop::sample::select(vec!["", "", "", "/"]);
    // Never above the directory: one of the system would be left.
    let inside = |names: &Vec<&str>| {
        let mut depth = 0;
        names.iter().all(|name| {
            depth += match *name {
                ".." => -1,
                "." => 0,
                _ => 1,
            };
            depth >= 0
        })
    };
    (prop::collection::vec(name, 1..5).prop_filter("leads out", inside), tail).prop_map(|(names, tail)| names.join("/") + tail)
}

fn step() -> impl Strategy<Value = Step> {
    let handle = || 0..HANDLES;
    let offset = || prop_oneof![0_u64..20, PAGE_BYTES - 3..PAGE_BYTES + 3, 0_u64..40_000];
    prop_oneof![
        3 => (handle(), path(), any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(handle, path, create, exclusive, truncate)| Step::Open { handle, path, create, exclusive: create && exclusive, truncate }),
        1 => handle().prop_map(Step::Close),
        3 => (handle(), offset(), prop::collection::vec(any::<u8>(), 0..9000)).prop_map(|(handle, offset, bytes)| Step::Write { handle, offset, bytes }),
        1 => (handle(), offset()).prop_map(|(handle, size)| Step::SetSize { handle, size }),
        2 => (handle(), offset(), 0..20_000_usize).prop_map(|(handle, offset, length)| Step::Read { handle, offset, length }),
        3 => path().prop_map(Step::Create),
        2 => path().prop_map(Step::RemoveDirectory),
        2 => path().prop_map(Step::Unlink),
        3 => (path(), path()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => path().prop_map(Step::List),
    ]
}

/// What came of a step, in words that both understand.
type Outcome = Result<Vec<u8>, ScratchError>;

fn word(error: &io::Error) -> ScratchError {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::EXIST) => ScratchError::Exist,
        Some(Errno::NOENT) => ScratchError::NoEntry,
        Some(Errno::NOTDIR) => ScratchError::NotDirectory,
        Some(Errno::ISDIR) => ScratchError::IsDirectory,
        Some(Errno::NOTEMPTY) => ScratchError::NotEmpty,
        Some(Errno::INVAL) => ScratchError::Invalid,
        Some(Errno::BUSY) => ScratchError::Busy,
        other => panic!("no word for {other:?}: {error}"),
    }
}

/// A directory of the system and a scratch directory that are to be the same.
struct Pair {
    system: tempfile::TempDir,
    files: [Option<(File, NodeId)>; HANDLES],
    tree: Tree,
}

impl Pair {
    fn new() -> Self {
        Self { system: tempfile::tempdir().unwrap(), files: [None, None, None], tree: tree(1 << 30) }
    }

    fn system(&mut self, step: &Step) -> (io::Result<Vec<u8>>, Option<File>) {
        let at = |path: &String| self.system.path().join(path);
        let file = |handle: &usize| self.files[*handle].as_ref().map(|(file, _)| file);
        let done = |result: io::Result<()>| (result.map(|()| Vec::new()), None);
        match step {
            Step::Open { path, create, exclusive, truncate, .. } => {
                let opened =
                    OpenOptions::new().read(true).write(true).create(*create).create_new(*exclusive).truncate(*truncate).open(at(path));
                opened.map_or_else(|error| (Err(error), None), |file| (Ok(Vec::new()), Some(file)))
            }
            Step::Write { handle, offset, bytes } => done(file(handle).map_or(Ok(()), |file| file.write_all_at(bytes, *offset))),
            Step::SetSize { handle, size } => done(file(handle).map_or(Ok(()), |file| file.set_len(*size))),
            Step::Read { handle, offset, length } => {
                let mut bytes = vec![0; *length];
                let count = file(handle).map_or(Ok(0), |file| file.read_at(&mut bytes, *offset));
                (count.map(|count| bytes[..count].to_vec()), None)
            }
            Step::Create(path) => done(fs::create_dir(at(path))),
            Step::RemoveDirectory(path) => done(fs::remove_dir(at(path))),
            Step::Unlink(path) => done(fs::remove_file(at(path))),
            Step::Rename(from, to) => done(fs::rename(at(from), at(to))),
            Step::List(path) => (list(&at(path)), None),
            Step::Close(_) => (Ok(Vec::new()), None),
        }
    }

    fn scratch(&mut self, step: &Step) -> (Outcome, Option<NodeId>) {
        let file = |handle: &usize| self.files[*handle].as_ref().map(|(_, id)| *id);
        let (tree, now) = (&mut self.tree, now());
        let done = |result: Result<(), ScratchError>| (result.map(|()| Vec::new()), None);
        match step {
            Step::Open { path, create, exclusive, truncate, .. } => {
                let how = Open { create: *create, exclusive: *exclusive, truncate: *truncate, ..CREATE };
                tree.open(TOP, path, how, now).map_or_else(|error| (Err(error), None), |id| (Ok(Vec::new()), Some(id)))
            }
            Step::Write { handle, offset, bytes } => {
                done(file(handle).map_or(Ok(()), |id| tree.write(id, *offset, bytes, now).map(|count| assert_eq!(count, bytes.len()))))
            }
            Step::SetSize { handle, size } => done(file(handle).map_or(Ok(()), |id| tree.set_size(id, *size, now))),
            Step::Read { handle, offset, length } => (file(handle).map_or(Ok(Vec::new()), |id| tree.read(id, *offset, *length)), None),
            Step::Create(path) => done(tree.create_directory(TOP, path, now)),
            Step::RemoveDirectory(path) => done(tree.remove_directory(TOP, path, now)),
            Step::Unlink(path) => done(tree.unlink(TOP, path, now)),
            Step::Rename(from, to) => done(tree.rename((TOP, from), (TOP, to), now)),
            Step::List(path) => (tree.at(TOP, path).and_then(|id| names(tree, id)), None),
            Step::Close(_) => (Ok(Vec::new()), None),
        }
    }

    fn both(&mut self, step: &Step) {
        let ((theirs, file), (ours, id)) = (self.system(step), self.scratch(step));
        match (theirs.map_err(|error| word(&error)), ours) {
            (Ok(theirs), Ok(ours)) => assert_eq!(theirs, ours, "{step:?}"),
            (Err(theirs), Err(ours)) => assert!(same(theirs, ours, step), "{step:?}: {theirs:?} and {ours:?}"),
            (theirs, ours) => panic!("{step:?}: {theirs:?} and {ours:?}"),
        }
        if let Step::Open { handle, .. } | Step::Close(handle) = step
            && (file.is_some() || matches!(step, Step::Close(_)))
        {
            let opened = file.zip(id);
            if let Some((_, before)) = std::mem::replace(&mut self.files[*handle], opened) {
                self.tree.close(before);
            }
        }
        assert_eq!(self.tree.used(), self.tree.audit(), "{step:?}");
    }

    /// All that is in them is the same, and what nobody has open any more costs nothing.
    fn end(mut self) {
        for handle in 0..HANDLES {
            self.both(&Step::Close(handle));
        }
        let (mut theirs, mut ours) = (BTreeMap::new(), BTreeMap::new());
        gather(self.system.path(), "", &mut theirs);
        collect(&self.tree, TOP, "", &mut ours);
        assert_eq!(theirs, ours);
        let cost = |content: &Option<Vec<u8>>| {
            ENTRY_COST + content.as_ref().map_or(0, |bytes| (bytes.len() as u64).div_ceil(PAGE_BYTES) * PAGE_COST)
        };
        assert_eq!(self.tree.used(), ours.values().map(cost).sum::<u64>());
    }
}

/// Where a step is wrong in two ways, either may be said.
fn same(theirs: ScratchError, ours: ScratchError, step: &Step) -> bool {
    let twice = match step {
        Step::Rename(..) => true,
        Step::Open { path, .. } | Step::Create(path) | Step::RemoveDirectory(path) | Step::Unlink(path) => path.ends_with(['/', '.']),
        _ => false,
    };
    theirs == ours || twice
}

fn list(path: &Path) -> io::Result<Vec<u8>> {
    let mut names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().into_string().unwrap())).collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names.join("/").into_bytes())
}

fn names(tree: &Tree, id: NodeId) -> Outcome {
    let mut names: Vec<String> = Vec::new();
    while let Some((name, _)) = tree.name_after(id, names.last().map(String::as_str))? {
        names.push(name.into());
    }
    Ok(names.join("/").into_bytes())
}

fn gather(path: &Path, name: &str, into: &mut BTreeMap<String, Option<Vec<u8>>>) {
    for entry in fs::read_dir(path).unwrap().flatten() {
        let name = format!("{name}/{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            gather(&entry.path(), &name, into);
            into.insert(name, None);
        } else {
            into.insert(name, Some(fs::read(entry.path()).unwrap()));
        }
    }
}

fn collect(tree: &Tree, id: NodeId, name: &str, into: &mut BTreeMap<String, Option<Vec<u8>>>) {
    let mut after: Option<Box<str>> = None;
    while let Some((last, child)) = tree.name_after(id, after.as_deref()).unwrap() {
        let name = format!("{name}/{last}");
        if tree.is_directory(child) {
            collect(tree, child, &name, into);
            into.insert(name, None);
        } else {
            into.insert(name, Some(tree.read(child, 0, usize::MAX).unwrap()));
        }
        after = Some(last);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_scratch_directory_does_what_one_of_the_system_does(steps in prop::collection::vec(step(), 1..60)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.both(step);
        }
        pair.end();
    }

    #[test]
    fn what_is_counted_never_passes_the_limit(pages in 0_u64..20, steps in prop::collection::vec(step(), 1..60)) {
        let limit = pages * PAGE_COST;
        let mut open = [None; HANDLES];
        let mut tree = tree(limit);
        for step in steps {
            match step {
                Step::Open { handle, path, .. } => {
                    if let Ok(id) = tree.open(TOP, &path, CREATE, now()) && let Some(before) = open[handle].replace(id) {
                        tree.close(before);
                    }
                }
                Step::Write { handle, offset, bytes } if let Some(id) = open[handle] => {
                    let room = tree.room(id, offset).unwrap();
                    let wrote = tree.write(id, offset, &bytes, now());
                    prop_assert_eq!(wrote.unwrap_or(0) as u64, room.min(bytes.len() as u64));
                }
                Step::SetSize { handle, size } if let Some(id) = open[handle] => drop(tree.set_size(id, size, now())),
                Step::Create(path) => drop(tree.create_directory(TOP, &path, now())),
                Step::Unlink(path) => drop(tree.unlink(TOP, &path, now())),
                _ => {}
            }
            prop_assert!(tree.used() <= limit);
            prop_assert_eq!(tree.used(), tree.audit());
        }
    }
}

#[test]
fn no_path_leads_out() {
    let mut tree = tree(1 << 20);
    tree.create_directory(TOP, "a", now()).unwrap();
    tree.create_directory(TOP, "b", now()).unwrap();
    let a = tree.open(TOP, "a", READ, now()).unwrap();
    for (base, path) in [(TOP, ".."), (TOP, "a/../.."), (a, "../b"), (a, ".."), (TOP, "/"), (TOP, "/etc/passwd"), (a, "./..//x")] {
        assert_eq!(tree.at(base, path), Err(ScratchError::NotPermitted), "{path}");
        assert_eq!(tree.open(base, path, CREATE, now()), Err(ScratchError::NotPermitted), "{path}");
    }
    assert_eq!(tree.at(TOP, "a/../b/../a"), Ok(a));
}

#[test]
fn a_million_empty_files_or_directories_do_not_fit() {
    let mut tree = tree(1 << 20);
    let entries = (1 << 20) / ENTRY_COST;
    for number in 0..entries {
        tree.open(TOP, &number.to_string(), CREATE, now()).map(|id| tree.close(id)).unwrap();
    }
    assert_eq!(tree.open(TOP, "more", CREATE, now()), Err(ScratchError::InsufficientSpace));
    assert_eq!(tree.create_directory(TOP, "more", now()), Err(ScratchError::InsufficientSpace));
    tree.unlink(TOP, "7", now()).unwrap();
    assert_eq!(tree.create_directory(TOP, "more", now()), Ok(()));
}

#[test]
fn a_directory_as_deep_as_it_fits_is_dropped_at_once() {
    let levels = SCRATCH_DEPTH_MAX as u64 + 2;
    let mut tree = tree(levels * ENTRY_COST);
    let mut here = TOP;
    tree.keep(here);
    while tree.create_directory(here, "d", now()).is_ok() {
        let below = tree.open(here, "d", READ, now()).unwrap();
        tree.close(here);
        here = below;
    }
    assert_eq!(tree.used(), levels * ENTRY_COST);
    assert_eq!(tree.rename((TOP, "d"), (here, "e"), now()), Err(ScratchError::Loop), "who could tell");
    let second = tree.open(TOP, "d", READ, now()).unwrap();
    assert_eq!(tree.rename((second, "d"), (here, "e"), now()), Err(ScratchError::Invalid), "into itself");
    drop(tree);
}

#[test]
fn a_sparse_file_counts_in_full_and_reading_much_takes_no_more_than_there_is() {
    let mut tree = tree(1 << 20);
    let file = tree.open(TOP, "f", CREATE, now()).unwrap();
    assert_eq!(tree.write(file, 1 << 40, b"x", now()), Err(ScratchError::InsufficientSpace));
    assert_eq!(tree.write(file, u64::MAX, b"x", now()), Err(ScratchError::FileTooLarge));
    assert_eq!(tree.set_size(file, u64::MAX, now()), Err(ScratchError::InsufficientSpace));
    let most = tree.room(file, 0).unwrap();
    assert_eq!(tree.set_size(file, most + 1, now()), Err(ScratchError::InsufficientSpace));
    tree.set_size(file, most, now()).unwrap();
    assert!(tree.used() > (1 << 20) - PAGE_COST);
    assert_eq!(tree.write(file, most, b"x", now()), Err(ScratchError::InsufficientSpace));
    let read = tree.read(file, most - 5, usize::MAX).unwrap();
    assert_eq!((read.len(), read.capacity()), (5, 5));
}

#[test]
fn what_was_removed_is_there_while_it_is_open() {
    let mut tree = tree(1 << 20);
    let file = tree.open(TOP, "f", CREATE, now()).unwrap();
    tree.write(file, 0, b"still", now()).unwrap();
    tree.unlink(TOP, "f", now()).unwrap();
    assert_eq!((tree.at(TOP, "f"), tree.stat(file).links), (Err(ScratchError::NoEntry), 0));
    assert_eq!(tree.read(file, 0, 9).unwrap(), b"still");
    assert_eq!(tree.used(), ENTRY_COST + PAGE_COST);
    tree.close(file);
    assert_eq!(tree.used(), 0);
    tree.create_directory(TOP, "d", now()).unwrap();
    let directory = tree.open(TOP, "d", READ, now()).unwrap();
    tree.remove_directory(TOP, "d", now()).unwrap();
    assert_eq!(tree.create_directory(directory, "x", now()), Err(ScratchError::NoEntry));
    assert_eq!(tree.open(directory, "x", CREATE, now()), Err(ScratchError::NoEntry));
    tree.close(tree.at(directory, ".").unwrap());
    assert_eq!(tree.used(), 0);
}

#[test]
fn times_change_when_they_should() {
    let at = |seconds| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    let mut tree = Tree::new(1 << 20, at(1));
    let file = tree.open(TOP, "f", CREATE, at(2)).unwrap();
    assert_eq!(tree.stat(TOP).modified, at(2));
    tree.write(file, 0, b"x", at(3)).unwrap();
    let stat = tree.stat(file);
    assert_eq!((stat.accessed, stat.modified, stat.changed, stat.size), (at(2), at(3), at(3), 1));
    tree.set_times(file, Some(at(9)), None, at(4));
    let stat = tree.stat(file);
    assert_eq!((stat.accessed, stat.modified, stat.changed), (at(9), at(3), at(4)));
}
