//! Claims, and the enrolment that uses one up.

use super::rollout::{Changed, RolloutFault, reconcile};
use super::{Columns, Store, StoreError, big, to_json};
use sedge_protocol::api::Claim;
use sedge_protocol::{Digest, Labels, NodeId};
use sqlx::{Any, Transaction};

/// Why a claim does not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimRefusal {
    /// No such claim.
    #[error("the claim is not known here: check the fleet's address, or create another with `sedge claim create`")]
    Unknown,
    /// Too late.
    #[error("the claim has expired: create another with `sedge claim create`")]
    Expired,
    /// All its uses are gone.
    #[error("the claim has been used up: create another with `sedge claim create`")]
    UsedUp,
}

/// Why a box does not become a node.
#[derive(Debug, thiserror::Error)]
pub enum EnrolFault {
    /// Its claim.
    #[error(transparent)]
    Claim(#[from] ClaimRefusal),
    /// Its certificate request.
    #[error(transparent)]
    Request(#[from] sedge_provisioning::issuer::IssueError),
    /// The functions that would be assigned to it.
    #[error(transparent)]
    Rollout(#[from] RolloutFault),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who wants to join with what.
#[derive(Debug)]
pub struct Admission<'a> {
    /// Digest of the claim token.
    pub token: Digest,
    /// Digest of the node's public key: the same claim from the same key is the same enrolment.
    pub key: Digest,
    /// The name it would like, or one that was drawn for it.
    pub name: &'a NodeId,
    /// Labels of its configuration.
    pub labels: &'a Labels,
    /// Now.
    pub now_ms: u64,
}

impl Store {
    /// Keeps a claim under the digest of its token.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn create_claim(&self, claim: &Claim, token: Digest, now_ms: u64) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO claims (id, token_digest, uses, used, created_ms, expires_ms, labels) VALUES ($1, $2, $3, 0, $4, $5, $6)")
            .bind(&claim.id)
            .bind(token.to_string())
            .bind(i64::from(claim.uses))
            .bind(big(now_ms))
            .bind(big(claim.expires_ms))
            .bind(to_json(&claim.labels))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// All claims, the newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claims(&self) -> Result<Vec<Claim>, StoreError> {
        let rows = sqlx::query("SELECT id, uses, used, expires_ms, labels FROM claims ORDER BY created_ms DESC, id DESC LIMIT 1000")
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                Ok(Claim {
                    id: columns.text()?,
                    uses: u32::try_from(columns.number()?).unwrap_or(u32::MAX),
                    used: u32::try_from(columns.number()?).unwrap_or(u32::MAX),
                    expires_ms: columns.number()?,
                    labels: columns.json("claim's labels")?,
                })
            })
            .collect()
    }

    /// Uses a claim up by one and makes a node of the box, or does neither. `issue` makes the certificate and says until when it
    /// is good. A box that asks again with the same claim and key, because the answer was lost, is the same node.
    ///
    /// # Errors
    /// When the claim does not let in, `issue` refuses, or the database fails.
    pub async fn enrol<F>(&self, admission: &Admission<'_>, issue: F) -> Result<(NodeId, String, Vec<Changed>), EnrolFault>
    where
        F: FnOnce(&NodeId) -> Result<(String, u64), sedge_provisioning::issuer::IssueError>,
    {
        let mut transaction = self.write().await.map_err(StoreError::from)?;
        if let Some(node) = known(&mut transaction, admission).await? {
            let (certificate, until_ms) = issue(&node)?;
            certified(&mut transaction, &node, until_ms).await?;
            transaction.commit().await.map_err(StoreError::from)?;
            return Ok((node, certificate, Vec::new()));
        }
        let (claim, claim_labels) = use_up(&mut transaction, admission).await?;
        let node = free_name(&mut transaction, admission.name).await?;
        let (certificate, until_ms) = issue(&node)?;
        sqlx::query(
            "INSERT INTO nodes (id, claim, key_digest, claim_labels, own_labels, daemon, architecture, enrolled_ms, certificate_until_ms, \
             seen_ms, desired_epoch, desired, report) VALUES ($1, $2, $3, $4, $5, '', '', $6, $7, 0, 0, '{}', '{}')",
        )
        .bind(node.as_str())
        .bind(claim)
        .bind(admission.key.to_string())
        .bind(claim_labels)
        .bind(to_json(admission.labels))
        .bind(big(admission.now_ms))
        .bind(big(until_ms))
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::from)?;
        let changed = reconcile(&mut transaction, Some(&node)).await?;
        transaction.commit().await.map_err(StoreError::from)?;
        Ok((node, certificate, changed))
    }

    /// Notes that a node has a new certificate.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn renewed(&self, node: &NodeId, until_ms: u64) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        certified(&mut transaction, node, until_ms).await?;
        Ok(transaction.commit().await?)
    }
}

/// The node that has enrolled with this claim and this key before.
async fn known(transaction: &mut Transaction<'_, Any>, admission: &Admission<'_>) -> Result<Option<NodeId>, StoreError> {
    let row = sqlx::query("SELECT n.id FROM nodes n JOIN claims c ON n.claim = c.id WHERE c.token_digest = $1 AND n.key_digest = $2")
        .bind(admission.token.to_string())
        .bind(admission.key.to_string())
        .fetch_optional(&mut **transaction)
        .await?;
    row.map(|row| Columns::of(&row).parse("node id")).transpose()
}

/// Compare and set: of two boxes that race for the last use, one gets it.
async fn use_up(transaction: &mut Transaction<'_, Any>, admission: &Admission<'_>) -> Result<(String, String), EnrolFault> {
    let token = admission.token.to_string();
    let used = sqlx::query("UPDATE claims SET used = used + 1 WHERE token_digest = $1 AND used < uses AND expires_ms > $2")
        .bind(&token)
        .bind(big(admission.now_ms))
        .execute(&mut **transaction)
        .await
        .map_err(StoreError::from)?;
    let row = sqlx::query("SELECT id, labels, expires_ms FROM claims WHERE token_digest = $1")
        .bind(&token)
        .fetch_optional(&mut **transaction)
        .await
        .map_err(StoreError::from)?;
    let Some(row) = row else { return Err(ClaimRefusal::Unknown.into()) };
    let mut columns = Columns::of(&row);
    let (id, labels, expires_ms) = (columns.text()?, columns.text()?, columns.number()?);
    if used.rows_affected() == 1 {
        return Ok((id, labels));
    }
    Err(if expires_ms <= admission.now_ms { ClaimRefusal::Expired } else { ClaimRefusal::UsedUp }.into())
}

/// `name`, or `name-2`, `name-3` and so on when it is taken.
async fn free_name(transaction: &mut Transaction<'_, Any>, name: &NodeId) -> Result<NodeId, StoreError> {
    let mut candidate = name.clone();
    let mut number = 1_u64;
    loop {
        let taken = sqlx::query("SELECT id FROM nodes WHERE id = $1").bind(candidate.as_str()).fetch_optional(&mut **transaction).await?;
        if taken.is_none() {
            return Ok(candidate);
        }
        number += 1;
        let tail = format!("-{number}");
        let head = sedge_protocol::limits::NAME_BYTES_MAX - tail.len();
        let stem: String = name.as_str().chars().take(head).collect();
        candidate = format!("{stem}{tail}").parse().expect("a name with a number behind it is a name");
    }
}

async fn certified(transaction: &mut Transaction<'_, Any>, node: &NodeId, until_ms: u64) -> Result<(), StoreError> {
    sqlx::query("UPDATE nodes SET certificate_until_ms = $1 WHERE id = $2")
        .bind(big(until_ms))
        .bind(node.as_str())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
