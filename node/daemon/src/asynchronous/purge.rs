//! Everything that is known of the calls of one function that is gone: counted, and removed when its owner wants it gone.

use super::intake::refused;
use super::record::Record;
use super::{Calls, Handle, Message, Refused};
use crate::chunks;
use crate::limits::{RECORDS_PAGE, STATE_PAGE_KEYS};
use sedge_node_core::asynchronous::Key;
use sedge_protocol::FunctionName;
use sedge_store::{Batch, Durability, ItemId, Store, Tree};

impl Handle {
    /// How many calls of `function` wait or are over and still known.
    pub(crate) async fn count_of(&self, function: &FunctionName) -> anyhow::Result<u64> {
        Ok(self.records_of(function).await?.len() as u64)
    }

    /// Removes the calls of `function`, which is assigned no more, with their answers, keys and callbacks; answers how many.
    pub(crate) async fn remove_of(&self, function: &FunctionName) -> anyhow::Result<u64> {
        let ask = |over| self.ask(|answer| Message::Purge { function: function.clone(), over, answer });
        // What waits first: it ends nowhere else then, and the records that are read after that are all there will be.
        let mut removed = ask(Vec::new()).await?;
        let over = self.records_of(function).await?;
        for page in over.chunks(STATE_PAGE_KEYS) {
            removed += ask(page.to_vec()).await?;
        }
        Ok(removed)
    }

    async fn records_of(&self, function: &FunctionName) -> anyhow::Result<Vec<Record>> {
        let (store, function) = (self.store.clone(), function.clone());
        tokio::task::spawn_blocking(move || read(&store, &function)).await?
    }
}

fn read(store: &Store, function: &FunctionName) -> anyhow::Result<Vec<Record>> {
    let (mut found, mut after) = (Vec::new(), None::<Vec<u8>>);
    loop {
        let page = store.scan(Tree::Invocation, b"", after.as_deref(), RECORDS_PAGE)?;
        let records = page.iter().filter_map(|(_, bytes)| Record::decode(bytes).ok());
        found.extend(records.filter(|record| record.function == *function));
        match page.into_iter().next_back() {
            Some((key, _)) => after = Some(key),
            None => return Ok(found),
        }
    }
}

impl Calls {
    /// Forgets what waits of `function`, and those of its calls that are `over`; answers how many went.
    pub(super) fn purge(&mut self, function: &FunctionName, over: Vec<Record>) -> Result<u64, Refused> {
        let mut items: Vec<ItemId> = self.queue.remove(function).iter().map(|item| ItemId(item.id)).collect();
        items.extend(self.callbacks.remove(function).iter().map(|item| ItemId(item.id)));
        items.extend(self.unwritten.iter().filter(|ended| ended.record.function == *function).map(|ended| ItemId(ended.item)));
        self.unwritten.retain(|ended| ended.record.function != *function);
        self.telling.retain(|_, record| record.function != *function);
        self.opened.remove(function);
        let waiting: Vec<u64> = self.live.iter().filter(|(_, live)| live.record.function == *function).map(|(number, _)| *number).collect();
        let records: Vec<Record> = waiting.into_iter().filter_map(|number| self.drop_live(number)).chain(over).collect();
        for page in items.chunks(STATE_PAGE_KEYS) {
            let mut batch = Batch::new();
            page.iter().for_each(|item| {
                batch.finish(*item);
            });
            self.commit(batch)?;
        }
        for page in records.chunks(STATE_PAGE_KEYS) {
            let mut batch = Batch::new();
            page.iter().for_each(|record| self.forget_record(&mut batch, record));
            self.commit(batch)?;
        }
        Ok(records.len() as u64)
    }

    fn forget_record(&mut self, batch: &mut Batch, record: &Record) {
        let number = record.id.number;
        if let Some(text) = &record.key {
            self.keys.release(Key::of(&record.function, text), record.id);
        }
        self.shelf.remove(number);
        if record.answer_bytes() > 0 {
            chunks::delete(batch, Tree::Answer, number, usize::try_from(record.answer_bytes()).unwrap_or(usize::MAX));
        }
        batch.delete(Tree::Invocation, number.to_be_bytes());
    }

    fn commit(&self, batch: Batch) -> Result<(), Refused> {
        drop(self.parts.store.commit(batch, Durability::Grouped).map_err(refused)?);
        Ok(())
    }
}
