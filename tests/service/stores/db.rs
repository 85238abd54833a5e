//! A server's database, read as anybody may while the service writes it.

use std::time::Duration;

use fathom_testkit::Server;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, PgConnection, Row as _};
use tokio::runtime::Runtime;

const WITHIN: Duration = Duration::from_secs(60);

/// A database of a server.
pub(super) struct ServerDb {
    server: Server,
    url: String,
    runtime: Runtime,
}

impl ServerDb {
    pub(super) fn new(server: Server, url: String) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        Self { server, url, runtime }
    }

    /// The rows of a query whose columns are text.
    pub(super) fn try_rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
        let text = AssertSqlSafe(sql.to_owned());
        let reading = async {
            if self.server == Server::Mariadb {
                let mut connection = MySqlConnection::connect(&self.url).await?;
                let rows = sqlx::query(text).fetch_all(&mut connection).await?;
                Ok(rows.iter().map(|row| (0..row.len()).map(|at| row.get(at)).collect()).collect())
            } else {
                let mut connection = PgConnection::connect(&self.url).await?;
                let rows = sqlx::query(text).fetch_all(&mut connection).await?;
                Ok(rows.iter().map(|row| (0..row.len()).map(|at| row.get(at)).collect()).collect())
            }
        };
        let read = self.runtime.block_on(async { tokio::time::timeout(WITHIN, reading).await });
        read.map_err(|_| format!("not within {WITHIN:?}: {sql}"))?
            .map_err(|error: sqlx::Error| format!("{sql}: {error}"))
    }

    /// The rows of a query that has to work, its columns cast to text.
    pub(super) fn rows(&self, columns: &[&str], from: &str) -> Vec<Vec<Option<String>>> {
        let kind = if self.server == Server::Mariadb { "char" } else { "text" };
        let columns: Vec<_> = columns.iter().map(|column| format!("cast({column} as {kind})")).collect();
        self.try_rows(&format!("select {} from {from}", columns.join(", ")))
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// A single number.
    pub(super) fn number(&self, what: &str, from: &str) -> i64 {
        let rows = self.rows(&[what], from);
        rows[0][0]
            .as_deref()
            .unwrap_or("0")
            .parse()
            .unwrap_or_else(|error| panic!("{what} from {from}: {error}"))
    }
}
