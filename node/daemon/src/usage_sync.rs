//! Usage from memory to disk and from disk to the fleet.
//!
//! ```text
//! Meter ─ every few seconds ─▶ Ledger ─▶ one batch in the store ─▶ usage stream ─▶ fleet ─▶ watermark ─▶ store
//! ```

use crate::clock;
use crate::limits::USAGE_FLUSH;
use crate::meter::Meter;
use crate::session::{Exchange, Link};
use crate::supervisor::Supervisor;
use anyhow::Context as _;
use quinn::Connection;
use sedge_node_core::Ledger;
use sedge_node_core::ledger::Changes;
use sedge_protocol::message::{FromFleet, FromNode};
use sedge_protocol::usage::{LedgerEpoch, UsageRecord};
use sedge_store::{Batch, Durability, Store, Tree};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

const EPOCH_KEY: &[u8] = b"epoch";
const APPLIED_KEY: &[u8] = b"applied";
const RECORD_PREFIX: &[u8] = b"record/";

/// Usage on its way.
#[derive(Debug)]
pub(crate) struct UsageSync {
    pub(crate) store: Store,
    pub(crate) meter: Meter,
    pub(crate) link: watch::Receiver<Link>,
    pub(crate) unsent: watch::Sender<u64>,
    pub(crate) supervisor: Supervisor,
}

/// Reads the ledger from the store, or begins one.
pub(crate) fn restore(store: &Store) -> anyhow::Result<Ledger> {
    let number = |key: &[u8]| -> anyhow::Result<Option<u64>> {
        let bytes = store.get(Tree::Usage, key)?;
        Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes))
    };
    let Some(epoch) = number(EPOCH_KEY)? else {
        let epoch: u64 = rand::random();
        let mut batch = Batch::new();
        batch.set(Tree::Usage, EPOCH_KEY, epoch.to_be_bytes());
        // Durable before the first record is sent: nothing is sent that was not committed after this.
        store.commit(batch, Durability::Each).context("begin a usage ledger")?.durable_blocking().context("begin a usage ledger")?;
        return Ok(Ledger::restore(LedgerEpoch(epoch), 0, Vec::new()));
    };
    let mut records = Vec::new();
    for (_, bytes) in store.scan(Tree::Usage, RECORD_PREFIX, None, usize::MAX)? {
        records.push(ciborium::from_reader::<UsageRecord, _>(bytes.as_slice()).context("read a usage record")?);
    }
    Ok(Ledger::restore(LedgerEpoch(epoch), number(APPLIED_KEY)?.unwrap_or(0), records))
}

/// Runs until the daemon ends; the last thing it does is to write what ran until then.
pub(crate) async fn run(sync: UsageSync, mut ledger: Ledger) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(USAGE_FLUSH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let ending = tokio::select! {
            () = sync.supervisor.kill().cancelled() => true,
            _ = tick.tick() => false,
        };
        flush(&sync, &mut ledger).await;
        sync.unsent.send_replace(ledger.unsent());
        if ending {
            return Ok(());
        }
        let connection = sync.link.borrow().connection.clone();
        if let Some(connection) = connection
            && let Err(error) = send(&connection, &mut ledger).await
        {
            log::warn!(reason:% = format!("{error:#}"); "usage was not sent; it is kept and sent later");
        }
        sync.unsent.send_replace(ledger.unsent());
    }
}

async fn flush(sync: &UsageSync, ledger: &mut Ledger) {
    for (window, counters) in sync.meter.take() {
        ledger.add(window, &counters);
    }
    let changes = ledger.take_changes(clock::wall().0);
    if changes.is_empty() {
        return;
    }
    match write(sync, &changes).await {
        Ok(()) => ledger.handle_persisted(&changes),
        Err(error) => {
            log::error!(reason:% = format!("{error:#}"); "usage could not be written; it is kept in memory");
            ledger.handle_not_persisted(changes);
        }
    }
}

async fn write(sync: &UsageSync, changes: &Changes) -> anyhow::Result<()> {
    let mut batch = Batch::new();
    batch.set(Tree::Usage, EPOCH_KEY, changes.epoch.0.to_be_bytes());
    batch.set(Tree::Usage, APPLIED_KEY, changes.applied.to_be_bytes());
    for record in &changes.put {
        let mut bytes = Vec::new();
        ciborium::into_writer(record, &mut bytes).context("encode a usage record")?;
        batch.set(Tree::Usage, key_of(record.seq), bytes);
    }
    for seq in &changes.delete {
        batch.delete(Tree::Usage, key_of(*seq));
    }
    sync.store.commit(batch, Durability::Grouped)?.durable().await?;
    Ok(())
}

async fn send(connection: &Connection, ledger: &mut Ledger) -> anyhow::Result<()> {
    let Some(first) = ledger.next_batch() else { return Ok(()) };
    let mut exchange = Exchange::open(connection, &FromNode::Usage(first)).await?;
    loop {
        match exchange.answer().await? {
            FromFleet::UsageApplied { epoch, through } => ledger.handle_applied(epoch, through),
            FromFleet::UsageBeginAnew { through } => {
                log::warn!(through; "the fleet cannot go on with this usage ledger; a new one begins with what it does not have");
                ledger.begin_anew(LedgerEpoch(rand::random()), through);
                return Ok(());
            }
            other => anyhow::bail!("the fleet answered {other:?} to usage"),
        }
        match ledger.next_batch() {
            Some(batch) => exchange.send(&FromNode::Usage(batch)).await?,
            None => return Ok(()),
        }
    }
}

fn key_of(seq: u64) -> Vec<u8> {
    [RECORD_PREFIX, &seq.to_be_bytes()].concat()
}
