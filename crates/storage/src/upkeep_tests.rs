//! Roll-ups and repaired bars: what every store has to do alike. A store's own tests run each of these on a fresh, migrated
//! store.

use std::time::Duration;

use fathom_market::{
    batch::Batch,
    table::{CategorySnapshotRow, GapRow, Table, TradeBarRow, TradeRow},
};
use rust_decimal::Decimal;

use crate::sample_rows as rows;

use crate::{
    read::{CategoryRollup, RollupQuery, RollupWidth},
    rollup::Fold,
    store::{Retention, Store, WriteOutcome},
};

/// A store under test.
pub(crate) trait Bench {
    /// The store, migrated and empty.
    fn store(&self) -> &dyn Store;

    /// Numbers that a question gives.
    async fn numbers(&self, sql: &str) -> Vec<Vec<i64>>;
}

/// Runs the named tests on what the function gives.
macro_rules! run_upkeep {
    ($bench:path: $($name:ident),+ $(,)?) => {
        $(#[tokio::test]
        async fn $name() {
            let Some(bench) = $bench().await else { return };
            crate::upkeep_tests::$name(&bench).await;
        })+
    };
}
pub(crate) use run_upkeep;

/// Every one of them.
macro_rules! all_upkeep {
    ($bench:path) => {
        crate::upkeep_tests::run_upkeep!($bench:
            hours_and_days_hold_what_their_snapshots_say,
            a_range_of_roll_ups_ascends_from_its_start_or_ends_with_the_newest,
            a_late_row_repairs_its_hour_and_its_day_and_a_replay_changes_nothing,
            a_bounded_call_leaves_the_rest_for_the_next,
            a_bucket_whose_rows_have_begun_to_expire_is_never_made_of_the_rest,
            rows_older_than_their_retention_are_rolled_up_the_first_time_they_come,
            a_repaired_gap_makes_its_bars_anew_once_later_ones_are_there,
            without_stored_trades_no_bar_changes,
            trades_that_have_expired_in_part_make_no_bar,
            a_mark_goes_with_the_bars_it_is_of,
        );
    };
}
pub(crate) use all_upkeep;

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

async fn read(store: &dyn Store, width: RollupWidth) -> Vec<CategoryRollup> {
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

async fn assert_whole(store: &dyn Store, snapshots: &[CategorySnapshotRow]) {
    for width in [RollupWidth::Hour, RollupWidth::Day] {
        assert_eq!(read(store, width).await, wanted(snapshots, width), "{width:?}");
    }
}

/// Keeps snapshots from a time on.
async fn expire_before(store: &dyn Store, oldest_ms: i64) -> u64 {
    let rule = Retention { table: Table::CategorySnapshots, keep: Duration::from_millis(1) };
    store.expire(&[rule], (oldest_ms + 1) * 1000, u64::MAX).await.unwrap()[0].1
}

pub(crate) async fn hours_and_days_hold_what_their_snapshots_say(bench: &impl Bench) {
    let store = bench.store();
    let all = minutes(0..1500);
    store.write(&Batch::of(all.clone())).await;
    assert!(read(store, RollupWidth::Hour).await.is_empty());
    assert_eq!(store.roll_up(u64::MAX).await.unwrap(), 25);
    assert_whole(store, &all).await;
    let hours = read(store, RollupWidth::Hour).await;
    // Minutes 0, 2 .. 58 have the prices 5e-8, 2.005e-5 .. 58.005e-5.
    assert_eq!(hours[0].avg_price, Some(rows::dec("0.00029005")));
    assert_eq!(hours[0].avg_symbol_count, rows::dec("30.5"));
    assert_eq!(hours[0].count, 60);
    assert_eq!(store.roll_up(u64::MAX).await.unwrap(), 0, "nothing was written since");
}

pub(crate) async fn a_range_of_roll_ups_ascends_from_its_start_or_ends_with_the_newest(bench: &impl Bench) {
    let store = bench.store();
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

pub(crate) async fn a_late_row_repairs_its_hour_and_its_day_and_a_replay_changes_nothing(bench: &impl Bench) {
    let store = bench.store();
    let all = minutes(0..1500);
    let (late, in_time): (Vec<_>, Vec<_>) =
        all.iter().cloned().partition(|row| row.timestamp_ms / 60_000 % 60 == 7);
    store.write(&Batch::of(in_time.clone())).await;
    store.roll_up(u64::MAX).await.unwrap();
    assert_whole(store, &in_time).await;
    store.write(&Batch::of(late)).await;
    assert_eq!(store.roll_up(u64::MAX).await.unwrap(), 25);
    assert_whole(store, &all).await;
    store.write(&Batch::of(all.clone())).await;
    assert_eq!(store.roll_up(u64::MAX).await.unwrap(), 0, "a replay wrote nothing");
    assert_whole(store, &all).await;
}

pub(crate) async fn a_bounded_call_leaves_the_rest_for_the_next(bench: &impl Bench) {
    let store = bench.store();
    let all = minutes(0..600);
    store.write(&Batch::of(all.clone())).await;
    assert_eq!(store.roll_up(3).await.unwrap(), 3);
    assert_eq!(read(store, RollupWidth::Hour).await, wanted(&all[..180], RollupWidth::Hour));
    assert_eq!(store.roll_up(3).await.unwrap(), 3);
    assert_eq!(store.roll_up(100).await.unwrap(), 4);
    assert_whole(store, &all).await;
}

pub(crate) async fn a_bucket_whose_rows_have_begun_to_expire_is_never_made_of_the_rest(bench: &impl Bench) {
    let store = bench.store();
    // Two days; every seventh minute comes late.
    let all = minutes(0..2880);
    let (late, in_time): (Vec<_>, Vec<_>) =
        all.iter().cloned().enumerate().partition(|(minute, _)| minute % 7 == 0);
    let (late, in_time): (Vec<_>, Vec<_>) =
        (late.into_iter().map(|(_, row)| row).collect(), in_time.into_iter().map(|(_, row)| row).collect());
    store.write(&Batch::of(in_time.clone())).await;
    // Nothing was rolled up so far: expiring does it for what goes. The first half of the first day, and a half of an hour.
    let oldest = rows::START_MS + DAY / 2 + HOUR / 2;
    assert!(expire_before(store, oldest).await > 600);
    store.roll_up(u64::MAX).await.unwrap();
    assert_whole(store, &in_time).await;
    // The late rows reach all hours. Those that have lost rows stay; the others, and both days, take them in.
    store.write(&Batch::of(late.clone())).await;
    store.roll_up(u64::MAX).await.unwrap();
    let floor = oldest - HOUR / 2 + HOUR;
    let known: Vec<_> =
        all.iter().filter(|row| row.timestamp_ms >= floor || !late.contains(row)).cloned().collect();
    assert_whole(store, &known).await;
    // The late rows of old hours go with the next round, and that changes nothing either.
    assert!(expire_before(store, oldest).await > 100);
    store.roll_up(u64::MAX).await.unwrap();
    assert_whole(store, &known).await;
    expire_before(store, i64::MAX / 1000 - 1).await;
    assert_eq!(store.history().count(Table::CategorySnapshots).await.unwrap(), 0);
    store.roll_up(u64::MAX).await.unwrap();
    assert_whole(store, &known).await;
}

pub(crate) async fn rows_older_than_their_retention_are_rolled_up_the_first_time_they_come(
    bench: &impl Bench,
) {
    let store = bench.store();
    expire_before(store, rows::START_MS + 10 * DAY).await;
    let all = minutes(0..120);
    store.write(&Batch::of(all.clone())).await;
    assert_eq!(expire_before(store, rows::START_MS + 10 * DAY).await, 120);
    assert_whole(store, &all).await;
}

const SECOND: i64 = 1_000_000;
const START_US: i64 = rows::START_MS * 1000;

/// Trade `n` is of a tenth of a second, ten in each; those of the seconds 3 to 5 were missed and fetched later.
fn trade(n: i64) -> TradeRow {
    let event_us = START_US + n * SECOND / 10;
    let missed = (30..60).contains(&n);
    TradeRow {
        kind: "trade".into(),
        trade_id: n.to_string(),
        event_us,
        recv_us: event_us + if missed { 900 * SECOND } else { 3 },
        ..rows::trade(n)
    }
}

fn bar(second: i64, trades: i64, partial: bool) -> TradeBarRow {
    TradeBarRow { trades, partial, ..rows::trade_bar(second) }
}

fn gap(status: &str, updated_us: i64) -> GapRow {
    let closed = status == "repaired";
    GapRow {
        instrument_id: rows::BTC,
        status: status.into(),
        from_us: START_US + 29 * SECOND / 10,
        to_us: Some(START_US + 6 * SECOND),
        closed_us: closed.then_some(updated_us),
        updated_us,
        ..rows::gap(0)
    }
}

async fn bars(bench: &impl Bench) -> Vec<(i64, i64, bool)> {
    let sql = "select (second_ms - 1735689600000) / 1000, trades, case when partial then 1 else 0 end \
               from trade_1s_raw order by second_ms";
    bench.numbers(sql).await.iter().map(|row| (row[0], row[1], row[2] == 1)).collect()
}

async fn marks(bench: &impl Bench) -> i64 {
    bench.numbers("select count(*) from trade_bars_dirty").await[0][0]
}

async fn write(store: &dyn Store, batch: Batch) {
    assert!(matches!(store.write(&batch).await, WriteOutcome::Committed { .. }));
}

/// A minute of trades with a hole, as it was streamed.
async fn write_hole(store: &dyn Store) {
    write(store, Batch::of((0..30).chain(60..80).map(trade))).await;
    write(store, Batch::of([bar(0, 10, true), bar(1, 10, false), bar(2, 10, true), bar(6, 10, true)])).await;
    write(store, Batch::of([bar(7, 10, false)])).await;
    write(store, Batch::of([gap("open", 1)])).await;
}

pub(crate) async fn a_repaired_gap_makes_its_bars_anew_once_later_ones_are_there(bench: &impl Bench) {
    let store = bench.store();
    write_hole(store).await;
    assert_eq!(store.roll_up(9).await.unwrap(), 0, "an open gap repairs nothing");
    write(store, Batch::of((30..60).map(trade))).await;
    write(store, Batch::of([gap("repaired", 2)])).await;
    // A bar of second 11 might still be on its way, with what comes next to the gap.
    assert_eq!(store.roll_up(9).await.unwrap(), 0);
    write(store, Batch::of([bar(12, 1, false)])).await;
    assert_eq!(store.roll_up(9).await.unwrap(), 1);
    let whole = |second| (second, 10, false);
    let wanted = vec![
        // The first second was cut short by the start; the gap says nothing of that.
        (0, 10, true),
        whole(1),
        whole(2),
        whole(3),
        whole(4),
        whole(5),
        whole(6),
        whole(7),
        (12, 1, false),
    ];
    assert_eq!(bars(bench).await, wanted);
    // Trades 40 to 49: 6183763 + n.
    let fourth =
        bench.numbers("select open_m, close_m from trade_1s_raw where second_ms = 1735689604000").await;
    assert_eq!(fourth, [[6_183_803, 6_183_812]]);
    assert_eq!(store.roll_up(9).await.unwrap(), 0, "the mark is gone");
    // A bar that was on its way all the same finds a better one.
    let late = store.write(&Batch::of([bar(6, 9, true)])).await;
    assert_eq!(late, WriteOutcome::Committed { inserted: 0, duplicate: 1 });
    let again = store.recompute_trade_bars(rows::BTC, START_US, START_US + 9 * SECOND).await.unwrap();
    assert_eq!((again, bars(bench).await), (0, wanted), "nothing is known better");
}

pub(crate) async fn without_stored_trades_no_bar_changes(bench: &impl Bench) {
    let store = bench.store();
    write(store, Batch::of([bar(2, 10, true), bar(20, 1, false)])).await;
    write(store, Batch::of([gap("repaired", 2)])).await;
    assert_eq!(store.roll_up(9).await.unwrap(), 1);
    assert_eq!(bars(bench).await, [(2, 10, true), (20, 1, false)]);
}

pub(crate) async fn trades_that_have_expired_in_part_make_no_bar(bench: &impl Bench) {
    let store = bench.store();
    write_hole(store).await;
    write(store, Batch::of((30..60).map(trade))).await;
    write(store, Batch::of([gap("repaired", 2)])).await;
    write(store, Batch::of([bar(12, 1, false)])).await;
    let rule = Retention { table: Table::Trades, keep: Duration::from_secs(1) };
    // Trades before 3.5 s go.
    store.expire(&[rule], START_US + 4 * SECOND + SECOND / 2, 1000).await.unwrap();
    assert_eq!(store.roll_up(9).await.unwrap(), 1);
    let third = bars(bench).await.into_iter().find(|(second, ..)| *second == 3);
    assert_eq!(third, None, "five of ten trades are no bar");
    assert!(bars(bench).await.contains(&(4, 10, false)));
    assert!(bars(bench).await.contains(&(2, 10, true)));
}

pub(crate) async fn a_mark_goes_with_the_bars_it_is_of(bench: &impl Bench) {
    let store = bench.store();
    write(store, Batch::of([gap("repaired", 2)])).await;
    assert_eq!(marks(bench).await, 1);
    let rule = Retention { table: Table::Trade1s, keep: Duration::from_secs(1) };
    store.expire(&[rule], START_US + 6 * SECOND, 10).await.unwrap();
    assert_eq!(marks(bench).await, 1);
    store.expire(&[rule], START_US + 8 * SECOND, 10).await.unwrap();
    assert_eq!(marks(bench).await, 0);
}
