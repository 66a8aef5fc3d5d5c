//! The desired state of a node without a fleet: kept before a change of it is answered.

use super::{Refusal, blocking};
use crate::assigner;
use http::StatusCode;
use sedge_protocol::FunctionName;
use sedge_protocol::message::{Assignment, Desired};
use sedge_store::Store;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// What `PUT` and `DELETE /v1/functions` change.
#[derive(Debug)]
pub(crate) struct Own {
    desired: watch::Sender<Desired>,
    // One change after the other, on threads that may block: each is on the disk before the next is planned.
    turn: Arc<Mutex<()>>,
}

impl Own {
    pub(crate) fn new(desired: watch::Sender<Desired>) -> Self {
        Self { desired, turn: Arc::default() }
    }

    /// Assigns, once that is kept.
    pub(super) async fn put(&self, store: &Store, assignment: Assignment) -> Result<(), Refusal> {
        let name = assignment.function().clone();
        let kept = self
            .change(store, move |desired, kept| {
                let mut next = desired.clone();
                next.epoch += 1;
                next.assignments.retain(|other| *other.function() != name);
                next.assignments.push(assignment);
                let kept = kept(&next);
                (kept.is_ok().then_some(next), kept)
            })
            .await?;
        kept.map_err(|reason| no_room(format!("the function cannot be taken: {reason}")))
    }

    /// Takes a function away, at once, for what goes makes room; an error tells when that is not kept.
    pub(super) async fn remove(&self, store: &Store, name: &FunctionName) -> Result<(), Refusal> {
        let removed = name.clone();
        let kept = self
            .change(store, move |desired, kept| {
                let mut next = desired.clone();
                next.assignments.retain(|assignment| *assignment.function() != removed);
                if next.assignments.len() == desired.assignments.len() {
                    return (None, None);
                }
                next.epoch += 1;
                let kept = kept(&next);
                (Some(next), Some(kept))
            })
            .await?;
        let reason = match kept {
            None => return Err(Refusal::new(StatusCode::NOT_FOUND, format!("no function is called `{name}`"))),
            Some(Ok(())) => return Ok(()),
            Some(Err(reason)) => reason,
        };
        Err(no_room(format!("`{name}` is stopped, but a restart brings it back unless there is room before: {reason}")))
    }

    /// Lets `plan` say what is wanted next and try whether it can be kept.
    async fn change<T: Send + 'static>(
        &self,
        store: &Store,
        plan: impl FnOnce(&Desired, &dyn Fn(&Desired) -> Result<(), String>) -> (Option<Desired>, T) + Send + 'static,
    ) -> Result<T, Refusal> {
        let (sender, turn, store) = (self.desired.clone(), Arc::clone(&self.turn), store.clone());
        blocking(move || {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            let present = sender.borrow().clone();
            let (next, answer) = plan(&present, &|next| assigner::keep_desired(&store, next).map_err(|error| format!("{error:#}")));
            if let Some(next) = next {
                sender.send_replace(next);
            }
            Ok(answer)
        })
        .await
    }
}

fn no_room(error: String) -> Refusal {
    Refusal::new(StatusCode::INSUFFICIENT_STORAGE, error)
        .hint("make room on the disk: `sedge rm FUNCTION --state` removes what a function keeps")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::{Digest, RevisionId};
    use sedge_store::StoreConfig;
    use std::path::Path;

    fn open(dir: &Path, free_bytes_min: u64) -> Store {
        Store::open(dir, StoreConfig { free_bytes_min: Some(free_bytes_min), ..StoreConfig::default() }).unwrap().0
    }

    fn assignment(name: &str) -> Assignment {
        let manifest = sedge_protocol::Manifest::from_toml("f", &format!("name = '{name}'")).unwrap().0;
        let artifact = Digest::of(b"bytes");
        Assignment { revision: RevisionId::of(&artifact, &manifest), artifact, size: 5, manifest }
    }

    #[tokio::test]
    async fn what_cannot_be_kept_is_an_error_and_not_done() {
        let dir = tempfile::tempdir().unwrap();
        let own = Own::new(watch::Sender::new(Desired::default()));
        let store = open(dir.path(), 0);
        own.put(&store, assignment("first")).await.unwrap();
        assert_eq!(assigner::restore_desired(&store).unwrap().assignments.len(), 1, "it is kept when it is answered");
        drop(store);
        let store = open(dir.path(), u64::MAX);
        let refusal = own.put(&store, assignment("second")).await.unwrap_err();
        assert_eq!(refusal.status, StatusCode::INSUFFICIENT_STORAGE);
        assert!(refusal.problem.error.starts_with("the function cannot be taken: the disk is full"), "{refusal:?}");
        assert_eq!(own.desired.borrow().assignments.len(), 1);
        let refusal = own.remove(&store, &"first".parse().unwrap()).await.unwrap_err();
        assert!(refusal.problem.error.contains("`first` is stopped, but a restart brings it back"), "{refusal:?}");
        assert!(own.desired.borrow().assignments.is_empty(), "what goes makes room");
        let refusal = own.remove(&store, &"first".parse().unwrap()).await.unwrap_err();
        assert_eq!(refusal.status, StatusCode::NOT_FOUND);
    }
}
