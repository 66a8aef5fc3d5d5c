//! Nodes: who they are and what they last said.

use super::rollout::{Changed, RolloutFault, reconcile};
use super::{Columns, Store, StoreError, big, to_json};
use sedge_fleet_core::{DesiredState, Revisions};
use sedge_protocol::message::{Hello, Report};
use sedge_protocol::{Labels, NodeId, Standing};
use sqlx::any::AnyRow;

/// One node as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRow {
    /// Its id.
    pub id: NodeId,
    /// Labels of its configuration under those of its claim under those that the fleet gave it: the operator decides.
    pub labels: Labels,
    /// How it stands with the fleet.
    pub standing: Standing,
    /// Since when.
    pub standing_ms: u64,
    /// Version of its daemon.
    pub daemon: String,
    /// Processor architecture.
    pub architecture: String,
    /// When it enrolled.
    pub enrolled_ms: u64,
    /// When its certificate ends.
    pub certificate_until_ms: u64,
    /// When it was last heard.
    pub seen_ms: Option<u64>,
    /// What it is told to run.
    pub desired: DesiredState,
    /// What images of the operating system it takes; empty for none.
    pub board: String,
    /// What it last said, without its errors.
    pub report: Report,
}

pub(super) const COLUMNS: &str = "id, claim_labels, own_labels, fleet_labels, standing, standing_ms, daemon, architecture, enrolled_ms, certificate_until_ms, seen_ms, \
     desired_epoch, desired, image, board, report";

impl NodeRow {
    pub(super) fn of(row: &AnyRow) -> Result<Self, StoreError> {
        let mut columns = Columns::of(row);
        let id = columns.parse("node id")?;
        let claim_labels: Labels = columns.json("node's labels")?;
        let mut labels: Labels = columns.json("node's labels")?;
        labels.extend(&claim_labels);
        labels.extend(&columns.json("node's labels")?);
        Ok(Self {
            id,
            labels,
            standing: columns.json("standing")?,
            standing_ms: columns.number()?,
            daemon: columns.text()?,
            architecture: columns.text()?,
            enrolled_ms: columns.number()?,
            certificate_until_ms: columns.number()?,
            seen_ms: Some(columns.number()?).filter(|ms| *ms > 0),
            desired: DesiredState {
                epoch: columns.number()?,
                revisions: columns.json::<Revisions>("desired state")?,
                image: Some(columns.number()?).filter(|number| *number > 0),
            },
            board: columns.text()?,
            report: match columns.text()?.as_str() {
                "{}" => Report::default(),
                text => super::from_json(text, "report")?,
            },
        })
    }
}

impl Store {
    /// All nodes in the order of their ids.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        let statement = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM nodes ORDER BY id"));
        sqlx::query(statement).fetch_all(&self.pool).await?.iter().map(NodeRow::of).collect()
    }

    /// Whether nobody has ever joined or was invited.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_empty(&self) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT (SELECT COUNT(*) FROM nodes) + (SELECT COUNT(*) FROM claims)").fetch_one(&self.pool).await?;
        Ok(Columns::of(&row).number()? == 0)
    }

    /// How many nodes there are.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_nodes(&self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) FROM nodes").fetch_one(&self.pool).await?;
        Columns::of(&row).number()
    }

    /// One node.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn node(&self, id: &NodeId) -> Result<Option<NodeRow>, StoreError> {
        let statement = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM nodes WHERE id = $1"));
        let row = sqlx::query(statement).bind(id.as_str()).fetch_optional(&self.pool).await?;
        row.as_ref().map(NodeRow::of).transpose()
    }

    /// Takes what a node says of itself when it connects. New labels may move it under other rollouts.
    ///
    /// # Errors
    /// When the database fails or too much would be assigned.
    pub async fn greet(&self, id: &NodeId, hello: &Hello, now_ms: u64) -> Result<Vec<Changed>, RolloutFault> {
        let mut transaction = self.write().await.map_err(StoreError::from)?;
        sqlx::query("UPDATE nodes SET daemon = $1, architecture = $2, own_labels = $3, seen_ms = $4, board = CASE WHEN $5 = '' THEN board ELSE $5 END WHERE id = $6")
            .bind(&hello.daemon)
            .bind(&hello.architecture)
            .bind(to_json(&hello.labels))
            .bind(big(now_ms))
            .bind(hello.board.as_deref().unwrap_or_default())
            .bind(id.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(StoreError::from)?;
        // Epochs only grow: a node that has accepted a larger one than is kept here met a fleet that was since restored from a copy.
        sqlx::query("UPDATE nodes SET desired_epoch = $1 + 1 WHERE id = $2 AND desired_epoch < $1")
            .bind(big(hello.desired_epoch.min(u64::from(u32::MAX))))
            .bind(id.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(StoreError::from)?;
        let changed = reconcile(&mut transaction, Some(id)).await?;
        transaction.commit().await.map_err(StoreError::from)?;
        Ok(changed)
    }

    /// Writes down what nodes last said and when they were last heard, all in one transaction.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keep_reports<'a>(
        &self,
        reports: impl IntoIterator<Item = (&'a NodeId, u64, Option<&'a Report>)>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        for (node, seen_ms, report) in reports {
            let query = match report {
                Some(report) => {
                    let report = Report { errors: Vec::new(), ..report.clone() };
                    sqlx::query("UPDATE nodes SET seen_ms = $1, report = $3 WHERE id = $2")
                        .bind(big(seen_ms))
                        .bind(node.as_str())
                        .bind(to_json(&report))
                }
                None => sqlx::query("UPDATE nodes SET seen_ms = $1 WHERE id = $2").bind(big(seen_ms)).bind(node.as_str()),
            };
            query.execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }
}
