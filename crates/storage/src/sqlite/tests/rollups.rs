//! Roll-ups: what they hold, that late rows repair them, and that retention never spoils them.

use std::time::Duration;

use fathom_market::{
    batch::Batch,
    table::{CategorySnapshotRow, Table},
};
use rust_decimal::Decimal;

use super::*;
use crate::{
    read::{CategoryRollup, RollupQuery, RollupWidth},
    rollup::Fold,
    store::Retention,
};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

fn asked(width: RollupWidth) -> RollupQuery {
    RollupQuery {
        scope: "binance".into(),
        market_type: "SPOT".into(),
        category: "TOTAL".into(),
        depth: rows::dec("5"),
        width,
        from_ms: None,
        to_ms: None,
        limit: 1000,
    }
}

async fn read(store: &SqliteStore, width: RollupWidth) -> Vec<CategoryRollup> {
    store.history().category_rollup(&asked(width)).await.unwrap()
}

/// What the roll-ups of these snapshots should be.
fn wanted(snapshots: &[CategorySnapshotRow], width: RollupWidth) -> Vec<CategoryRollup> {
    let mut buckets: Vec<i64> =
        snapshots.iter().map(|row| row.timestamp_ms / width.ms() * width.ms()).collect();
    buckets.dedup();
    let fold = |bucket: &i64| {
        let of = snapshots.iter().filter(|row| row.timestamp_ms / width.ms() * width.ms() == *bucket);
        let of = of.map(|row| {
            let (bid, ask) = (row.total_bid_volume_usd, row.total_ask_volume_usd);
            Fold::one(bid, ask, row.avg_price, row.symbol_count).unwrap()
        });
        Fold::all(of).unwrap().read(*bucket).unwrap()
    };
    buckets.iter().map(fold).collect()
}

fn minutes(range: std::ops::Range<i64>) -> Vec<CategorySnapshotRow> {
    range.map(rows::category_snapshot).collect()
}

async fn assert_whole(store: &SqliteStore, snapshots: &[CategorySnapshotRow]) {
    for width in [RollupWidth::Hour, RollupWidth::Day] {
        assert_eq!(read(store, width).await, wanted(snapshots, width), "{width:?}");
    }
}

/// Keeps snapshots from a time on.
async fn expire_before(store: &SqliteStore, oldest_ms: i64) -> u64 {
    let rule = Retention { table: Table::CategorySnapshots, keep: Duration::from_millis(1) };
    store.expire(&[rule], (oldest_ms + 1) * 1000, u64::MAX).await.unwrap()[0].1
}

#[tokio::test]
async fn hours_and_days_hold_what_their_snapshots_say() {
    let (_directory, store) = store().await;
    let all = minutes(0..1500);
    store.write(&Batch::of(all.clone())).await;
    assert!(read(&store, RollupWidth::Hour).await.is_empty());
    assert_eq!(store.roll_up(u64::MAX).await.unwrap(), 25);
    assert_whole(&store, &all).await;
    let hours = read(&store, RollupWidth::Hour).await;
    // Minutes 0, 2 .. 58 have the prices 5e-8, 2.005e-5 .. 58.005e-5.
    assert_eq!(hours[0].avg_price, Some(rows::dec("0.00029005")));
    assert_eq!(hours[0].avg_symbol_count, rows::dec("30.5"));
    assert_eq!(hours[0].count, 60);
    assert_eq!(store.roll_up(u64::MAX).await.unwrap(), 0, "nothing was written since");
}

#[tokio::test]
async fn a_range_of_roll_ups_ascends_from_its_start_or_ends_with_the_newest() {
    let (_directory, store) = store().await;
    store.write(&rows::batch(Table::CategorySnapshots, 0..360)).await;
    store.roll_up(u64::MAX).await.unwrap();
    let hour = |n: i64| rows::START_MS + n * HOUR;
    let all = asked(RollupWidth::Hour);
    let cases = [
        (RollupQuery { limit: 2, ..all.clone() }, vec![4, 5]),
        (RollupQuery { from_ms: Some(hour(1)), limit: 2, ..all.clone() }, vec![1, 2]),
        (RollupQuery { from_ms: Some(hour(1) + 1), to_ms: Some(hour(3)), ..all.clone() }, vec![2, 3]),
        (RollupQuery { scope: "ALL".into(), ..all.clone() }, vec![]),
        (RollupQuery { depth: Decimal::ONE, ..all.clone() }, vec![]),
    ];
    for (query, hours) in cases {
        let found = store.history().category_rollup(&query).await.unwrap();
        let found: Vec<i64> = found.iter().map(|row| row.bucket_ms).collect();
        assert_eq!(found, hours.into_iter().map(hour).collect::<Vec<_>>(), "{query:?}");
    }
}

#[tokio::test]
async fn a_late_row_repairs_its_hour_and_its_day_and_a_replay_changes_nothing() {
    let (_directory, store) = store().await;
    let all = minutes(0..1500);
    let (late, in_time): (Vec<_>, Vec<_>) =
        all.iter().cloned().partition(|row| row.timestamp_ms / 60_000 % 60 == 7);
    store.write(&Batch::of(in_time.clone())).await;
    store.roll_up(u64::MAX).await.unwrap();
    assert_whole(&store, &in_time).await;
    store.write(&Batch::of(late)).await;
    assert_eq!(store.roll_up(u64::MAX).await.unwrap(), 25);
    assert_whole(&store, &all).await;
    store.write(&Batch::of(all.clone())).await;
    assert_eq!(store.roll_up(u64::MAX).await.unwrap(), 0, "a replay wrote nothing");
    assert_whole(&store, &all).await;
}

#[tokio::test]
async fn a_bounded_call_leaves_the_rest_for_the_next() {
    let (_directory, store) = store().await;
    let all = minutes(0..600);
    store.write(&Batch::of(all.clone())).await;
    assert_eq!(store.roll_up(3).await.unwrap(), 3);
    assert_eq!(read(&store, RollupWidth::Hour).await, wanted(&all[..180], RollupWidth::Hour));
    assert_eq!(store.roll_up(3).await.unwrap(), 3);
    assert_eq!(store.roll_up(100).await.unwrap(), 4);
    assert_whole(&store, &all).await;
}

#[tokio::test]
async fn a_bucket_whose_rows_have_begun_to_expire_is_never_made_of_the_rest() {
    let (_directory, store) = store().await;
    // Two days; every seventh minute comes late.
    let all = minutes(0..2880);
    let (late, in_time): (Vec<_>, Vec<_>) =
        all.iter().cloned().enumerate().partition(|(minute, _)| minute % 7 == 0);
    let (late, in_time): (Vec<_>, Vec<_>) =
        (late.into_iter().map(|(_, row)| row).collect(), in_time.into_iter().map(|(_, row)| row).collect());
    store.write(&Batch::of(in_time.clone())).await;
    // Nothing was rolled up so far: expiring does it for what goes. The first half of the first day, and a half of an hour.
    let oldest = rows::START_MS + DAY / 2 + HOUR / 2;
    assert!(expire_before(&store, oldest).await > 600);
    store.roll_up(u64::MAX).await.unwrap();
    assert_whole(&store, &in_time).await;
    // The late rows reach all hours. Those that have lost rows stay; the others, and both days, take them in.
    store.write(&Batch::of(late.clone())).await;
    store.roll_up(u64::MAX).await.unwrap();
    let floor = oldest - HOUR / 2 + HOUR;
    let known: Vec<_> =
        all.iter().filter(|row| row.timestamp_ms >= floor || !late.contains(row)).cloned().collect();
    assert_whole(&store, &known).await;
    // The late rows of old hours go with the next round, and that changes nothing either.
    assert!(expire_before(&store, oldest).await > 100);
    store.roll_up(u64::MAX).await.unwrap();
    assert_whole(&store, &known).await;
    expire_before(&store, i64::MAX / 1000 - 1).await;
    assert_eq!(store.history().count(Table::CategorySnapshots).await.unwrap(), 0);
    store.roll_up(u64::MAX).await.unwrap();
    assert_whole(&store, &known).await;
}

#[tokio::test]
async fn rows_older_than_their_retention_are_rolled_up_the_first_time_they_come() {
    let (_directory, store) = store().await;
    expire_before(&store, rows::START_MS + 10 * DAY).await;
    let all = minutes(0..120);
    store.write(&Batch::of(all.clone())).await;
    assert_eq!(expire_before(&store, rows::START_MS + 10 * DAY).await, 120);
    assert_whole(&store, &all).await;
}

#[tokio::test]
async fn what_an_older_program_stored_is_rolled_up_after_the_migration() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    store.migrate().await.unwrap();
    let all = minutes(0..120);
    store.write(&Batch::of(all.clone())).await;
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
    assert_whole(&store, &all).await;
}
