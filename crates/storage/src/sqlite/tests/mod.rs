//! The SQLite store against real files in temporary directories.

mod accounts;
mod disk;
mod export;
mod faults;
mod policy;
mod reading;
mod rollups;
mod views;

use std::path::Path;

use fathom_market::{
    batch::{Batch, Column},
    table::Table,
};
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection, sqlite::SqliteRow};
use tempfile::TempDir;

use super::{SqliteConfig, SqliteStore, bind};
use crate::sample_rows as rows;
use crate::store::{Sink as _, Store as _, WriteOutcome};

/// A migrated store in a directory of its own.
async fn store() -> (TempDir, SqliteStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    store.migrate().await.unwrap();
    (directory, store)
}

fn config(directory: &Path) -> SqliteConfig {
    SqliteConfig::new(directory.join("deep/er/fathom.db"))
}

async fn open(directory: &Path) -> SqliteStore {
    SqliteStore::open(&config(directory)).await.unwrap()
}

/// A connection beside the store's own, as another process would have.
async fn beside(directory: &Path) -> SqliteConnection {
    super::connect::WriterOptions::new(&config(directory), &[]).connect().await.unwrap()
}

async fn query(store: &SqliteStore, sql: &str) -> Vec<SqliteRow> {
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&store.readers).await;
    rows.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

const fn committed(inserted: u64, duplicate: u64) -> WriteOutcome {
    WriteOutcome::Committed { inserted, duplicate }
}

/// The stored rows of a table as text, by key.
async fn dump(store: &SqliteStore, table: Table) -> Vec<Vec<Option<String>>> {
    let schema = table.schema();
    let columns =
        schema.columns.iter().map(|column| format!("cast({} as text)", column.name)).collect::<Vec<_>>();
    let sql =
        format!("select {} from {} order by {}", columns.join(", "), schema.name, schema.key.join(", "));
    let rows = query(store, &sql).await;
    rows.iter().map(|row| (0..columns.len()).map(|at| row.get(at)).collect()).collect()
}

/// The rows of a batch as a store should hold them, in their order.
fn expected(batch: &Batch) -> Vec<Vec<Option<String>>> {
    let cell = |column: &Column, row: usize| match column {
        Column::Int(values) => Some(values[row].to_string()),
        Column::OptInt(values) => values[row].map(|value| value.to_string()),
        Column::Text(values) => Some(values[row].clone()),
        Column::OptText(values) => values[row].clone(),
        Column::Dec(values) => Some(bind::text(values[row])),
        Column::OptDec(values) => values[row].map(bind::text),
        Column::Flag(values) => Some(i64::from(values[row]).to_string()),
    };
    (0..batch.len()).map(|row| batch.columns().iter().map(|column| cell(column, row)).collect()).collect()
}
