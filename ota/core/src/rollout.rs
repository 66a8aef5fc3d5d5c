//! Which revisions a node is told to run, and when that is news.

use crate::Filter;
use sedge_protocol::{FunctionName, Labels, NodeId, RevisionId, Standing};
use std::collections::BTreeMap;

/// The revisions of one node, at most one per function.
pub type Revisions = BTreeMap<FunctionName, RevisionId>;

/// Moves the nodes that match to a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Grows with every rollout of the fleet: the larger is the newer.
    pub number: u64,
    /// Function.
    pub function: FunctionName,
    /// Revision.
    pub revision: RevisionId,
    /// Which nodes.
    pub filter: Filter,
}

/// What `node` should run: for each function the revision of the newest rollout that matches the node.
#[must_use]
pub fn desired<'a>(node: &NodeId, labels: &Labels, rollouts: impl IntoIterator<Item = &'a Rollout>) -> Revisions {
    let mut newest: BTreeMap<&FunctionName, &Rollout> = BTreeMap::new();
    for rollout in rollouts {
        let newer = newest.get(&rollout.function).is_none_or(|other| rollout.number > other.number);
        if newer && rollout.filter.matches(node, labels) {
            newest.insert(&rollout.function, rollout);
        }
    }
    newest.into_values().map(|rollout| (rollout.function.clone(), rollout.revision)).collect()
}

/// What of `wanted` a node is told, given how it stands and what it was told before.
#[must_use]
pub fn allowed(standing: &Standing, current: &Revisions, wanted: Revisions) -> Revisions {
    match standing {
        Standing::Active => wanted,
        Standing::Pending => Revisions::new(),
        // Nothing new, but what is to go goes.
        Standing::Quarantined { .. } => {
            current.iter().filter(|(function, _)| wanted.contains_key(*function)).map(|(function, id)| (function.clone(), *id)).collect()
        }
        // It is told nothing, so nothing changes.
        Standing::Revoked { .. } => current.clone(),
    }
}

/// The one desired state of a node. Epoch 0 is the empty state that nobody needs to be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DesiredState {
    /// Grows with every change.
    pub epoch: u64,
    /// What to run.
    pub revisions: Revisions,
    /// Number of the rollout whose image to boot.
    pub image: Option<u64>,
}

impl DesiredState {
    /// The next state when `revisions` or `image` differ from these; none when there is nothing to say.
    #[must_use]
    pub fn advance(&self, revisions: Revisions, image: Option<u64>) -> Option<Self> {
        let changed = revisions != self.revisions || image != self.image;
        changed.then(|| Self { epoch: self.epoch + 1, revisions, image })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sedge_protocol::{Digest, Manifest};

    pub(crate) fn revision(text: &str) -> RevisionId {
        RevisionId::of(&Digest::of(text.as_bytes()), &Manifest::from_toml("f", "name = 'f'").unwrap().0)
    }

    fn rollout(number: u64, function: &str, revision_text: &str, filter: &str) -> Rollout {
        let (function, filter) = (function.parse().unwrap(), filter.parse().unwrap());
        Rollout { number, function, revision: revision(revision_text), filter }
    }

    #[test]
    fn the_newest_rollout_that_matches_decides() {
        let rollouts =
            [rollout(1, "a", "one", ""), rollout(3, "a", "three", "canary"), rollout(2, "a", "two", ""), rollout(4, "b", "b", "x=1")];
        let node: NodeId = "n".parse().unwrap();
        let mut labels = Labels::default();
        let name: FunctionName = "a".parse().unwrap();
        assert_eq!(desired(&node, &labels, &rollouts), [(name.clone(), revision("two"))].into());
        labels.insert("canary", "yes").unwrap();
        assert_eq!(desired(&node, &labels, &rollouts), [(name, revision("three"))].into());
    }

    #[test]
    fn another_image_is_news_as_well() {
        let state = DesiredState::default().advance(Revisions::new(), Some(1)).unwrap();
        assert_eq!((state.epoch, state.advance(Revisions::new(), Some(1))), (1, None));
        assert_eq!(state.advance(Revisions::new(), None).unwrap().epoch, 2);
    }

    #[test]
    fn a_node_gets_what_its_standing_allows() {
        let of = |list: &[(&str, &str)]| -> Revisions { list.iter().map(|(name, text)| (name.parse().unwrap(), revision(text))).collect() };
        let (current, wanted) = (of(&[("a", "old"), ("b", "b")]), of(&[("a", "new"), ("c", "c")]));
        let reason = || "r".to_owned();
        for (standing, expected) in [
            (Standing::Active, wanted.clone()),
            (Standing::Pending, Revisions::new()),
            (Standing::Quarantined { reason: reason() }, of(&[("a", "old")])),
            (Standing::Revoked { reason: reason() }, current.clone()),
        ] {
            assert_eq!(allowed(&standing, &current, wanted.clone()), expected, "{standing}");
        }
    }

    proptest! {
        #[test]
        fn the_order_of_the_list_does_not_matter(
            picks in proptest::collection::vec((0_usize..3, 0_usize..3, 0_usize..3), 0..8).prop_map(|picks| {
                let numbered = picks.into_iter().enumerate();
                numbered
                    .map(|(i, (f, r, l))| rollout(i as u64, ["a", "b", "c"][f], ["x", "y", "z"][r], ["", "k=1", "!k"][l]))
                    .collect::<Vec<_>>()
            }).prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle()))
        ) {
            let (list, shuffled) = picks;
            let (node, labels) = ("n".parse().unwrap(), Labels::default());
            prop_assert_eq!(desired(&node, &labels, &list), desired(&node, &labels, &shuffled));
        }

        #[test]
        fn an_epoch_grows_when_and_only_when_the_set_changes(steps in proptest::collection::vec(proptest::option::of(0_usize..3), 0..12)) {
            let mut state = DesiredState::default();
            for step in steps {
                let next: Revisions = step.map(|i| ("a".parse().unwrap(), revision(["x", "y", "z"][i]))).into_iter().collect();
                match state.advance(next.clone(), None) {
                    Some(advanced) => {
                        prop_assert!(advanced.epoch == state.epoch + 1 && state.revisions != next);
                        state = advanced;
                    }
                    None => prop_assert_eq!(&state.revisions, &next),
                }
                prop_assert_eq!(&state.revisions, &next);
            }
        }
    }
}
