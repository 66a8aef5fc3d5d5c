//! Claims, and the enrolment that uses one up.
//!
//! ```text
//!  claim and key are those of a node ─▶ the same node again (its answer was lost)
//!  claim has a use left ─┬─ names a node it replaces ─▶ that node's entry, with this key; the former key is barred
//!                        ├─ the key is that of a node ─▶ that node's entry, with this claim
//!                        └─ else ─────────────────────▶ a new entry
//! ```
//! A key that was barred is let in by no claim that is older than that.

use super::rollout::{Changed, RolloutFault, reconcile};
use super::standing::{bar, barred_ms, forget, unbar};
use super::{Columns, Store, StoreError, big, to_json};
use sedge_protocol::api::Claim;
use sedge_protocol::{Digest, Labels, NodeId, Standing};
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
    /// An operator took it back.
    #[error("the claim was revoked: create another with `sedge claim create`")]
    Revoked,
    /// The box itself was revoked, replaced or removed after the claim was made.
    #[error("this node was revoked or removed: only a claim that is made from now on lets it join again (`sedge claim create`)")]
    Barred,
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

/// A box that has become a node, or was one.
#[derive(Debug, Clone, PartialEq)]
pub struct Joined {
    /// Its id.
    pub node: NodeId,
    /// Its certificate.
    pub certificate: String,
    /// Desired states that follow from it.
    pub changed: Vec<Changed>,
    /// Whether another key had the entry until now.
    pub replaced: bool,
    /// The entry that the box had before and has left: one key has one entry.
    pub left: Option<NodeId>,
}

/// A claim as it is kept, for whom presents its token.
struct Presented {
    id: String,
    labels: Labels,
    created_ms: u64,
    expires_ms: u64,
    revoked: bool,
    approval: bool,
    replaces: Option<NodeId>,
}

impl Presented {
    fn standing(&self) -> Standing {
        if self.approval { Standing::Pending } else { Standing::Active }
    }
}

impl Store {
    /// Keeps a claim under the digest of its token.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn create_claim(&self, claim: &Claim, token: Digest, now_ms: u64) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO claims (id, token_digest, uses, used, created_ms, expires_ms, labels, approval, replaces) \
             VALUES ($1, $2, $3, 0, $4, $5, $6, $7, $8)",
        )
        .bind(&claim.id)
        .bind(token.to_string())
        .bind(i64::from(claim.uses))
        .bind(big(now_ms))
        .bind(big(claim.expires_ms))
        .bind(to_json(&claim.labels))
        .bind(i64::from(claim.approval))
        .bind(claim.replaces.as_ref().map_or("", NodeId::as_str))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The claims that let somebody in, then the others, each the newest first; a thousand at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claims(&self, now_ms: u64) -> Result<Vec<Claim>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, uses, used, expires_ms, labels, approval, replaces, revoked_ms FROM claims \
             ORDER BY CASE WHEN used < uses AND revoked_ms = 0 AND expires_ms > $1 THEN 0 ELSE 1 END, created_ms DESC, id DESC LIMIT 1000",
        )
        .bind(big(now_ms))
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
                    approval: columns.number()? == 1,
                    replaces: columns.optional("node id")?,
                    revoked: columns.number()? > 0,
                })
            })
            .collect()
    }

    /// Lets nobody join with a claim any more; who has joined stays. Answers whether there is such a claim. The same again changes nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_claim(&self, id: &str, now_ms: u64) -> Result<bool, StoreError> {
        let revoked = sqlx::query("UPDATE claims SET revoked_ms = CASE WHEN revoked_ms > 0 THEN revoked_ms ELSE $1 END WHERE id = $2")
            .bind(big(now_ms.max(1)))
            .bind(id)
            .execute(&self.pool)
            .await?;
        Ok(revoked.rows_affected() == 1)
    }

    /// Uses a claim up by one and makes a node of the box, or does neither. `issue` makes the certificate and says until when it
    /// is good. A box that asks again with the same claim and key, because the answer was lost, is the same node.
    ///
    /// # Errors
    /// When the claim does not let in, `issue` refuses, or the database fails.
    pub async fn enrol<F>(&self, admission: &Admission<'_>, issue: F) -> Result<Joined, EnrolFault>
    where
        F: FnOnce(&NodeId) -> Result<(String, u64), sedge_provisioning::issuer::IssueError>,
    {
        let mut transaction = self.write().await.map_err(StoreError::from)?;
        let claim = presented(&mut transaction, admission).await?.ok_or(ClaimRefusal::Unknown)?;
        let key = admission.key.to_string();
        let barred = barred_ms(&mut transaction, &key).await?;
        if barred.is_some_and(|barred_ms| claim.created_ms < barred_ms) {
            return Err(ClaimRefusal::Barred.into());
        }
        let known = known(&mut transaction, &key).await?;
        if let Some((node, _, _)) = known.as_ref().filter(|(_, by, _)| *by == claim.id) {
            let (certificate, until_ms) = issue(node)?;
            certified(&mut transaction, node, until_ms).await?;
            transaction.commit().await.map_err(StoreError::from)?;
            return Ok(Joined { node: node.clone(), certificate, changed: Vec::new(), replaced: false, left: None });
        }
        use_up(&mut transaction, &claim, admission.now_ms).await?;
        unbar(&mut transaction, &key).await?;
        let mut left = None;
        let (node, replaced) = match replaced(&mut transaction, &claim).await? {
            Some(node) => {
                if let Some((former, _, _)) = known.filter(|(former, _, _)| *former != node) {
                    forget(&mut transaction, &former).await?;
                    left = Some(former);
                }
                let other = hand_over(&mut transaction, &node, &key, admission.now_ms).await?;
                move_in(&mut transaction, (&node, Some(claim.standing())), &claim, admission).await?;
                (node, other)
            }
            None => match known {
                Some((node, _, standing)) => {
                    // What an operator decided about the key outlives a new claim, but a revocation: that the claim is newer than.
                    let standing = standing.is_revoked().then(|| claim.standing());
                    move_in(&mut transaction, (&node, standing), &claim, admission).await?;
                    (node, false)
                }
                None => (insert(&mut transaction, &claim, admission).await?, false),
            },
        };
        let (certificate, until_ms) = issue(&node)?;
        certified(&mut transaction, &node, until_ms).await?;
        let changed = reconcile(&mut transaction, Some(&node)).await?;
        transaction.commit().await.map_err(StoreError::from)?;
        Ok(Joined { node, certificate, changed, replaced, left })
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

async fn presented(transaction: &mut Transaction<'_, Any>, admission: &Admission<'_>) -> Result<Option<Presented>, StoreError> {
    let row = sqlx::query("SELECT id, labels, created_ms, expires_ms, revoked_ms, approval, replaces FROM claims WHERE token_digest = $1")
        .bind(admission.token.to_string())
        .fetch_optional(&mut **transaction)
        .await?;
    row.map(|row| {
        let mut columns = Columns::of(&row);
        Ok(Presented {
            id: columns.text()?,
            labels: columns.json("claim's labels")?,
            created_ms: columns.number()?,
            expires_ms: columns.number()?,
            revoked: columns.number()? > 0,
            approval: columns.number()? == 1,
            replaces: columns.optional("node id")?,
        })
    })
    .transpose()
}

/// The node that has this key, the claim it came with, and how it stands.
async fn known(transaction: &mut Transaction<'_, Any>, key: &str) -> Result<Option<(NodeId, String, Standing)>, StoreError> {
    let row = sqlx::query("SELECT id, claim, standing FROM nodes WHERE key_digest = $1 ORDER BY enrolled_ms DESC LIMIT 1")
        .bind(key)
        .fetch_optional(&mut **transaction)
        .await?;
    row.map(|row| {
        let mut columns = Columns::of(&row);
        Ok((columns.parse("node id")?, columns.text()?, columns.json("standing")?))
    })
    .transpose()
}

/// Compare and set: of two boxes that race for the last use, one gets it.
async fn use_up(transaction: &mut Transaction<'_, Any>, claim: &Presented, now_ms: u64) -> Result<(), EnrolFault> {
    let used = sqlx::query("UPDATE claims SET used = used + 1 WHERE id = $1 AND used < uses AND expires_ms > $2 AND revoked_ms = 0")
        .bind(&claim.id)
        .bind(big(now_ms))
        .execute(&mut **transaction)
        .await
        .map_err(StoreError::from)?;
    match used.rows_affected() {
        1 => Ok(()),
        _ if claim.revoked => Err(ClaimRefusal::Revoked.into()),
        _ if claim.expires_ms <= now_ms => Err(ClaimRefusal::Expired.into()),
        _ => Err(ClaimRefusal::UsedUp.into()),
    }
}

/// The node that the claim replaces, while there is one.
async fn replaced(transaction: &mut Transaction<'_, Any>, claim: &Presented) -> Result<Option<NodeId>, StoreError> {
    let Some(node) = &claim.replaces else { return Ok(None) };
    let row = sqlx::query("SELECT id FROM nodes WHERE id = $1").bind(node.as_str()).fetch_optional(&mut **transaction).await?;
    Ok(row.map(|_| node.clone()))
}

/// Gives an entry to another key and bars the former one; answers whether it was another.
async fn hand_over(transaction: &mut Transaction<'_, Any>, node: &NodeId, key: &str, now_ms: u64) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT key_digest FROM nodes WHERE id = $1").bind(node.as_str()).fetch_one(&mut **transaction).await?;
    let former = Columns::of(&row).text()?;
    if former == key {
        return Ok(false);
    }
    bar(transaction, &former, now_ms).await?;
    sqlx::query("UPDATE nodes SET key_digest = $1 WHERE id = $2").bind(key).bind(node.as_str()).execute(&mut **transaction).await?;
    Ok(true)
}

/// Notes on an entry that is there with which claim it was taken. Labels of the former claim stay where the new one says nothing.
async fn move_in(
    transaction: &mut Transaction<'_, Any>,
    (node, standing): (&NodeId, Option<Standing>),
    claim: &Presented,
    admission: &Admission<'_>,
) -> Result<(), StoreError> {
    let row = sqlx::query("SELECT claim_labels, standing, standing_ms FROM nodes WHERE id = $1")
        .bind(node.as_str())
        .fetch_one(&mut **transaction)
        .await?;
    let mut columns = Columns::of(&row);
    let mut labels: Labels = columns.json("node's labels")?;
    labels.extend(&claim.labels);
    let (before, since_ms): (Standing, u64) = (columns.json("standing")?, columns.number()?);
    let (standing, since_ms) = match standing {
        Some(standing) if standing != before => (standing, admission.now_ms),
        Some(_) | None => (before, since_ms),
    };
    sqlx::query(
        "UPDATE nodes SET claim = $1, claim_labels = $2, own_labels = $3, standing = $4, standing_ms = $5, enrolled_ms = $6 WHERE id = $7",
    )
    .bind(&claim.id)
    .bind(to_json(&labels))
    .bind(to_json(admission.labels))
    .bind(to_json(&standing))
    .bind(big(since_ms))
    .bind(big(admission.now_ms))
    .bind(node.as_str())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Makes a new entry under a name that is free.
async fn insert(transaction: &mut Transaction<'_, Any>, claim: &Presented, admission: &Admission<'_>) -> Result<NodeId, StoreError> {
    let node = free_name(transaction, admission.name).await?;
    sqlx::query(
        "INSERT INTO nodes (id, claim, key_digest, claim_labels, own_labels, daemon, architecture, enrolled_ms, certificate_until_ms, \
         seen_ms, desired_epoch, desired, report, standing, standing_ms) VALUES ($1, $2, $3, $4, $5, '', '', $6, 0, 0, 0, '{}', '{}', $7, $6)",
    )
    .bind(node.as_str())
    .bind(&claim.id)
    .bind(admission.key.to_string())
    .bind(to_json(&claim.labels))
    .bind(to_json(admission.labels))
    .bind(big(admission.now_ms))
    .bind(to_json(&claim.standing()))
    .execute(&mut **transaction)
    .await?;
    Ok(node)
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
