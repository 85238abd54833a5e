//! Roll-ups and repaired bars on SQLite.

use fathom_market::table::Table;
use sqlx::Row as _;

use super::*;
use crate::{store::Store, upkeep_tests::Bench};

impl Bench for (TempDir, SqliteStore) {
    fn store(&self) -> &dyn Store {
        &self.1
    }

    async fn numbers(&self, sql: &str) -> Vec<Vec<i64>> {
        let rows = query(&self.1, sql).await;
        rows.iter().map(|row| (0..row.len()).map(|at| row.get(at)).collect()).collect()
    }
}

async fn bench() -> Option<(TempDir, SqliteStore)> {
    Some(store().await)
}

crate::upkeep_tests::all_upkeep!(bench);

#[tokio::test]
async fn what_an_older_program_stored_is_rolled_up_after_the_migration() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    store.migrate().await.unwrap();
    store.write(&rows::batch(Table::CategorySnapshots, 0..120)).await;
    // As it was before the sixth migration.
    let mut connection = beside(directory.path()).await;
    for undo in [
        "drop view category_snapshots_agg_1h",
        "drop view category_snapshots_agg_1d",
        "create view category_snapshots_agg_1h as select 1",
        "create view category_snapshots_agg_1d as select 1",
        "drop trigger category_snapshots_mark",
        "drop table category_snapshots_1h",
        "drop table category_snapshots_1d",
        "drop table category_snapshots_dirty",
        "drop table rollup_floor",
        "drop trigger trade_bars_mark_new",
        "drop trigger trade_bars_mark_closed",
        "drop table trade_bars_dirty",
        "delete from _sqlx_migrations where version = 6",
    ] {
        sqlx::query(undo).execute(&mut connection).await.unwrap();
    }
    assert_eq!(store.migrate().await.unwrap(), ["0006_rollups"]);
    assert_eq!(store.roll_up(u64::MAX).await.unwrap(), 2);
    let counts = query(&store, "select count from category_snapshots_agg_1h").await;
    assert_eq!(counts.iter().map(|row| row.get::<i64, _>(0)).collect::<Vec<_>>(), [60, 60]);
}

#[tokio::test]
async fn what_is_missing_or_different_is_told_and_nothing_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let wrong = async || store.validate().await.unwrap().into_iter().filter(|check| !check.is_ok());
    let all = wrong().await.count();
    assert!(all > 60, "of {all} things none is there before the migration");
    store.migrate().await.unwrap();
    assert_eq!(wrong().await.count(), 0);
    let mut other = beside(directory.path()).await;
    for change in [
        "drop view tickers",
        "drop index candles_raw_by_time",
        "drop view exchanges",
        "create view exchanges as select 1",
    ] {
        sqlx::query(change).execute(&mut other).await.unwrap();
    }
    let told: Vec<_> = wrong().await.map(|check| (check.kind, check.name, check.found.is_some())).collect();
    let thing = |kind: &str, name: &str, there| (kind.to_owned(), name.to_owned(), there);
    let wanted = [
        thing("index", "candles_raw_by_time", false),
        thing("view", "exchanges", true),
        thing("view", "tickers", false),
    ];
    assert_eq!(told, wanted);
}
