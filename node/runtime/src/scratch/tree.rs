//! The directory itself: files and directories by number, and what all of them cost.
//!
//! ```text
//! nodes ── 0: directory ─ "a" ─▶ 1: file, 2 pages        used = Σ (ENTRY_COST + pages × PAGE_COST), the first directory is free
//!                      └─ "b" ─▶ 2: directory ─ …
//!          7: file, unlinked, open twice ─ counted until it is closed
//! ```
//! Invariants: `used` never passes `limit`; a node is there as long as it has a name or is open; numbers are never given twice. Nothing
//! here recurses, so a directory may be as deep as it likes.

use super::content::{self, Content};
use super::path::{Path, Step};
use super::{NodeId, Open, ScratchError, Stat};
use crate::limits::SCRATCH_DEPTH_MAX;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::SystemTime;

/// What a file or directory costs beside the bytes in it: its name, and what is remembered of it.
pub(super) const ENTRY_COST: u64 = 1024;

type Result<T> = std::result::Result<T, ScratchError>;
type Names = BTreeMap<Box<str>, NodeId>;

#[derive(Debug)]
enum Kind {
    File(Content),
    Directory(Names),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Top,
    In(NodeId),
    Unlinked,
}

#[derive(Debug)]
struct Node {
    kind: Kind,
    place: Place,
    opens: u32,
    accessed: SystemTime,
    modified: SystemTime,
    changed: SystemTime,
}

impl Node {
    const fn new(kind: Kind, place: Place, now: SystemTime) -> Self {
        Self { kind, place, opens: 0, accessed: now, modified: now, changed: now }
    }

    const fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }

    fn cost(&self) -> u64 {
        match &self.kind {
            Kind::File(content) => ENTRY_COST + content::cost(content.size()),
            Kind::Directory(_) => ENTRY_COST,
        }
    }

    const fn touch(&mut self, now: SystemTime) {
        self.modified = now;
        self.changed = now;
    }
}

/// Where something with a name is or could be.
struct Spot<'p> {
    directory: NodeId,
    name: &'p str,
    of_directory: bool,
}

/// Files and directories that cost at most `limit` bytes together.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<NodeId, Node>,
    next: u64,
    used: u64,
    limit: u64,
}

impl Tree {
    /// The directory that is there at first, which nothing removes.
    pub(super) const TOP: NodeId = NodeId(0);

    pub(super) fn new(limit: u64, now: SystemTime) -> Self {
        let top = Node::new(Kind::Directory(Names::new()), Place::Top, now);
        Self { nodes: BTreeMap::from([(Self::TOP, top)]), next: 1, used: 0, limit }
    }

    /// What everything costs now.
    pub(super) const fn used(&self) -> u64 {
        self.used
    }

    /// Opens what is at `path`, or makes a file there if `how` says so. [`close`](Self::close) it.
    pub(super) fn open(&mut self, base: NodeId, path: &str, how: Open, now: SystemTime) -> Result<NodeId> {
        if how.directory && (how.create || how.exclusive || how.truncate) {
            return Err(ScratchError::Invalid);
        }
        let path = Path::new(path)?;
        let id = match self.find(base, path) {
            Ok(_) if how.create && how.exclusive => return Err(ScratchError::Exist),
            Ok(id) => self.reopen(id, how, now)?,
            Err(ScratchError::NoEntry) if how.create => {
                let spot = self.spot(base, path)?.ok_or(ScratchError::NoEntry)?;
                if spot.of_directory {
                    return Err(ScratchError::IsDirectory);
                }
                self.add(&spot, Kind::File(Content::default()), now)?
            }
            Err(error) => return Err(error),
        };
        self.keep(id);
        Ok(id)
    }

    fn reopen(&mut self, id: NodeId, how: Open, now: SystemTime) -> Result<NodeId> {
        match &self.node(id).kind {
            Kind::Directory(_) if how.write || how.truncate || how.create => Err(ScratchError::IsDirectory),
            Kind::File(_) if how.directory => Err(ScratchError::NotDirectory),
            Kind::File(_) if how.truncate => self.set_size(id, 0, now).map(|()| id),
            Kind::File(_) | Kind::Directory(_) => Ok(id),
        }
    }

    /// One more has it open.
    pub(super) fn keep(&mut self, id: NodeId) {
        self.node_mut(id).opens += 1;
    }

    /// One less has it open.
    pub(super) fn close(&mut self, id: NodeId) {
        self.node_mut(id).opens -= 1;
        self.reap(id);
    }

    /// At most `length` bytes of a file from `offset`; none is the end.
    pub(super) fn read(&self, id: NodeId, offset: u64, length: usize) -> Result<Vec<u8>> {
        Ok(self.content(id)?.read(offset, length))
    }

    /// How many bytes can be written to a file at `offset`.
    pub(super) fn room(&self, id: NodeId, offset: u64) -> Result<u64> {
        let size = self.content(id)?.size();
        Ok(content::size_max(size, self.limit - self.used).saturating_sub(offset))
    }

    /// Writes what there is room for, and answers how much that was.
    pub(super) fn write(&mut self, id: NodeId, offset: u64, bytes: &[u8], now: SystemTime) -> Result<usize> {
        let room = self.room(id, offset)?;
        if bytes.is_empty() {
            return Ok(0);
        }
        offset.checked_add(bytes.len() as u64).ok_or(ScratchError::FileTooLarge)?;
        let length = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if length == 0 {
            return Err(ScratchError::InsufficientSpace);
        }
        self.change(id, now, |content| content.write(offset, &bytes[..length]))?;
        Ok(length)
    }

    /// Cuts a file, or makes it longer by zeros.
    pub(super) fn set_size(&mut self, id: NodeId, size: u64, now: SystemTime) -> Result<()> {
        if size > self.content(id)?.size() && self.room(id, 0)? < size {
            return Err(ScratchError::InsufficientSpace);
        }
        self.change(id, now, |content| content.set_size(size))
    }

    fn change(&mut self, id: NodeId, now: SystemTime, edit: impl FnOnce(&mut Content)) -> Result<()> {
        let node = self.node_mut(id);
        let before = node.cost();
        let Kind::File(content) = &mut node.kind else { return Err(ScratchError::IsDirectory) };
        edit(content);
        node.touch(now);
        let after = node.cost();
        self.used = self.used - before + after;
        debug_assert!(self.used <= self.limit, "room was asked for before");
        Ok(())
    }

    pub(super) fn size(&self, id: NodeId) -> Result<u64> {
        self.content(id).map(Content::size)
    }

    pub(super) fn is_directory(&self, id: NodeId) -> bool {
        self.node(id).is_directory()
    }

    pub(super) fn stat(&self, id: NodeId) -> Stat {
        let node = self.node(id);
        let size = match &node.kind {
            Kind::File(content) => content.size(),
            Kind::Directory(_) => 0,
        };
        let links = u64::from(node.place != Place::Unlinked);
        let (accessed, modified, changed) = (node.accessed, node.modified, node.changed);
        Stat { directory: node.is_directory(), links, size, accessed, modified, changed }
    }

    /// What is at `path`.
    pub(super) fn at(&self, base: NodeId, path: &str) -> Result<NodeId> {
        self.find(base, Path::new(path)?)
    }

    pub(super) fn set_times(&mut self, id: NodeId, accessed: Option<SystemTime>, modified: Option<SystemTime>, now: SystemTime) {
        let node = self.node_mut(id);
        node.accessed = accessed.unwrap_or(node.accessed);
        node.modified = modified.unwrap_or(node.modified);
        node.changed = now;
    }

    pub(super) fn create_directory(&mut self, base: NodeId, path: &str, now: SystemTime) -> Result<()> {
        let path = Path::new(path)?;
        let Some(spot) = self.spot(base, path)? else { return self.find(base, path).and(Err(ScratchError::Exist)) };
        if self.child(&spot)?.is_some() {
            return Err(ScratchError::Exist);
        }
        self.add(&spot, Kind::Directory(Names::new()), now).map(drop)
    }

    pub(super) fn remove_directory(&mut self, base: NodeId, path: &str, now: SystemTime) -> Result<()> {
        let path = Path::new(path)?;
        let Some(spot) = self.spot(base, path)? else { return self.find(base, path).and(Err(ScratchError::Invalid)) };
        let id = self.child(&spot)?.ok_or(ScratchError::NoEntry)?;
        self.ensure_empty(id)?;
        self.detach(&spot, now);
        Ok(())
    }

    pub(super) fn unlink(&mut self, base: NodeId, path: &str, now: SystemTime) -> Result<()> {
        let path = Path::new(path)?;
        let Some(spot) = self.spot(base, path)? else { return self.find(base, path).and(Err(ScratchError::IsDirectory)) };
        let id = self.child(&spot)?.ok_or(ScratchError::NoEntry)?;
        match &self.node(id).kind {
            Kind::Directory(_) => Err(ScratchError::IsDirectory),
            Kind::File(_) if spot.of_directory => Err(ScratchError::NotDirectory),
            Kind::File(_) => {
                self.detach(&spot, now);
                Ok(())
            }
        }
    }

    /// Gives something another name; what had that name before is gone, if it may be replaced.
    pub(super) fn rename(&mut self, from: (NodeId, &str), to: (NodeId, &str), now: SystemTime) -> Result<()> {
        let (from_path, to_path) = (Path::new(from.1)?, Path::new(to.1)?);
        let from = self.spot(from.0, from_path)?.ok_or(ScratchError::Busy)?;
        let to = self.spot(to.0, to_path)?.ok_or(ScratchError::Busy)?;
        let id = self.child(&from)?.ok_or(ScratchError::NoEntry)?;
        let directory = self.node(id).is_directory();
        if !directory && (from.of_directory || to.of_directory) {
            return Err(ScratchError::NotDirectory);
        }
        if directory && self.is_within(to.directory, id)? {
            return Err(ScratchError::Invalid);
        }
        match self.child(&to)? {
            Some(other) if other == id => return Ok(()),
            Some(other) if directory => self.ensure_empty(other)?,
            Some(other) if self.node(other).is_directory() => return Err(ScratchError::IsDirectory),
            Some(_) => {}
            None if self.node(to.directory).place == Place::Unlinked => return Err(ScratchError::NoEntry),
            None => {}
        }
        self.detach(&to, now);
        self.names_mut(from.directory).remove(from.name);
        self.names_mut(to.directory).insert(to.name.into(), id);
        self.node_mut(from.directory).touch(now);
        self.node_mut(to.directory).touch(now);
        let node = self.node_mut(id);
        node.place = Place::In(to.directory);
        node.changed = now;
        Ok(())
    }

    /// The first name of a directory behind `after`, in the order of names, and what it is.
    pub(super) fn name_after(&self, id: NodeId, after: Option<&str>) -> Result<Option<(Box<str>, NodeId)>> {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.names(id)?.range::<str, _>((begin, Bound::Unbounded)).next();
        Ok(next.map(|(name, id)| (name.clone(), *id)))
    }

    fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(&id).expect("whoever has a number keeps its node")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("whoever has a number keeps its node")
    }

    fn content(&self, id: NodeId) -> Result<&Content> {
        match &self.node(id).kind {
            Kind::File(content) => Ok(content),
            Kind::Directory(_) => Err(ScratchError::IsDirectory),
        }
    }

    fn names(&self, id: NodeId) -> Result<&Names> {
        match &self.node(id).kind {
            Kind::Directory(names) => Ok(names),
            Kind::File(_) => Err(ScratchError::NotDirectory),
        }
    }

    fn names_mut(&mut self, id: NodeId) -> &mut Names {
        match &mut self.node_mut(id).kind {
            Kind::Directory(names) => names,
            Kind::File(_) => unreachable!("a spot is in a directory"),
        }
    }

    /// Follows a path to its end.
    fn find(&self, base: NodeId, path: Path<'_>) -> Result<NodeId> {
        let id = self.walk(base, path.steps())?;
        if path.of_directory { self.names(id).map(|_| id) } else { Ok(id) }
    }

    /// Follows a path to where its last name is or could be; none if it does not end with a name.
    fn spot<'p>(&self, base: NodeId, path: Path<'p>) -> Result<Option<Spot<'p>>> {
        let mut steps: Vec<Step<'p>> = path.steps().collect();
        match steps.pop() {
            Some(Step::Down(name)) if path.ends_with_name() => {
                let directory = self.walk(base, steps.into_iter())?;
                self.names(directory)?;
                Ok(Some(Spot { directory, name, of_directory: path.of_directory }))
            }
            _ => Ok(None),
        }
    }

    /// Goes up only as far as it came down.
    fn walk<'p>(&self, base: NodeId, steps: impl Iterator<Item = Step<'p>>) -> Result<NodeId> {
        let (mut above, mut here) = (Vec::new(), base);
        for step in steps {
            let names = self.names(here)?;
            match step {
                Step::Up => here = above.pop().ok_or(ScratchError::NotPermitted)?,
                Step::Down(name) => {
                    above.push(here);
                    here = *names.get(name).ok_or(ScratchError::NoEntry)?;
                }
            }
        }
        Ok(here)
    }

    fn child(&self, spot: &Spot<'_>) -> Result<Option<NodeId>> {
        Ok(self.names(spot.directory)?.get(spot.name).copied())
    }

    /// Whether `id` is `directory` or lies in it.
    fn is_within(&self, mut id: NodeId, directory: NodeId) -> Result<bool> {
        for _ in 0..=SCRATCH_DEPTH_MAX {
            match self.node(id).place {
                _ if id == directory => return Ok(true),
                Place::In(above) => id = above,
                Place::Top | Place::Unlinked => return Ok(false),
            }
        }
        Err(ScratchError::Loop)
    }

    fn ensure_empty(&self, id: NodeId) -> Result<()> {
        if self.names(id)?.is_empty() { Ok(()) } else { Err(ScratchError::NotEmpty) }
    }

    fn add(&mut self, spot: &Spot<'_>, kind: Kind, now: SystemTime) -> Result<NodeId> {
        if self.node(spot.directory).place == Place::Unlinked {
            return Err(ScratchError::NoEntry);
        }
        if self.limit - self.used < ENTRY_COST {
            return Err(ScratchError::InsufficientSpace);
        }
        self.used += ENTRY_COST;
        let id = NodeId(self.next);
        self.next += 1;
        self.nodes.insert(id, Node::new(kind, Place::In(spot.directory), now));
        self.names_mut(spot.directory).insert(spot.name.into(), id);
        self.node_mut(spot.directory).touch(now);
        Ok(id)
    }

    /// Takes the name away, if there is one.
    fn detach(&mut self, spot: &Spot<'_>, now: SystemTime) {
        if let Some(id) = self.names_mut(spot.directory).remove(spot.name) {
            self.node_mut(spot.directory).touch(now);
            let node = self.node_mut(id);
            node.place = Place::Unlinked;
            node.changed = now;
            self.reap(id);
        }
    }

    /// Lets go of what has no name and is not open.
    fn reap(&mut self, id: NodeId) {
        let node = self.node(id);
        if node.place == Place::Unlinked && node.opens == 0 {
            self.used -= node.cost();
            self.nodes.remove(&id);
        }
    }

    /// What `used` should be.
    #[cfg(test)]
    pub(super) fn audit(&self) -> u64 {
        self.nodes.values().map(Node::cost).sum::<u64>() - ENTRY_COST
    }
}
