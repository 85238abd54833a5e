//! MySQL and MariaDB: history, instruments, candles, snapshots, bars and the gap ledger, on servers that are there already.
//!
//! What a venue's tick archive needs is refused: see [`unsupported_tables`]. Nothing here knows a table by name except the
//! questions of [`crate::read::History`] and the list of what is refused; what is written follows from the declared schemas.
//! A server that is away is an error of each call that passes; nothing but an unusable URL keeps the store from opening.

mod bind;
mod classify;
mod connect;
mod expire;
mod export;
mod facts;
mod gaps;
mod history;
mod insert;
mod migrate;
mod rollup;
mod row;
mod statements;
mod value;
mod writer;

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use fathom_market::{batch::Batch, table::Table};
use sqlx::{MySqlPool, mysql::MySqlArguments};

pub use connect::MysqlConfig;
use connect::Opener;
use writer::Writer;

use crate::{
    error::StoreError,
    export::{Page, Span},
    read::History,
    sqlite::health::Health,
    store::{Fact, Retention, Store, StoreStatus, WriteOutcome},
};

/// The tables that are not kept here: best bids and asks, trades and depth updates.
///
/// Each is written at thousands of rows a second over hundreds of instruments, and kept for hours. InnoDB keeps a table in the
/// order of its key, so that every batch is spread over as many pages as there are instruments, each written twice with its
/// log; there is no bulk load that finds duplicates, and retention takes the same rows out again one by one. A store that falls
/// behind loses what it was made for. `fathom check` refuses a configuration that stores them here; a write of one is an error
/// that says so.
pub const fn unsupported_tables() -> &'static [Table] {
    &[Table::BookTicker, Table::Trades, Table::DepthEvents]
}

/// Whether rows of a table are kept.
fn supports(table: Table) -> bool {
    !unsupported_tables().contains(&table)
}

/// A database of a MySQL or MariaDB server as a store.
#[derive(Debug)]
pub struct MysqlStore {
    opener: Opener,
    writer: Writer,
    readers: MySqlPool,
    health: Health,
}

impl MysqlStore {
    /// Reads the configuration; the server is asked when it is first needed. The schema is not touched: see [`Store::migrate`].
    ///
    /// # Errors
    /// When the URL is not usable.
    #[allow(clippy::unused_async, reason = "stores are opened alike")]
    pub async fn open(config: &MysqlConfig) -> Result<Self, StoreError> {
        let opener = Opener::new(config)?;
        Ok(Self {
            writer: Writer::new(opener.clone()),
            readers: opener.readers(),
            opener,
            health: Health::default(),
        })
    }
}

#[async_trait]
impl Store for MysqlStore {
    async fn write(&self, batch: &Batch) -> WriteOutcome {
        if !supports(batch.table()) {
            let name = batch.schema().name;
            return WriteOutcome::Fatal {
                error: format!(
                    "{name} is not kept in MySQL or MariaDB: store ticks in SQLite or PostgreSQL, or not at all"
                ),
            };
        }
        if batch.is_empty() {
            return WriteOutcome::Committed { inserted: 0, duplicate: 0 };
        }
        let outcome = self.writer.write(batch).await;
        self.health.note_write(&outcome);
        outcome
    }

    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        self.health.note(migrate::migrate(&self.opener).await)
    }

    async fn expire(
        &self,
        retention: &[Retention],
        now_us: i64,
        limit: u64,
    ) -> Result<Vec<(Table, u64)>, StoreError> {
        self.health.note(expire::expire(&self.readers, &self.opener, retention, now_us, limit).await)
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

    async fn roll_up(&self, limit: u64) -> Result<u64, StoreError> {
        self.health.note(rollup::roll_up(&self.readers, &self.opener, i64::MAX, limit).await)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.fetch("select 1".to_owned(), MySqlArguments::default()).await.map(|_| ())
    }

    fn status(&self) -> StoreStatus {
        let (reachable, last_error) = self.health.read();
        StoreStatus { kind: "mysql", reachable, bytes: None, last_error }
    }

    fn history(&self) -> &dyn History {
        self
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}
