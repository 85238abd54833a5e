//! The embedded store: one SQLite file in WAL mode, one connection that writes, a bounded pool that reads.
//!
//! A commit is the acceptance: what [`Store::write`] has answered `Committed` for outlives the process. Nothing here knows a
//! table by name except the questions of [`crate::read::History`]; what is written follows from the declared schemas.

pub(crate) mod bind;
pub(crate) mod books;
pub(crate) mod classify;
pub(crate) mod connect;
mod expire;
mod export;
mod facts;
mod gaps;
pub(crate) mod health;
mod history;
pub(crate) mod ledger;
pub(crate) mod migrate;
mod rollup;
mod row;
mod statements;
mod trade_bars;
mod validate;
pub(crate) mod writer;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use fathom_market::{batch::Batch, mark::StreamMark, table::Table};
use sqlx::{SqlitePool, sqlite::SqliteArguments};

use books::Books;
use connect::WriterOptions;
pub use connect::{Durability, SqliteConfig};
use health::Health;
use writer::Writer;

use crate::{
    account::{Accepted, Accounts, Offered, Opening, QuarantineQuery, QuarantinedRow, Resent, SpoolStatus},
    check::Check,
    error::StoreError,
    export::{Page, Span},
    read::History,
    store::{Fact, Retention, Sink, Store, StoreStatus, WriteOutcome},
    trade_bars::Interval,
};

/// A SQLite file as a store.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    writer: Writer,
    readers: SqlitePool,
    health: Health,
    books: Books,
}

impl SqliteStore {
    /// Opens the file, making it and its directory where missing. The schema is not touched: see [`Store::migrate`].
    ///
    /// # Errors
    /// When the file cannot be made, opened or locked, or is not a database.
    pub async fn open(config: &SqliteConfig) -> Result<Self, StoreError> {
        Self::open_with(config, &[]).await
    }

    /// Opens with settings of the writing connection on top of the usual ones.
    async fn open_with(
        config: &SqliteConfig,
        extra: &[(&'static str, &'static str)],
    ) -> Result<Self, StoreError> {
        connect::make_parent(&config.path)?;
        let options = WriterOptions::new(config, extra);
        let connection =
            options.connect().await.map_err(|error| connect::open_error(&config.path, &error))?;
        Ok(Self {
            path: config.path.clone(),
            writer: Writer::new(options, connection),
            readers: connect::readers(config),
            health: Health::default(),
            books: Books::new(config.quarantine),
        })
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn write(&self, batch: &Batch) -> WriteOutcome {
        if batch.is_empty() {
            return WriteOutcome::Committed { inserted: 0, duplicate: 0 };
        }
        let misfits = bind::misfits(batch);
        if !misfits.is_empty() {
            return WriteOutcome::Poison { rows: misfits };
        }
        let outcome = self.writer.write(batch).await;
        self.health.note_write(&outcome);
        outcome
    }

    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        self.health.note(migrate::migrate(&self.writer).await)
    }

    async fn expire(
        &self,
        retention: &[Retention],
        now_us: i64,
        limit: u64,
    ) -> Result<Vec<(Table, u64)>, StoreError> {
        self.health.note(expire::expire(&self.writer, retention, now_us, limit).await)
    }

    async fn export(&self, page: &Page) -> Result<Batch, StoreError> {
        self.page(page).await
    }

    async fn count_in(&self, table: Table, span: Span) -> Result<u64, StoreError> {
        self.rows_in(table, span).await
    }

    async fn roll_up(&self, limit: u64) -> Result<u64, StoreError> {
        let hours = self.health.note(rollup::roll_up(&self.writer, i64::MAX, limit).await)?;
        let gaps = self.health.note(trade_bars::roll_up(&self.writer, limit.saturating_sub(hours)).await)?;
        Ok(hours + gaps)
    }

    async fn recompute_trade_bars(
        &self,
        instrument_id: i64,
        from_us: i64,
        to_us: i64,
    ) -> Result<u64, StoreError> {
        let repaired = Interval { from_us, to_us };
        self.health.note(trade_bars::recompute(&self.writer, instrument_id, repaired).await)
    }

    async fn validate(&self) -> Result<Vec<Check>, StoreError> {
        self.health.note(self.checks().await)
    }

    async fn facts(&self) -> Result<Vec<Fact>, StoreError> {
        self.tell().await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let sql = "select count(*) from sqlite_schema".to_owned();
        self.fetch(sql, SqliteArguments::default()).await.map(|_| ())
    }

    fn status(&self) -> StoreStatus {
        let (reachable, last_error) = self.health.read();
        StoreStatus { kind: "sqlite", reachable, bytes: bytes_on_disk(&self.path), last_error }
    }

    fn history(&self) -> &dyn History {
        self
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

#[async_trait]
impl Sink for SqliteStore {
    async fn marks(&self) -> Result<Vec<StreamMark>, StoreError> {
        self.books.marks(&self.readers).await
    }

    fn accounts(&self) -> &dyn Accounts {
        self
    }
}

#[async_trait]
impl Accounts for SqliteStore {
    async fn open(&self) -> Result<Opening, StoreError> {
        self.books.open(&self.readers).await
    }

    async fn accept(&self, batch: &Batch, offered: &[(Table, Offered)]) -> WriteOutcome {
        let misfits = bind::misfits(batch);
        if !misfits.is_empty() {
            return WriteOutcome::Poison { rows: misfits };
        }
        let outcome = self.writer.accept(batch, offered, &self.books.ledger).await;
        self.health.note_write(&outcome);
        outcome
    }

    async fn quarantine(
        &self,
        batch: &Batch,
        errors: &[String],
        offered: &[(Table, Offered)],
        now_us: i64,
    ) -> Result<bool, StoreError> {
        let put = self.books.quarantine(&self.writer, batch, errors, offered, now_us).await;
        self.health.note(put)
    }

    async fn record(&self, offered: &[(Table, Offered)]) -> Result<(), StoreError> {
        self.books.record(&self.writer, offered).await
    }

    async fn quarantined(&self, query: &QuarantineQuery) -> Result<Vec<QuarantinedRow>, StoreError> {
        self.books.quarantined(&self.readers, query).await
    }

    async fn resend(&self, id: i64) -> Result<Resent, StoreError> {
        let mut lease = self.writer.lease().await?;
        let resent = lease.resend(id, &self.books.ledger).await;
        let resent = resent.map_err(|error| classify::store_error(&error).while_doing("quarantine"))?;
        lease.give_back();
        Ok(resent)
    }

    async fn discard(&self, id: i64) -> Result<bool, StoreError> {
        self.books.discard(&self.writer, id).await
    }

    fn accepted(&self) -> BTreeMap<Table, Accepted> {
        self.books.accepted()
    }

    fn spool(&self) -> Option<SpoolStatus> {
        None
    }
}

/// The file and its write-ahead log.
pub(crate) fn bytes_on_disk(path: &Path) -> Option<u64> {
    let main = std::fs::metadata(path).ok()?.len();
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    Some(main + std::fs::metadata(log).map_or(0, |log| log.len()))
}
