//! The production store: PostgreSQL, behind a spool.
//!
//! A bounded pool that connects when it is asked and again after every loss: a server that is away makes calls fail as
//! transient, never the store. Tables whose rows age are cut up by time (`layout`, `partitions`); what is written follows
//! from the declared schemas.

mod bind;
mod classify;
mod connect;
mod encode;
mod expire;
mod export;
mod facts;
mod gaps;
mod history;
mod layout;
mod migrate;
mod newest;
mod partitions;
mod rollup;
mod row;
mod statements;
mod trade_bars;
mod validate;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use fathom_market::{batch::Batch, table::Table};
use sqlx::{PgPool, postgres::PgArguments};

pub use connect::{PostgresConfig, Timescale};
use layout::Shape;
use newest::Newest;
use partitions::Partitions;
use writer::Writer;

use crate::{
    check::Check,
    error::StoreError,
    export::{Page, Span},
    read::History,
    sqlite::health::Health,
    store::{Fact, Retention, Store, StoreStatus, WriteOutcome},
    trade_bars::Interval,
};

/// A PostgreSQL database as a store.
#[derive(Debug)]
pub struct PostgresStore {
    pool: PgPool,
    writer: Writer,
    partitions: Partitions,
    newest: Newest,
    timescale: Timescale,
    shape: OnceLock<Shape>,
    /// Bytes of the database when they were last asked for; 0 before.
    bytes: AtomicU64,
    health: Health,
}

impl PostgresStore {
    /// A store that connects when it is first asked. The schema is not touched: see [`Store::migrate`].
    ///
    /// # Errors
    /// When the URL is none of PostgreSQL.
    #[allow(clippy::unused_async, reason = "opened like the other stores")]
    pub async fn open(config: &PostgresConfig) -> Result<Self, StoreError> {
        Ok(Self {
            pool: connect::pool(config)?,
            writer: Writer::default(),
            partitions: Partitions::default(),
            newest: Newest::default(),
            timescale: config.timescale,
            shape: OnceLock::new(),
            bytes: AtomicU64::new(0),
            health: Health::default(),
        })
    }

    async fn measure(&self) -> Result<(), StoreError> {
        let sql = "select pg_database_size(current_database()) as bytes".to_owned();
        let rows = self.fetch(sql, PgArguments::default()).await?;
        let bytes: i64 = rows.first().map_or(Ok(0), |row| row::value(row, "bytes"))?;
        self.bytes.store(bytes.unsigned_abs(), Ordering::Relaxed);
        Ok(())
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn write(&self, batch: &Batch) -> WriteOutcome {
        if batch.is_empty() {
            return WriteOutcome::Committed { inserted: 0, duplicate: 0 };
        }
        let misfits = encode::misfits(batch);
        if !misfits.is_empty() {
            return WriteOutcome::Poison { rows: misfits };
        }
        let outcome = self.writer.write(&self.pool, &self.partitions, batch).await;
        // Before anybody is told; a lost answer may have been a commit too.
        self.newest.wrote(batch);
        self.health.note_write(&outcome);
        outcome
    }

    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        let migrated = migrate::migrate(&self.pool, &self.partitions, self.timescale).await;
        let (added, shape) = self.health.note(migrated)?;
        // Set once: the shape of a database does not change.
        let _ = self.shape.set(shape);
        Ok(added)
    }

    async fn expire(
        &self,
        retention: &[Retention],
        now_us: i64,
        limit: u64,
    ) -> Result<Vec<(Table, u64)>, StoreError> {
        let removed = expire::expire(&self.pool, &self.partitions, retention, now_us, limit).await;
        let removed = self.health.note(removed)?;
        self.measure().await?;
        Ok(removed)
    }

    async fn roll_up(&self, limit: u64) -> Result<u64, StoreError> {
        let hours = self.health.note(rollup::roll_up(&self.pool, i64::MAX, limit).await)?;
        let gaps = self.health.note(trade_bars::roll_up(&self.pool, limit.saturating_sub(hours)).await)?;
        Ok(hours + gaps)
    }

    async fn recompute_trade_bars(
        &self,
        instrument_id: i64,
        from_us: i64,
        to_us: i64,
    ) -> Result<u64, StoreError> {
        let repaired = Interval { from_us, to_us };
        self.health.note(trade_bars::recompute(&self.pool, instrument_id, repaired).await)
    }

    async fn validate(&self) -> Result<Vec<Check>, StoreError> {
        self.health.note(self.checks().await)
    }

    async fn export(&self, page: &Page) -> Result<Batch, StoreError> {
        self.page(page).await
    }

    async fn count_in(&self, table: Table, span: Span) -> Result<u64, StoreError> {
        self.rows_in(table, span).await
    }

    async fn facts(&self) -> Result<Vec<Fact>, StoreError> {
        self.tell().await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.fetch("select 1".to_owned(), PgArguments::default()).await.map(|_| ())
    }

    fn status(&self) -> StoreStatus {
        let (reachable, last_error) = self.health.read();
        let bytes = Some(self.bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0);
        let kind = self.shape.get().copied().unwrap_or(Shape::Partitions).store();
        StoreStatus { kind, reachable, bytes, last_error }
    }

    fn history(&self) -> &dyn History {
        self
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
