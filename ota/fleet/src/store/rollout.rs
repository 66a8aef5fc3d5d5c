//! Rollouts, and the desired states that follow from them.

use super::image;
use super::node::{self, NodeRow};
use super::{Columns, Store, StoreError, big, to_json};
use sedge_fleet_core::{DesiredState, Filter, Revisions, Rollout, allowed, allowed_image, desired, desired_image};
use sedge_protocol::limits::{ASSIGNED_MAX, FRAME_BYTES_MAX};
use sedge_protocol::message::{Assignment, Desired, FromFleet};
use sedge_protocol::{FunctionName, Labels, NodeId, RevisionId};
use sqlx::any::AnyRow;
use sqlx::{Any, Transaction};

/// A node whose desired state has just changed: who is connected is told.
pub type Changed = (NodeId, Desired);

/// Why a rollout is not made.
#[derive(Debug, thiserror::Error)]
pub enum RolloutFault {
    /// The function has no revision.
    #[error("there is no function `{0}`")]
    Function(FunctionName),
    /// The function has no such revision.
    #[error("function `{0}` has no revision {1}")]
    Revision(FunctionName, RevisionId),
    /// More than one node can be told.
    #[error("node `{node}` would be assigned {functions} functions, more than fit into one message")]
    TooMany {
        /// The node.
        node: NodeId,
        /// How many it would be.
        functions: usize,
    },
    /// Changed by somebody else meanwhile.
    #[error("the desired state of node `{0}` was changed at the same time; try again")]
    Raced(NodeId),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One rollout as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutRow {
    /// What it does.
    pub rollout: Rollout,
    /// Its public id.
    pub id: String,
    /// Its filter as it was written.
    pub filter: String,
    /// When it was made.
    pub created_ms: u64,
}

const COLUMNS: &str = "number, id, function, revision, filter, created_ms";

impl RolloutRow {
    fn of(row: &AnyRow) -> Result<Self, StoreError> {
        let mut columns = Columns::of(row);
        let (number, id) = (columns.number()?, columns.text()?);
        let (function, revision) = (columns.parse("function name")?, columns.parse("revision")?);
        let filter = columns.text()?;
        let parsed: Filter = filter
            .parse()
            .map_err(|cause: sedge_fleet_core::FilterError| StoreError::Corrupt { what: "filter", cause: cause.to_string() })?;
        Ok(Self { rollout: Rollout { number, function, revision, filter: parsed }, id, filter, created_ms: columns.number()? })
    }
}

impl Store {
    /// Moves all nodes that match `filter` to `revision`, or to the newest. The rollout and every desired state that follows from it
    /// become durable together.
    ///
    /// # Errors
    /// When there is no such revision, a node would get too much, or the database fails.
    pub async fn create_rollout(
        &self,
        id: &str,
        function: &FunctionName,
        revision: Option<RevisionId>,
        (filter, now_ms): (&Filter, u64),
    ) -> Result<(RolloutRow, Vec<Changed>), RolloutFault> {
        let mut transaction = self.write().await.map_err(StoreError::from)?;
        let revision = revision_of(&mut transaction, function, revision).await?;
        let last =
            sqlx::query("SELECT COALESCE(MAX(number), 0) FROM rollouts").fetch_one(&mut *transaction).await.map_err(StoreError::from)?;
        let number = Columns::of(&last).number()? + 1;
        sqlx::query("INSERT INTO rollouts (number, id, function, revision, filter, created_ms, active) VALUES ($1, $2, $3, $4, $5, $6, 1)")
            .bind(big(number))
            .bind(id)
            .bind(function.as_str())
            .bind(revision.to_string())
            .bind(filter.to_string())
            .bind(big(now_ms))
            .execute(&mut *transaction)
            .await
            .map_err(StoreError::from)?;
        sqlx::query("UPDATE functions SET removed = 0 WHERE name = $1")
            .bind(function.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(StoreError::from)?;
        let changed = reconcile(&mut transaction, None).await?;
        transaction.commit().await.map_err(StoreError::from)?;
        let rollout = Rollout { number, function: function.clone(), revision, filter: filter.clone() };
        Ok((RolloutRow { rollout, id: id.to_owned(), filter: filter.to_string(), created_ms: now_ms }, changed))
    }

    /// All rollouts that still decide something or once did, the newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rollouts(&self) -> Result<Vec<RolloutRow>, StoreError> {
        let statement = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM rollouts ORDER BY number DESC LIMIT 200"));
        sqlx::query(statement).fetch_all(&self.pool).await?.iter().map(RolloutRow::of).collect()
    }

    /// Takes a function off every node. Its revisions stay: a later rollout brings it back.
    ///
    /// # Errors
    /// When there is no such function or the database fails.
    pub async fn remove_function(&self, function: &FunctionName) -> Result<Vec<Changed>, RolloutFault> {
        let mut transaction = self.write().await.map_err(StoreError::from)?;
        let removed = sqlx::query("UPDATE functions SET removed = 1 WHERE name = $1 AND removed = 0")
            .bind(function.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(StoreError::from)?;
        if removed.rows_affected() == 0 {
            return Err(RolloutFault::Function(function.clone()));
        }
        sqlx::query("UPDATE rollouts SET active = 0 WHERE function = $1")
            .bind(function.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(StoreError::from)?;
        let changed = reconcile(&mut transaction, None).await?;
        transaction.commit().await.map_err(StoreError::from)?;
        Ok(changed)
    }

    /// What a node of this id and these labels would be told, if it joined now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn foreseen(&self, node: &NodeId, labels: &Labels) -> Result<Desired, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let revisions = desired(node, labels, &active(&mut connection).await?);
        message(&mut connection, &DesiredState { epoch: 0, revisions, image: None }).await
    }

    /// What a node is told, as a message.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn desired(&self, node: &NodeId) -> Result<Option<Desired>, StoreError> {
        let Some(row) = self.node(node).await? else { return Ok(None) };
        let mut connection = self.pool.acquire().await?;
        Ok(Some(message(&mut connection, &row.desired).await?))
    }
}

async fn revision_of(
    transaction: &mut Transaction<'_, Any>,
    function: &FunctionName,
    revision: Option<RevisionId>,
) -> Result<RevisionId, RolloutFault> {
    let row = sqlx::query("SELECT newest FROM functions WHERE name = $1")
        .bind(function.as_str())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(StoreError::from)?;
    let Some(row) = row else { return Err(RolloutFault::Function(function.clone())) };
    let Some(wanted) = revision else { return Ok(Columns::of(&row).parse("revision")?) };
    let known = sqlx::query("SELECT id FROM revisions WHERE id = $1 AND function = $2")
        .bind(wanted.to_string())
        .bind(function.as_str())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(StoreError::from)?;
    if known.is_some() { Ok(wanted) } else { Err(RolloutFault::Revision(function.clone(), wanted)) }
}

/// Brings the desired state of one node, or of all, up to what the rollouts say. Repeating it changes nothing.
pub(super) async fn reconcile(transaction: &mut Transaction<'_, Any>, only: Option<&NodeId>) -> Result<Vec<Changed>, RolloutFault> {
    let (rollouts, images) = (active(transaction).await?, image::rollouts(transaction).await?);
    let statement = sqlx::AssertSqlSafe(format!("SELECT {} FROM nodes WHERE $1 = '' OR id = $1", node::COLUMNS));
    let nodes = sqlx::query(statement).bind(only.map_or("", NodeId::as_str)).fetch_all(&mut **transaction).await;
    let mut changed = Vec::new();
    for row in &nodes.map_err(StoreError::from)? {
        let node = NodeRow::of(row)?;
        let wanted = desired(&node.id, &node.labels, &rollouts);
        let image = desired_image(&node.id, (&node.labels, &node.board), &images).map(|rollout| rollout.number);
        let image = allowed_image(&node.standing, node.desired.image, image);
        if let Some(next) = node.desired.advance(allowed(&node.standing, &node.desired.revisions, wanted), image) {
            changed.push(advance(transaction, &node, next).await?);
        }
    }
    Ok(changed)
}

/// The rollouts that decide something.
async fn active(connection: &mut sqlx::AnyConnection) -> Result<Vec<Rollout>, StoreError> {
    let statement = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM rollouts WHERE active = 1 ORDER BY number"));
    let rows = sqlx::query(statement).fetch_all(&mut *connection).await?;
    rows.iter().map(|row| RolloutRow::of(row).map(|row| row.rollout)).collect()
}

/// Keeps the next desired state of a node, if nobody else has meanwhile.
async fn advance(transaction: &mut Transaction<'_, Any>, node: &NodeRow, next: DesiredState) -> Result<Changed, RolloutFault> {
    let message = message(transaction, &next).await?;
    let functions = message.assignments.len();
    let fits = sedge_protocol::frame::encode(&FromFleet::Desired(message.clone())).is_ok_and(|frame| frame.len() <= FRAME_BYTES_MAX);
    if functions > ASSIGNED_MAX || !fits {
        return Err(RolloutFault::TooMany { node: node.id.clone(), functions });
    }
    let kept = sqlx::query("UPDATE nodes SET desired_epoch = $1, desired = $2, image = $3 WHERE id = $4 AND desired_epoch = $5")
        .bind(big(next.epoch))
        .bind(to_json(&next.revisions))
        .bind(big(next.image.unwrap_or(0)))
        .bind(node.id.as_str())
        .bind(big(node.desired.epoch))
        .execute(&mut **transaction)
        .await
        .map_err(StoreError::from)?;
    if kept.rows_affected() == 1 { Ok((node.id.clone(), message)) } else { Err(RolloutFault::Raced(node.id.clone())) }
}

/// A desired state with all that a node needs to know of its revisions.
async fn message(connection: &mut sqlx::AnyConnection, state: &DesiredState) -> Result<Desired, StoreError> {
    let mut assignments = Vec::new();
    for revision in Revisions::values(&state.revisions) {
        let row = sqlx::query("SELECT artifact, size, manifest FROM revisions WHERE id = $1")
            .bind(revision.to_string())
            .fetch_one(&mut *connection)
            .await?;
        let mut columns = Columns::of(&row);
        assignments.push(Assignment {
            revision: *revision,
            artifact: columns.parse("digest")?,
            size: columns.number()?,
            manifest: columns.json("manifest")?,
        });
    }
    let image = match state.image {
        Some(number) => image::assignment(connection, number).await?,
        None => None,
    };
    Ok(Desired { epoch: state.epoch, assignments, image })
}
