//! Tables out of each store and into the next: what comes back from the last is what went into the first.

use std::sync::Arc;

use fathom_market::{batch::Batch, table::Table};
use fathom_testkit::{Database, Server};
use tempfile::TempDir;

use crate::{
    Key, MysqlConfig, MysqlStore, Page, PostgresConfig, PostgresStore, Span, SqliteConfig, SqliteStore,
    Store, WriteOutcome, export::time_of, mysql::unsupported_tables,
};

use crate::sample_rows as rows;

const ROWS: i64 = 23;

async fn sqlite(folder: &TempDir, name: &str) -> Arc<dyn Store> {
    let store = SqliteStore::open(&SqliteConfig::new(folder.path().join(name))).await.unwrap();
    store.migrate().await.unwrap();
    Arc::new(store)
}

/// All rows of a table, by pages of five.
async fn all(store: &dyn Store, table: Table) -> Batch {
    let mut all = Batch::new(table);
    loop {
        let page = Page { table, after: Key::last(&all), span: Span::default(), limit: 5 };
        let page = store.export(&page).await.unwrap();
        if page.is_empty() {
            return all;
        }
        assert!(page.len() <= 5);
        all.append(page).unwrap();
        assert!(all.len() as i64 <= ROWS, "{table:?}: pages overlap");
    }
}

async fn around(server: Arc<dyn Store>, tables: &[Table]) {
    let folder = tempfile::tempdir().unwrap();
    let (first, last) = (sqlite(&folder, "first.db").await, sqlite(&folder, "last.db").await);
    server.migrate().await.unwrap();
    let committed = WriteOutcome::Committed { inserted: ROWS.unsigned_abs(), duplicate: 0 };
    for table in tables {
        first.write(&rows::batch(*table, 0..ROWS)).await;
        let whole = all(&*first, *table).await;
        assert_eq!(server.write(&whole).await, committed, "{table:?}");
        let stored = all(&*server, *table).await;
        assert_eq!(last.write(&stored).await, committed, "{table:?}");
        assert_eq!(all(&*last, *table).await, whole, "{table:?}");
        let span = Span { since_ms: Some(rows::START_MS + 1), until_ms: Some(rows::START_MS + 300_000) };
        let (here, there) = (first.count_in(*table, span).await, server.count_in(*table, span).await);
        assert_eq!(here, there, "{table:?} by {:?}", time_of(*table));
    }
    assert!(!server.facts().await.unwrap().is_empty());
    server.close().await;
}

#[tokio::test]
async fn around_over_postgres() {
    let Some(database) = Database::fresh(Server::Postgres) else { return };
    let store = PostgresStore::open(&PostgresConfig::new(database.url())).await.unwrap();
    around(Arc::new(store), Table::ALL).await;
}

#[tokio::test]
async fn around_over_mysql() {
    let Some(database) = Database::fresh(Server::Mariadb) else { return };
    let store = MysqlStore::open(&MysqlConfig::new(database.url())).await.unwrap();
    let kept: Vec<Table> =
        Table::ALL.iter().copied().filter(|table| !unsupported_tables().contains(table)).collect();
    around(Arc::new(store), &kept).await;
}
