//! Errors of nodes: a bounded table, the newest win.

use super::{Columns, Store, StoreError, big};
use crate::limits::ERRORS_MAX;
use sedge_protocol::NodeId;
use sedge_protocol::api::NodeError;
use sedge_protocol::limits::REASON_BYTES_MAX;
use sedge_protocol::message::ErrorReport;

impl Store {
    /// Keeps errors of one run of a node's daemon. What was kept before is not kept twice.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keep_errors(&self, node: &NodeId, started_ms: u64, errors: &[ErrorReport], now_ms: u64) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for error in errors {
            let revision = error.revision.map(|revision| revision.to_string()).unwrap_or_default();
            sqlx::query(
                "INSERT INTO errors (node, started_ms, number, time_ms, function, revision, reason, received_ms) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (node, started_ms, number) DO NOTHING",
            )
            .bind(node.as_str())
            .bind(big(started_ms))
            .bind(big(error.number))
            .bind(big(error.time_ms))
            .bind(error.function.as_str())
            .bind(revision)
            .bind(printable(&error.reason))
            .bind(big(now_ms))
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Forgets the oldest errors above the bound.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn trim_errors(&self) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query("DELETE FROM errors WHERE received_ms < (SELECT received_ms FROM errors ORDER BY received_ms DESC LIMIT 1 OFFSET $1)")
            .bind(big(ERRORS_MAX - 1))
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// The newest errors, the newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn errors(&self, limit: u64) -> Result<Vec<NodeError>, StoreError> {
        let rows =
            sqlx::query("SELECT node, time_ms, function, revision, reason FROM errors ORDER BY received_ms DESC, number DESC LIMIT $1")
                .bind(big(limit))
                .fetch_all(&self.pool)
                .await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                let (node, time_ms, function) = (columns.parse("node id")?, columns.number()?, columns.parse("function name")?);
                let revision = Some(columns.text()?).filter(|text| !text.is_empty()).and_then(|text| text.parse().ok());
                Ok(NodeError { node, time_ms, function, revision, reason: columns.text()? })
            })
            .collect()
    }
}

/// A guest's text: control characters (PostgreSQL takes no NUL) become spaces, and it ends at the bound.
fn printable(text: &str) -> String {
    let mut clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_BYTES_MAX).collect();
    while clean.len() > REASON_BYTES_MAX {
        clean.pop();
    }
    clean
}
