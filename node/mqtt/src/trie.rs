//! Filters in a trie, so that a topic finds its subscribers in the number of its levels.  Pure.

use std::collections::BTreeMap;

/// Values filed under topic filters.
#[derive(Debug)]
pub(crate) struct Trie<V> {
    root: Node<V>,
}

#[derive(Debug)]
struct Node<V> {
    value: Option<V>,
    children: BTreeMap<Box<str>, Node<V>>,
}

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<V> Default for Node<V> {
    fn default() -> Self {
        Self { value: None, children: BTreeMap::new() }
    }
}

impl<V: Default> Trie<V> {
    /// The value of `filter`, made when there is none.
    pub(crate) fn entry(&mut self, filter: &str) -> &mut V {
        let node = filter.split('/').fold(&mut self.root, |node, level| node.children.entry(level.into()).or_default());
        node.value.get_or_insert_default()
    }
}

impl<V> Trie<V> {
    /// Lets `edit` change the value of `filter`; it is removed, with the branches that lead only to it, when `edit` returns false.
    pub(crate) fn edit(&mut self, filter: &str, edit: impl FnOnce(&mut V) -> bool) {
        self.root.edit(filter.split('/'), edit);
    }

    /// Calls `visit` with the value of each filter that matches `topic`.
    pub(crate) fn visit(&mut self, topic: &str, visit: &mut impl FnMut(&mut V)) {
        let wildcards = !topic.starts_with('$');
        self.root.visit(topic.split('/'), wildcards, visit);
    }
}

impl<V> Node<V> {
    fn edit<'a>(&mut self, mut levels: impl Iterator<Item = &'a str>, edit: impl FnOnce(&mut V) -> bool) {
        let Some(level) = levels.next() else {
            if !self.value.as_mut().is_some_and(edit) {
                self.value = None;
            }
            return;
        };
        let Some(child) = self.children.get_mut(level) else {
            return;
        };
        child.edit(levels, edit);
        if child.value.is_none() && child.children.is_empty() {
            self.children.remove(level);
        }
    }

    /// `wildcards`: whether a wildcard may match here, which it may not in front of a `$`.
    fn visit<'a>(&mut self, mut levels: impl Iterator<Item = &'a str> + Clone, wildcards: bool, visit: &mut impl FnMut(&mut V)) {
        if wildcards && let Some(value) = self.children.get_mut("#").and_then(|node| node.value.as_mut()) {
            visit(value);
        }
        let Some(level) = levels.next() else {
            if let Some(value) = self.value.as_mut() {
                visit(value);
            }
            return;
        };
        if let Some(child) = self.children.get_mut(level) {
            child.visit(levels.clone(), true, visit);
        }
        if wildcards && let Some(child) = self.children.get_mut("+") {
            child.visit(levels, true, visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::topic;

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "", "$x"])
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![3 => level(), 1 => Just("+")];
        (prop::collection::vec(level, 1..5), any::<bool>()).prop_map(|(levels, all)| {
            let mut filter = levels.join("/");
            if all {
                filter.push_str("/#");
            }
            if filter.is_empty() { "#".into() } else { filter }
        })
    }

    fn topic() -> impl Strategy<Value = String> {
        prop::collection::vec(level(), 1..5).prop_map(|levels| levels.join("/")).prop_filter("not empty", |topic| !topic.is_empty())
    }

    fn found(trie: &mut Trie<String>, topic: &str) -> Vec<String> {
        let mut found = Vec::new();
        trie.visit(topic, &mut |value| found.push(value.clone()));
        found.sort();
        found
    }

    proptest! {
        #[test]
        fn trie_agrees_with_the_naive_matcher(filters in prop::collection::btree_set(filter(), 0..12), topics in prop::collection::vec(topic(), 1..8)) {
            let mut trie = Trie::<String>::default();
            filters.iter().for_each(|filter| trie.entry(filter).clone_from(filter));
            for topic in &topics {
                let naive: Vec<String> = filters.iter().filter(|filter| topic::matches(filter, topic)).cloned().collect();
                prop_assert_eq!(found(&mut trie, topic), naive);
            }
        }

        #[test]
        fn removed_filters_leave_nothing_behind(filters in prop::collection::btree_set(filter(), 0..12), gone in prop::collection::btree_set(filter(), 0..12), topic in topic()) {
            let mut trie = Trie::<String>::default();
            filters.iter().for_each(|filter| trie.entry(filter).clone_from(filter));
            gone.iter().for_each(|filter| trie.edit(filter, |_| false));
            let left: BTreeSet<&String> = filters.difference(&gone).collect();
            let naive: Vec<String> = left.iter().filter(|filter| topic::matches(filter, &topic)).map(|filter| (*filter).clone()).collect();
            prop_assert_eq!(found(&mut trie, &topic), naive);
            left.iter().for_each(|filter| trie.edit(filter, |_| false));
            prop_assert!(trie.root.children.is_empty());
        }
    }
}
