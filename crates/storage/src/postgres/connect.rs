//! How connections are opened, bounded and taken out of the pool. Nothing is asked of the tables here.

use std::{fmt, ops::DerefMut, str::FromStr as _, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Executor as _, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::classify::store_error;
use crate::error::StoreError;

/// Statements prepared on a connection: the questions, and the writing ones of each table.
const STATEMENTS: usize = 128;

/// Whether tables are made as TimescaleDB's hypertables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timescale {
    /// Where the extension is present.
    #[default]
    Auto,
    /// Always; a server without the extension is refused.
    Require,
    /// Never.
    Never,
}

/// Where and how to open a PostgreSQL store.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:port/database`.
    pub url: String,
    /// Connections at most; at least one is opened.
    pub pool: u32,
    /// How long the server works on a statement.
    pub statement_timeout: Duration,
    /// How long the server keeps a transaction that asks for nothing.
    pub idle_in_transaction_timeout: Duration,
    /// How long to wait for a connection, a new one or a free one.
    pub connect_timeout: Duration,
    /// Whether tables are made as hypertables.
    pub timescale: Timescale,
}

impl PostgresConfig {
    /// The defaults for a URL: eight connections, timeouts of 30 s, 300 s and 5 s, TimescaleDB where it is present.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            pool: 8,
            statement_timeout: Duration::from_secs(30),
            idle_in_transaction_timeout: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(5),
            timescale: Timescale::default(),
        }
    }
}

/// Without the URL: it holds the password.
impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("pool", &self.pool)
            .field("statement_timeout", &self.statement_timeout)
            .field("idle_in_transaction_timeout", &self.idle_in_transaction_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("timescale", &self.timescale)
            .finish_non_exhaustive()
    }
}

/// The pool; it connects when it is first asked, and again after every loss.
pub(super) fn pool(config: &PostgresConfig) -> Result<PgPool, StoreError> {
    let options = PgConnectOptions::from_str(&config.url)
        .map_err(|error| StoreError::fatal(format!("the URL of the store: {error}")))?
        .application_name("fathom")
        .statement_cache_capacity(STATEMENTS)
        .disable_statement_logging();
    let settings = settings(config);
    let pool = PgPoolOptions::new()
        .max_connections(config.pool.max(1))
        .acquire_timeout(config.connect_timeout)
        .after_connect(move |connection, _| {
            let settings = settings.clone();
            Box::pin(
                async move { connection.execute(sqlx::raw_sql(AssertSqlSafe(settings))).await.map(|_| ()) },
            )
        });
    Ok(pool.connect_lazy_with(options))
}

/// As statements of the session rather than start-up options, which poolers between here and the server refuse. Notices
/// that a table exists already are nobody's business.
fn settings(config: &PostgresConfig) -> String {
    let ms = |time: Duration| i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    format!(
        "set statement_timeout = {}; set idle_in_transaction_session_timeout = {}; set timezone = 'UTC'; \
         set client_min_messages = 'warning'",
        ms(config.statement_timeout),
        ms(config.idle_in_transaction_timeout),
    )
}

/// A connection for as long as it is used. Dropped without [`Lease::give_back`], it is closed: whatever it had begun, and
/// wherever the caller went away, ends with it.
pub(super) struct Lease {
    connection: PoolConnection<Postgres>,
    clean: bool,
}

impl Lease {
    /// Takes a connection out of the pool.
    pub(super) async fn take(pool: &PgPool) -> Result<Self, sqlx::Error> {
        Ok(Self { connection: pool.acquire().await?, clean: false })
    }

    /// The connection.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        self.connection.deref_mut()
    }

    /// Runs a command that takes and gives nothing.
    pub(super) async fn run(&mut self, command: &'static str) -> Result<(), sqlx::Error> {
        self.connection.execute(sqlx::raw_sql(command)).await.map(|_| ())
    }

    /// Runs commands made of declared names.
    pub(super) async fn run_text(&mut self, commands: String) -> Result<(), sqlx::Error> {
        self.connection.execute(sqlx::raw_sql(AssertSqlSafe(commands))).await.map(|_| ())
    }

    /// Puts a connection back that has no transaction open.
    pub(super) fn give_back(mut self) {
        self.clean = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.clean {
            self.connection.close_on_drop();
        }
    }
}

/// Takes a connection for work that is no write of rows.
pub(super) async fn lease(pool: &PgPool) -> Result<Lease, StoreError> {
    Lease::take(pool).await.map_err(|error| store_error(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_password_is_never_shown() {
        let config = PostgresConfig::new("postgres://me:s3cret@127.0.0.1:1/none");
        assert!(!format!("{config:?}").contains("s3cret"));
        let bad = PostgresConfig::new("postgres://me:s3cret@[host/none");
        let error = pool(&bad).err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|words| !words.contains("s3cret")), "{error:?}");
    }
}
