//! Everything that waits for one function: counted, and removed when its owner wants it gone.

use super::{Bus, BusHandle, item_id};
use crate::limits::STATE_PAGE_KEYS;
use sedge_protocol::FunctionName;
use sedge_store::{Batch, Durability};
use tokio::sync::oneshot;

/// A question about the events of one function, or the order to remove them.
#[derive(Debug)]
pub(crate) struct Purge {
    function: FunctionName,
    remove: bool,
    answer: oneshot::Sender<u64>,
}

impl BusHandle {
    /// How many kept events of `function` there are; with `remove` they go. `None` when the bus has stopped.
    pub(crate) async fn purge(&self, function: &FunctionName, remove: bool) -> Option<u64> {
        let (answer, answered) = oneshot::channel();
        self.purges.send(Purge { function: function.clone(), remove, answer }).await.ok()?;
        answered.await.ok()
    }
}

impl Bus {
    pub(super) fn handle_purge(&mut self, purge: Purge) {
        let Purge { function, remove, answer } = purge;
        let mut events = self.queue.kept(&function) as u64;
        if remove {
            let removed = self.queue.remove(&function);
            removed.iter().for_each(|item| self.left(item));
            let kept: Vec<_> = removed.iter().filter(|item| item.kept).map(item_id).collect();
            events = kept.len() as u64;
            self.opened.remove(&function);
            for page in kept.chunks(STATE_PAGE_KEYS) {
                let mut batch = Batch::new();
                page.iter().for_each(|id| {
                    batch.finish(*id);
                });
                self.write(batch, Durability::Grouped);
            }
            log::info!(function:% = function, events; "events of a function removed");
        }
        // Who asked may have gone away.
        let _unheard = answer.send(events);
    }
}
