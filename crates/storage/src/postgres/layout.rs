//! The shape of the tables whose rows age, made from their declared schemas: natively partitioned by age, or plain where an
//! extension cuts them up. The other tables, and the views, are migrations.

use std::fmt::Write as _;

use fathom_market::table::{ColumnKind, Conflict, Schema, Table};
use sqlx::PgConnection;

use super::{classify::store_error, connect::Timescale};
use crate::error::StoreError;

/// Grows when a shape changes; the step that changes existing tables is then written beside [`ensure`].
pub(super) const VERSION: i64 = 1;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// How a table is cut up by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Into native range partitions, made and dropped by this program.
    Partitions,
}

impl Shape {
    /// Which one a server gets. TimescaleDB's hypertables would be decided on here, from `pg_available_extensions`.
    pub(super) fn choose(wanted: Timescale) -> Result<Self, StoreError> {
        match wanted {
            Timescale::Auto | Timescale::Never => Ok(Self::Partitions),
            Timescale::Require => Err(StoreError::fatal(
                "TimescaleDB is required, and hypertables are not made by this program",
            )),
        }
    }

    /// The word in the table of layouts.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Partitions => "partitions",
        }
    }

    /// The store's kind.
    pub(super) const fn store(self) -> &'static str {
        match self {
            Self::Partitions => "postgres",
        }
    }

    /// What follows the columns of a table.
    fn suffix(self, aged: &Aged) -> String {
        match self {
            Self::Partitions => format!(" partition by range ({})", aged.age),
        }
    }

    /// What follows the table: rows of no partition have a place, so that a write never fails for one that is missing.
    fn rest(self, name: &str) -> String {
        match self {
            Self::Partitions => {
                format!("create table if not exists {name}_default partition of {name} default;")
            }
        }
    }
}

/// A table whose rows age.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aged {
    /// The table.
    pub(super) table: Table,
    /// The column by which rows age.
    pub(super) age: &'static str,
    /// Its units in a millisecond.
    pub(super) per_ms: i64,
    /// The width of a partition, in its units.
    pub(super) width: i64,
}

impl Aged {
    /// How a table is cut up; `None` for one that is kept whole: without an age, or with one that an update can move.
    pub(super) fn of(table: Table) -> Option<Self> {
        let schema = table.schema();
        let (Conflict::KeepFirst, Some((age, per_ms))) = (schema.conflict, schema.age) else { return None };
        let width_ms = match table {
            Table::BookTicker | Table::Trades | Table::DepthEvents | Table::OrderbookData => HOUR_MS,
            _ => DAY_MS,
        };
        Some(Self { table, age, per_ms, width: width_ms * per_ms })
    }

    /// Every one.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        Table::ALL.iter().filter_map(|table| Self::of(*table))
    }
}

/// The columns of a table's primary key in PostgreSQL: the declared ones and, as partitions ask for it, the age.
///
/// A row written again still meets itself: the age of a tick, trade or depth event is its venue's time, a part of the event
/// like its id, and the spool replays rows as they were. The age stands behind the instrument, so that the one index is also
/// that of a question by symbol and time.
pub(super) fn key(schema: &Schema) -> Vec<&'static str> {
    let mut key = schema.key.to_vec();
    let Some((age, _)) = schema.age.filter(|_| schema.conflict == Conflict::KeepFirst) else { return key };
    if key.last() != Some(&age) {
        key.retain(|name| *name != age);
        key.insert(key.len().min(1), age);
    }
    key
}

/// Makes what is missing, in one go; gives whether there was anything.
pub(super) async fn ensure(connection: &mut PgConnection, shape: Shape) -> Result<bool, StoreError> {
    let mut commands =
        "begin; create table if not exists fathom_layout (table_name text collate \"C\" primary key, \
                        shape text not null, version bigint not null);"
            .to_owned();
    for aged in Aged::all() {
        commands.push_str(&table(&aged, shape));
    }
    commands.push_str("commit");
    let before = known(connection).await?;
    if before == Aged::all().count() as i64 {
        return Ok(false);
    }
    let made = sqlx::raw_sql(sqlx::AssertSqlSafe(commands)).execute(connection).await;
    made.map_err(|error| store_error(&error).while_doing("layout"))?;
    Ok(true)
}

/// How many tables have their shape. One made by a newer program is an error, like an unknown migration.
async fn known(connection: &mut PgConnection) -> Result<i64, StoreError> {
    let failed = |error| store_error(&error).while_doing("layout");
    let there: bool = sqlx::query_scalar("select to_regclass('fathom_layout') is not null")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    if !there {
        return Ok(0);
    }
    let (rows, newest): (i64, Option<i64>) =
        sqlx::query_as("select count(*), max(version) from fathom_layout")
            .fetch_one(connection)
            .await
            .map_err(failed)?;
    match newest {
        Some(newest) if newest > VERSION => Err(StoreError::fatal(format!(
            "the database was made by a newer program: layout {newest} is not known to this one"
        ))),
        _ => Ok(rows),
    }
}

fn table(aged: &Aged, shape: Shape) -> String {
    let schema = aged.table.schema();
    let name = schema.name;
    let mut sql = format!("create table if not exists {name} (");
    for column in schema.columns {
        // Writing to a string does not fail.
        let _ = write!(sql, "{} {}, ", column.name, kind(column.kind));
        if let Some(check) = check(aged.table, column.name) {
            let _ = write!(sql, "check ({check}), ");
        }
    }
    let _ = write!(sql, "primary key ({})){};", key(schema).join(", "), shape.suffix(aged));
    sql.push_str(&shape.rest(name));
    // A range of time without a symbol is a few partitions; within them, rows lie in the order of time, and a block index
    // costs next to nothing where a tree by time would cost every insert.
    let _ = write!(
        sql,
        "create index if not exists {name}_by_time on {name} using brin ({age}) with (pages_per_range = 32);\
         insert into fathom_layout values ('{name}', '{}', {VERSION}) on conflict do nothing;",
        shape.as_str(),
        age = aged.age,
    );
    sql
}

/// Names compare by their bytes, as in the program.
const fn kind(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Int => "bigint not null",
        ColumnKind::OptInt => "bigint",
        ColumnKind::Text => "text collate \"C\" not null",
        ColumnKind::OptText => "text collate \"C\"",
        ColumnKind::Dec => "numeric(28,12) not null",
        ColumnKind::OptDec => "numeric(28,12)",
        ColumnKind::Flag => "boolean not null",
    }
}

fn check(table: Table, column: &str) -> Option<String> {
    match (table, column) {
        (_, "price_scale" | "qty_scale") => Some(format!("{column} between 0 and 18")),
        (Table::Trades, "kind") => Some("kind in ('trade', 'agg')".to_owned()),
        (Table::Trades, "side") => Some("side in ('buy', 'sell')".to_owned()),
        (Table::CategorySnapshots, "market_type") => Some("market_type in ('SPOT', 'FUTURES')".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_declared_one_and_the_age() {
        for table in Table::ALL {
            let schema = table.schema();
            let (mut ours, mut declared) = (key(schema), schema.key.to_vec());
            if let Some(aged) = Aged::of(*table) {
                assert!(ours.contains(&aged.age), "{}", schema.name);
                declared.push(aged.age);
            }
            ours.sort_unstable();
            declared.sort_unstable();
            declared.dedup();
            assert_eq!(ours, declared, "{}", schema.name);
        }
        assert_eq!(key(Table::Trades.schema()), ["instrument_id", "event_us", "kind", "trade_id"]);
    }

    #[test]
    fn hours_of_raw_rows_and_days_of_the_others() {
        let width = |table| Aged::of(table).map(|aged| aged.width);
        assert_eq!(width(Table::Trades), Some(3_600_000_000));
        assert_eq!(width(Table::CategorySnapshots), Some(86_400_000));
        assert_eq!(width(Table::Candles), None);
        // Its rows are updated, their beginning included: an update would have to move between partitions.
        assert_eq!(width(Table::DataGaps), None);
    }
}
