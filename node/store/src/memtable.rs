//! Changed keys that the database does not have yet.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::batch::Tree;

/// A value, or the fact that the key was deleted.
pub(crate) type Change = Option<Arc<[u8]>>;

/// Fixed cost of an entry, counted on top of its bytes.
const ENTRY_BYTES: usize = 96;

/// The newest change of each key, ordered.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    trees: [BTreeMap<Arc<[u8]>, Change>; Tree::ALL.len()],
    bytes: usize,
}

impl Memtable {
    pub(crate) fn put(&mut self, tree: Tree, key: Arc<[u8]>, change: Change) {
        self.bytes += size(&key, &change);
        let old = self.trees[tree.index()].insert(Arc::clone(&key), change);
        if let Some(old) = old {
            self.bytes -= size(&key, &old);
        }
    }

    pub(crate) fn get(&self, tree: Tree, key: &[u8]) -> Option<&Change> {
        self.trees[tree.index()].get(key)
    }

    /// Estimate of the memory held, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.trees.iter().all(BTreeMap::is_empty)
    }

    pub(crate) fn tree(&self, tree: Tree) -> &BTreeMap<Arc<[u8]>, Change> {
        &self.trees[tree.index()]
    }

    /// Changes under `prefix` and after `after`, in order.
    pub(crate) fn range<'a>(
        &'a self,
        tree: Tree,
        prefix: &'a [u8],
        after: Option<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a Arc<[u8]>, &'a Change)> {
        self.trees[tree.index()]
            .range::<[u8], _>((start(prefix, after), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// Puts the changes of `older` under those of this table.
    pub(crate) fn absorb_older(&mut self, older: &Self) {
        for tree in Tree::ALL {
            for (key, change) in older.tree(tree) {
                if self.get(tree, key).is_none() {
                    self.put(tree, Arc::clone(key), change.clone());
                }
            }
        }
    }
}

/// Where a scan of `prefix` after `after` begins.
pub(crate) fn start<'a>(prefix: &'a [u8], after: Option<&'a [u8]>) -> Bound<&'a [u8]> {
    match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        Some(_) | None => Bound::Included(prefix),
    }
}

fn size(key: &[u8], change: &Change) -> usize {
    ENTRY_BYTES + key.len() + change.as_ref().map_or(0, |value| value.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_follow_replacement() {
        let mut table = Memtable::default();
        table.put(Tree::Meta, b"k".as_slice().into(), Some(vec![0; 100].into()));
        table.put(Tree::Meta, b"k".as_slice().into(), None);
        assert_eq!(table.bytes(), ENTRY_BYTES + 1);
    }

    #[test]
    fn range_starts_after_the_mark_and_stays_in_the_prefix() {
        let mut table = Memtable::default();
        for key in ["a", "b1", "b2", "b3", "c"] {
            table.put(Tree::Meta, key.as_bytes().into(), Some(Arc::default()));
        }
        let keys: Vec<_> = table.range(Tree::Meta, b"b", Some(b"b1")).map(|(k, _)| k.to_vec()).collect();
        assert_eq!(keys, [b"b2".to_vec(), b"b3".to_vec()]);
        assert_eq!(table.range(Tree::Meta, b"b", Some(b"a")).count(), 3);
    }
}
