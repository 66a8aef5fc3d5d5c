//! Everything that waits for one function, or was given up: counted, and removed when its owner wants it gone.

use super::{Bus, BusHandle, item_id};
use crate::limits::DEAD_LETTERS_MAX;
use sedge_protocol::FunctionName;
use sedge_protocol::local::{DeadLetter, Kept};
use sedge_store::{Batch, Durability, Tree};
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

/// A question about the events and dead letters of one function, or the order to remove them.
#[derive(Debug)]
pub(crate) struct Purge {
    function: FunctionName,
    remove: bool,
    answer: oneshot::Sender<Kept>,
}

impl BusHandle {
    /// How many events and dead letters of `function` there are; with `remove` they go. `None` when the bus has stopped.
    pub(crate) async fn purge(&self, function: &FunctionName, remove: bool) -> Option<Kept> {
        let (answer, answered) = oneshot::channel();
        self.purges.send(Purge { function: function.clone(), remove, answer }).await.ok()?;
        answered.await.ok()
    }
}

impl Bus {
    pub(super) fn handle_purge(&mut self, purge: Purge) {
        let Purge { function, remove, answer } = purge;
        let mut batch = Batch::new();
        let letters = self.letters_of(&function);
        let mut kept = Kept { events: self.queue.kept(&function) as u64, dead_letters: letters.len() as u64, ..Kept::default() };
        if remove {
            let items = self.queue.remove(&function);
            kept.events = items.iter().filter(|item| item.kept).count() as u64;
            items.iter().filter(|item| item.kept).for_each(|item| {
                batch.finish(item_id(item));
            });
            self.opened.remove(&function);
            self.stats.dead_letters.fetch_sub(kept.dead_letters, Ordering::Relaxed);
            for key in letters {
                batch.delete(Tree::DeadLetter, key);
            }
            self.write(batch, Durability::Grouped);
            log::info!(function:% = function, events = kept.events, dead_letters = kept.dead_letters; "events of a function removed");
        }
        // Who asked may have gone away.
        let _unheard = answer.send(kept);
    }

    /// Keys of the dead letters of `function`.
    fn letters_of(&self, function: &FunctionName) -> Vec<Vec<u8>> {
        let letters = self.parts.store.scan(Tree::DeadLetter, b"", None, DEAD_LETTERS_MAX).unwrap_or_default();
        let of_it = |bytes: &[u8]| ciborium::from_reader::<DeadLetter, _>(bytes).is_ok_and(|letter| letter.function == *function);
        letters.into_iter().filter(|(_, bytes)| of_it(bytes)).map(|(key, _)| key).collect()
    }
}
