//! Roll-ups and repaired bars on PostgreSQL.

use proptest::{prelude::*, strategy::ValueTree as _};
use rust_decimal::Decimal;

use super::*;
use crate::{rollup::Exact, store::Store, upkeep_tests::Bench};

impl Bench for (Database, PostgresStore) {
    fn store(&self) -> &dyn Store {
        &self.1
    }

    async fn numbers(&self, sql: &str) -> Vec<Vec<i64>> {
        let rows = query(&self.1, sql).await;
        let number =
            |row: &PgRow, at: usize| row.try_get(at).unwrap_or_else(|_| i64::from(row.get::<i32, _>(at)));
        rows.iter().map(|row| (0..row.len()).map(|at| number(row, at)).collect()).collect()
    }
}

crate::upkeep_tests::all_upkeep!(store);

/// Sums and counts, with ties among them.
fn ratios() -> impl Strategy<Value = Vec<(i64, i64)>> {
    prop::collection::vec((-1_000_000_000_i64..1_000_000_000_000, 1_i64..1441), 40)
}

#[tokio::test]
async fn the_views_divide_as_the_program_does() {
    let Some((_database, store)) = store().await else { return };
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut cases = ratios().new_tree(&mut runner).unwrap().current();
    cases.extend([(1, 2), (3, 2), (5, 2), (-1, 2), (-3, 2), (0, 7), (1, 3), (2, 3), (-2, 3), (7, 4), (6, 4)]);
    for (units, rows) in cases {
        let total = Decimal::new(units, 12);
        let sql = format!("select half_even({total}, {rows})");
        let found: Decimal = query(&store, &sql).await[0].get(0);
        assert_eq!(Some(found.normalize()), Exact::of(total).unwrap().over(rows), "{total} / {rows}");
    }
}

/// What a transaction has written but not committed is seen by nobody: its hour must be rolled up again.
#[tokio::test]
async fn a_row_that_is_committed_behind_a_roll_up_marks_its_hour_again() {
    let Some((database, store)) = store().await else { return };
    store.write(&rows::batch(Table::CategorySnapshots, 0..30)).await;
    let mut other = database.beside().await;
    let late = "insert into category_snapshots_raw select scope, market_type, category, depth, timestamp_ms + 3540000, \
                total_bid_volume, total_ask_volume, total_bid_volume_usd, total_ask_volume_usd, avg_price, symbol_count, \
                member_count, bid_covered, ask_covered, stale_count, unpriced_count, created_us \
                from category_snapshots_raw order by timestamp_ms limit 1";
    run(&mut other, &format!("begin; {late}")).await;
    let commit = async {
        eventually("the roll-up waits for the writer", || async {
            number(&store, "select count(*) from pg_locks where locktype = 'advisory' and not granted").await
                > 0
        })
        .await;
        run(&mut other, "commit").await;
    };
    let (rolled, ()) = tokio::join!(store.roll_up(9), commit);
    let after = store.roll_up(9).await.unwrap();
    assert_eq!(rolled.unwrap() + after, 1, "the row is in the first roll-up, or marks its hour again");
    assert_eq!(number(&store, "select count from category_snapshots_1h").await, 31);
}

#[tokio::test]
async fn what_is_missing_is_told_and_nothing_is_changed() {
    let Some(database) = Database::new().await else { return };
    let store = database.open().await;
    let wrong = async || store.validate().await.unwrap().into_iter().filter(|check| !check.is_ok());
    let all = wrong().await.count();
    assert!(all > 100, "of {all} things none is there before the migration");
    store.migrate().await.unwrap();
    assert_eq!(wrong().await.collect::<Vec<_>>(), []);
    let mut other = database.beside().await;
    let ahead = "select c.relname::text from pg_class c where c.relname like 'trades\\_raw\\_p%' and c.relispartition \
                 and c.relkind = 'r' order by 1 desc limit 1";
    let ahead: String = query(&store, ahead).await[0].get(0);
    run(
        &mut other,
        &format!("drop table {ahead}; drop view tickers; drop trigger trade_bars_mark on data_gaps_raw"),
    )
    .await;
    let told: Vec<_> = wrong().await.map(|check| (check.kind, check.name, check.found)).collect();
    let thing = |kind: &str, name: &str| (kind.to_owned(), name.to_owned(), None);
    assert_eq!(
        told,
        [thing("partition", &ahead), thing("trigger", "trade_bars_mark"), thing("view", "tickers")]
    );
}
