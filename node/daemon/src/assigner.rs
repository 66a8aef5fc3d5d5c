//! Makes the node run what it is told to run.
//!
//! ```text
//! Desired ─▶ store ─▶ diff ─▶ fetch ─▶ prepare ─▶ table (swap) ─▶ store (running) ─▶ unused artifacts go
//! ```
//! Invariants: what runs goes on until its successor is ready; a revision that is refused stays refused until the assignment
//! changes; after a restart the node runs what ran before, with or without a network, before it takes any event.

use crate::fault::Errors;
use crate::fetch::{FetchError, Fetcher};
use crate::functions::{Active, Table, TableWriter};
use crate::gate::Gate;
use crate::meter::Meter;
use crate::supervisor::Supervisor;
use anyhow::Context as _;
use sedge_node_core::assignment::{Step, diff};
use sedge_protocol::message::{Assignment, Desired, FunctionState, LostRoute};
use sedge_protocol::{Digest, FunctionName, RevisionId};
use sedge_runtime::{Engine, Host, PrepareError, RevisionRef};
use sedge_store::{Batch, Commit, Durability, Files, Store, Tree};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const EPOCH_KEY: &[u8] = b"epoch";
const IMAGE_KEY: &[u8] = b"image";
const DESIRED_PREFIX: &[u8] = b"desired/";
const RUNNING_PREFIX: &[u8] = b"running/";
/// Pause before what failed for a passing reason is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// How often the pause doubles before what somebody has to mend is tried again: up to five minutes.
const DOUBLINGS_MAX: u32 = 6;

/// What the assigner works with.
pub(crate) struct Assigner {
    pub(crate) store: Store,
    pub(crate) files: Files,
    pub(crate) engine: Engine,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) gate: Gate,
    pub(crate) meter: Meter,
    pub(crate) fetcher: Fetcher,
    pub(crate) errors: Errors,
    pub(crate) table: TableWriter,
    pub(crate) supervisor: Supervisor,
    pub(crate) refused: BTreeMap<FunctionName, RevisionId>,
    /// Tries in a row that something lasting stood in the way of.
    pub(crate) hindered: u32,
}

/// Reads what the node was told last.
pub(crate) fn restore_desired(store: &Store) -> anyhow::Result<Desired> {
    let epoch = store.get(Tree::Assignment, EPOCH_KEY)?.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    let image = store.get(Tree::Assignment, IMAGE_KEY)?.and_then(|bytes| ciborium::from_reader(bytes.as_slice()).ok());
    Ok(Desired { epoch, assignments: read_all(store, DESIRED_PREFIX)?, image })
}

/// Keeps what the node is told. Nothing is written when it is kept already. Blocking.
pub(crate) fn keep_desired(store: &Store, desired: &Desired) -> anyhow::Result<()> {
    commit_desired(store, desired)?.durable_blocking().context("keep the desired state")
}

fn commit_desired(store: &Store, desired: &Desired) -> anyhow::Result<Commit> {
    let mut batch = Batch::new();
    replace_all(store, &mut batch, DESIRED_PREFIX, desired.assignments.iter())?;
    let image = desired.image.as_ref().map(encode).transpose()?;
    if store.get(Tree::Assignment, IMAGE_KEY)? != image {
        if let Some(image) = image {
            batch.set(Tree::Assignment, IMAGE_KEY, image);
        } else {
            batch.delete(Tree::Assignment, IMAGE_KEY);
        }
    }
    if batch.is_empty() && store.get(Tree::Assignment, EPOCH_KEY)?.as_deref() == Some(&desired.epoch.to_be_bytes()) {
        // Waits for what was written a moment ago, and for nothing else.
        return Ok(store.commit(batch, Durability::Grouped)?);
    }
    batch.set(Tree::Assignment, EPOCH_KEY, desired.epoch.to_be_bytes());
    Ok(store.commit(batch, Durability::Grouped)?)
}

impl Assigner {
    /// Brings back what ran before the restart, and answers what that was. Blocking work inside; call it before any source starts.
    pub(crate) async fn restore(&mut self) -> anyhow::Result<BTreeSet<FunctionName>> {
        let running: Vec<Assignment> = read_all(&self.store, RUNNING_PREFIX)?;
        let before = running.iter().map(|assignment| assignment.function().clone()).collect();
        for assignment in running {
            let (name, revision) = (assignment.function().clone(), assignment.revision);
            let Some(path) = self.fetcher.here(&assignment.artifact) else {
                log::warn!(function:% = name, revision:% = revision.short(); "the artifact is gone and will be fetched again");
                // Its events wait for it.
                self.set_state(&assignment, FunctionState::Fetching { bytes: 0, total: assignment.size });
                continue;
            };
            match self.prepare(&assignment, &path).await {
                Ok(active) => self.activate(active),
                Err(error) => {
                    log::error!(function:% = name, reason:% = format!("{error:#}"); "a function cannot be brought back");
                    self.set_state(&assignment, FunctionState::Failed { reason: format!("{error:#}") });
                }
            }
        }
        self.expect_assigned()?;
        Ok(before)
    }

    /// Announces what is assigned and does not run yet. A power cut may come between the first event of a new function and the
    /// note that it runs: unknown, its events would be given up as those of a removed one.
    fn expect_assigned(&self) -> anyhow::Result<()> {
        let known = Arc::clone(&self.table.borrow());
        for assignment in restore_desired(&self.store)?.assignments {
            if !known.states.contains_key(assignment.function()) {
                self.set_state(&assignment, FunctionState::Fetching { bytes: 0, total: assignment.size });
            }
        }
        Ok(())
    }

    /// Runs until the daemon stops.
    pub(crate) async fn run(mut self, mut desired: watch::Receiver<Desired>) -> anyhow::Result<()> {
        let stop = self.supervisor.stop().clone();
        loop {
            let wanted = desired.borrow_and_update().clone();
            let pause = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = desired.changed() => { changed?; self.hindered = 0; continue; }
                result = self.reconcile(&wanted) => result.unwrap_or_else(|error| {
                    log::error!(reason:% = format!("{error:#}"); "the desired state could not be kept");
                    Some(AGAIN)
                }),
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = desired.changed() => { changed?; self.hindered = 0; }
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
    }

    /// One pass; answers after which pause there should be another. None: everything is as wanted, or refused for good.
    ///
    /// Cancel safe: each step is whole, and the next pass begins from what is.
    async fn reconcile(&mut self, desired: &Desired) -> anyhow::Result<Option<Duration>> {
        let kept = self.keep_desired(desired).await;
        let mut pause = None;
        for step in self.steps(desired) {
            match step {
                // Also when the disk is full: what goes makes room.
                Step::Stop(name) => self.stop(&name),
                Step::Start(assignment) if kept.is_ok() => {
                    if self.fetcher.here(&assignment.artifact).is_none() {
                        // A download that takes hours must not keep what runs already from coming back after a power cut.
                        self.keep_running().await?;
                    }
                    pause = pause.max(self.start(&assignment).await);
                }
                Step::Start(_) => {}
            }
        }
        self.drop_unused(desired).await;
        kept?;
        self.keep_running().await?;
        Ok(pause)
    }

    /// Stops first, then what is here already, then what must be fetched: a slow download holds nothing else back.
    fn steps(&mut self, desired: &Desired) -> Vec<Step> {
        self.refused.retain(|name, revision| {
            desired.assignments.iter().any(|assignment| assignment.function() == name && assignment.revision == *revision)
        });
        let table = Arc::clone(&self.table.borrow());
        let running = table.active.iter().map(|(name, active)| (name.clone(), active.revision())).collect();
        let mut steps = diff(&running, &self.refused, &desired.assignments);
        steps.sort_by_key(|step| match step {
            Step::Stop(_) => 0,
            Step::Start(assignment) if self.fetcher.here(&assignment.artifact).is_some() => 1,
            Step::Start(_) => 2,
        });
        self.edit(|table| {
            table.desired_epoch = desired.epoch;
            table.states.retain(|name, _| desired.assignments.iter().any(|assignment| assignment.function() == name));
            for assignment in &desired.assignments {
                if let Some(active) = table.active.get(assignment.function()).filter(|active| active.revision() == assignment.revision) {
                    table.states.insert(assignment.function().clone(), (Arc::clone(&active.assignment), FunctionState::Running));
                }
            }
        });
        steps
    }

    fn stop(&mut self, name: &FunctionName) {
        log::info!(function:% = name; "function stopped: it is assigned no more");
        self.edit(|table| {
            table.active.remove(name);
            table.states.remove(name);
        });
        self.gate.close(name);
    }

    /// Brings one revision to run; answers after which pause it should be tried again.
    async fn start(&mut self, assignment: &Assignment) -> Option<Duration> {
        let (name, revision) = (assignment.function().clone(), assignment.revision);
        match self.bring(assignment).await {
            Ok(active) => {
                self.activate(active);
                log::info!(function:% = name, revision:% = revision.short(); "function runs");
                self.hindered = 0;
                None
            }
            Err(Hindrance::Passing(error)) => {
                let reason = format!("{error:#}");
                log::warn!(function:% = name, revision:% = revision.short(), reason; "a revision is not here yet, trying again");
                Some(AGAIN)
            }
            Err(Hindrance::Lasting(error)) => {
                let reason = crate::fault::clip(&format!("{error:#}"));
                let state = FunctionState::Failed { reason: format!("trying again: {reason}") };
                if self.table.borrow().states.get(&name).is_none_or(|(_, before)| *before != state) {
                    log::error!(function:% = name, revision:% = revision.short(), reason; "a revision cannot be brought here for now");
                    self.errors.note(&name, Some(revision), &format!("revision cannot be brought here for now: {reason}"));
                    self.set_state(assignment, state);
                }
                self.hindered += 1;
                Some(AGAIN * 2_u32.pow((self.hindered - 1).min(DOUBLINGS_MAX)))
            }
            Err(Hindrance::Refused(error)) => {
                let reason = crate::fault::clip(&format!("{error:#}"));
                log::error!(function:% = name, revision:% = revision.short(), reason; "a revision is refused; what ran goes on");
                self.errors.note(&name, Some(revision), &format!("revision refused: {reason}"));
                self.refused.insert(name, revision);
                self.set_state(assignment, FunctionState::Failed { reason });
                None
            }
        }
    }

    async fn bring(&self, assignment: &Assignment) -> Result<Active, Hindrance> {
        assignment.check().map_err(|broken| Hindrance::Refused(anyhow::anyhow!(broken)))?;
        let progress = |bytes| self.set_state(assignment, FunctionState::Fetching { bytes, total: assignment.size });
        let path = self.fetcher.fetch(assignment, progress).await.map_err(|error| match error {
            FetchError::Passing(error) => Hindrance::Passing(error),
            // What was wrong is deleted; the next try begins at zero.
            error @ (FetchError::NoRoom(_) | FetchError::Digest(_) | FetchError::NoFleet(_)) => Hindrance::Lasting(error.into()),
        })?;
        self.set_state(assignment, FunctionState::Preparing);
        match self.prepare(assignment, &path).await {
            // Not the revision is wrong but the disk: what is not here can be fetched again.
            Err(error) if matches!(error.downcast_ref(), Some(PrepareError::Digest { .. })) => {
                self.discard(assignment.artifact).await.map_err(Hindrance::Passing)?;
                Err(Hindrance::Passing(error.context("the artifact was damaged on disk and removed")))
            }
            prepared => prepared.map_err(Hindrance::Refused),
        }
    }

    async fn discard(&self, artifact: Digest) -> anyhow::Result<()> {
        let files = self.files.clone();
        tokio::task::spawn_blocking(move || files.remove(artifact.as_bytes())).await?.context("remove a damaged artifact")
    }

    async fn prepare(&self, assignment: &Assignment, path: &Path) -> anyhow::Result<Active> {
        let manifest = Arc::new(assignment.manifest.clone());
        let reference =
            RevisionRef { function: manifest.name.clone(), revision: assignment.revision, digest: assignment.artifact, manifest };
        let begin = std::time::Instant::now();
        let (engine, host, path) = (self.engine.clone(), Arc::clone(&self.host), path.to_owned());
        let function = tokio::task::spawn_blocking(move || engine.prepare(&path, &reference, host)).await??;
        let need = function.memory_reservation();
        anyhow::ensure!(
            self.gate.fits(&assignment.manifest, need),
            "an instance needs {need} bytes, {} are reserved, and the node gives {} to all functions together, beside what it reserves for \
             others: lower limits.memory_mb, access.scratch_mb or limits.reserved",
            assignment.manifest.limits.reserved,
            self.gate.capacity().memory_bytes
        );
        let active = Active::new(assignment.clone(), function, &self.meter);
        active.counts.init_us.observe(u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX));
        Ok(active)
    }

    fn activate(&self, active: Active) {
        let (name, assignment) = (active.name().clone(), Arc::clone(&active.assignment));
        self.gate.open(&assignment.manifest, active.function.memory_reservation());
        self.edit(|table| {
            table.active.insert(name.clone(), Arc::new(active));
            table.states.insert(name.clone(), (assignment, FunctionState::Running));
        });
        self.tell_lost_routes(&name);
    }

    /// Says which routes a function that was activated does not get, and which it takes from others.
    fn tell_lost_routes(&self, name: &FunctionName) {
        let table = Arc::clone(&self.table.borrow());
        for active in table.active.values() {
            for LostRoute { route, served_by } in table.lost_routes(active) {
                let loser = active.name();
                if loser == name || served_by == *name {
                    log::warn!(function:% = loser, route:% = route, served_by:% = served_by; "two functions have the same route");
                    let reason = format!("`{served_by}` serves the route {route}, which this function has as well");
                    self.errors.note(loser, Some(active.revision()), &reason);
                }
            }
        }
    }

    fn set_state(&self, assignment: &Assignment, state: FunctionState) {
        self.edit(|table| {
            table.states.insert(assignment.function().clone(), (Arc::new(assignment.clone()), state));
        });
    }

    fn edit(&self, change: impl FnOnce(&mut Table)) {
        self.table.send_modify(|table| {
            let mut next = table.draft();
            change(&mut next);
            *table = Arc::new(next.ready());
        });
    }

    async fn keep_desired(&self, desired: &Desired) -> anyhow::Result<()> {
        commit_desired(&self.store, desired)?.durable().await.context("keep the desired state")
    }

    async fn keep_running(&self) -> anyhow::Result<()> {
        let table = Arc::clone(&self.table.borrow());
        let mut batch = Batch::new();
        replace_all(&self.store, &mut batch, RUNNING_PREFIX, table.active.values().map(|active| &*active.assignment))?;
        if batch.is_empty() {
            return Ok(());
        }
        self.store.commit(batch, Durability::Grouped)?.durable().await.context("keep what runs")
    }

    /// Removes artifacts and compiled code that nothing refers to.
    async fn drop_unused(&self, desired: &Desired) {
        let table = Arc::clone(&self.table.borrow());
        let used: BTreeSet<Digest> = table
            .active
            .values()
            .map(|active| active.assignment.artifact)
            .chain(desired.assignments.iter().map(|assignment| assignment.artifact))
            .collect();
        let (files, engine, host) = (self.files.clone(), self.engine.clone(), Arc::clone(&self.host));
        let task = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
            for digest in files.list()? {
                let digest = Digest::from_bytes(digest);
                if used.contains(&digest) {
                    files.used(digest.as_bytes());
                } else if files.remove_unused(digest.as_bytes())? {
                    engine.forget(&digest)?;
                }
            }
            host.assets().keep_only(|digest| used.contains(digest))?;
            files.sweep_partial(|digest| used.contains(&Digest::from_bytes(*digest)))?;
            Ok(())
        });
        match task.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::warn!(reason:% = format!("{error:#}"); "unused artifacts could not be removed"),
            Err(panic) => log::error!(reason:% = panic; "removing unused artifacts panicked"),
        }
    }
}

/// Why a revision does not run.
enum Hindrance {
    /// Gone by itself soon: a connection.
    Passing(anyhow::Error),
    /// Somebody has to do something; tried again slowly.
    Lasting(anyhow::Error),
    Refused(anyhow::Error),
}

fn read_all<T: DeserializeOwned>(store: &Store, prefix: &[u8]) -> anyhow::Result<Vec<T>> {
    let pairs = store.scan(Tree::Assignment, prefix, None, usize::MAX)?;
    Ok(pairs.iter().filter_map(|(_, bytes)| ciborium::from_reader(bytes.as_slice()).ok()).collect())
}

/// Puts into `batch` what makes the keys under `prefix` equal to `wanted`, and nothing when they are.
fn replace_all<'a>(store: &Store, batch: &mut Batch, prefix: &[u8], wanted: impl Iterator<Item = &'a Assignment>) -> anyhow::Result<()> {
    let mut present: BTreeMap<Vec<u8>, Vec<u8>> = store.scan(Tree::Assignment, prefix, None, usize::MAX)?.into_iter().collect();
    for assignment in wanted {
        let key = [prefix, assignment.function().as_str().as_bytes()].concat();
        let value = encode(assignment)?;
        if present.remove(&key).as_ref() != Some(&value) {
            batch.set(Tree::Assignment, key, value);
        }
    }
    for key in present.into_keys() {
        batch.delete(Tree::Assignment, key);
    }
    Ok(())
}

fn encode<T: Serialize>(value: &T) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).context("encode an assignment")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sedge_protocol::Digest;
    use sedge_protocol::image::{ImageAssignment, Restart};
    use sedge_store::StoreConfig;

    #[test]
    fn what_the_node_is_told_outlives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let image = ImageAssignment {
            rollout: 3,
            version: "2.1".parse().unwrap(),
            artifact: Digest::of(b"bundle"),
            size: 900,
            head: 90,
            restart: Restart::Window { from: 60, to: 90 },
            offline: true,
        };
        let told = Desired { epoch: 7, assignments: Vec::new(), image: Some(image) };
        for desired in [told.clone(), told, Desired { epoch: 8, ..Desired::default() }] {
            let (store, _) = Store::open(directory.path(), StoreConfig::default()).unwrap();
            keep_desired(&store, &desired).unwrap();
            assert_eq!(restore_desired(&store).unwrap(), desired);
            store.close().unwrap();
            drop(store);
            let (store, _) = Store::open(directory.path(), StoreConfig::default()).unwrap();
            assert_eq!(restore_desired(&store).unwrap(), desired);
            store.close().unwrap();
        }
    }
}
