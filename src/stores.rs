//! The stores by their kinds: opened, and put behind the spool where rows are accepted before they are stored.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use fathom_actors::kernel::Clock;
use fathom_market::table::Table;
use fathom_storage::{
    MysqlConfig, MysqlStore, PostgresConfig, PostgresStore, Prepared, Sink, Spool, SpoolConfig, Spooled,
    SqliteConfig, SqliteStore, Store, Timescale, mysql::unsupported_tables,
};

use crate::{
    address::{Address, Family},
    config::{Config, SpoolMode, StoreKind, StoreServer},
};

/// How long a start waits for a server's schema; beyond it rows are spooled until it is there.
const MIGRATED_WITHIN: Duration = Duration::from_secs(5);
/// A copy reads and writes large pages, and no service waits for it.
const COPY_STATEMENT: Duration = Duration::from_secs(600);
const COPY_POOL: u32 = 4;

/// What the configured store cannot keep of what is to be collected.
pub fn refusals(config: &Config) -> Option<String> {
    if config.store.kind.family() != Family::Mysql {
        return None;
    }
    let raw = [
        (config.raw.book_ticker, Table::BookTicker, "raw.book_ticker"),
        (config.raw.trades, Table::Trades, "raw.trades"),
        (config.raw.depth_events, Table::DepthEvents, "raw.depth_events"),
    ];
    let wanted = raw.into_iter().filter(|(kept, table, _)| *kept && unsupported_tables().contains(table));
    let keys: Vec<&str> = wanted.map(|(.., key)| key).collect();
    (!keys.is_empty()).then(|| {
        format!(
            "MySQL and MariaDB are no archive of raw ticks: set {} to false, or choose postgres, timescale or sqlite",
            keys.join(" and ")
        )
    })
}

/// Opens the configured store; nothing is asked of a server yet.
///
/// # Errors
/// When it cannot be opened, or cannot keep what is to be collected.
pub async fn open_store(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    if let Some(refusal) = refusals(config) {
        bail!(refusal);
    }
    let opened = match &config.store.server {
        Some(server) => open_server(config.store.kind, server).await,
        None => open_sqlite(config).await.map(|store| store as Arc<dyn Store>),
    };
    opened.with_context(|| format!("store {}", config.store.shown()))
}

async fn open_sqlite(config: &Config) -> anyhow::Result<Arc<SqliteStore>> {
    let sqlite = SqliteConfig {
        durability: config.store.durability,
        quarantine: config.store.quarantine,
        ..SqliteConfig::new(&config.store.path)
    };
    Ok(Arc::new(SqliteStore::open(&sqlite).await?))
}

async fn open_server(kind: StoreKind, server: &StoreServer) -> anyhow::Result<Arc<dyn Store>> {
    let url = server.url.expose();
    if kind.family() == Family::Mysql {
        let mysql = MysqlConfig {
            pool: server.pool,
            statement_timeout: server.statement_timeout,
            connect_timeout: server.connect_timeout,
            ..MysqlConfig::new(url)
        };
        return Ok(Arc::new(MysqlStore::open(&mysql).await?));
    }
    let postgres = PostgresConfig {
        pool: server.pool,
        statement_timeout: server.statement_timeout,
        idle_in_transaction_timeout: server.idle_in_transaction_timeout,
        connect_timeout: server.connect_timeout,
        timescale: if kind == StoreKind::Timescale { Timescale::Require } else { Timescale::Auto },
        ..PostgresConfig::new(url)
    };
    Ok(Arc::new(PostgresStore::open(&postgres).await?))
}

/// Opens the store at an address, for a copy.
///
/// # Errors
/// When it cannot be opened.
pub async fn open_address(address: &Address) -> anyhow::Result<Arc<dyn Store>> {
    let url = address.url();
    Ok(match (address.family(), address.path()) {
        (Family::Sqlite, Some(path)) => Arc::new(SqliteStore::open(&SqliteConfig::new(path)).await?),
        (Family::Sqlite, None) => bail!("{} is no file", address.shown()),
        (Family::Postgres, _) => {
            let config = PostgresConfig {
                pool: COPY_POOL,
                statement_timeout: COPY_STATEMENT,
                ..PostgresConfig::new(url)
            };
            Arc::new(PostgresStore::open(&config).await?)
        }
        (Family::Mysql, _) => {
            let config =
                MysqlConfig { pool: COPY_POOL, statement_timeout: COPY_STATEMENT, ..MysqlConfig::new(url) };
            Arc::new(MysqlStore::open(&config).await?)
        }
    })
}

/// The configured store as rows are accepted into it: behind its spool, where it has one. A server that is away stops no
/// start: its schema is brought up to date when it is back, before anything is written to it.
///
/// # Errors
/// When the embedded store, or the spool, cannot be opened, or the store cannot keep what is to be collected.
pub async fn open_sink(config: &Config, clock: &Clock) -> anyhow::Result<Arc<dyn Sink>> {
    if !config.store.kind.is_server() {
        let store = open_sqlite(config).await.with_context(|| format!("store {}", config.store.shown()))?;
        migrated(&*store, &config.store.shown()).await?;
        if config.store.spool == SpoolMode::Always {
            return spooled(config, clock, store).await;
        }
        if config.spool.path.exists() {
            tracing::warn!(path = %config.spool.path.display(), "a spool lies here that is not used: store.spool is not always");
        }
        return Ok(store);
    }
    let store = Arc::new(Prepared::new(open_store(config).await?));
    let shown = config.store.shown();
    match tokio::time::timeout(MIGRATED_WITHIN, store.migrate()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            tracing::warn!(store = shown, %error, "the store is not ready: rows wait in the spool until it is");
        }
        Err(_) => {
            tracing::warn!(store = shown, "the store does not answer: rows wait in the spool until it does")
        }
    }
    spooled(config, clock, store).await
}

/// Brings a store's schema up to date.
///
/// # Errors
/// When that cannot be done now.
pub async fn migrated(store: &dyn Store, shown: &str) -> anyhow::Result<()> {
    let applied = store.migrate().await.with_context(|| format!("migrate the store {shown}"))?;
    if !applied.is_empty() {
        tracing::info!(store = shown, migrations = ?applied, "store migrated");
    }
    Ok(())
}

async fn spooled(config: &Config, clock: &Clock, store: Arc<dyn Store>) -> anyhow::Result<Arc<dyn Sink>> {
    let spool = SpoolConfig {
        durability: config.store.durability,
        max_bytes: config.spool.max_bytes,
        max_age: config.spool.max_age,
        write_deadline: config.store.write_deadline,
        quarantine: config.store.quarantine,
        ..SpoolConfig::new(&config.spool.path)
    };
    let clock = clock.clone();
    let spool = Spool::open(spool, Arc::new(move || clock.now_us()));
    let spool = spool.await.with_context(|| format!("spool {}", config.spool.path.display()))?;
    Ok(Arc::new(Spooled::new(store, spool)))
}

#[cfg(test)]
#[path = "stores_tests.rs"]
mod tests;
