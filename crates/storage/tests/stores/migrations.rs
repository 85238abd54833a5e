//! The schema: brought up twice, by two at once, and over the rows of the version before.

use std::path::Path;

use fathom_market::table::Table;
use fathom_storage::{Store, StoreError};
use sqlx::{Connection as _, SqliteConnection, migrate::Migrator};

use crate::{
    rows,
    stand::{Kind, Stand, committed, expected},
};

pub(crate) async fn a_second_migration_changes_nothing(stand: &Stand) {
    for table in stand.tables() {
        stand.write(&rows::batch(table, 0..50)).await;
    }
    assert_eq!(stand.store.migrate().await.unwrap(), Vec::<String>::new());
    let other = stand.beside().await;
    assert_eq!(other.migrate().await.unwrap(), Vec::<String>::new());
    for table in stand.tables() {
        assert_eq!(stand.dump(table).await, expected(&rows::batch(table, 0..50)), "{table:?}");
    }
    other.close().await;
}

/// Migrates until it is done: a store may ask to come again while another one works.
async fn migrated(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    let mut last = store.migrate().await;
    for _ in 0..100 {
        match &last {
            Err(error) if error.is_transient() => {}
            _ => return last,
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        last = store.migrate().await;
    }
    last
}

pub(crate) async fn two_that_start_at_once_do_not_collide(stand: &Stand) {
    for round in 0..3 {
        let Some(empty) = Stand::empty(stand.kind).await else { return };
        let other = empty.beside().await;
        let (one, two) = tokio::join!(migrated(&*empty.store), migrated(&*other));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert!(!one.is_empty() || !two.is_empty(), "round {round}: nobody migrated");
        for table in empty.tables() {
            assert_eq!(other.write(&rows::batch(table, 0..20)).await, committed(20, 0), "{table:?}");
            assert_eq!(empty.store.write(&rows::batch(table, 0..20)).await, committed(0, 20), "{table:?}");
        }
        assert_eq!(empty.store.migrate().await.unwrap(), Vec::<String>::new());
        other.close().await;
        empty.store.close().await;
    }
}

/// Every version of SQLite's schema that there was, with rows in it, becomes today's.
#[tokio::test]
async fn rows_of_every_version_before_are_there_after_a_migration_of_sqlite() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/sqlite");
    let all = Migrator::new(folder).await.unwrap();
    let versions = all.migrations.len();
    assert!(versions >= 5, "{versions}");
    for version in 2..versions {
        let stand = Stand::empty(Kind::Sqlite).await.unwrap();
        let mut before = Migrator::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/sqlite"))
            .await
            .unwrap();
        before.migrations = before.migrations.iter().take(version).cloned().collect();
        let mut connection = SqliteConnection::connect(stand.file().to_str().unwrap()).await.unwrap();
        before.run(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let mut held = Vec::new();
        for table in Table::ALL {
            // A table that came later has none.
            if stand.store.history().count(*table).await.is_ok() {
                stand.write(&rows::batch(*table, 0..90)).await;
                held.push(*table);
            }
        }
        assert!(held.len() > 10, "version {version} holds {held:?}");
        assert_eq!(stand.store.migrate().await.unwrap().len(), versions - version);
        for table in held {
            let batch = rows::batch(table, 0..90);
            assert_eq!(stand.dump(table).await, expected(&batch), "version {version}, {table:?}");
            assert_eq!(stand.store.write(&batch).await, committed(0, 90), "version {version}, {table:?}");
        }
        stand.store.close().await;
    }
}
