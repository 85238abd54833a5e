//! What every store can do.

use std::time::Duration;

use async_trait::async_trait;
use fathom_market::{batch::Batch, mark::StreamMark, table::Table};

use crate::{
    account::Accounts,
    check::Check,
    error::StoreError,
    export::{Page, Span},
    read::History,
    spool::Drain,
};

/// A row that the store refuses for what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoisonRow {
    /// Its position in the batch.
    pub row: usize,
    /// The store's words.
    pub error: String,
}

/// How a write ended. Writing the same batch again is always safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// Everything is stored; `duplicate` rows were there already, or lost to a newer one.
    Committed {
        /// Rows added or updated.
        inserted: u64,
        /// Rows whose key was stored before.
        duplicate: u64,
    },
    /// Nothing is stored; the same batch may go through later.
    Transient {
        /// How long to wait at least.
        retry_after: Duration,
        /// The store's words.
        error: String,
    },
    /// Nothing is stored; without these rows it may.
    Poison {
        /// The rows and why; an empty list means that the culprits are not known.
        rows: Vec<PoisonRow>,
    },
    /// Nothing is stored, and trying again does not help: the store needs an operator.
    Fatal {
        /// The store's words.
        error: String,
    },
    /// The connection was lost before the answer: the batch may or may not be stored.
    UnknownOutcome {
        /// The store's words.
        error: String,
    },
}

/// How long rows of a table are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The table.
    pub table: Table,
    /// Age beyond which rows go.
    pub keep: Duration,
}

/// What the store says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStatus {
    /// `sqlite`, `postgres`, ...
    pub kind: &'static str,
    /// Whether the last operation went through.
    pub reachable: bool,
    /// Bytes on disk, where known.
    pub bytes: Option<u64>,
    /// The last error.
    pub last_error: Option<String>,
}

/// Something that a store says of itself: what it is about, and a few words.
pub type Fact = (&'static str, String);

/// A place where batches are kept.
#[async_trait]
pub trait Store: Send + Sync {
    /// Writes a batch whole or not at all, without any accounts: see [`Accounts::accept`].
    async fn write(&self, batch: &Batch) -> WriteOutcome;

    /// Brings the schema to this program's version; what is up to date is left alone.
    ///
    /// # Errors
    /// When the store is away, or was made by a newer program.
    async fn migrate(&self) -> Result<Vec<String>, StoreError>;

    /// Removes rows older than their retention, `now_us` being the present; at most `limit` rows of each table at once.
    /// Gives the rows removed by table.
    ///
    /// # Errors
    /// When the store is away.
    async fn expire(
        &self,
        retention: &[Retention],
        now_us: i64,
        limit: u64,
    ) -> Result<Vec<(Table, u64)>, StoreError>;

    /// Brings up to date what is made of other rows: the hourly and daily roll-ups of category snapshots, at most `limit`
    /// hours in which rows were written since they were last rolled up, late rows included ([`crate::rollup`]); then the
    /// trade bars of gaps that were repaired ([`crate::trade_bars`]). Gives hours and gaps done; as many as `limit` says
    /// that there may be more.
    ///
    /// # Errors
    /// When the store is away.
    async fn roll_up(&self, limit: u64) -> Result<u64, StoreError> {
        let _ = limit;
        Ok(0)
    }

    /// Makes the trade bars of an interval anew from stored trades, after a gap there was repaired: microseconds, both
    /// ends belong to it. Where trades are not stored nothing changes. Gives the bars that were changed.
    ///
    /// # Errors
    /// When the store is away.
    async fn recompute_trade_bars(
        &self,
        instrument_id: i64,
        from_us: i64,
        to_us: i64,
    ) -> Result<u64, StoreError> {
        let _ = (instrument_id, from_us, to_us);
        Ok(0)
    }

    /// Compares what the store holds with what this program makes; changes nothing.
    ///
    /// # Errors
    /// When the store is away, or has no list of what it should hold.
    async fn validate(&self) -> Result<Vec<Check>, StoreError> {
        Err(StoreError::fatal("this store has no list of what it should hold"))
    }

    /// A page of a table's rows in the order of their keys: see [`crate::export`].
    ///
    /// # Errors
    /// When the store is away, or does not give its rows away.
    async fn export(&self, page: &Page) -> Result<Batch, StoreError> {
        let _ = page;
        Err(StoreError::fatal("this store does not give its rows away"))
    }

    /// How many rows of a table lie in a span.
    ///
    /// # Errors
    /// As [`Store::export`].
    async fn count_in(&self, table: Table, span: Span) -> Result<u64, StoreError> {
        let _ = (table, span);
        Err(StoreError::fatal("this store does not give its rows away"))
    }

    /// What the store says of itself: its version, its schema, what it can and what it refuses.
    ///
    /// # Errors
    /// When the store is away.
    async fn facts(&self) -> Result<Vec<Fact>, StoreError> {
        self.probe().await.map(|()| Vec::new())
    }

    /// Asks whether the store answers.
    ///
    /// # Errors
    /// When it does not.
    async fn probe(&self) -> Result<(), StoreError>;

    /// What is known without asking.
    fn status(&self) -> StoreStatus;

    /// The reading side.
    fn history(&self) -> &dyn History;

    /// Finishes what is under way and closes; later calls fail.
    async fn close(&self);
}

/// A store into which rows are accepted with their accounts: one in the process, or any behind a spool.
#[async_trait]
pub trait Sink: Store {
    /// How far each stream was accepted before, as written together with the rows.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn marks(&self) -> Result<Vec<StreamMark>, StoreError>;

    /// Batches of a table that are accepted and not yet in the store, in the order of their acceptance.
    ///
    /// # Errors
    /// When they cannot be read.
    async fn spooled(&self, table: Table) -> Result<Vec<Batch>, StoreError> {
        let _ = table;
        Ok(Vec::new())
    }

    /// Where rows are accepted and accounted for.
    fn accounts(&self) -> &dyn Accounts;

    /// What moves accepted rows on, where acceptance and store are not the same.
    fn drain(&self) -> Option<&dyn Drain> {
        None
    }
}
