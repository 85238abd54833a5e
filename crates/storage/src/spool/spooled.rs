//! A store behind a spool, as a store.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use fathom_market::{batch::Batch, mark::StreamMark, table::Table};
use sqlx::Connection as _;

use super::{
    Drain, Spool, Step,
    drain::{Settled, write},
};
use crate::{
    account::{
        Accepted, Accounts, Change, Offered, Opening, QuarantineQuery, QuarantinedRow, Resent, SpoolStatus,
    },
    check::Check,
    error::StoreError,
    export::{Page, Span},
    read::History,
    sqlite::{classify::store_error, ledger, writer::BEGIN},
    store::{Fact, Retention, Sink, Store, StoreStatus, WriteOutcome},
};

/// A store whose rows are accepted into a spool. Writing without accounts, migrating, expiring and reading go to the store.
pub struct Spooled {
    store: Arc<dyn Store>,
    pub(super) spool: Spool,
}

impl Spooled {
    /// Puts a spool before a store.
    pub fn new(store: Arc<dyn Store>, spool: Spool) -> Self {
        Self { store, spool }
    }
}

#[async_trait]
impl Store for Spooled {
    async fn write(&self, batch: &Batch) -> WriteOutcome {
        self.store.write(batch).await
    }

    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        self.store.migrate().await
    }

    async fn expire(
        &self,
        retention: &[Retention],
        now_us: i64,
        limit: u64,
    ) -> Result<Vec<(Table, u64)>, StoreError> {
        self.store.expire(retention, now_us, limit).await
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

    async fn roll_up(&self, limit: u64) -> Result<u64, StoreError> {
        self.store.roll_up(limit).await
    }

    async fn validate(&self) -> Result<Vec<Check>, StoreError> {
        self.store.validate().await
    }

    async fn recompute_trade_bars(
        &self,
        instrument_id: i64,
        from_us: i64,
        to_us: i64,
    ) -> Result<u64, StoreError> {
        self.store.recompute_trade_bars(instrument_id, from_us, to_us).await
    }

    fn status(&self) -> StoreStatus {
        self.store.status()
    }

    fn history(&self) -> &dyn History {
        self.store.history()
    }

    async fn close(&self) {
        if let Ok(file) = self.spool.file().await {
            file.close().await;
        }
        self.store.close().await;
    }
}

#[async_trait]
impl Sink for Spooled {
    async fn marks(&self) -> Result<Vec<StreamMark>, StoreError> {
        self.spool.books.marks(&self.spool.file().await?.readers).await
    }

    async fn spooled(&self, table: Table) -> Result<Vec<Batch>, StoreError> {
        self.spool.batches(table).await
    }

    fn accounts(&self) -> &dyn Accounts {
        self
    }

    fn drain(&self) -> Option<&dyn Drain> {
        Some(self)
    }
}

#[async_trait]
impl Drain for Spooled {
    async fn step(&self) -> Step {
        self.spool.step(&*self.store).await
    }
}

#[async_trait]
impl Accounts for Spooled {
    async fn open(&self) -> Result<Opening, StoreError> {
        self.spool.books.open(&self.spool.file().await?.readers).await
    }

    async fn accept(&self, batch: &Batch, offered: &[(Table, Offered)]) -> WriteOutcome {
        self.spool.append(batch, offered).await
    }

    async fn quarantine(
        &self,
        batch: &Batch,
        errors: &[String],
        offered: &[(Table, Offered)],
        now_us: i64,
    ) -> Result<bool, StoreError> {
        let file = self.spool.file().await?;
        let put = self.spool.books.quarantine(&file.writer, batch, errors, offered, now_us).await;
        put.inspect_err(|_| self.spool.doubt())
    }

    async fn record(&self, offered: &[(Table, Offered)]) -> Result<(), StoreError> {
        self.spool.books.record(&self.spool.file().await?.writer, offered).await
    }

    async fn quarantined(&self, query: &QuarantineQuery) -> Result<Vec<QuarantinedRow>, StoreError> {
        self.spool.books.quarantined(&self.spool.file().await?.readers, query).await
    }

    async fn resend(&self, id: i64) -> Result<Resent, StoreError> {
        let file = self.spool.file().await?;
        let failed = |error: sqlx::Error| store_error(&error).while_doing("quarantine");
        let mut reader = file.readers.acquire().await.map_err(failed)?;
        let Some((table, _, batch)) = ledger::suspect(&mut reader, id).await.map_err(failed)? else {
            return Ok(Resent::Unknown);
        };
        drop(reader);
        let settled = match &batch {
            Ok(batch) => write(&*self.store, batch, self.spool.config.write_deadline)
                .await
                .map_err(|(retry_after, error)| StoreError::transient(retry_after, error))?,
            Err(_) => Settled::default(),
        };
        let mut lease = self.spool.lease(&file).await?;
        let refused = match &batch {
            Err(error) => Some(error.clone()),
            Ok(_) => settled.poison.first().map(|poison| poison.error.clone()),
        };
        if let Some(error) = refused {
            ledger::refused_again(&mut lease.connection, id, &error).await.map_err(failed)?;
            self.spool.give_back(lease);
            return Ok(Resent::Refused(error));
        }
        let (stored, duplicate) = (settled.stored.cast_signed(), settled.duplicate.cast_signed());
        let change = Change { stored, duplicate, quarantined: -(stored + duplicate), ..Change::default() };
        let moving = async {
            let mut transaction = lease.connection.begin_with(BEGIN).await?;
            if !ledger::take_suspect(&mut transaction, id).await? {
                transaction.rollback().await?;
                return Ok(false);
            }
            ledger::add(&mut transaction, &table, &change).await?;
            transaction.commit().await.map(|()| true)
        };
        let moved = moving.await.map_err(failed)?;
        if let (true, Some(table)) = (moved, Table::by_name(&table)) {
            self.spool.books.ledger.changed(table, &change);
        }
        self.spool.give_back(lease);
        Ok(if stored > 0 { Resent::Stored } else { Resent::Duplicate })
    }

    async fn discard(&self, id: i64) -> Result<bool, StoreError> {
        let gone = self.spool.books.discard(&self.spool.file().await?.writer, id).await;
        gone.inspect_err(|_| self.spool.doubt())
    }

    fn accepted(&self) -> BTreeMap<Table, Accepted> {
        self.spool.books.accepted()
    }

    fn spool(&self) -> Option<SpoolStatus> {
        Some(self.spool.status())
    }
}
