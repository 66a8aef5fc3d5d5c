//! Functions and their revisions.

use super::{Columns, Store, StoreError, big, to_json};
use sedge_protocol::api::Revision;
use sedge_protocol::{FunctionName, RevisionId};
use sqlx::any::AnyRow;

/// One function as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRow {
    /// Its name.
    pub name: FunctionName,
    /// Its newest revision.
    pub newest: RevisionId,
    /// Number of revisions.
    pub revisions: u64,
    /// Whether it was taken off every node.
    pub removed: bool,
}

const COLUMNS: &str = "id, function, artifact, size, kind, created_ms, manifest";

fn revision_of(row: &AnyRow) -> Result<Revision, StoreError> {
    let mut columns = Columns::of(row);
    Ok(Revision {
        id: columns.parse("revision")?,
        function: columns.parse("function name")?,
        artifact: columns.parse("digest")?,
        size: columns.number()?,
        kind: columns.json("kind")?,
        created_ms: columns.number()?,
        manifest: columns.json("manifest")?,
    })
}

impl Store {
    /// Keeps a revision and makes it the newest of its function. One that is kept already stays as it is, and becomes the newest again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn publish(&self, revision: &Revision) -> Result<Revision, StoreError> {
        let mut transaction = self.write().await?;
        let last = sqlx::query("SELECT COALESCE(MAX(number), 0) FROM revisions WHERE function = $1")
            .bind(revision.function.as_str())
            .fetch_one(&mut *transaction)
            .await?;
        sqlx::query(
            "INSERT INTO revisions (id, function, number, artifact, size, kind, created_ms, manifest) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(revision.id.to_string())
        .bind(revision.function.as_str())
        .bind(big(Columns::of(&last).number()? + 1))
        .bind(revision.artifact.to_string())
        .bind(big(revision.size))
        .bind(to_json(&revision.kind))
        .bind(big(revision.created_ms))
        .bind(to_json(&revision.manifest))
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "INSERT INTO functions (name, newest, removed) VALUES ($1, $2, 0) ON CONFLICT (name) DO UPDATE SET newest = excluded.newest, removed = 0",
        )
        .bind(revision.function.as_str())
        .bind(revision.id.to_string())
        .execute(&mut *transaction)
        .await?;
        let statement = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM revisions WHERE id = $1"));
        let row = sqlx::query(statement).bind(revision.id.to_string()).fetch_one(&mut *transaction).await?;
        let kept = revision_of(&row)?;
        transaction.commit().await?;
        Ok(kept)
    }

    /// The revisions of a function, the newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revisions(&self, function: &FunctionName) -> Result<Vec<Revision>, StoreError> {
        let statement = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM revisions WHERE function = $1 ORDER BY number DESC LIMIT 1000"));
        sqlx::query(statement).bind(function.as_str()).fetch_all(&self.pool).await?.iter().map(revision_of).collect()
    }

    /// All functions in the order of their names, removed ones too.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn functions(&self) -> Result<Vec<FunctionRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT f.name, f.newest, f.removed, COUNT(r.id) FROM functions f JOIN revisions r ON r.function = f.name \
             GROUP BY f.name, f.newest, f.removed ORDER BY f.name",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let mut columns = Columns::of(row);
                let (name, newest) = (columns.parse("function name")?, columns.parse("revision")?);
                Ok(FunctionRow { name, newest, removed: columns.number()? == 1, revisions: columns.number()? })
            })
            .collect()
    }
}
