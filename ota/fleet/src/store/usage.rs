//! The usage ledger: windows of each node and ledger, applied exactly once.

use super::{Columns, Store, StoreError, big};
use sedge_protocol::api::UsageRow;
use sedge_protocol::limits::USAGE_BATCH_MAX;
use sedge_protocol::message::UsageBatch;
use sedge_protocol::usage::{Counters, UsageRecord};
use sedge_protocol::{FunctionName, NodeId};
use sqlx::{Any, Transaction};
use std::sync::LazyLock;

/// Why a batch is not applied.
#[derive(Debug, thiserror::Error)]
pub enum UsageFault {
    /// The ledger cannot go on here.
    #[error("{cause}")]
    BeginAnew {
        /// Highest number of it that is applied, for whichever node.
        through: u64,
        /// What is wrong with it.
        cause: String,
    },
    /// More records than one batch may have.
    #[error("a batch of {0} usage records; {USAGE_BATCH_MAX} are allowed")]
    TooMany(usize),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which windows to sum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageFilter {
    /// Only this function.
    pub function: Option<FunctionName>,
    /// Only this node.
    pub node: Option<NodeId>,
    /// Only windows that begin then or later.
    pub since_ms: u64,
}

/// The counters in the order of the columns, which [`values`] and [`counters`] keep.
const COUNTERS: [&str; 11] = [
    "calls_ok",
    "calls_failed",
    "calls_platform",
    "calls_shed",
    "cold_starts",
    "cpu_us",
    "wall_ms",
    "memory_mib_ms",
    "bytes_in",
    "bytes_out",
    "kv_ops",
];

/// A window only grows: of what is kept and what comes, each counter keeps the larger.
static UPSERT: LazyLock<String> = LazyLock::new(|| {
    let larger =
        |name| format!("{name} = CASE WHEN excluded.{name} > usage_windows.{name} THEN excluded.{name} ELSE usage_windows.{name} END");
    let places: Vec<String> = (1..=COUNTERS.len() + 5).map(|i| format!("${i}")).collect();
    format!(
        "INSERT INTO usage_windows (node, epoch, function, revision, start_ms, {}) VALUES ({}) ON CONFLICT (node, epoch, function, revision, start_ms) DO UPDATE SET {}",
        COUNTERS.join(", "),
        places.join(", "),
        COUNTERS.map(larger).join(", ")
    )
});

/// The sums of all counters. PostgreSQL would widen them to numeric.
static SUMS: LazyLock<String> = LazyLock::new(|| COUNTERS.map(|name| format!("CAST(SUM({name}) AS BIGINT)")).join(", "));

impl Store {
    /// Applies a batch and answers the highest number that is now applied. Records that were applied before change nothing.
    ///
    /// # Errors
    /// When records are missing, there are too many, or the database fails; then nothing of the batch is applied.
    pub async fn apply_usage(&self, node: &NodeId, batch: &UsageBatch) -> Result<u64, UsageFault> {
        if batch.records.len() > USAGE_BATCH_MAX {
            return Err(UsageFault::TooMany(batch.records.len()));
        }
        let mut transaction = self.write().await.map_err(StoreError::from)?;
        let epoch = batch.epoch.to_string();
        let (own, known) = watermarks(&mut transaction, node, &epoch).await?;
        // An epoch is drawn at random: whoever presents that of another node is the same box under a new identity.
        let before = match (own, known) {
            (None, Some(through)) => {
                return Err(UsageFault::BeginAnew { through, cause: "the ledger was begun under another identity".to_owned() });
            }
            (own, _) => own.unwrap_or(0),
        };
        let mut applied = before;
        for record in &batch.records {
            if record.seq <= before {
                continue;
            }
            if record.seq != applied + 1 {
                let cause = format!("usage record {} came where {} was expected", record.seq, applied + 1);
                return Err(UsageFault::BeginAnew { through: before, cause });
            }
            keep(&mut transaction, node, &epoch, record).await?;
            applied = record.seq;
        }
        sqlx::query(
            "INSERT INTO ledgers (node, epoch, applied) VALUES ($1, $2, $3) ON CONFLICT (node, epoch) DO UPDATE SET applied = excluded.applied \
             WHERE excluded.applied > ledgers.applied",
        )
        .bind(node.as_str())
        .bind(&epoch)
        .bind(big(applied))
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::from)?;
        transaction.commit().await.map_err(StoreError::from)?;
        Ok(applied)
    }

    /// Sums per node, function and revision.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn usage(&self, filter: &UsageFilter) -> Result<Vec<UsageRow>, StoreError> {
        let statement = format!(
            "SELECT node, function, revision, MIN(start_ms), {} FROM usage_windows WHERE ($1 = '' OR function = $1) AND ($2 = '' OR node = $2) \
             AND start_ms >= $3 GROUP BY node, function, revision ORDER BY node, function, revision",
            *SUMS
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(filter.function.as_ref().map_or("", FunctionName::as_str))
            .bind(filter.node.as_ref().map_or("", NodeId::as_str))
            .bind(big(filter.since_ms))
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                Ok(UsageRow {
                    node: columns.parse("node id")?,
                    function: columns.parse("function name")?,
                    revision: columns.parse("revision")?,
                    from_ms: columns.number()?,
                    usage: counters(&mut columns)?,
                })
            })
            .collect()
    }

    /// Sums per function, in the order of the names.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn usage_by_function(&self) -> Result<Vec<(FunctionName, Counters)>, StoreError> {
        let statement = format!("SELECT function, {} FROM usage_windows GROUP BY function ORDER BY function", *SUMS);
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement)).fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                Ok((columns.parse("function name")?, counters(&mut columns)?))
            })
            .collect()
    }
}

/// Highest applied number of a ledger: for this node, and for any.
async fn watermarks(transaction: &mut Transaction<'_, Any>, node: &NodeId, epoch: &str) -> Result<(Option<u64>, Option<u64>), StoreError> {
    let rows = sqlx::query("SELECT node, applied FROM ledgers WHERE epoch = $1").bind(epoch).fetch_all(&mut **transaction).await?;
    let (mut own, mut known) = (None, None);
    for row in &rows {
        let mut columns = Columns::of(row);
        let (of, applied) = (columns.text()?, columns.number()?);
        own = own.or((of == node.as_str()).then_some(applied));
        known = known.max(Some(applied));
    }
    Ok((own, known))
}

async fn keep(transaction: &mut Transaction<'_, Any>, node: &NodeId, epoch: &str, record: &UsageRecord) -> Result<(), StoreError> {
    let mut query = sqlx::query(UPSERT.as_str())
        .bind(node.as_str())
        .bind(epoch)
        .bind(record.window.function.as_str())
        .bind(record.window.revision.to_string())
        .bind(big(record.window.start_ms));
    for value in values(&record.counters) {
        query = query.bind(big(value));
    }
    query.execute(&mut **transaction).await?;
    Ok(())
}

fn values(c: &Counters) -> [u64; 11] {
    [
        c.calls_ok,
        c.calls_failed,
        c.calls_platform,
        c.calls_shed,
        c.cold_starts,
        c.cpu_us,
        c.wall_ms,
        c.memory_mib_ms,
        c.bytes_in,
        c.bytes_out,
        c.kv_ops,
    ]
}

fn counters(columns: &mut Columns<'_>) -> Result<Counters, StoreError> {
    Ok(Counters {
        calls_ok: columns.number()?,
        calls_failed: columns.number()?,
        calls_platform: columns.number()?,
        calls_shed: columns.number()?,
        cold_starts: columns.number()?,
        cpu_us: columns.number()?,
        wall_ms: columns.number()?,
        memory_mib_ms: columns.number()?,
        bytes_in: columns.number()?,
        bytes_out: columns.number()?,
        kv_ops: columns.number()?,
    })
}
