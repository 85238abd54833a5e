//! Reads the service's database, as anybody may while it runs.

use std::{path::PathBuf, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Row,
    sqlite::{SqliteConnectOptions, SqliteRow},
};
use tokio::runtime::Runtime;

const BUSY: Duration = Duration::from_secs(20);

pub(crate) struct Db {
    path: PathBuf,
    runtime: Runtime,
}

impl Db {
    pub(crate) fn new(path: PathBuf) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        Self { path, runtime }
    }

    pub(crate) fn try_rows(&self, sql: &str) -> Result<Vec<SqliteRow>, String> {
        let options = SqliteConnectOptions::new().filename(&self.path).read_only(true).busy_timeout(BUSY);
        let reading = async {
            let mut connection = options.connect().await?;
            sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await
        };
        self.runtime.block_on(reading).map_err(|error| format!("{sql}: {error}"))
    }

    pub(crate) fn rows(&self, sql: &str) -> Vec<SqliteRow> {
        self.try_rows(sql).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A single number.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        self.rows(sql).first().unwrap_or_else(|| panic!("{sql}: no row")).get(0)
    }

    /// A single number, 0 while it cannot be read.
    pub(crate) fn number_or_zero(&self, sql: &str) -> i64 {
        self.try_rows(sql).ok().and_then(|rows| rows.first().map(|row| row.get(0))).unwrap_or(0)
    }
}
