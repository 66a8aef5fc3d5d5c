//! What to do so that a node runs what it is told to run.

use sedge_protocol::message::Assignment;
use sedge_protocol::{FunctionName, RevisionId};
use std::collections::BTreeMap;

/// One step towards the desired state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Bring this revision to run; what runs of the function goes on until it does.
    Start(Box<Assignment>),
    /// Stop this function: it is assigned no more.
    Stop(FunctionName),
}

/// The steps from what runs to what is assigned. Revisions in `refused` are not tried again; the reason stands until the
/// assignment changes.
#[must_use]
pub fn diff(
    running: &BTreeMap<FunctionName, RevisionId>,
    refused: &BTreeMap<FunctionName, RevisionId>,
    desired: &[Assignment],
) -> Vec<Step> {
    let stops =
        running.keys().filter(|name| !desired.iter().any(|assignment| assignment.function() == *name)).map(|name| Step::Stop(name.clone()));
    let starts = desired
        .iter()
        .filter(|assignment| {
            let is = |map: &BTreeMap<FunctionName, RevisionId>| map.get(assignment.function()) == Some(&assignment.revision);
            !is(running) && !is(refused)
        })
        .map(|assignment| Step::Start(Box::new(assignment.clone())));
    stops.chain(starts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::{Digest, Manifest};

    fn assignment(name: &str, artifact: &[u8]) -> Assignment {
        let manifest = Manifest::from_toml("f", &format!("name = '{name}'")).unwrap().0;
        let artifact = Digest::of(artifact);
        Assignment { revision: RevisionId::of(&artifact, &manifest), artifact, size: 1, manifest }
    }

    #[test]
    fn only_what_differs_is_touched() {
        let (a, b, b2, c) = (assignment("a", b"1"), assignment("b", b"1"), assignment("b", b"2"), assignment("c", b"1"));
        let running = [&a, &b, &c].map(|x| (x.function().clone(), x.revision)).into();
        let none = BTreeMap::new();
        let desired = [a.clone(), b2.clone()];
        assert_eq!(diff(&running, &none, &desired), [Step::Stop(c.function().clone()), Step::Start(Box::new(b2.clone()))]);
        let refused = BTreeMap::from([(b2.function().clone(), b2.revision)]);
        assert_eq!(diff(&running, &refused, &desired), [Step::Stop(c.function().clone())]);
    }
}
