//! Reads the service's database, as anybody may while it runs.

use std::{path::PathBuf, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Row,
    sqlite::{SqliteConnectOptions, SqliteRow},
};
use tokio::runtime::Runtime;

const BUSY: Duration = Duration::from_secs(20);

/// A store's file.
pub struct Db {
    path: PathBuf,
    runtime: Runtime,
}

impl Db {
    /// The database in this file, which need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        Self { path, runtime }
    }

    /// The rows of a query.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn try_rows(&self, sql: &str) -> Result<Vec<SqliteRow>, String> {
        let options = SqliteConnectOptions::new().filename(&self.path).read_only(true).busy_timeout(BUSY);
        let reading = async {
            let mut connection = options.connect().await?;
            sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await
        };
        self.runtime.block_on(reading).map_err(|error| format!("{sql}: {error}"))
    }

    /// The rows of a query that has to work.
    pub fn rows(&self, sql: &str) -> Vec<SqliteRow> {
        self.try_rows(sql).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A single number.
    pub fn number(&self, sql: &str) -> i64 {
        self.rows(sql).first().unwrap_or_else(|| panic!("{sql}: no row")).get(0)
    }

    /// Keeps others from writing for a while, as a process does that forgets its transaction.
    ///
    /// # Errors
    /// When the lock is not to be had.
    pub fn lock(&self, span: Duration) -> Result<(), String> {
        let options = SqliteConnectOptions::new().filename(&self.path).busy_timeout(BUSY);
        let holding = async {
            let mut connection = options.connect().await?;
            sqlx::query("begin immediate").execute(&mut connection).await?;
            tokio::time::sleep(span).await;
            sqlx::query("rollback").execute(&mut connection).await?;
            connection.close().await
        };
        self.runtime.block_on(holding).map_err(|error| format!("lock the store: {error}"))
    }

    /// A single number, 0 while it cannot be read.
    pub fn number_or_zero(&self, sql: &str) -> i64 {
        self.try_rows(sql).ok().and_then(|rows| rows.first().map(|row| row.get(0))).unwrap_or(0)
    }
}
