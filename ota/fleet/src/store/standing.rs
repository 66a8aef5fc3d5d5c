//! What an operator decides about nodes: how they stand, what they are labelled, whether they are known at all.
//!
//! A key that is revoked, replaced or removed is barred: no claim lets it in that is older than that.

use super::rollout::{Changed, RolloutFault, reconcile};
use super::{Columns, Store, StoreError, big, from_json, to_json};
use sedge_protocol::api::LabelChange;
use sedge_protocol::label::LabelError;
use sedge_protocol::{Digest, Labels, NodeId, Standing};
use sqlx::{Any, Transaction};

/// Why a decision about a node is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum NodeFault {
    /// Nobody has this id.
    #[error("there is no node `{0}`")]
    Unknown(NodeId),
    /// Too many labels.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// What it would be assigned.
    #[error(transparent)]
    Rollout(#[from] RolloutFault),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for NodeFault {
    fn from(cause: sqlx::Error) -> Self {
        Self::Store(cause.into())
    }
}

/// What a door has to know of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Digest of its public key.
    pub key: Digest,
    /// How it stands.
    pub standing: Standing,
    /// When its certificate ends.
    pub certificate_until_ms: u64,
}

impl Store {
    /// What decides whether a connection of this node is let in.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn entry(&self, node: &NodeId) -> Result<Option<Entry>, StoreError> {
        let row = sqlx::query("SELECT key_digest, standing, certificate_until_ms FROM nodes WHERE id = $1")
            .bind(node.as_str())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| {
            let mut columns = Columns::of(&row);
            let (key, standing) = (columns.parse("key digest")?, columns.json("standing")?);
            Ok(Entry { key, standing, certificate_until_ms: columns.number()? })
        })
        .transpose()
    }

    /// Decides how a node stands from now on. The same again changes nothing.
    ///
    /// # Errors
    /// When there is no such node or the database fails.
    pub async fn set_standing(&self, node: &NodeId, standing: &Standing, now_ms: u64) -> Result<Vec<Changed>, NodeFault> {
        let mut transaction = self.write().await?;
        let (key, before) = of(&mut transaction, node).await?;
        if before != *standing {
            keep(&mut transaction, node, standing, now_ms).await?;
        }
        match (before.is_revoked(), standing.is_revoked()) {
            (false, true) => bar(&mut transaction, &key, now_ms).await?,
            (true, false) => unbar(&mut transaction, &key).await?,
            (true, true) | (false, false) => {}
        }
        let changed = reconcile(&mut transaction, Some(node)).await?;
        transaction.commit().await?;
        Ok(changed)
    }

    /// Quarantines a node that was in order until now; answers whether it was.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn quarantine(&self, node: &NodeId, reason: String, now_ms: u64) -> Result<bool, StoreError> {
        let mut transaction = self.write().await?;
        let good = match of(&mut transaction, node).await {
            Ok((_, Standing::Active | Standing::Pending)) => true,
            Ok((_, Standing::Quarantined { .. } | Standing::Revoked { .. })) | Err(NodeFault::Unknown(_)) => false,
            Err(NodeFault::Store(cause)) => return Err(cause),
            Err(NodeFault::Label(_) | NodeFault::Rollout(_)) => false,
        };
        if good {
            keep(&mut transaction, node, &Standing::Quarantined { reason }, now_ms).await?;
            transaction.commit().await?;
        }
        Ok(good)
    }

    /// Forgets a node. Its usage stays: it is billed.
    ///
    /// # Errors
    /// When there is no such node or the database fails.
    pub async fn remove_node(&self, node: &NodeId, now_ms: u64) -> Result<(), NodeFault> {
        let mut transaction = self.write().await?;
        let (key, _) = of(&mut transaction, node).await?;
        bar(&mut transaction, &key, now_ms).await?;
        forget(&mut transaction, node).await?;
        Ok(transaction.commit().await?)
    }

    /// Changes the labels that the fleet gives a node. They may move it under other rollouts.
    ///
    /// # Errors
    /// When there is no such node, it would have too many labels or functions, or the database fails.
    pub async fn label_node(&self, node: &NodeId, change: &LabelChange) -> Result<Vec<Changed>, NodeFault> {
        let mut transaction = self.write().await?;
        let row = sqlx::query("SELECT fleet_labels FROM nodes WHERE id = $1").bind(node.as_str()).fetch_optional(&mut *transaction).await?;
        let row = row.ok_or_else(|| NodeFault::Unknown(node.clone()))?;
        let mut labels: Labels = Columns::of(&row).json("node's labels")?;
        change.remove.iter().for_each(|key| labels.remove(key));
        for (key, value) in change.set.iter() {
            labels.insert(key, value)?;
        }
        sqlx::query("UPDATE nodes SET fleet_labels = $1 WHERE id = $2")
            .bind(to_json(&labels))
            .bind(node.as_str())
            .execute(&mut *transaction)
            .await?;
        let changed = reconcile(&mut transaction, Some(node)).await?;
        transaction.commit().await?;
        Ok(changed)
    }
}

/// Removes an entry. Its usage stays.
pub(super) async fn forget(transaction: &mut Transaction<'_, Any>, node: &NodeId) -> Result<(), StoreError> {
    for statement in ["DELETE FROM errors WHERE node = $1", "DELETE FROM nodes WHERE id = $1"] {
        sqlx::query(statement).bind(node.as_str()).execute(&mut **transaction).await?;
    }
    Ok(())
}

async fn of(transaction: &mut Transaction<'_, Any>, node: &NodeId) -> Result<(String, Standing), NodeFault> {
    let row =
        sqlx::query("SELECT key_digest, standing FROM nodes WHERE id = $1").bind(node.as_str()).fetch_optional(&mut **transaction).await?;
    let row = row.ok_or_else(|| NodeFault::Unknown(node.clone()))?;
    let mut columns = Columns::of(&row);
    Ok((columns.text()?, from_json(&columns.text()?, "standing")?))
}

async fn keep(transaction: &mut Transaction<'_, Any>, node: &NodeId, standing: &Standing, now_ms: u64) -> Result<(), StoreError> {
    sqlx::query("UPDATE nodes SET standing = $1, standing_ms = $2 WHERE id = $3")
        .bind(to_json(standing))
        .bind(big(now_ms))
        .bind(node.as_str())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Lets a key in no more, but by a claim that is made from now on.
pub(super) async fn bar(transaction: &mut Transaction<'_, Any>, key: &str, now_ms: u64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO barred_keys (key_digest, barred_ms) VALUES ($1, $2) ON CONFLICT (key_digest) DO UPDATE SET barred_ms = excluded.barred_ms",
    )
    .bind(key)
    .bind(big(now_ms))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Forgets that a key was barred.
pub(super) async fn unbar(transaction: &mut Transaction<'_, Any>, key: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM barred_keys WHERE key_digest = $1").bind(key).execute(&mut **transaction).await?;
    Ok(())
}

/// When a key was barred, if it is.
pub(super) async fn barred_ms(transaction: &mut Transaction<'_, Any>, key: &str) -> Result<Option<u64>, StoreError> {
    let row = sqlx::query("SELECT barred_ms FROM barred_keys WHERE key_digest = $1").bind(key).fetch_optional(&mut **transaction).await?;
    row.map(|row| Columns::of(&row).number()).transpose()
}
