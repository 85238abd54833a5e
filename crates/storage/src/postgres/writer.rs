//! Batches into their tables.
//!
//! New rows go in binary form straight into the table. Where that meets a key that is stored, the batch is rolled back and
//! merged from a stage by the table's policy, and so are the table's next ones until a batch has no duplicate: replays come in
//! a row. Rows that can replace others always go by the stage.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use fathom_market::{
    batch::{Batch, Column},
    table::{Conflict, Schema, Table},
};
use sqlx::{AssertSqlSafe, PgPool, postgres::PgArguments};

use super::{
    bind,
    classify::{Verdict, commit_is_unknown, is_duplicate, outcome, verdict},
    connect::Lease,
    encode,
    partitions::Partitions,
    statements::{self, Versioned},
};
use crate::store::{PoisonRow, WriteOutcome};

/// Bytes sent at once: the server reads the first while the next are encoded.
const CHUNK: usize = 128 * 1024;
/// Times that a transaction is begun when others are in its way.
const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Rows to blame that are looked for at once; the caller comes again without them.
const CULPRITS: usize = 64;

/// The writing side.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// The tables whose last batch met a duplicate, a bit each.
    replayed: AtomicU64,
}

/// Why a transaction did not go through.
enum Failure {
    /// Anything before the commit.
    Before(sqlx::Error),
    /// The commit itself failed.
    Commit(sqlx::Error),
}

impl Failure {
    fn into_inner(self) -> sqlx::Error {
        match self {
            Self::Before(error) | Self::Commit(error) => error,
        }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Before(error)
    }
}

impl Writer {
    /// Writes a batch in one transaction.
    pub(super) async fn write(&self, pool: &PgPool, partitions: &Partitions, batch: &Batch) -> WriteOutcome {
        let mut pause = FIRST_PAUSE;
        for _ in 1..ATTEMPTS {
            match self.attempt(pool, partitions, batch).await {
                Err(Failure::Before(error) | Failure::Commit(error)) if verdict(&error) == Verdict::Again => {
                    tracing::debug!(table = batch.schema().name, %error, "a transaction is begun again");
                }
                ended => return answer(ended),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        answer(self.attempt(pool, partitions, batch).await)
    }

    async fn attempt(
        &self,
        pool: &PgPool,
        partitions: &Partitions,
        batch: &Batch,
    ) -> Result<WriteOutcome, Failure> {
        partitions.prepare(pool, batch).await;
        let mut lease = Lease::take(pool).await?;
        let inserted = match self.insert(&mut lease, batch).await {
            Ok(inserted) => inserted,
            Err(Failure::Before(error)) if is_row(&error) => {
                let rows = culprits(&mut lease, batch).await?;
                lease.give_back();
                return Ok(WriteOutcome::Poison { rows });
            }
            Err(failure) => return Err(failure),
        };
        lease.give_back();
        let duplicate = (batch.len() as u64).saturating_sub(inserted);
        self.note(batch.table(), duplicate > 0);
        Ok(WriteOutcome::Committed { inserted, duplicate })
    }

    /// Inserts in one transaction; gives how many rows were added or updated.
    async fn insert(&self, lease: &mut Lease, batch: &Batch) -> Result<u64, Failure> {
        let schema = batch.schema();
        if schema.conflict == Conflict::KeepFirst && !self.is_replayed(batch.table()) {
            // A transaction of its own: to begin and end one around it would ask the server twice more.
            match copy(lease, schema.name, batch, &all(batch)).await {
                Err(Failure::Before(error) | Failure::Commit(error)) if is_duplicate(&error) => {}
                Err(Failure::Commit(error)) if !commit_is_unknown(&error) => return Err(error.into()),
                ended => return ended,
            }
        }
        lease.run("begin").await?;
        let inserted = match merge(lease, batch, &all(batch)).await {
            Ok(inserted) => inserted,
            Err(error) => {
                // A row's fault: the connection is clean again. Anything else ends it.
                if is_row(&error) {
                    lease.run("rollback").await?;
                }
                return Err(error.into());
            }
        };
        lease.run("commit").await.map_err(Failure::Commit)?;
        Ok(inserted)
    }

    fn is_replayed(&self, table: Table) -> bool {
        self.replayed.load(Ordering::Relaxed) & bit(table) != 0
    }

    fn note(&self, table: Table, replayed: bool) {
        if replayed {
            self.replayed.fetch_or(bit(table), Ordering::Relaxed);
        } else {
            self.replayed.fetch_and(!bit(table), Ordering::Relaxed);
        }
    }
}

const fn bit(table: Table) -> u64 {
    1 << (table as u64 % 64)
}

fn all(batch: &Batch) -> Vec<usize> {
    (0..batch.len()).collect()
}

/// A key that is stored is no fault of the row: where the policy did not settle it, somebody else was faster.
fn is_row(error: &sqlx::Error) -> bool {
    verdict(error) == Verdict::Row && !is_duplicate(error)
}

fn answer(ended: Result<WriteOutcome, Failure>) -> WriteOutcome {
    match ended {
        Ok(outcome) => outcome,
        Err(Failure::Commit(error)) if commit_is_unknown(&error) => {
            WriteOutcome::UnknownOutcome { error: error.to_string() }
        }
        Err(Failure::Before(error) | Failure::Commit(error)) => outcome(&error),
    }
}

/// Sends rows in binary form; gives how many the server took. Outside of a transaction, its end is the commit.
async fn copy(lease: &mut Lease, table: &str, batch: &Batch, rows: &[usize]) -> Result<u64, Failure> {
    let statement = statements::copy_into(table, batch.schema());
    let mut sink = lease.connection().copy_in_raw(&statement).await?;
    let mut bytes = Vec::with_capacity(CHUNK + CHUNK / 8);
    bytes.extend_from_slice(&encode::HEADER);
    for &row in rows {
        encode::row(&mut bytes, batch, row);
        if bytes.len() >= CHUNK {
            sink.send(bytes.as_slice()).await?;
            bytes.clear();
        }
    }
    bytes.extend_from_slice(&encode::TRAILER);
    sink.send(bytes.as_slice()).await?;
    sink.finish().await.map_err(Failure::Commit)
}

/// Merges rows by the table's policy; gives how many were added or updated.
async fn merge(lease: &mut Lease, batch: &Batch, rows: &[usize]) -> Result<u64, sqlx::Error> {
    let schema = batch.schema();
    match schema.conflict {
        Conflict::Versioned(compared) => merge_versions(lease, batch, rows, compared).await,
        Conflict::KeepFirst => merge_stage(lease, batch, rows, false).await,
        Conflict::Newest(_) => {
            let mut changed = 0;
            for (turn, rows) in rounds(batch, rows).iter().enumerate() {
                changed += merge_stage(lease, batch, rows, turn > 0).await?;
            }
            Ok(changed)
        }
    }
}

async fn merge_stage(
    lease: &mut Lease,
    batch: &Batch,
    rows: &[usize],
    is_used: bool,
) -> Result<u64, sqlx::Error> {
    let schema = batch.schema();
    let stage = statements::stage_name(schema);
    if is_used {
        lease.run_text(format!("truncate {stage}")).await?;
    } else {
        lease.run_text(statements::stage(schema)).await?;
    }
    copy(lease, &stage, batch, rows).await.map_err(Failure::into_inner)?;
    execute(lease, statements::merge(schema), PgArguments::default()).await
}

/// Rows by how many rows of the same key were before them: one statement updates a row once, so each turn is a statement.
fn rounds(batch: &Batch, rows: &[usize]) -> Vec<Vec<usize>> {
    let schema = batch.schema();
    let key: Vec<&Column> = schema.key.iter().filter_map(|name| column(batch, name).ok()).collect();
    let mut seen: HashMap<Vec<u8>, usize> = HashMap::with_capacity(rows.len());
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    for &row in rows {
        let mut bytes = Vec::with_capacity(48);
        key.iter().for_each(|column| encode::cell(&mut bytes, column, row));
        let turn = seen.entry(bytes).and_modify(|turn| *turn += 1).or_default();
        match rounds.get_mut(*turn) {
            Some(round) => round.push(row),
            None => rounds.push(vec![row]),
        }
    }
    rounds
}

/// Adds a version where it is newer than the last and says something else. An older one is a replay and changes nothing.
/// Versions of one identity must arrive in the order of time the first time: a version that was left out for saying the
/// same leaves no trace by which its replay could be known.
async fn merge_versions(
    lease: &mut Lease,
    batch: &Batch,
    rows: &[usize],
    compared: &str,
) -> Result<u64, sqlx::Error> {
    let schema = batch.schema();
    let statements = Versioned::new(schema, compared);
    let (&[identity, start], compared) = (schema.key, column(batch, compared)?) else {
        return Err(unversioned(schema));
    };
    let (identity, start) = (column(batch, identity)?, column(batch, start)?);
    let columns: Vec<&Column> = batch.columns().iter().collect();
    lease.run_text(statements.lock).await?;
    let mut inserted = 0;
    for &row in rows {
        let asked = bind::arguments(&[start, compared, identity], row)?;
        let known: Option<bool> = sqlx::query_scalar_with(AssertSqlSafe(statements.known.clone()), asked)
            .fetch_optional(lease.connection())
            .await?;
        if known == Some(true) {
            continue;
        }
        execute(lease, statements.end.clone(), bind::arguments(&[start, identity], row)?).await?;
        inserted += execute(lease, statements.insert.clone(), bind::arguments(&columns, row)?).await?;
    }
    Ok(inserted)
}

fn unversioned(schema: &Schema) -> sqlx::Error {
    sqlx::Error::Protocol(format!("{} is not keyed by identity and start", schema.name))
}

/// Finds the rows to blame by halves, in savepoints, and takes everything back.
async fn culprits(lease: &mut Lease, batch: &Batch) -> Result<Vec<PoisonRow>, sqlx::Error> {
    lease.run("begin").await?;
    let (mut found, mut parts) = (Vec::new(), vec![all(batch)]);
    while let Some(rows) = parts.pop() {
        if found.len() >= CULPRITS {
            break;
        }
        lease.run("savepoint part").await?;
        match merge(lease, batch, &rows).await {
            // Taken back too: what a part adds must not be in the way of the next.
            Ok(_) => lease.run("rollback to savepoint part").await?,
            Err(error) if is_row(&error) => {
                lease.run("rollback to savepoint part").await?;
                match rows.as_slice() {
                    [row] => found.push(PoisonRow { row: *row, error: error.to_string() }),
                    rows => {
                        let (first, second) = rows.split_at(rows.len() / 2);
                        parts.extend([second.to_vec(), first.to_vec()]);
                    }
                }
            }
            Err(error) => return Err(error),
        }
    }
    lease.run("rollback").await?;
    found.sort_by_key(|poison| poison.row);
    Ok(found)
}

/// The text is made of declared names; values are bound.
async fn execute(lease: &mut Lease, sql: String, arguments: PgArguments) -> Result<u64, sqlx::Error> {
    let done = sqlx::query_with(AssertSqlSafe(sql), arguments).execute(lease.connection()).await?;
    Ok(done.rows_affected())
}

fn column<'a>(batch: &'a Batch, name: &str) -> Result<&'a Column, sqlx::Error> {
    let at = batch.schema().columns.iter().position(|column| column.name == name);
    at.and_then(|at| batch.columns().get(at)).ok_or_else(|| sqlx::Error::ColumnNotFound(name.to_owned()))
}
