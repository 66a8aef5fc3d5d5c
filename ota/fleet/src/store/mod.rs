//! The fleet's memory: SQLite by default, PostgreSQL with the same statements.
//!
//! Every mutation is one short transaction, and each may happen twice. Only BIGINT and TEXT are used.

mod claim;
mod history;
mod image;
mod node;
mod revision;
mod rollout;
mod session;
mod standing;
mod usage;

pub use claim::{Admission, ClaimRefusal, EnrolFault, Joined};
pub use image::{ImageFault, ImageRolloutRow, WantedRollout};
pub use node::NodeRow;
pub use revision::FunctionRow;
pub use rollout::{Changed, RolloutFault, RolloutRow};
pub use session::Session;
pub use standing::{Entry, NodeFault};
pub use usage::{UsageFault, UsageFilter};

use crate::limits::{DATABASE_CONNECTIONS, DATABASE_WAIT};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::migrate::Migrator;
use sqlx::{Any, AnyPool, Row, Transaction};
use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be opened.
    #[error("open the database")]
    Open(#[source] sqlx::Error),
    /// The database cannot be brought to this version.
    #[error("bring the database to this version")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A statement failed.
    #[error("the database")]
    Statement(#[from] sqlx::Error),
    /// What stands in the database is not what this version writes.
    #[error("the database holds a {what} that cannot be read: {cause}")]
    Corrupt {
        /// Which column.
        what: &'static str,
        /// Why not.
        cause: String,
    },
}

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: AnyPool,
    begin: &'static str,
}

impl Store {
    /// Opens or creates the SQLite database `path`.
    ///
    /// # Errors
    /// When it cannot be opened or is of a newer version.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let mut name = String::new();
        for byte in path.to_string_lossy().bytes() {
            match byte {
                b'%' | b'?' | b'#' | b' ' => name.push_str(&format!("%{byte:02x}")),
                _ => name.push(char::from(byte)),
            }
        }
        Self::connect(&format!("sqlite://{name}?mode=rwc")).await
    }

    /// Connects to the database at `url`: `sqlite://…` or `postgres://…`.
    ///
    /// # Errors
    /// When it cannot be reached or is of a newer version.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let sqlite = url.starts_with("sqlite:");
        let mut options = AnyPoolOptions::new().max_connections(DATABASE_CONNECTIONS).acquire_timeout(DATABASE_WAIT);
        if sqlite {
            options = options.after_connect(|connection, _| {
                Box::pin(async move {
                    // FULL: what was acknowledged survives a power cut.
                    for pragma in ["PRAGMA busy_timeout = 10000", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"] {
                        sqlx::query(pragma).execute(&mut *connection).await?;
                    }
                    Ok(())
                })
            });
        }
        let pool = options.connect(url).await.map_err(StoreError::Open)?;
        MIGRATIONS.run(&pool).await.map_err(StoreError::Migrate)?;
        // A transaction that begins by reading could not become a writing one in SQLite.
        Ok(Self { pool, begin: if sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" } })
    }

    /// Ends all connections; what was answered is on disk already.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Begins a transaction that writes.
    async fn write(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.pool.begin_with(self.begin).await
    }
}

/// Reads one row, column after column.
struct Columns<'a> {
    row: &'a AnyRow,
    at: usize,
}

impl<'a> Columns<'a> {
    fn of(row: &'a AnyRow) -> Self {
        Self { row, at: 0 }
    }

    fn text(&mut self) -> Result<String, StoreError> {
        self.at += 1;
        Ok(self.row.try_get(self.at - 1)?)
    }

    fn number(&mut self) -> Result<u64, StoreError> {
        self.at += 1;
        Ok(u64::try_from(self.row.try_get::<i64, _>(self.at - 1)?).unwrap_or(0))
    }

    /// A text in its parsed form.
    fn parse<T: FromStr<Err: Display>>(&mut self, what: &'static str) -> Result<T, StoreError> {
        self.text()?.parse().map_err(|cause: T::Err| StoreError::Corrupt { what, cause: cause.to_string() })
    }

    /// The same, none when it is empty.
    fn optional<T: FromStr<Err: Display>>(&mut self, what: &'static str) -> Result<Option<T>, StoreError> {
        let text = self.text()?;
        let parse = |text: String| text.parse().map_err(|cause: T::Err| StoreError::Corrupt { what, cause: cause.to_string() });
        Some(text).filter(|text| !text.is_empty()).map(parse).transpose()
    }

    fn json<T: DeserializeOwned>(&mut self, what: &'static str) -> Result<T, StoreError> {
        from_json(&self.text()?, what)
    }
}

fn from_json<T: DeserializeOwned>(text: &str, what: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|cause| StoreError::Corrupt { what, cause: cause.to_string() })
}

fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("the protocol's types serialise")
}

/// A number as both databases keep it; what is too large stays at the largest.
fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
