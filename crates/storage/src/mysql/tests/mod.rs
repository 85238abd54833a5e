//! The store against a real server, each test in a database of its own.

mod export;
mod faults;
mod migrating;
mod plans;
mod reading;
mod rollups;
mod views;
mod writing;

use fathom_market::{
    batch::{Batch, Column},
    table::{ColumnKind, Table},
};
use fathom_testkit::{Database, Server};
use sqlx::{AssertSqlSafe, Row as _, mysql::MySqlArguments, mysql::MySqlRow};

use super::{MysqlConfig, MysqlStore, unsupported_tables};
use crate::sample_rows as rows;
use crate::store::{Store as _, WriteOutcome};

/// A migrated store in a database of its own; `None` where there is no server.
async fn store() -> Option<(Database, MysqlStore)> {
    let database = Database::fresh(Server::Mariadb)?;
    let store = open(&database).await;
    store.migrate().await.unwrap();
    Some((database, store))
}

async fn open(database: &Database) -> MysqlStore {
    MysqlStore::open(&MysqlConfig::new(database.url())).await.unwrap()
}

/// Every table that is kept.
fn kept() -> impl Iterator<Item = Table> {
    Table::ALL.iter().copied().filter(|table| !unsupported_tables().contains(table))
}

async fn query(store: &MysqlStore, sql: &str) -> Vec<MySqlRow> {
    let rows = store.fetch(sql.to_owned(), MySqlArguments::default()).await;
    rows.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

async fn execute(store: &MysqlStore, sql: &str) {
    let done = sqlx::query(AssertSqlSafe(sql)).execute(&store.readers).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

const fn committed(inserted: u64, duplicate: u64) -> WriteOutcome {
    WriteOutcome::Committed { inserted, duplicate }
}

/// The stored rows of a table as text, by key, as SQLite's store has them.
async fn dump(store: &MysqlStore, table: Table) -> Vec<Vec<Option<String>>> {
    let schema = table.schema();
    let columns = schema.columns.iter().map(|column| match column.kind {
        ColumnKind::Dec | ColumnKind::OptDec => column.name.to_owned(),
        _ => format!("cast({} as char)", column.name),
    });
    let columns = columns.collect::<Vec<_>>().join(", ");
    let sql = format!("select {columns} from {} order by {}", schema.name, schema.key.join(", "));
    let cell = |row: &MySqlRow, at: usize| match schema.columns[at].kind {
        ColumnKind::Dec | ColumnKind::OptDec => {
            row.get::<Option<rust_decimal::Decimal>, _>(at).map(|value| value.normalize().to_string())
        }
        _ => row.get(at),
    };
    let rows = query(store, &sql).await;
    rows.iter().map(|row| (0..schema.columns.len()).map(|at| cell(row, at)).collect()).collect()
}

/// The rows of a batch as a store should hold them, in their order.
fn expected(batch: &Batch) -> Vec<Vec<Option<String>>> {
    let cell = |column: &Column, row: usize| match column {
        Column::Int(values) => Some(values[row].to_string()),
        Column::OptInt(values) => values[row].map(|value| value.to_string()),
        Column::Text(values) => Some(values[row].clone()),
        Column::OptText(values) => values[row].clone(),
        Column::Dec(values) => Some(values[row].normalize().to_string()),
        Column::OptDec(values) => values[row].map(|value| value.normalize().to_string()),
        Column::Flag(values) => Some(i64::from(values[row]).to_string()),
    };
    (0..batch.len()).map(|row| batch.columns().iter().map(|column| cell(column, row)).collect()).collect()
}
