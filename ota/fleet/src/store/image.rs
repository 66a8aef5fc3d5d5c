//! Images of the operating system, and the rollouts that move nodes to them.

use super::rollout::{Changed, RolloutFault, reconcile};
use super::{Columns, Store, StoreError, big, to_json};
use sedge_fleet_core::{Filter, FilterError, ImageRollout};
use sedge_protocol::api::Image;
use sedge_protocol::image::{ImageAssignment, ImageVersion, Restart};
use sqlx::any::AnyRow;
use sqlx::{Any, Transaction};

/// Why an image is not published or rolled out.
#[derive(Debug, thiserror::Error)]
pub enum ImageFault {
    /// The version is another bundle already.
    #[error("version {version} for {board} is published already, as another bundle: a version never changes, publish the next one")]
    Taken {
        /// Board.
        board: String,
        /// Version.
        version: ImageVersion,
    },
    /// It is not here.
    #[error("there is no image {0}")]
    Unknown(ImageVersion),
    /// It is not here for this board.
    #[error("there is no image {version} for {board}, only for {}", .boards.join(" and "))]
    Board {
        /// Version.
        version: ImageVersion,
        /// The board that was named.
        board: String,
        /// Boards that have it.
        boards: Vec<String>,
    },
    /// There is no such rollout.
    #[error("there is no rollout {0} of an image")]
    NoRollout(String),
    /// It is not clear which.
    #[error("version {version} is there for {}: name one", .boards.join(" and "))]
    Boards {
        /// Version.
        version: ImageVersion,
        /// Boards that have it.
        boards: Vec<String>,
    },
    /// What would follow for nodes.
    #[error(transparent)]
    Rollout(#[from] RolloutFault),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ImageFault {
    fn from(cause: sqlx::Error) -> Self {
        Self::Store(cause.into())
    }
}

/// One rollout as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRolloutRow {
    /// What it does.
    pub rollout: ImageRollout,
    /// Its public id.
    pub id: String,
    /// When nodes may restart.
    pub restart: Restart,
    /// When it was made.
    pub created_ms: u64,
}

/// A rollout that is asked for.
#[derive(Debug)]
pub struct WantedRollout<'a> {
    /// Its public id.
    pub id: &'a str,
    /// Which version.
    pub version: &'a ImageVersion,
    /// For which board; the only one there is when absent.
    pub board: Option<&'a str>,
    /// Which nodes.
    pub filter: &'a Filter,
    /// When they may restart.
    pub restart: Restart,
    /// Whether they keep it without having reached the fleet.
    pub offline: bool,
}

const IMAGE_COLUMNS: &str = "board, version, artifact, size, head, signers, created_ms";
const COLUMNS: &str = "number, id, board, version, filter, restart, created_ms, stopped_ms";

fn image_of(row: &AnyRow) -> Result<Image, StoreError> {
    let mut columns = Columns::of(row);
    Ok(Image {
        board: columns.text()?,
        version: columns.parse("image version")?,
        artifact: columns.parse("digest")?,
        size: columns.number()?,
        head: columns.number()?,
        signers: columns.json("signers")?,
        created_ms: columns.number()?,
    })
}

impl ImageRolloutRow {
    fn of(row: &AnyRow) -> Result<Self, StoreError> {
        let mut columns = Columns::of(row);
        let (number, id, board, version) = (columns.number()?, columns.text()?, columns.text()?, columns.parse("image version")?);
        let corrupt = |cause: FilterError| StoreError::Corrupt { what: "filter", cause: cause.to_string() };
        let filter: Filter = columns.text()?.parse().map_err(corrupt)?;
        let (restart, created_ms) = (columns.parse("time to restart")?, columns.number()?);
        let rollout = ImageRollout { number, board, version, filter, stopped: columns.number()? > 0 };
        Ok(Self { rollout, id, restart, created_ms })
    }
}

impl Store {
    /// Keeps an image whose bundle is here. The same again changes nothing.
    ///
    /// # Errors
    /// When the version is another bundle already, or the database fails.
    pub async fn publish_image(&self, image: &Image) -> Result<Image, ImageFault> {
        let mut transaction = self.write().await?;
        let statement = sqlx::AssertSqlSafe(format!("SELECT {IMAGE_COLUMNS} FROM images WHERE board = $1 AND version = $2"));
        let known = sqlx::query(statement).bind(&image.board).bind(image.version.to_string()).fetch_optional(&mut *transaction).await?;
        if let Some(row) = known {
            let known = image_of(&row)?;
            let taken = || ImageFault::Taken { board: image.board.clone(), version: image.version.clone() };
            return if known.artifact == image.artifact { Ok(known) } else { Err(taken()) };
        }
        sqlx::query("INSERT INTO images (board, version, artifact, size, head, signers, created_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)")
            .bind(&image.board)
            .bind(image.version.to_string())
            .bind(image.artifact.to_string())
            .bind(big(image.size))
            .bind(big(image.head))
            .bind(to_json(&image.signers))
            .bind(big(image.created_ms))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(image.clone())
    }

    /// All images, the newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn images(&self) -> Result<Vec<Image>, StoreError> {
        let statement = sqlx::AssertSqlSafe(format!("SELECT {IMAGE_COLUMNS} FROM images ORDER BY created_ms DESC, board LIMIT 200"));
        sqlx::query(statement).fetch_all(&self.pool).await?.iter().map(image_of).collect()
    }

    /// Moves the nodes of a board that match to an image. The rollout and every desired state that follows from it become durable together.
    ///
    /// # Errors
    /// When there is no such image, it is not clear for which board, or the database fails.
    pub async fn create_image_rollout(
        &self,
        wanted: &WantedRollout<'_>,
        now_ms: u64,
    ) -> Result<(ImageRolloutRow, Vec<Changed>), ImageFault> {
        let mut transaction = self.write().await?;
        let board = board_of(&mut transaction, wanted).await?;
        let last = sqlx::query("SELECT COALESCE(MAX(number), 0) FROM image_rollouts").fetch_one(&mut *transaction).await?;
        let number = Columns::of(&last).number()? + 1;
        sqlx::query(
            "INSERT INTO image_rollouts (number, id, board, version, filter, restart, offline, created_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(big(number))
        .bind(wanted.id)
        .bind(&board)
        .bind(wanted.version.to_string())
        .bind(wanted.filter.to_string())
        .bind(wanted.restart.to_string())
        .bind(i64::from(wanted.offline))
        .bind(big(now_ms))
        .execute(&mut *transaction)
        .await?;
        let changed = reconcile(&mut transaction, None).await?;
        transaction.commit().await?;
        let rollout = ImageRollout { number, board, version: wanted.version.clone(), filter: wanted.filter.clone(), stopped: false };
        Ok((ImageRolloutRow { rollout, id: wanted.id.to_owned(), restart: wanted.restart, created_ms: now_ms }, changed))
    }

    /// Stops a rollout: what it has not moved yet stays as it is. The same again changes nothing.
    ///
    /// # Errors
    /// When there is no such rollout, or the database fails.
    pub async fn stop_image_rollout(&self, id: &str, now_ms: u64) -> Result<(ImageRolloutRow, Vec<Changed>), ImageFault> {
        let mut transaction = self.write().await?;
        sqlx::query("UPDATE image_rollouts SET stopped_ms = $1 WHERE id = $2 AND stopped_ms = 0")
            .bind(big(now_ms.max(1)))
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        let statement = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM image_rollouts WHERE id = $1"));
        let row = sqlx::query(statement).bind(id).fetch_optional(&mut *transaction).await?;
        let row = row.ok_or_else(|| ImageFault::NoRollout(id.to_owned()))?;
        let row = ImageRolloutRow::of(&row)?;
        let changed = reconcile(&mut transaction, None).await?;
        transaction.commit().await?;
        Ok((row, changed))
    }

    /// All rollouts of images, the newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn image_rollouts(&self) -> Result<Vec<ImageRolloutRow>, StoreError> {
        let statement = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM image_rollouts ORDER BY number DESC LIMIT 200"));
        sqlx::query(statement).fetch_all(&self.pool).await?.iter().map(ImageRolloutRow::of).collect()
    }
}

/// The board that is meant.
async fn board_of(transaction: &mut Transaction<'_, Any>, wanted: &WantedRollout<'_>) -> Result<String, ImageFault> {
    let rows = sqlx::query("SELECT board FROM images WHERE version = $1 ORDER BY board")
        .bind(wanted.version.to_string())
        .fetch_all(&mut **transaction)
        .await?;
    let boards: Vec<String> = rows.iter().map(|row| Columns::of(row).text()).collect::<Result<_, _>>()?;
    match (boards.as_slice(), wanted.board) {
        (boards, Some(board)) if boards.iter().any(|known| known == board) => Ok(board.to_owned()),
        ([one], None) => Ok(one.clone()),
        ([], _) => Err(ImageFault::Unknown(wanted.version.clone())),
        (_, Some(board)) => Err(ImageFault::Board { version: wanted.version.clone(), board: board.to_owned(), boards }),
        (_, None) => Err(ImageFault::Boards { version: wanted.version.clone(), boards }),
    }
}

/// Every rollout, for who decides what nodes are told.
pub(super) async fn rollouts(transaction: &mut Transaction<'_, Any>) -> Result<Vec<ImageRollout>, StoreError> {
    let statement = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM image_rollouts ORDER BY number"));
    let rows = sqlx::query(statement).fetch_all(&mut **transaction).await?;
    rows.iter().map(|row| ImageRolloutRow::of(row).map(|row| row.rollout)).collect()
}

/// What a node is told of the image of a rollout.
pub(super) async fn assignment(connection: &mut sqlx::AnyConnection, number: u64) -> Result<Option<ImageAssignment>, StoreError> {
    let row = sqlx::query(
        "SELECT r.version, r.restart, r.offline, i.artifact, i.size, i.head FROM image_rollouts r \
         JOIN images i ON i.board = r.board AND i.version = r.version WHERE r.number = $1",
    )
    .bind(big(number))
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let mut columns = Columns::of(&row);
    Ok(Some(ImageAssignment {
        rollout: number,
        version: columns.parse("image version")?,
        restart: columns.parse("time to restart")?,
        offline: columns.number()? != 0,
        artifact: columns.parse("digest")?,
        size: columns.number()?,
        head: columns.number()?,
    }))
}
