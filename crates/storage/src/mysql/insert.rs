//! How the rows of a batch enter their table, by its policy, and how many do.
//!
//! The driver counts rows that were found, not rows that were changed, so that `on duplicate key update` answers a new row and a
//! known one alike. Rows are therefore added plainly, which is also the fastest; where a key is stored already, what is stored is
//! read and locked, and only the rows that change something are sent.

use std::{collections::HashMap, sync::Arc, time::Duration};

use fathom_market::{
    batch::{Batch, Column},
    table::{ColumnKind, Conflict},
};
use sqlx::{AssertSqlSafe, MySql, Transaction, mysql::MySqlArguments};

use super::{
    bind,
    classify::{DUPLICATE_KEY, number},
    connect::within,
    rollup,
    statements::{Kind, Statements, Versioned, chunks},
    value::{Value, positions, values},
};

/// A batch on its way into its table.
pub(super) struct Inserting<'a, 'c> {
    pub(super) transaction: &'a mut Transaction<'c, MySql>,
    pub(super) statements: &'a mut Statements,
    pub(super) batch: &'a Batch,
    pub(super) max_packet: u64,
    /// How long each statement may take.
    pub(super) patience: Duration,
}

/// What stands at a key while a chunk is gone through.
struct Held {
    /// The row that was stored before.
    stored: bool,
    /// The position of the row that is to stand here.
    row: Option<usize>,
    /// All values, of a table in which newer rows replace.
    values: Vec<Value>,
}

impl Inserting<'_, '_> {
    /// Inserts the rows and gives how many were added or updated.
    pub(super) async fn all(&mut self) -> Result<u64, sqlx::Error> {
        let (batch, max_packet) = (self.batch, self.max_packet);
        let conflict = batch.schema().conflict;
        if let Conflict::Versioned(compared) = conflict {
            return self.versions(compared).await;
        }
        let order = key_order(batch);
        let mut inserted = 0;
        for chunk in chunks(batch, &order, max_packet) {
            inserted += match conflict {
                Conflict::Newest(by) => self.newest(chunk, by).await?,
                _ => self.first(chunk).await?,
            };
        }
        Ok(inserted)
    }

    /// Adds the rows whose keys are not stored.
    async fn first(&mut self, chunk: &[usize]) -> Result<u64, sqlx::Error> {
        match self.send(Kind::Insert, chunk).await {
            // The statement has undone itself.
            Err(error) if number(&error) == Some(DUPLICATE_KEY) => {}
            done => {
                done?;
                self.mark(chunk).await?;
                return Ok(chunk.len() as u64);
            }
        }
        let schema = self.batch.schema();
        let key = positions(self.batch, schema.key);
        let kinds: Vec<ColumnKind> =
            key.iter().filter_map(|at| Some(schema.columns.get(*at)?.kind)).collect();
        let mut known: HashMap<Vec<Value>, bool> =
            self.stored(Kind::Keys, chunk, &kinds).await?.into_iter().map(|key| (key, true)).collect();
        let new = |row: &&usize| known.insert(values(self.batch, &key, **row), true).is_none();
        let new: Vec<usize> = chunk.iter().filter(new).copied().collect();
        self.mark(&new).await?;
        self.send_all(Kind::Insert, &new).await
    }

    /// Marks what has to be rolled up again.
    async fn mark(&mut self, rows: &[usize]) -> Result<(), sqlx::Error> {
        match rollup::marks(self.batch, rows)? {
            Some((sql, arguments)) => self.execute(sql.into(), arguments).await,
            None => Ok(()),
        }
    }

    /// Puts each row into its place where it is newer than what stands there. A tie replaces, but the same row again is a duplicate:
    /// it changes nothing and counts as nothing.
    async fn newest(&mut self, chunk: &[usize], by: &str) -> Result<u64, sqlx::Error> {
        let schema = self.batch.schema();
        let key = positions(self.batch, schema.key);
        let all: Vec<usize> = (0..schema.columns.len()).collect();
        let kinds: Vec<ColumnKind> = schema.columns.iter().map(|column| column.kind).collect();
        let by = schema.columns.iter().position(|column| column.name == by).unwrap_or_default();
        let key_of = |row: &[Value]| key.iter().filter_map(|at| row.get(*at).cloned()).collect::<Vec<_>>();
        let stored = self.stored(Kind::Rows, chunk, &kinds).await?;
        let mut held: HashMap<Vec<Value>, Held> = stored
            .into_iter()
            .map(|values| (key_of(&values), Held { stored: true, row: None, values }))
            .collect();
        let mut applied = 0;
        for &row in chunk {
            let values = values(self.batch, &all, row);
            let place = held.entry(key_of(&values)).or_insert_with(|| Held {
                stored: false,
                row: None,
                values: Vec::new(),
            });
            if place.values.is_empty() || newer(&values, &place.values, by) {
                (place.row, place.values) = (Some(row), values);
                applied += 1;
            }
        }
        let sent = |stored: bool| {
            let mut rows: Vec<usize> =
                held.values().filter(|place| place.stored == stored).filter_map(|place| place.row).collect();
            rows.sort_unstable();
            rows
        };
        let (new, changed) = (sent(false), sent(true));
        self.send_all(Kind::Insert, &new).await?;
        self.send_all(Kind::Replace, &changed).await?;
        Ok(applied)
    }

    /// Adds a version where it is newer than the last and says something else. An older one is a replay and changes nothing.
    /// Versions of one identity must arrive in the order of time the first time.
    async fn versions(&mut self, compared: &str) -> Result<u64, sqlx::Error> {
        let batch = self.batch;
        let schema = batch.schema();
        let statements = Versioned::new(schema, compared);
        let named =
            |name: &str| batch.column(name).ok_or_else(|| sqlx::Error::ColumnNotFound(name.to_owned()));
        let &[identity, start] = schema.key else {
            return Err(sqlx::Error::Encode(
                format!("{} is not keyed by identity and start", schema.name).into(),
            ));
        };
        let (identity, start, compared) = (named(identity)?, named(start)?, named(compared)?);
        let mut inserted = 0;
        for row in 0..batch.len() {
            let known = arguments(&[start, compared, identity], row)?;
            let known =
                sqlx::query_scalar_with::<_, Option<bool>, _>(AssertSqlSafe(statements.known.clone()), known)
                    .fetch_optional(&mut **self.transaction);
            if within(self.patience, known).await?.flatten() == Some(true) {
                continue;
            }
            self.execute(Arc::clone(&statements.end), arguments(&[start, identity], row)?).await?;
            self.send(Kind::Insert, &[row]).await?;
            inserted += 1;
        }
        Ok(inserted)
    }

    /// What is stored of the keys of these rows, locked until the end of the transaction.
    async fn stored(
        &mut self,
        kind: Kind,
        chunk: &[usize],
        kinds: &[ColumnKind],
    ) -> Result<Vec<Vec<Value>>, sqlx::Error> {
        let sql = self.statements.get(self.batch.table(), kind, chunk.len());
        let key = positions(self.batch, self.batch.schema().key);
        let mut arguments = MySqlArguments::default();
        for &row in chunk {
            for value in values(self.batch, &key, row) {
                value.bind(&mut arguments).map_err(sqlx::Error::Encode)?;
            }
        }
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
        let rows = within(self.patience, query.fetch_all(&mut **self.transaction)).await?;
        let read = |row| kinds.iter().enumerate().map(|(at, kind)| Value::read(row, at, *kind)).collect();
        rows.iter().map(read).collect()
    }

    async fn send_all(&mut self, kind: Kind, rows: &[usize]) -> Result<u64, sqlx::Error> {
        let (batch, max_packet) = (self.batch, self.max_packet);
        for chunk in chunks(batch, rows, max_packet) {
            self.send(kind, chunk).await?;
        }
        Ok(rows.len() as u64)
    }

    async fn send(&mut self, kind: Kind, rows: &[usize]) -> Result<(), sqlx::Error> {
        let sql = self.statements.get(self.batch.table(), kind, rows.len());
        let arguments = bind::rows(self.batch, rows).map_err(sqlx::Error::Encode)?;
        self.execute(sql, arguments).await
    }

    async fn execute(&mut self, sql: Arc<str>, arguments: MySqlArguments) -> Result<(), sqlx::Error> {
        // The text is made of declared names and question marks only.
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
        within(self.patience, query.execute(&mut **self.transaction)).await.map(|_| ())
    }
}

fn newer(row: &[Value], stored: &[Value], by: usize) -> bool {
    match row.get(by).cmp(&stored.get(by)) {
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => row != stored,
        std::cmp::Ordering::Less => false,
    }
}

/// The rows by the first column of their key, in their own order where it is the same: neighbours in the tree are written
/// together, and which of two rows with one key comes first stays as it was. Two writers take their locks in one order.
fn key_order(batch: &Batch) -> Vec<usize> {
    let mut order: Vec<usize> = (0..batch.len()).collect();
    let first = batch.schema().key.first().and_then(|name| batch.column(name));
    if let Some(Column::Int(ids)) = first {
        order.sort_by_key(|row| ids.get(*row));
    }
    order
}

fn arguments(columns: &[&Column], row: usize) -> Result<MySqlArguments, sqlx::Error> {
    let mut arguments = MySqlArguments::default();
    for column in columns {
        bind::cell(&mut arguments, column, row).map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}
