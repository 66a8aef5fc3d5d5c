//! Sign-ins of the console. Only digests of their cookies are kept.

use super::{Columns, Store, StoreError, big};
use crate::limits::SESSIONS_MAX;
use sedge_protocol::Digest;

/// One sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Must come back with every form that changes something.
    pub csrf: String,
    /// When it ends.
    pub expires_ms: u64,
}

impl Store {
    /// Keeps a sign-in and forgets the oldest above the bound.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sign_in(&self, token: Digest, session: &Session, now_ms: u64) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query("INSERT INTO sessions (token_digest, csrf, expires_ms) VALUES ($1, $2, $3)")
            .bind(token.to_string())
            .bind(&session.csrf)
            .bind(big(session.expires_ms))
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "DELETE FROM sessions WHERE expires_ms <= $1 OR expires_ms < (SELECT expires_ms FROM sessions ORDER BY expires_ms DESC LIMIT 1 OFFSET $2)",
        )
        .bind(big(now_ms))
        .bind(big(SESSIONS_MAX - 1))
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    /// The sign-in with this cookie, if it is still good.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn session(&self, token: Digest, now_ms: u64) -> Result<Option<Session>, StoreError> {
        let row = sqlx::query("SELECT csrf, expires_ms FROM sessions WHERE token_digest = $1 AND expires_ms > $2")
            .bind(token.to_string())
            .bind(big(now_ms))
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| {
            let mut columns = Columns::of(&row);
            Ok(Session { csrf: columns.text()?, expires_ms: columns.number()? })
        })
        .transpose()
    }

    /// Ends a sign-in.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sign_out(&self, token: Digest) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        sqlx::query("DELETE FROM sessions WHERE token_digest = $1").bind(token.to_string()).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }
}
