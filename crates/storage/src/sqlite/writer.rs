//! The one writing connection, shared by batches, roll-up and retention in turn.
//!
//! A connection is taken out while it is used and put back only when its state is known to be clean. Whatever goes
//! wrong, an error within a transaction or a caller that goes away in the middle, ends with a new connection: SQLite
//! rolls back what the old one had begun.

use std::sync::Arc;

use fathom_market::{
    batch::{Batch, Column},
    table::{Conflict, Table},
};
use sqlx::{AssertSqlSafe, Connection as _, Sqlite, SqliteConnection, Transaction, sqlite::SqliteArguments};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    bind,
    classify::{Verdict, commit_is_unknown, store_error, verdict},
    connect::WriterOptions,
    ledger::{self, Ledger},
    statements::{Inserts, Versioned, chunks},
};
use crate::{
    account::{Change, Offered, Resent},
    error::{ErrorClass, StoreError},
    store::{PoisonRow, WriteOutcome},
};

/// Takes the write lock at once: a transaction that read first could be refused it later, at a point where only starting
/// again helps.
pub(crate) const BEGIN: &str = "begin immediate";

/// The writing side.
#[derive(Debug)]
pub(crate) struct Writer {
    options: WriterOptions,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connection: Option<SqliteConnection>,
    inserts: Inserts,
    closed: bool,
}

/// The connection, for as long as it is used. Dropped without [`Lease::give_back`], it is closed.
pub(crate) struct Lease<'a> {
    state: MutexGuard<'a, State>,
    /// The connection.
    pub(crate) connection: SqliteConnection,
}

impl Lease<'_> {
    /// Puts a connection back that has no transaction open.
    pub(crate) fn give_back(self) {
        let Self { mut state, connection } = self;
        state.connection = Some(connection);
    }
}

/// Why a transaction did not go through.
enum Failure {
    /// Anything else before the commit.
    Before(sqlx::Error),
    /// The commit itself failed.
    Commit(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Before(error)
    }
}

impl Writer {
    /// A writer with its first connection.
    pub(crate) fn new(options: WriterOptions, connection: SqliteConnection) -> Self {
        Self { options, state: Mutex::new(State { connection: Some(connection), ..State::default() }) }
    }

    /// Waits for its turn and takes the connection, a new one where the last was thrown away.
    pub(crate) async fn lease(&self) -> Result<Lease<'_>, StoreError> {
        let mut state = self.state.lock().await;
        if state.closed {
            return Err(StoreError::fatal("the store is closed"));
        }
        let connection = match state.connection.take() {
            Some(connection) => connection,
            None => self.options.connect().await.map_err(|error| store_error(&error))?,
        };
        Ok(Lease { state, connection })
    }

    /// Writes a batch in one transaction.
    pub(crate) async fn write(&self, batch: &Batch) -> WriteOutcome {
        self.write_with(batch, None).await
    }

    /// Writes a batch with its accounts in one transaction; one that was accepted before is answered as then.
    pub(crate) async fn accept(
        &self,
        batch: &Batch,
        offered: &[(Table, Offered)],
        ledger: &Ledger,
    ) -> WriteOutcome {
        let outcome = self.write_with(batch, Some(offered)).await;
        if let WriteOutcome::Committed { inserted, duplicate } = outcome {
            ledger.committed(batch, &stored(inserted, duplicate));
        }
        outcome
    }

    async fn write_with(&self, batch: &Batch, offered: Option<&[(Table, Offered)]>) -> WriteOutcome {
        let mut lease = match self.lease().await {
            Ok(lease) => lease,
            Err(error) => return refused(&error),
        };
        match lease.commit(batch, offered).await {
            Ok(Some((inserted, duplicate))) => {
                lease.give_back();
                WriteOutcome::Committed { inserted, duplicate }
            }
            Ok(None) => lease.find_poison(batch).await,
            Err(failure) => outcome(&failure),
        }
    }

    /// Closes the connection; later leases fail.
    pub(crate) async fn close(&self) {
        let Ok(mut lease) = self.lease().await else {
            return;
        };
        lease.state.closed = true;
        let checkpoint = sqlx::query("pragma wal_checkpoint(truncate)").execute(&mut lease.connection).await;
        if let Err(error) = checkpoint {
            tracing::warn!(%error, "the write-ahead log was not folded into the database on closing");
        }
        if let Err(error) = lease.connection.close().await {
            tracing::warn!(%error, "the database was not closed cleanly");
        }
    }
}

impl Lease<'_> {
    /// Writes the batch, with its accounts where the first side is given, and gives rows stored and duplicate; `None` when a
    /// row was refused, with everything rolled back and the connection clean.
    async fn commit(
        &mut self,
        batch: &Batch,
        offered: Option<&[(Table, Offered)]>,
    ) -> Result<Option<(u64, u64)>, Failure> {
        let mut transaction = self.connection.begin_with(BEGIN).await?;
        if offered.is_some()
            && let Some(before) = ledger::accepted_before(&mut transaction, batch).await?
        {
            transaction.rollback().await?;
            return Ok(Some(before));
        }
        let inserted = match insert(&mut transaction, &mut self.state.inserts, batch).await {
            Ok(inserted) => inserted,
            Err(error) if verdict(&error) == Verdict::Row => {
                transaction.rollback().await?;
                return Ok(None);
            }
            Err(error) => return Err(Failure::Before(error)),
        };
        let duplicate = (batch.len() as u64).saturating_sub(inserted);
        if let Some(offered) = offered {
            ledger::note(&mut transaction, batch, &stored(inserted, duplicate), offered).await?;
        }
        transaction.commit().await.map_err(Failure::Commit)?;
        Ok(Some((inserted, duplicate)))
    }

    /// Sends a quarantined row into its table; it leaves the quarantine when it is stored, or was.
    pub(crate) async fn resend(&mut self, id: i64, ledger: &Ledger) -> Result<Resent, sqlx::Error> {
        let mut transaction = self.connection.begin_with(BEGIN).await?;
        let Some((_, _, batch)) = ledger::suspect(&mut transaction, id).await? else {
            transaction.rollback().await?;
            return Ok(Resent::Unknown);
        };
        let inserted = match batch {
            Ok(batch) if bind::misfits(&batch).is_empty() => {
                match insert(&mut transaction, &mut self.state.inserts, &batch).await {
                    Ok(inserted) => Ok((batch, inserted)),
                    Err(error) if verdict(&error) == Verdict::Row => Err(error.to_string()),
                    Err(error) => return Err(error),
                }
            }
            Ok(batch) => Err(bind::misfits(&batch).remove(0).error),
            Err(error) => Err(error),
        };
        let (batch, inserted) = match inserted {
            Ok(inserted) => inserted,
            Err(error) => {
                ledger::refused_again(&mut transaction, id, &error).await?;
                transaction.commit().await?;
                return Ok(Resent::Refused(error));
            }
        };
        let rows = batch.len() as i64;
        let duplicate = rows - inserted.cast_signed();
        let change =
            Change { stored: inserted.cast_signed(), duplicate, quarantined: -rows, ..Change::default() };
        ledger::take_suspect(&mut transaction, id).await?;
        ledger::add(&mut transaction, batch.schema().name, &change).await?;
        transaction.commit().await?;
        ledger.changed(batch.table(), &change);
        Ok(if inserted > 0 { Resent::Stored } else { Resent::Duplicate })
    }

    async fn find_poison(mut self, batch: &Batch) -> WriteOutcome {
        match self.culprits(batch).await {
            Ok(rows) => {
                self.give_back();
                WriteOutcome::Poison { rows }
            }
            Err(failure) => outcome(&failure),
        }
    }

    /// Tries the rows one by one and takes everything back. A refused statement undoes itself alone, so the rest can go on.
    async fn culprits(&mut self, batch: &Batch) -> Result<Vec<PoisonRow>, Failure> {
        let mut transaction = self.connection.begin_with(BEGIN).await?;
        let mut rows = Vec::new();
        for row in 0..batch.len() {
            match insert(&mut transaction, &mut self.state.inserts, &batch.select(&[row])).await {
                Ok(_) => {}
                Err(error) if verdict(&error) == Verdict::Row => {
                    rows.push(PoisonRow { row, error: error.to_string() });
                }
                Err(error) => return Err(Failure::Before(error)),
            }
        }
        transaction.rollback().await?;
        Ok(rows)
    }
}

/// How the figures change when rows are accepted into their table.
const fn stored(inserted: u64, duplicate: u64) -> Change {
    Change {
        accepted: (inserted + duplicate).cast_signed(),
        stored: inserted.cast_signed(),
        duplicate: duplicate.cast_signed(),
        spooled: 0,
        quarantined: 0,
        discarded: 0,
        expired: 0,
    }
}

/// Inserts the rows by the table's policy and gives how many were added or updated.
async fn insert(
    transaction: &mut Transaction<'_, Sqlite>,
    inserts: &mut Inserts,
    batch: &Batch,
) -> Result<u64, sqlx::Error> {
    if let Conflict::Versioned(compared) = batch.schema().conflict {
        return insert_versions(transaction, inserts, batch, compared).await;
    }
    let order = key_order(batch);
    let mut inserted = 0;
    for chunk in chunks(batch.schema(), batch.len()) {
        let sql = inserts.get(batch.table(), chunk.len());
        let rows = order.get(chunk).unwrap_or_default();
        let arguments = bind::rows(batch, rows).map_err(sqlx::Error::Encode)?;
        inserted += execute(transaction, sql, arguments).await?;
    }
    Ok(inserted)
}

/// The rows by the first column of their key, in their own order where it is the same: neighbours in the tree are written
/// together, and which of two rows with one key comes first stays as it was.
fn key_order(batch: &Batch) -> Vec<usize> {
    let mut order: Vec<usize> = (0..batch.len()).collect();
    let first = batch.schema().key.first().and_then(|name| column(batch, name).ok());
    if let Some(Column::Int(ids)) = first {
        order.sort_by_key(|row| ids.get(*row));
    }
    order
}

/// Adds a version where it is newer than the last and says something else. An older one is a replay and changes nothing.
/// Versions of one identity must arrive in the order of time the first time: a version that was left out for saying the
/// same leaves no trace by which its replay could be known.
async fn insert_versions(
    transaction: &mut Transaction<'_, Sqlite>,
    inserts: &mut Inserts,
    batch: &Batch,
    compared: &str,
) -> Result<u64, sqlx::Error> {
    let schema = batch.schema();
    let statements = Versioned::new(schema, compared);
    let (&[identity, start], compared) = (schema.key, column(batch, compared)?) else {
        return Err(sqlx::Error::Encode(
            format!("{} is not keyed by identity and start", schema.name).into(),
        ));
    };
    let (identity, start) = (column(batch, identity)?, column(batch, start)?);
    let insert = inserts.get(batch.table(), 1);
    let mut inserted = 0;
    for row in 0..batch.len() {
        let known = arguments(&[start, compared, identity], row)?;
        let known: Option<bool> = sqlx::query_scalar_with(AssertSqlSafe(statements.known.clone()), known)
            .fetch_optional(&mut **transaction)
            .await?;
        if known == Some(true) {
            continue;
        }
        execute(transaction, Arc::clone(&statements.end), arguments(&[start, identity], row)?).await?;
        let values = bind::rows(batch, &[row]).map_err(sqlx::Error::Encode)?;
        inserted += execute(transaction, Arc::clone(&insert), values).await?;
    }
    Ok(inserted)
}

async fn execute(
    transaction: &mut Transaction<'_, Sqlite>,
    sql: Arc<str>,
    arguments: SqliteArguments,
) -> Result<u64, sqlx::Error> {
    // The text is made of declared names and question marks only.
    let done = sqlx::query_with(AssertSqlSafe(sql), arguments).execute(&mut **transaction).await?;
    Ok(done.rows_affected())
}

fn arguments(columns: &[&Column], row: usize) -> Result<SqliteArguments, sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    for column in columns {
        bind::cell(&mut arguments, column, row).map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

fn column<'a>(batch: &'a Batch, name: &str) -> Result<&'a Column, sqlx::Error> {
    let at = batch.schema().columns.iter().position(|column| column.name == name);
    at.and_then(|at| batch.columns().get(at)).ok_or_else(|| sqlx::Error::ColumnNotFound(name.to_owned()))
}

/// The outcome of a write that could not begin.
pub(crate) fn refused(error: &StoreError) -> WriteOutcome {
    let words = error.message().to_owned();
    match error.class() {
        ErrorClass::Transient { retry_after } => WriteOutcome::Transient { retry_after, error: words },
        ErrorClass::Fatal => WriteOutcome::Fatal { error: words },
    }
}

fn outcome(failure: &Failure) -> WriteOutcome {
    match failure {
        Failure::Commit(error) if commit_is_unknown(error) => {
            WriteOutcome::UnknownOutcome { error: error.to_string() }
        }
        Failure::Before(error) | Failure::Commit(error) => match verdict(error) {
            Verdict::Transient(retry_after) => {
                WriteOutcome::Transient { retry_after, error: error.to_string() }
            }
            // A commit checks no row by itself: the culprits are not known.
            Verdict::Row => WriteOutcome::Poison { rows: Vec::new() },
            Verdict::Fatal => WriteOutcome::Fatal { error: error.to_string() },
        },
    }
}
