//! The figures, marks and quarantine beside accepted rows: statements within the transaction that accepts, and what was
//! committed last, remembered. The same tables stand in the store's own database and in the spool's.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use fathom_market::{batch::Batch, mark::StreamMark, table::Table};
use serde_json::json;
use sqlx::{Row as _, SqliteConnection};

use crate::account::{
    Accepted, Change, Offered, Opening, QuarantineLimits, QuarantineQuery, QuarantinedRow, Refusal, row_json,
};

/// Starts whose last batch is remembered.
const EPOCHS: i64 = 16;

/// What was committed last.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: (u64, u64),
    accepted: BTreeMap<Table, Accepted>,
    offered: BTreeMap<Table, Offered>,
}

/// What a fresh database goes on with when the one before is lost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Carried {
    last: (u64, u64),
    accepted: BTreeMap<Table, Accepted>,
    offered: BTreeMap<Table, Offered>,
    /// How far the streams were accepted.
    pub(crate) marks: Vec<StreamMark>,
}

impl Ledger {
    /// The second side as of the last commit.
    pub(crate) fn accepted(&self) -> BTreeMap<Table, Accepted> {
        self.lock().accepted.clone()
    }

    /// Takes in what was read at the start; batches of earlier starts are in it.
    pub(crate) fn opened(&self, opening: &Opening) {
        let mut state = self.lock();
        state.last = (opening.epoch.saturating_sub(1), u64::MAX);
        state.accepted.clone_from(&opening.accepted);
        state.offered.clone_from(&opening.offered);
    }

    /// Takes in what is persisted, when the outcome of a transaction is not known.
    pub(crate) fn reread(&self, last: (u64, u64), accepted: BTreeMap<Table, Accepted>) {
        let mut state = self.lock();
        state.last = state.last.max(last);
        state.accepted = accepted;
    }

    /// The first side was committed.
    pub(crate) fn offered(&self, offered: &[(Table, Offered)]) {
        self.lock().offered.extend(offered.iter().copied());
    }

    /// What goes over when the database is lost with all that waits in it.
    pub(crate) fn carried(&self) -> Carried {
        let state = self.lock();
        let mut accepted = state.accepted.clone();
        for side in accepted.values_mut() {
            side.discarded += std::mem::take(&mut side.spooled) + std::mem::take(&mut side.quarantined);
        }
        Carried { last: state.last, accepted, offered: state.offered.clone(), marks: Vec::new() }
    }

    /// It has gone over.
    pub(crate) fn carried_over(&self, carried: Carried) {
        self.lock().accepted = carried.accepted;
    }

    /// A batch was committed, now or by an attempt whose answer was lost; counted once. True the first time.
    pub(crate) fn committed(&self, batch: &Batch, change: &Change) -> bool {
        let mut state = self.lock();
        let is_new = (batch.epoch, batch.seq) > state.last;
        if is_new {
            state.last = (batch.epoch, batch.seq);
            change.apply(state.accepted.entry(batch.table()).or_default());
        }
        is_new
    }

    /// Something else was committed.
    pub(crate) fn changed(&self, table: Table, change: &Change) {
        change.apply(self.lock().accepted.entry(table).or_default());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between calls, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

/// What an earlier attempt to accept this batch came to: rows stored and duplicate. A lower number than the last accepted one
/// is an attempt that was given up long ago.
pub(crate) async fn accepted_before(
    connection: &mut SqliteConnection,
    batch: &Batch,
) -> Result<Option<(u64, u64)>, sqlx::Error> {
    let found = sqlx::query("select stored, duplicate from sink_epochs where epoch = ? and seq >= ?")
        .bind(signed(batch.epoch))
        .bind(signed(batch.seq))
        .fetch_optional(connection)
        .await?;
    found.map(|row| Ok((unsigned(row.try_get(0)?), unsigned(row.try_get(1)?)))).transpose()
}

/// Notes an accepted batch: its number, its figures, its marks, and the first side.
pub(crate) async fn note(
    connection: &mut SqliteConnection,
    batch: &Batch,
    change: &Change,
    offered: &[(Table, Offered)],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into sink_epochs (epoch, seq, stored, duplicate) values (?, ?, ?, ?) \
         on conflict (epoch) do update set \
             seq = excluded.seq, stored = excluded.stored, duplicate = excluded.duplicate",
    )
    .bind(signed(batch.epoch))
    .bind(signed(batch.seq))
    .bind(change.stored)
    .bind(change.duplicate)
    .execute(&mut *connection)
    .await?;
    if batch.seq <= 1 {
        forget_epochs(connection, batch.epoch).await?;
    }
    add(connection, batch.schema().name, change).await?;
    set_offered(connection, offered).await?;
    // A row in quarantine is no mark: its stream is not stored up to there.
    if change.quarantined > 0 {
        return Ok(());
    }
    put_marks(connection, &batch.marks()).await
}

/// Changes figures of the second side.
pub(crate) async fn add(
    connection: &mut SqliteConnection,
    table: &str,
    change: &Change,
) -> Result<(), sqlx::Error> {
    let figures: Vec<_> = change.figures().map(|(figure, rows)| json!([table, figure, rows])).collect();
    sqlx::query(
        "insert into sink_counts (table_name, figure, rows) \
         select value ->> 0, value ->> 1, value ->> 2 from json_each(?) where true \
         on conflict (table_name, figure) do update set rows = rows + excluded.rows",
    )
    .bind(serde_json::Value::from(figures).to_string())
    .execute(connection)
    .await
    .map(|_| ())
}

/// Sets figures of the first side; they only grow.
pub(crate) async fn set_offered(
    connection: &mut SqliteConnection,
    offered: &[(Table, Offered)],
) -> Result<(), sqlx::Error> {
    if offered.is_empty() {
        return Ok(());
    }
    let figures = offered.iter().flat_map(|(table, figures)| {
        let name = table.schema().name;
        figures.figures().into_iter().map(move |(figure, rows)| json!([name, figure, rows]))
    });
    let figures: Vec<_> = figures.collect();
    sqlx::query(
        "insert into sink_counts (table_name, figure, rows) \
         select value ->> 0, value ->> 1, value ->> 2 from json_each(?) where true \
         on conflict (table_name, figure) do update set rows = max(rows, excluded.rows)",
    )
    .bind(serde_json::Value::from(figures).to_string())
    .execute(connection)
    .await
    .map(|_| ())
}

/// Writes what goes over into a fresh database.
pub(crate) async fn carry(connection: &mut SqliteConnection, carried: &Carried) -> Result<(), sqlx::Error> {
    let (epoch, seq) = carried.last;
    if epoch > 0 {
        sqlx::query("insert into sink_epochs (epoch, seq, stored, duplicate) values (?, ?, 0, 0)")
            .bind(signed(epoch))
            .bind(signed(seq))
            .execute(&mut *connection)
            .await?;
    }
    for (table, side) in &carried.accepted {
        add(connection, table.schema().name, &Change::of(side)).await?;
    }
    let offered: Vec<_> = carried.offered.iter().map(|(table, side)| (*table, *side)).collect();
    set_offered(connection, &offered).await?;
    put_marks(connection, &carried.marks).await
}

/// Whether nothing was ever noted.
pub(crate) async fn is_fresh(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let noted = "select exists (select 1 from sink_counts) or exists (select 1 from sink_epochs)";
    sqlx::query_scalar::<_, bool>(noted).fetch_one(connection).await.map(|noted| !noted)
}

/// The last batch that is noted.
pub(crate) async fn last(connection: &mut SqliteConnection) -> Result<(u64, u64), sqlx::Error> {
    let found = sqlx::query("select epoch, seq from sink_epochs order by epoch desc limit 1")
        .fetch_optional(connection)
        .await?;
    let read = |row: sqlx::sqlite::SqliteRow| Ok((unsigned(row.try_get(0)?), unsigned(row.try_get(1)?)));
    found.map_or(Ok((0, 0)), read)
}

async fn put_marks(connection: &mut SqliteConnection, marks: &[StreamMark]) -> Result<(), sqlx::Error> {
    if marks.is_empty() {
        return Ok(());
    }
    let marks: Vec<_> = marks
        .iter()
        .map(|mark| json!([mark.instrument_id, mark.channel, mark.last_us, mark.last_id]))
        .collect();
    sqlx::query(
        "insert into stream_marks (instrument_id, channel, last_us, last_id) \
         select value ->> 0, value ->> 1, value ->> 2, value ->> 3 from json_each(?) where true \
         on conflict (instrument_id, channel) do update set last_us = excluded.last_us, last_id = excluded.last_id \
         where case when excluded.channel = 'trade' \
             and excluded.last_id not glob '*[^0-9]*' and stream_marks.last_id not glob '*[^0-9]*' \
           then cast(excluded.last_id as integer) >= cast(stream_marks.last_id as integer) \
           else excluded.last_us >= stream_marks.last_us end",
    )
    .bind(serde_json::Value::from(marks).to_string())
    .execute(connection)
    .await
    .map(|_| ())
}

/// The marks.
pub(crate) async fn marks(connection: &mut SqliteConnection) -> Result<Vec<StreamMark>, sqlx::Error> {
    let rows = sqlx::query("select instrument_id, channel, last_us, last_id from stream_marks")
        .fetch_all(connection)
        .await?;
    let mark = |row: &sqlx::sqlite::SqliteRow| {
        Ok(StreamMark {
            instrument_id: row.try_get(0)?,
            channel: row.try_get(1)?,
            last_us: row.try_get(2)?,
            last_id: row.try_get(3)?,
        })
    };
    rows.iter().map(mark).collect()
}

/// What the last process left. Nothing is written: the same is found until something is accepted.
pub(crate) async fn opening(connection: &mut SqliteConnection) -> Result<Opening, sqlx::Error> {
    let last: i64 = sqlx::query_scalar("select coalesce(max(epoch), 0) from sink_epochs")
        .fetch_one(&mut *connection)
        .await?;
    let mut opening = Opening { epoch: unsigned(last) + 1, ..Opening::default() };
    let rows = sqlx::query("select table_name, figure, rows from sink_counts").fetch_all(connection).await?;
    for row in rows {
        let (table, figure): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let count = unsigned(row.try_get(2)?);
        // A table of a newer program has no figures here.
        let Some(table) = Table::by_name(&table) else { continue };
        opening.offered.entry(table).or_default().read(&figure, count);
        let accepted = opening.accepted.entry(table).or_default();
        match figure.as_str() {
            "accepted" => accepted.accepted = count,
            "stored" => accepted.stored = count,
            "duplicate" => accepted.duplicate = count,
            "spooled" => accepted.spooled = count,
            "quarantined" => accepted.quarantined = count,
            "discarded" => accepted.discarded = count,
            "expired" => accepted.expired = count,
            _ => {}
        }
    }
    for (table, offered) in &mut opening.offered {
        let accepted = opening.accepted.get(table).map_or(0, |accepted| accepted.accepted);
        let lost = offered.offered.saturating_sub(accepted + offered.refused());
        offered.refuse(Refusal::ProcessKilled, lost);
    }
    Ok(opening)
}

/// Forgets the numbers of starts long past.
async fn forget_epochs(connection: &mut SqliteConnection, epoch: u64) -> Result<(), sqlx::Error> {
    sqlx::query("delete from sink_epochs where epoch < ?")
        .bind(signed(epoch) - EPOCHS)
        .execute(connection)
        .await
        .map(|_| ())
}

/// What goes into quarantine.
pub(crate) struct Suspect<'a> {
    pub(crate) table: &'a str,
    pub(crate) rows: u64,
    pub(crate) json: Option<String>,
    pub(crate) body: Vec<u8>,
    pub(crate) error: &'a str,
    pub(crate) status: &'static str,
}

impl<'a> Suspect<'a> {
    /// Each row of a batch, with the words that go with it.
    pub(crate) fn of(batch: &Batch, errors: &'a [String]) -> Result<Vec<Self>, sqlx::Error> {
        let suspect = |row: usize| {
            let body = batch.select(&[row]).encode().map_err(|error| sqlx::Error::Encode(error.into()))?;
            Ok(Self {
                table: batch.schema().name,
                rows: 1,
                json: Some(row_json(batch, row)),
                body,
                error: errors.get(row).map_or("", String::as_str),
                status: "waiting",
            })
        };
        (0..batch.len()).map(suspect).collect()
    }
}

/// Puts rows into quarantine. False, and nothing changed, when they would exceed its bounds.
pub(crate) async fn put_suspects(
    connection: &mut SqliteConnection,
    suspects: &[Suspect<'_>],
    limits: QuarantineLimits,
    now_us: i64,
) -> Result<bool, sqlx::Error> {
    let held = sqlx::query("select coalesce(sum(rows), 0), coalesce(sum(length(batch)), 0) from quarantine")
        .fetch_one(&mut *connection)
        .await?;
    let rows = unsigned(held.try_get(0)?) + suspects.iter().map(|one| one.rows).sum::<u64>();
    let bytes = unsigned(held.try_get(1)?) + suspects.iter().map(|one| one.body.len() as u64).sum::<u64>();
    if rows > limits.rows || bytes > limits.bytes {
        return Ok(false);
    }
    for one in suspects {
        sqlx::query(
            "insert into quarantine (table_name, rows, row_json, batch, error, first_us, attempts, status) \
             values (?, ?, ?, ?, ?, ?, 1, ?)",
        )
        .bind(one.table.to_owned())
        .bind(signed(one.rows))
        .bind(one.json.clone())
        .bind(one.body.clone())
        .bind(one.error.to_owned())
        .bind(now_us)
        .bind(one.status)
        .execute(&mut *connection)
        .await?;
    }
    Ok(true)
}

/// Rows in quarantine, in the order of their numbers.
pub(crate) async fn suspects(
    connection: &mut SqliteConnection,
    query: &QuarantineQuery,
) -> Result<Vec<QuarantinedRow>, sqlx::Error> {
    let rows = sqlx::query(
        "select id, table_name, rows, row_json, error, first_us, attempts, status from quarantine \
         where id > ?1 and (?2 is null or table_name = ?2) order by id limit ?3",
    )
    .bind(query.after)
    .bind(query.table.map(|table| table.schema().name))
    .bind(i64::from(query.limit))
    .fetch_all(connection)
    .await?;
    let read = |row: &sqlx::sqlite::SqliteRow| {
        Ok(QuarantinedRow {
            id: row.try_get(0)?,
            table: row.try_get(1)?,
            rows: unsigned(row.try_get(2)?),
            row: row.try_get(3)?,
            error: row.try_get(4)?,
            first_us: row.try_get(5)?,
            attempts: unsigned(row.try_get(6)?),
            status: row.try_get(7)?,
        })
    };
    rows.iter().map(read).collect()
}

/// A quarantined row as it was put in: its table's name, its rows, its batch. What is damaged has none: its bytes may still
/// decode, to wrong values.
pub(crate) async fn suspect(
    connection: &mut SqliteConnection,
    id: i64,
) -> Result<Option<(String, u64, Result<Batch, String>)>, sqlx::Error> {
    let found = sqlx::query("select table_name, rows, batch, status from quarantine where id = ?")
        .bind(id)
        .fetch_optional(connection)
        .await?;
    let Some(row) = found else { return Ok(None) };
    let body: Vec<u8> = row.try_get(2)?;
    let batch = match row.try_get(3)? {
        "damaged" => Err("the record is damaged: it can only be removed".to_owned()),
        _ => Batch::decode(&body).map_err(|error| error.to_string()),
    };
    Ok(Some((row.try_get(0)?, unsigned(row.try_get(1)?), batch)))
}

/// Takes a row out of quarantine. False when it has gone already.
pub(crate) async fn take_suspect(connection: &mut SqliteConnection, id: i64) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("delete from quarantine where id = ?").bind(id).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

/// A quarantined row was refused again.
pub(crate) async fn refused_again(
    connection: &mut SqliteConnection,
    id: i64,
    error: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update quarantine set attempts = attempts + 1, error = case status when 'damaged' then error else ? end, \
         status = case status when 'damaged' then status else 'refused_again' end where id = ?",
    )
    .bind(error.to_owned())
    .bind(id)
    .execute(connection)
    .await
    .map(|_| ())
}
