//! A store that may be away when the service starts: its schema is brought up to date before the first thing that is
//! written to it, whenever that is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use fathom_market::{batch::Batch, table::Table};
use tokio::sync::Mutex;

use crate::{
    check::Check,
    error::{ErrorClass, StoreError},
    export::{Page, Span},
    read::History,
    store::{Fact, Retention, Store, StoreStatus, WriteOutcome},
};

/// How long to wait when the store takes no schema from this program.
const AFTER_FATAL: Duration = Duration::from_secs(5);

/// A store behind its own migration.
pub struct Prepared {
    store: Arc<dyn Store>,
    ready: AtomicBool,
    /// One migration at a time, so that the others find it done.
    turn: Mutex<()>,
}

impl Prepared {
    /// Puts the migration before a store's writes.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, ready: AtomicBool::new(false), turn: Mutex::new(()) }
    }

    async fn prepare(&self) -> Result<Vec<String>, StoreError> {
        let _turn = self.turn.lock().await;
        if self.ready.load(Ordering::Acquire) {
            return Ok(Vec::new());
        }
        let applied =
            self.store.migrate().await.map_err(|error| error.while_doing("the schema is not up to date"))?;
        if !applied.is_empty() {
            tracing::info!(migrations = ?applied, "store migrated");
        }
        self.ready.store(true, Ordering::Release);
        Ok(applied)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        self.prepare().await.map(drop)
    }
}

#[async_trait]
impl Store for Prepared {
    /// While the schema cannot be brought up to date nothing is written, whatever the reason: the rows are not to blame.
    async fn write(&self, batch: &Batch) -> WriteOutcome {
        match self.ready().await {
            Ok(()) => self.store.write(batch).await,
            Err(error) => {
                let retry_after = match error.class() {
                    ErrorClass::Transient { retry_after } => retry_after,
                    ErrorClass::Fatal => AFTER_FATAL,
                };
                WriteOutcome::Transient { retry_after, error: error.to_string() }
            }
        }
    }

    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        self.prepare().await
    }

    async fn expire(
        &self,
        retention: &[Retention],
        now_us: i64,
        limit: u64,
    ) -> Result<Vec<(Table, u64)>, StoreError> {
        self.ready().await?;
        self.store.expire(retention, now_us, limit).await
    }

    async fn roll_up(&self, limit: u64) -> Result<u64, StoreError> {
        self.ready().await?;
        self.store.roll_up(limit).await
    }

    async fn recompute_trade_bars(
        &self,
        instrument_id: i64,
        from_us: i64,
        to_us: i64,
    ) -> Result<u64, StoreError> {
        self.ready().await?;
        self.store.recompute_trade_bars(instrument_id, from_us, to_us).await
    }

    async fn validate(&self) -> Result<Vec<Check>, StoreError> {
        self.store.validate().await
    }

    async fn export(&self, page: &Page) -> Result<Batch, StoreError> {
        self.store.export(page).await
    }

    async fn count_in(&self, table: Table, span: Span) -> Result<u64, StoreError> {
        self.store.count_in(table, span).await
    }

    async fn facts(&self) -> Result<Vec<Fact>, StoreError> {
        self.store.facts().await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.store.probe().await
    }

    fn status(&self) -> StoreStatus {
        self.store.status()
    }

    fn history(&self) -> &dyn History {
        self.store.history()
    }

    async fn close(&self) {
        self.store.close().await;
    }
}
