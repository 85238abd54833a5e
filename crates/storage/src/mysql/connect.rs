//! How connections are opened: one for writing, a bounded pool for reading. A connection is used only while it answers within
//! its deadline; one that was left in the middle of a statement is closed.

use std::{str::FromStr as _, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Executor as _, MySql, MySqlConnection, MySqlPool, Row as _,
    mysql::{MySqlConnectOptions, MySqlPoolOptions},
    pool::PoolConnection,
};

use crate::error::StoreError;

/// One statement for each table and each power of two of rows, and the few others.
const STATEMENTS: usize = 256;
/// Servers and what stands between close idle connections after minutes to hours; ours go first.
const IDLE: Duration = Duration::from_secs(240);
/// How long a statement waits for rows that another transaction holds, seconds. A refused one is tried again.
const LOCK_WAIT: u32 = 10;

/// Where and how to open a MySQL or MariaDB store.
#[derive(Clone, PartialEq, Eq)]
pub struct MysqlConfig {
    /// `mysql://user:password@host:port/database`; the database must exist.
    pub url: String,
    /// Connections at most, the writing one included; at least two are opened.
    pub pool: u32,
    /// What a statement may take on the server.
    pub statement_timeout: Duration,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
}

impl MysqlConfig {
    /// The defaults for a server: eight connections, 30 and 5 seconds.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            pool: 8,
            statement_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// Without the URL, which may hold a password.
impl std::fmt::Debug for MysqlConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MysqlConfig")
            .field("pool", &self.pool)
            .field("statement_timeout", &self.statement_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

/// Opens connections, each set up alike.
#[derive(Clone)]
pub(super) struct Opener {
    options: MySqlConnectOptions,
    pool: u32,
    statement_timeout: Duration,
    connect_timeout: Duration,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("host", &self.options.get_host()).finish_non_exhaustive()
    }
}

/// A connection that was set up, and what was learned of its server.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) connection: MySqlConnection,
    /// Bytes of the greatest message that the server takes.
    pub(super) max_packet: u64,
}

impl Opener {
    /// Reads the URL; nothing is connected.
    pub(super) fn new(config: &MysqlConfig) -> Result<Self, StoreError> {
        // The URL is not repeated: it may hold a password.
        let bad = |why: &str| StoreError::fatal(format!("the store's URL is not usable: {why}"));
        let scheme = config.url.split_once("://").map(|(scheme, _)| scheme);
        if !matches!(scheme, Some("mysql" | "mariadb")) {
            return Err(bad("expected mysql://user:password@host:port/database"));
        }
        let options = MySqlConnectOptions::from_str(&config.url).map_err(|error| bad(&error.to_string()))?;
        if options.get_database().is_none_or(str::is_empty) {
            return Err(bad("it names no database"));
        }
        Ok(Self {
            options: options
                .charset("utf8mb4")
                .collation("utf8mb4_bin")
                .timezone("+00:00".to_owned())
                .pipes_as_concat(false)
                .statement_cache_capacity(STATEMENTS)
                .disable_statement_logging(),
            pool: config.pool.max(2),
            statement_timeout: config.statement_timeout,
            connect_timeout: config.connect_timeout,
        })
    }

    /// A connection of its own.
    pub(super) async fn session(&self) -> Result<Session, sqlx::Error> {
        let open = async {
            let mut connection = self.options.connect().await?;
            let max_packet = set_up(&mut connection, self.statement_timeout).await?;
            Ok(Session { connection, max_packet })
        };
        within(self.connect_timeout, open).await
    }

    /// The reading pool; it connects when it is first asked.
    pub(super) fn readers(&self) -> MySqlPool {
        let timeout = self.statement_timeout;
        MySqlPoolOptions::new()
            .max_connections(self.pool - 1)
            .acquire_timeout(self.connect_timeout)
            .idle_timeout(IDLE)
            .after_connect(move |connection, _| {
                Box::pin(async move { set_up(connection, timeout).await.map(|_| ()) })
            })
            .connect_lazy_with(self.options.clone())
    }

    /// Takes the bound of a statement away, for this connection. The other server's setting is a comment to each.
    pub(super) const fn unbounded(&self) -> &'static str {
        "set session /*M! max_statement_time = 0, */ wait_timeout = 28800"
    }

    /// How long an answer is waited for: the server ends a statement before that, unless it hangs.
    pub(super) fn patience(&self) -> Duration {
        self.statement_timeout.saturating_add(self.connect_timeout)
    }
}

/// The session's settings, whatever the server's own are. Gives the greatest message that the server takes, bytes.
async fn set_up(connection: &mut MySqlConnection, timeout: Duration) -> Result<u64, sqlx::Error> {
    let facts = connection.fetch_one("select version(), cast(@@max_allowed_packet as signed)").await?;
    let version: String = facts.try_get(0)?;
    let max_packet: i64 = facts.try_get(1)?;
    let millis = timeout.as_millis();
    // MySQL bounds only what reads, and has no such setting for what writes.
    let bound = if version.contains("MariaDB") {
        format!("max_statement_time = {}.{:03}", millis / 1000, millis % 1000)
    } else {
        format!("max_execution_time = {millis}")
    };
    // Not strict, a value that does not fit would be cut and stored.
    let settings = format!(
        "set session sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION', \
         autocommit = 1, innodb_lock_wait_timeout = {LOCK_WAIT}, lock_wait_timeout = {LOCK_WAIT}, {bound}"
    );
    connection.execute(AssertSqlSafe(settings)).await?;
    // Locks what it changes and no gaps between: writers of other keys do not wait for each other.
    connection.execute("set session transaction isolation level read committed").await?;
    Ok(max_packet.unsigned_abs())
}

/// A pooled connection that goes back only when its last statement was answered.
pub(super) struct Reader(Option<PoolConnection<MySql>>);

impl Reader {
    pub(super) async fn of(pool: &MySqlPool) -> Result<Self, sqlx::Error> {
        pool.acquire().await.map(|connection| Self(Some(connection)))
    }

    pub(super) fn connection(&mut self) -> Result<&mut MySqlConnection, sqlx::Error> {
        self.0.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// Puts the connection back.
    pub(super) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.0 {
            connection.close_on_drop();
        }
    }
}

/// Waits for an answer no longer than this: a server that hangs is as one that is away.
pub(super) async fn within<T>(
    patience: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(patience, answer).await.unwrap_or_else(|_| {
        let words = format!("no answer within {} ms", patience.as_millis());
        Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, words)))
    })
}
