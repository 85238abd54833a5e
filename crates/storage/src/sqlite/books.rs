//! The accounts of a database: what the store and the spool do alike with figures, marks and quarantine.

use std::collections::BTreeMap;

use fathom_market::{batch::Batch, mark::StreamMark, table::Table};
use sqlx::{Connection as _, SqlitePool};

use super::{
    classify::store_error,
    ledger::{self, Ledger, Suspect},
    writer::{BEGIN, Writer},
};
use crate::{
    account::{Accepted, Change, Offered, Opening, QuarantineLimits, QuarantineQuery, QuarantinedRow},
    error::StoreError,
};

/// The accounts of one database.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) ledger: Ledger,
    limits: QuarantineLimits,
}

impl Books {
    pub(crate) fn new(limits: QuarantineLimits) -> Self {
        Self { ledger: Ledger::default(), limits }
    }

    pub(crate) fn accepted(&self) -> BTreeMap<Table, Accepted> {
        self.ledger.accepted()
    }

    pub(crate) const fn limits(&self) -> QuarantineLimits {
        self.limits
    }

    pub(crate) async fn open(&self, readers: &SqlitePool) -> Result<Opening, StoreError> {
        let opening = async { ledger::opening(&mut *readers.acquire().await?).await };
        let opening = opening.await.map_err(|error| store_error(&error).while_doing("accounts"))?;
        self.ledger.opened(&opening);
        Ok(opening)
    }

    pub(crate) async fn marks(&self, readers: &SqlitePool) -> Result<Vec<StreamMark>, StoreError> {
        let marks = async { ledger::marks(&mut *readers.acquire().await?).await };
        marks.await.map_err(|error| store_error(&error).while_doing("marks"))
    }

    pub(crate) async fn quarantined(
        &self,
        readers: &SqlitePool,
        query: &QuarantineQuery,
    ) -> Result<Vec<QuarantinedRow>, StoreError> {
        let rows = async { ledger::suspects(&mut *readers.acquire().await?, query).await };
        rows.await.map_err(|error| store_error(&error).while_doing("quarantine"))
    }

    pub(crate) async fn record(
        &self,
        writer: &Writer,
        offered: &[(Table, Offered)],
    ) -> Result<(), StoreError> {
        let mut lease = writer.lease().await?;
        ledger::set_offered(&mut lease.connection, offered).await.map_err(|error| store_error(&error))?;
        self.ledger.offered(offered);
        lease.give_back();
        Ok(())
    }

    /// Accepts rows into quarantine. False, and nothing changed, when it has no room.
    pub(crate) async fn quarantine(
        &self,
        writer: &Writer,
        batch: &Batch,
        errors: &[String],
        offered: &[(Table, Offered)],
        now_us: i64,
    ) -> Result<bool, StoreError> {
        let rows = batch.len() as i64;
        let change = Change { accepted: rows, quarantined: rows, ..Change::default() };
        let mut lease = writer.lease().await?;
        let put = async {
            let mut transaction = lease.connection.begin_with(BEGIN).await?;
            if ledger::accepted_before(&mut transaction, batch).await?.is_some() {
                transaction.rollback().await?;
                return Ok(true);
            }
            let suspects = Suspect::of(batch, errors)?;
            if !ledger::put_suspects(&mut transaction, &suspects, self.limits, now_us).await? {
                transaction.rollback().await?;
                return Ok(false);
            }
            ledger::note(&mut transaction, batch, &change, offered).await?;
            transaction.commit().await.map(|()| true)
        };
        let put = put.await.map_err(|error: sqlx::Error| store_error(&error).while_doing("quarantine"))?;
        if put {
            self.ledger.committed(batch, &change);
            self.ledger.offered(offered);
        }
        lease.give_back();
        Ok(put)
    }

    /// Removes a quarantined row. False when there is none.
    pub(crate) async fn discard(&self, writer: &Writer, id: i64) -> Result<bool, StoreError> {
        let mut lease = writer.lease().await?;
        let discarding = async {
            let mut transaction = lease.connection.begin_with(BEGIN).await?;
            let Some((table, rows, _)) = ledger::suspect(&mut transaction, id).await? else {
                transaction.rollback().await?;
                return Ok(None);
            };
            let rows = rows.cast_signed();
            let change = Change { quarantined: -rows, discarded: rows, ..Change::default() };
            ledger::take_suspect(&mut transaction, id).await?;
            ledger::add(&mut transaction, &table, &change).await?;
            transaction.commit().await?;
            Ok(Some((table, change)))
        };
        let gone =
            discarding.await.map_err(|error: sqlx::Error| store_error(&error).while_doing("quarantine"))?;
        if let Some((table, change)) = &gone
            && let Some(table) = Table::by_name(table)
        {
            self.ledger.changed(table, change);
        }
        lease.give_back();
        Ok(gone.is_some())
    }
}
