//! What becomes of an event after its invocation: finished with its reply, tried again, or buried as a dead letter.

use super::queued::Queued;
use super::{Bus, Intake, item_id, store_durability};
use crate::invoke::Failed;
use crate::{clock, dead_letters, depth};
use sedge_node_core::queue::{self, Item};
use sedge_protocol::local::Letter;
use sedge_protocol::{Event, Topic};
use sedge_runtime::{Reply, Trace};
use sedge_store::{Batch, Commit, CommitError, Durability};
use std::sync::Arc;
use std::time::Duration;

/// Pause of a lane whose event was not admitted.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// The end of one invocation.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) item: Item<Arc<Queued>>,
    pub(super) result: Result<Reply, Failed>,
}

impl Bus {
    pub(super) fn handle_outcome(&mut self, outcome: Outcome) {
        let Outcome { item, result } = outcome;
        match result {
            Ok(reply) => self.succeed(&item, reply),
            Err(Failed::Refused(_)) => {
                self.queue.handle_refused(&item.function, &item.topic, clock::mono().after(REFUSED_PAUSE));
            }
            Err(deep @ Failed::Deep) => self.fail(&item, &deep.to_string()),
            Err(Failed::Ran(failure)) => self.fail(&item, &failure.to_string()),
        }
    }

    fn succeed(&mut self, item: &Item<Arc<Queued>>, reply: Reply) {
        let reply = item.payload.reply.as_ref().filter(|_| !reply.data.is_empty()).map(|topic| answer(item, topic, reply));
        let matches = reply.as_ref().map(|event| self.within_depth(event, self.parts.functions.table().matches(&event.topic)));
        if let (Some(event), Some(matches), true) = (&reply, &matches, item.kept)
            && let Some(full) = self.full(event, matches)
        {
            // The reply is not lost: the event is tried again, when there may be room.
            return self.fail(item, &format!("no room for its reply: as many events wait for the function `{full}` as may"));
        }
        if self.queue.handle_done(&item.function, &item.topic).is_none() {
            return; // The function was removed meanwhile and its events were buried.
        }
        let Some(event) = reply.map(Arc::new) else {
            return self.finish(item, Batch::new(), Durability::None);
        };
        self.parts.devices.offer(&event);
        let matches = matches.unwrap_or_default();
        let Intake { batch, items, strongest } = self.enlist(&event, item.kept, matches);
        self.finish(item, batch, strongest.map_or(Durability::None, store_durability));
        self.line_up(items);
        self.send_to_clients(&event, item.kept);
    }

    /// Takes the event out of the store, together with what it left behind.
    fn finish(&mut self, item: &Item<Arc<Queued>>, mut batch: Batch, durability: Durability) {
        self.left(item);
        if item.kept {
            batch.finish(item_id(item));
        }
        if !batch.is_empty() {
            self.write(batch, durability);
        }
    }

    fn fail(&mut self, item: &Item<Arc<Queued>>, reason: &str) {
        match self.queue.handle_failed(&item.function, &item.topic, clock::mono()) {
            queue::Failed::Again { attempts } => {
                let mut batch = Batch::new();
                batch.attempt(item_id(item), attempts);
                self.write(batch, Durability::None);
            }
            queue::Failed::DeadLetter(item) if item.kept => self.bury(&item, reason),
            queue::Failed::DeadLetter(_) | queue::Failed::Gone => {}
        }
    }

    /// Moves a kept event among the dead letters, in one batch.
    pub(super) fn bury(&mut self, item: &Item<Arc<Queued>>, reason: &str) {
        let event = Letter::Event(Event::clone(&item.payload.event));
        let letter = dead_letters::letter(item.id, &item.function, item.attempts, reason, event);
        let mut batch = Batch::new();
        batch.finish(item_id(item));
        self.left(item);
        log::warn!(function:% = item.function, topic:% = item.topic, attempts = item.attempts, reason; "an event is given up");
        self.parts.errors.note(&item.function, None, &format!("given up after {} attempts: {reason}", item.attempts));
        written(self.parts.letters.bury(batch, &letter));
    }

    pub(super) fn write(&self, batch: Batch, durability: Durability) {
        written(self.parts.store.commit(batch, durability));
    }
}

fn written(commit: Result<Commit, CommitError>) {
    match commit {
        Ok(commit) => drop(commit),
        // The event stays in the journal and is tried again after a restart: at least once.
        Err(error) => log::warn!(reason:% = error; "the end of an event could not be written"),
    }
}

fn answer(item: &Item<Arc<Queued>>, topic: &Topic, reply: Reply) -> Event {
    let cause = &item.payload.event;
    Event {
        id: format!("{}-reply", cause.id),
        source: format!("/function/{}", item.function),
        kind: "sedge.function.reply".to_owned(),
        time_ms: Some(clock::wall().0),
        topic: topic.clone(),
        content_type: reply.content_type,
        extensions: [("cause".to_owned(), cause.id.clone()), depth::extension_after(depth::of_event(cause))]
            .into_iter()
            .chain(reply.trace.iter().flat_map(Trace::extensions))
            .collect(),
        data: reply.data.to_vec(),
    }
}
