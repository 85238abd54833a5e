//! Migrations: from nothing, from the version before with rows in place, by two processes at once.

use sqlx::migrate::Migrate as _;

use super::*;
use crate::{error::ErrorClass, postgres::migrate::MIGRATIONS};

#[tokio::test]
async fn migrations_are_applied_once_and_a_newer_database_is_refused() {
    let Some(database) = Database::new().await else { return };
    let store = database.open().await;
    let names = store.migrate().await.unwrap();
    let wanted =
        ["layout_0001", "0001_instruments", "0002_tables_kept_whole", "0003_readable_views", "0004_rollups"];
    assert_eq!(names, wanted);
    assert_eq!(store.migrate().await.unwrap(), Vec::<String>::new());
    assert_eq!(store.status().kind, "postgres");
    let mut other = database.beside().await;
    run(&mut other, "update fathom_layout set version = 9999 where table_name = 'trades_raw'").await;
    let error = store.migrate().await.unwrap_err();
    assert_eq!(
        error.message(),
        "the database was made by a newer program: layout 9999 is not known to this one"
    );
    run(&mut other, "insert into _sqlx_migrations values (9999, 'tomorrow', now(), true, '', 1)").await;
    let error = store.migrate().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Fatal);
    assert_eq!(
        error.message(),
        "the database was made by a newer program: migration 9999 is not known to this one"
    );
}

#[tokio::test]
async fn timescaledb_where_it_is_required_and_missing_is_an_operators_matter() {
    let Some(database) = Database::new().await else { return };
    let config = PostgresConfig { timescale: crate::Timescale::Require, ..database.config() };
    let error = PostgresStore::open(&config).await.unwrap().migrate().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Fatal);
    assert!(error.message().contains("TimescaleDB"), "{error}");
}

/// The views and what came after them are taken away, rows are put in, and the program starts.
#[tokio::test]
async fn the_version_before_is_brought_up_with_its_rows() {
    let Some((database, store)) = store().await else { return };
    let mut beside = database.beside().await;
    let views: Vec<String> =
        sqlx::query_scalar("select viewname::text from pg_views where schemaname = 'public'")
            .fetch_all(&mut beside)
            .await
            .unwrap();
    assert!(views.len() > 20, "{views:?}");
    run(&mut beside, &format!("drop view {} cascade", views.join(", "))).await;
    run(
        &mut beside,
        "drop table category_snapshots_1h, category_snapshots_1d, category_snapshots_dirty, rollup_floor, trade_bars_dirty; \
         drop function mark_category_snapshots, mark_trade_bars, half_even cascade; \
         delete from _sqlx_migrations where version >= 3",
    )
    .await;
    for table in Table::ALL {
        assert_eq!(store.write(&rows::batch(*table, 0..50)).await, committed(50, 0), "{table:?}");
    }
    let again = database.open().await;
    assert_eq!(again.migrate().await.unwrap(), ["0003_readable_views", "0004_rollups"]);
    for table in Table::ALL {
        assert_eq!(again.write(&rows::batch(*table, 0..50)).await, committed(0, 50), "{table:?}");
    }
    assert_eq!(number(&again, "select count(*) from candles").await, 50);
    again.roll_up(u64::MAX).await.unwrap();
    assert_eq!(number(&again, "select count from category_snapshots_agg_1h").await, 50);
    let applied = beside.list_applied_migrations("_sqlx_migrations").await.unwrap();
    assert_eq!(applied.len(), MIGRATIONS.iter().count());
}

#[tokio::test]
async fn processes_that_start_at_once_do_not_collide() {
    let Some(database) = Database::new().await else { return };
    let (one, two, three) = (database.open().await, database.open().await, database.open().await);
    let (one, two, three) = tokio::join!(one.migrate(), two.migrate(), three.migrate());
    let mut added = [one.unwrap().len(), two.unwrap().len(), three.unwrap().len()];
    added.sort_unstable();
    assert_eq!(added, [0, 0, MIGRATIONS.iter().count() + 1]);
}
