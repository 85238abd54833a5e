//! The records of a spool: one a batch, with a checksum, in the order of their acceptance.

use fathom_market::batch::Batch;
use sqlx::{Row as _, SqliteConnection, SqlitePool, sqlite::SqliteRow};

/// The record that is next.
pub(super) struct Record {
    pub(super) seq: i64,
    pub(super) table: String,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) accepted_us: i64,
    pub(super) body: Vec<u8>,
    crc: i64,
}

impl Record {
    /// The batch, or why there is none.
    pub(super) fn batch(&self) -> Result<Batch, String> {
        let crc = checksum(&self.body);
        if crc != self.crc {
            return Err(format!("checksum {crc:08x} instead of {:08x}", self.crc));
        }
        Batch::decode(&self.body).map_err(|error| error.to_string())
    }

    fn read(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            seq: row.try_get(0)?,
            table: row.try_get(1)?,
            rows: u64::try_from(row.try_get::<i64, _>(2)?).unwrap_or_default(),
            bytes: u64::try_from(row.try_get::<i64, _>(3)?).unwrap_or_default(),
            accepted_us: row.try_get(4)?,
            crc: row.try_get(5)?,
            body: row.try_get(6)?,
        })
    }
}

/// CRC32, as of zlib and PNG.
fn checksum(body: &[u8]) -> i64 {
    i64::from(crc32fast::hash(body))
}

/// Appends a batch.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    batch: &Batch,
    body: Vec<u8>,
    now_us: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into spool (table_name, rows, bytes, accepted_us, crc, body) values (?, ?, ?, ?, ?, ?)",
    )
    .bind(batch.schema().name)
    .bind(batch.len() as i64)
    .bind(body.len() as i64)
    .bind(now_us)
    .bind(checksum(&body))
    .bind(body)
    .execute(connection)
    .await
    .map(|_| ())
}

/// The oldest record.
pub(super) async fn first(readers: &SqlitePool) -> Result<Option<Record>, sqlx::Error> {
    let row = sqlx::query(
        "select seq, table_name, rows, bytes, accepted_us, crc, body from spool order by seq limit 1",
    )
    .fetch_optional(readers)
    .await?;
    row.as_ref().map(Record::read).transpose()
}

/// The records of a table, in their order.
pub(super) async fn of(readers: &SqlitePool, table: &str) -> Result<Vec<Record>, sqlx::Error> {
    let rows = sqlx::query(
        "select seq, table_name, rows, bytes, accepted_us, crc, body from spool where table_name = ? order by seq",
    )
    .bind(table)
    .fetch_all(readers)
    .await?;
    rows.iter().map(Record::read).collect()
}

/// Removes a record. False when it has gone already.
pub(super) async fn delete(connection: &mut SqliteConnection, seq: i64) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("delete from spool where seq = ?").bind(seq).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

/// When the oldest record was accepted.
pub(super) async fn oldest(connection: &mut SqliteConnection) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar("select accepted_us from spool order by seq limit 1").fetch_optional(connection).await
}

/// Records, rows, bytes, and when the oldest was accepted.
pub(super) async fn held(
    connection: &mut SqliteConnection,
) -> Result<(u64, u64, u64, Option<i64>), sqlx::Error> {
    let row = sqlx::query(
        "select count(*), coalesce(sum(rows), 0), coalesce(sum(bytes), 0), min(accepted_us) from spool",
    )
    .fetch_one(connection)
    .await?;
    let count = |at: usize| row.try_get::<i64, _>(at).map(|count| u64::try_from(count).unwrap_or_default());
    Ok((count(0)?, count(1)?, count(2)?, row.try_get(3)?))
}
