//! Record by record from the spool into the store: written, then trimmed. What the store refuses is bisected until the rows
//! to blame are known. A process that dies in between writes the same record again, and the store knows its rows.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use fathom_market::{batch::Batch, table::Table};
use sqlx::Connection as _;

use super::{
    Spool,
    file::File,
    records::{self, Record},
};
use crate::{
    account::Change,
    error::{ErrorClass, StoreError},
    sqlite::{
        ledger::{self, Suspect},
        writer::BEGIN,
    },
    store::{PoisonRow, Store, WriteOutcome},
};

/// Wait after an answer that was lost, and after one that never came.
const AFTER_LOSS: Duration = Duration::from_millis(500);
/// Wait while the store needs an operator.
const AFTER_FATAL: Duration = Duration::from_secs(5);
/// Parts of a batch that may be fatal in a row before the store is to blame and not the rows.
const FATAL_PARTS: usize = 16;

/// What one step came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The spool is empty.
    Idle,
    /// A record has left the spool.
    Moved {
        /// Its rows that are stored now.
        stored: u64,
        /// Its rows that were.
        duplicate: u64,
        /// Its rows in quarantine.
        quarantined: u64,
        /// Its rows that neither the store nor the full quarantine took: they are lost.
        lost: Option<Box<Batch>>,
    },
    /// A record was older than the spool keeps any, and was dropped. Its batch, where it could be read.
    Expired(Option<Box<Batch>>),
    /// The record stays, to be tried again.
    Failed {
        /// How long to wait at least.
        retry_after: Duration,
        /// What went wrong.
        error: String,
    },
}

/// What moves accepted rows on to the store.
#[async_trait]
pub trait Drain: Send + Sync {
    /// Moves the oldest record. To be called by one caller at a time; one that goes away in the middle loses nothing.
    async fn step(&self) -> Step;
}

/// What became of a batch's rows.
#[derive(Debug, Default)]
pub struct Settled {
    /// Rows that are stored now.
    pub stored: u64,
    /// Rows that were.
    pub duplicate: u64,
    /// Rows that the store refuses.
    pub poison: Vec<PoisonRow>,
}

impl Spool {
    /// Moves the oldest record into a store.
    pub(crate) async fn step(&self, store: &dyn Store) -> Step {
        match self.try_step(store).await {
            Ok(step) => {
                if !matches!(step, Step::Failed { .. }) {
                    self.state().last_error = None;
                }
                step
            }
            Err(error) => {
                let retry_after = match error.class() {
                    ErrorClass::Transient { retry_after } => retry_after,
                    ErrorClass::Fatal => AFTER_FATAL,
                };
                self.state().last_error = Some(error.to_string());
                Step::Failed { retry_after, error: error.to_string() }
            }
        }
    }

    async fn try_step(&self, store: &dyn Store) -> Result<Step, StoreError> {
        let file = self.file().await?;
        let record = match records::first(&file.readers).await {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(Step::Idle),
            Err(error) => return Err(self.failed(&file, error).await),
        };
        let keep_us = i64::try_from(self.config.max_age.as_micros()).unwrap_or(i64::MAX);
        if record.accepted_us < (self.now)().saturating_sub(keep_us) {
            return self.expire(&file, &record).await;
        }
        let batch = match record.batch() {
            Ok(batch) => batch,
            Err(error) => return self.condemn(&file, &record, &error).await,
        };
        match write(store, &batch, self.config.write_deadline).await {
            Ok(settled) => self.settle(&file, &record, &batch, settled).await,
            Err((retry_after, error)) => Ok(Step::Failed { retry_after, error }),
        }
    }

    /// Trims a record that the store has.
    async fn settle(
        &self,
        file: &Arc<File>,
        record: &Record,
        batch: &Batch,
        settled: Settled,
    ) -> Result<Step, StoreError> {
        let Settled { stored, duplicate, poison } = settled;
        let positions: Vec<usize> = poison.iter().map(|row| row.row).collect();
        let errors: Vec<String> = poison.into_iter().map(|row| row.error).collect();
        let refused = batch.select(&positions);
        let suspects =
            Suspect::of(&refused, &errors).map_err(|error| StoreError::fatal(error.to_string()))?;
        let (stored, duplicate) = (stored.cast_signed(), duplicate.cast_signed());
        let change = Change { stored, duplicate, ..Change::default() };
        let change = self.remove(file, record, change, &suspects).await?;
        let quarantined = change.quarantined.unsigned_abs();
        drop(suspects);
        let lost = (change.expired > 0).then(|| Box::new(refused));
        let (stored, duplicate) = (stored.unsigned_abs(), duplicate.unsigned_abs());
        Ok(Step::Moved { stored, duplicate, quarantined, lost })
    }

    /// Moves a record that cannot be read out of the way.
    async fn condemn(&self, file: &Arc<File>, record: &Record, error: &str) -> Result<Step, StoreError> {
        tracing::error!(table = record.table, rows = record.rows, error, "a record of the spool is damaged");
        let suspect = Suspect {
            table: &record.table,
            rows: record.rows,
            json: None,
            body: record.body.clone(),
            error,
            status: "damaged",
        };
        let change = self.remove(file, record, Change::default(), &[suspect]).await?;
        self.state().damaged += 1;
        let quarantined = change.quarantined.unsigned_abs();
        Ok(Step::Moved { stored: 0, duplicate: 0, quarantined, lost: None })
    }

    async fn expire(&self, file: &Arc<File>, record: &Record) -> Result<Step, StoreError> {
        let change = Change { expired: record.rows.cast_signed(), ..Change::default() };
        self.remove(file, record, change, &[]).await?;
        Ok(Step::Expired(record.batch().ok().map(Box::new)))
    }

    /// Removes a record, its suspects into quarantine, in one transaction; gives how the figures changed.
    async fn remove(
        &self,
        file: &Arc<File>,
        record: &Record,
        change: Change,
        suspects: &[Suspect<'_>],
    ) -> Result<Change, StoreError> {
        let mut lease = self.lease(file).await?;
        let (limits, now_us) = (self.books.limits(), (self.now)());
        let removing = async {
            let mut change = Change { spooled: -record.rows.cast_signed(), ..change };
            let mut transaction = lease.connection.begin_with(BEGIN).await?;
            if !records::delete(&mut transaction, record.seq).await? {
                transaction.rollback().await?;
                return Ok(None);
            }
            let poison = suspects.iter().map(|suspect| suspect.rows).sum::<u64>().cast_signed();
            if poison > 0 {
                let put = ledger::put_suspects(&mut transaction, suspects, limits, now_us).await?;
                let figure = if put { &mut change.quarantined } else { &mut change.expired };
                *figure = poison;
            }
            ledger::add(&mut transaction, &record.table, &change).await?;
            let oldest = records::oldest(&mut transaction).await?;
            transaction.commit().await?;
            if oldest.is_none() {
                // The record is gone already; what fails to shrink now shrinks the next time.
                let _ = sqlx::query("pragma incremental_vacuum").execute(&mut lease.connection).await;
            }
            Ok(Some((change, oldest, poison > 0 && change.quarantined == 0)))
        };
        let removed = match removing.await {
            Ok(removed) => removed,
            Err(error) => {
                drop(lease);
                return Err(self.failed(file, error).await);
            }
        };
        let Some((change, oldest_us, is_full)) = removed else {
            self.give_back(lease);
            return Ok(Change::default());
        };
        if is_full {
            tracing::error!(
                table = record.table,
                rows = change.expired,
                "poison is dropped: the quarantine is full"
            );
        }
        if let Some(table) = Table::by_name(&record.table) {
            self.books.ledger.changed(table, &change);
        }
        {
            let mut state = self.state();
            state.oldest_us = oldest_us;
            state.records = state.records.saturating_sub(1);
            state.rows = state.rows.saturating_sub(record.rows);
            state.bytes = state.bytes.saturating_sub(record.bytes);
        }
        self.give_back(lease);
        Ok(change)
    }
}

/// Writes a batch, in parts where rows of it are refused, until every row is stored or known for poison.
///
/// # Errors
/// How long to wait at least before the whole is tried again, and why.
pub async fn write(
    store: &dyn Store,
    batch: &Batch,
    deadline: Duration,
) -> Result<Settled, (Duration, String)> {
    let mut settled = Settled::default();
    let mut parts = vec![(0..batch.len()).collect::<Vec<usize>>()];
    let (mut fatal, mut committed) = (Vec::new(), false);
    while let Some(rows) = parts.pop() {
        let part = if rows.len() == batch.len() { batch.clone() } else { batch.select(&rows) };
        let outcome = match tokio::time::timeout(deadline, store.write(&part)).await {
            Ok(outcome) => outcome,
            Err(_) => return Err((AFTER_LOSS, format!("no answer within {deadline:?}"))),
        };
        match outcome {
            WriteOutcome::Committed { inserted, duplicate } => {
                committed = true;
                settled.stored += inserted;
                settled.duplicate += duplicate;
            }
            WriteOutcome::Poison { rows: named } if !named.is_empty() => {
                let known = named.into_iter().filter_map(|poison| {
                    rows.get(poison.row).map(|row| PoisonRow { row: *row, error: poison.error })
                });
                let known: Vec<PoisonRow> = known.collect();
                let rest: Vec<usize> =
                    rows.into_iter().filter(|row| known.iter().all(|poison| poison.row != *row)).collect();
                settled.poison.extend(known);
                if !rest.is_empty() {
                    parts.push(rest);
                }
            }
            WriteOutcome::Poison { .. } => {
                halve(rows, "refused without a reason", &mut parts, &mut settled.poison);
            }
            // Some stores call a row's fault fatal: it is the row's when other rows go through.
            WriteOutcome::Fatal { error } => {
                halve(rows, &error, &mut parts, &mut fatal);
                if !committed && fatal.len() >= FATAL_PARTS || batch.len() == 1 {
                    return Err((AFTER_FATAL, error));
                }
            }
            WriteOutcome::Transient { retry_after, error } => return Err((retry_after, error)),
            WriteOutcome::UnknownOutcome { error } => return Err((AFTER_LOSS, error)),
        }
    }
    match fatal.pop() {
        Some(last) if !committed => Err((AFTER_FATAL, last.error)),
        last => {
            settled.poison.extend(fatal.into_iter().chain(last));
            settled.poison.sort_by_key(|poison| poison.row);
            Ok(settled)
        }
    }
}

fn halve(rows: Vec<usize>, error: &str, parts: &mut Vec<Vec<usize>>, single: &mut Vec<PoisonRow>) {
    match rows.as_slice() {
        [row] => single.push(PoisonRow { row: *row, error: error.to_owned() }),
        rows => {
            let (first, second) = rows.split_at(rows.len() / 2);
            parts.extend([second.to_vec(), first.to_vec()]);
        }
    }
}
