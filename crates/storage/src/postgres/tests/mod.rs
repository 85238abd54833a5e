//! The PostgreSQL store against a real server, each test in a database of its own.

mod faults;
mod policy;
mod reading;
mod retention;
mod rollups;
mod server;
mod upgrade;
mod views;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use fathom_market::{
    batch::{Batch, Column},
    table::Table,
};
use fathom_testkit::Server;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, postgres::PgRow};

use super::{PostgresConfig, PostgresStore};
use crate::sample_rows as rows;
use crate::store::{Store as _, WriteOutcome};

/// A database that goes away with the test, passed or failed.
struct Database {
    server: String,
    name: String,
}

impl Database {
    async fn on(server: String) -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let name = format!("fathom_test_{}_{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let mut admin = PgConnection::connect(&server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name}"))).execute(&mut admin).await.unwrap();
        Self { server, name }
    }

    async fn new() -> Option<Self> {
        Some(Self::on(Server::Postgres.url()?).await)
    }

    fn url(&self) -> String {
        let (front, _) = self.server.rsplit_once('/').unwrap();
        format!("{front}/{}", self.name)
    }

    fn config(&self) -> PostgresConfig {
        PostgresConfig { pool: 4, ..PostgresConfig::new(self.url()) }
    }

    async fn open(&self) -> PostgresStore {
        PostgresStore::open(&self.config()).await.unwrap()
    }

    /// A connection beside the store's own, as another process would have.
    async fn beside(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.unwrap()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let dropping = std::thread::spawn(move || {
            policy::block_on(async {
                let mut admin = PgConnection::connect(&server).await?;
                let sql = format!("drop database if exists {name} with (force)");
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.map(|_| ())
            })
        });
        // A server that the test has ended takes its databases along.
        let _ = dropping.join();
    }
}

/// A migrated store in a database of its own; `None` leaves the test out.
async fn store() -> Option<(Database, PostgresStore)> {
    let database = Database::new().await?;
    let store = database.open().await;
    store.migrate().await.unwrap();
    Some((database, store))
}

async fn query(store: &PostgresStore, sql: &str) -> Vec<PgRow> {
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&store.pool).await;
    rows.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

async fn number(store: &PostgresStore, sql: &str) -> i64 {
    query(store, sql).await[0].get(0)
}

async fn run(connection: &mut PgConnection, sql: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

const fn committed(inserted: u64, duplicate: u64) -> WriteOutcome {
    WriteOutcome::Committed { inserted, duplicate }
}

/// Asks again until it holds.
async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The stored rows of a table as text, by the declared key.
async fn dump(store: &PostgresStore, table: Table) -> Vec<Vec<Option<String>>> {
    let schema = table.schema();
    let columns = schema.columns.iter().map(|column| match column.kind {
        fathom_market::table::ColumnKind::Dec | fathom_market::table::ColumnKind::OptDec => {
            format!("trim_scale({})::text", column.name)
        }
        _ => format!("{}::text", column.name),
    });
    let columns = columns.collect::<Vec<_>>();
    // By the columns of the table: a bare name would be that of the text.
    let key = schema.key.iter().map(|name| format!("{}.{name}", schema.name)).collect::<Vec<_>>();
    let sql = format!("select {} from {} order by {}", columns.join(", "), schema.name, key.join(", "));
    let rows = query(store, &sql).await;
    rows.iter().map(|row| (0..columns.len()).map(|at| row.get(at)).collect()).collect()
}

/// The rows of a batch as the store should hold them, in their order.
fn expected(batch: &Batch) -> Vec<Vec<Option<String>>> {
    let cell = |column: &Column, row: usize| match column {
        Column::Int(values) => Some(values[row].to_string()),
        Column::OptInt(values) => values[row].map(|value| value.to_string()),
        Column::Text(values) => Some(values[row].clone()),
        Column::OptText(values) => values[row].clone(),
        Column::Dec(values) => Some(values[row].normalize().to_string()),
        Column::OptDec(values) => values[row].map(|value| value.normalize().to_string()),
        Column::Flag(values) => Some(values[row].to_string()),
    };
    (0..batch.len()).map(|row| batch.columns().iter().map(|column| cell(column, row)).collect()).collect()
}
