//! The spool before a store that is not in the process: what is accepted is on this machine's disk first, and moves to the
//! store in the same order when that takes it.
//!
//! A SQLite file of its own underneath, one record a batch, each with a checksum; bounded in bytes and in age. A record that
//! cannot be read goes to quarantine and the others go on; a file that SQLite finds damaged is set aside and a fresh one begun.

mod current;
mod drain;
mod file;
mod records;
mod spooled;
#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use fathom_market::{batch::Batch, table::Table};
use sqlx::Connection as _;
use tokio::sync::RwLock;

pub use drain::{Drain, Settled, Step, write as write_in_parts};
pub use spooled::Spooled;

use self::current::Slot;
use crate::{
    account::{Change, Offered, QuarantineLimits, SpoolStatus},
    error::StoreError,
    sqlite::{
        Durability,
        books::Books,
        ledger,
        writer::{BEGIN, refused},
    },
    store::WriteOutcome,
};

/// How long to wait when the spool has no room.
const AFTER_FULL: Duration = Duration::from_secs(1);

/// The time, microseconds UTC.
pub type Now = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Where the spool is and how much it may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    /// The file; it and its directory are made where missing.
    pub path: PathBuf,
    /// What an acceptance outlives.
    pub durability: Durability,
    /// Bytes of all records at most.
    pub max_bytes: u64,
    /// Records older than this are dropped and counted.
    pub max_age: Duration,
    /// A write to the store that takes longer is given up and tried again.
    pub write_deadline: Duration,
    /// How much the quarantine may hold.
    pub quarantine: QuarantineLimits,
}

impl SpoolConfig {
    /// The defaults for a file: a gibibyte, a week.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            durability: Durability::default(),
            max_bytes: 1024 * 1024 * 1024,
            max_age: Duration::from_secs(7 * 24 * 3600),
            write_deadline: Duration::from_secs(30),
            quarantine: QuarantineLimits::default(),
        }
    }
}

/// An open spool.
pub struct Spool {
    config: SpoolConfig,
    now: Now,
    slot: RwLock<Slot>,
    /// The outcome of a transaction is not known: the figures are read again before the next.
    in_doubt: AtomicBool,
    books: Books,
    status: Mutex<SpoolStatus>,
}

impl Spool {
    /// Opens the spool with what it holds; a damaged file is set aside under another name, and said.
    ///
    /// # Errors
    /// When no file can be made.
    pub async fn open(config: SpoolConfig, now: Now) -> Result<Self, StoreError> {
        let spool = Self {
            books: Books::new(config.quarantine),
            status: Mutex::new(SpoolStatus { limit: config.max_bytes, ..SpoolStatus::default() }),
            slot: RwLock::default(),
            in_doubt: AtomicBool::new(false),
            config,
            now,
        };
        let opened = spool.file().await.map(drop);
        opened.map_err(|error| error.while_doing(&spool.config.path.display().to_string()))?;
        Ok(spool)
    }

    /// What it holds.
    pub fn status(&self) -> SpoolStatus {
        self.state().clone()
    }

    /// What waits of a table, in the order of its acceptance; records that cannot be read are left out, the drain finds them.
    pub(crate) async fn batches(&self, table: Table) -> Result<Vec<Batch>, StoreError> {
        let file = self.file().await?;
        match records::of(&file.readers, table.schema().name).await {
            Ok(records) => Ok(records.iter().filter_map(|record| record.batch().ok()).collect()),
            Err(error) => Err(self.failed(&file, error).await),
        }
    }

    /// Appends a batch with its accounts: that is its acceptance.
    pub(crate) async fn append(&self, batch: &Batch, offered: &[(Table, Offered)]) -> WriteOutcome {
        let rows = batch.len() as u64;
        let body = match batch.encode() {
            Ok(body) => body,
            Err(_) => return WriteOutcome::Poison { rows: Vec::new() },
        };
        let (held, limit) = (self.state().bytes, self.config.max_bytes);
        if held + body.len() as u64 > limit {
            let error = format!("the spool is full: {held} of {limit} bytes");
            return WriteOutcome::Transient { retry_after: AFTER_FULL, error };
        }
        match self.append_encoded(batch, body, offered).await {
            Ok(()) => WriteOutcome::Committed { inserted: rows, duplicate: 0 },
            Err(error) => {
                self.state().last_error = Some(error.to_string());
                refused(&error)
            }
        }
    }

    async fn append_encoded(
        &self,
        batch: &Batch,
        body: Vec<u8>,
        offered: &[(Table, Offered)],
    ) -> Result<(), StoreError> {
        let (rows, bytes, now_us) = (batch.len() as u64, body.len() as u64, (self.now)());
        let change =
            Change { accepted: rows.cast_signed(), spooled: rows.cast_signed(), ..Change::default() };
        let file = self.file().await?;
        let mut lease = self.lease(&file).await?;
        let appending = async {
            let mut transaction = lease.connection.begin_with(BEGIN).await?;
            if ledger::accepted_before(&mut transaction, batch).await?.is_some() {
                transaction.rollback().await?;
                return Ok(());
            }
            records::insert(&mut transaction, batch, body, now_us).await?;
            ledger::note(&mut transaction, batch, &change, offered).await?;
            transaction.commit().await
        };
        if let Err(error) = appending.await {
            drop(lease);
            return Err(self.failed(&file, error).await);
        }
        self.books.ledger.offered(offered);
        if self.books.ledger.committed(batch, &change) {
            let mut state = self.state();
            state.oldest_us.get_or_insert(now_us);
            (state.records, state.rows, state.bytes) =
                (state.records + 1, state.rows + rows, state.bytes + bytes);
        }
        self.give_back(lease);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, SpoolStatus> {
        // The state is consistent between calls, so a panic elsewhere leaves nothing half done.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
