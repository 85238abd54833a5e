//! Partitions made ahead, dropped by age, and rows that came before their partition.

use fathom_market::table::{OrderbookRow, TradeRow};

use super::*;
use crate::{
    postgres::{
        layout::Aged,
        partitions::{AHEAD, partition},
    },
    store::Retention,
};

const HOUR_MS: i64 = 3_600_000;
const START_US: i64 = rows::START_MS * 1000;

fn trade(n: i64, event_us: i64) -> TradeRow {
    TradeRow { event_us, ..rows::trade(n) }
}

fn book(timestamp_ms: i64) -> OrderbookRow {
    OrderbookRow {
        instrument_id: rows::BTC,
        timestamp_ms,
        last_update_id: 1,
        bids: "[]".into(),
        asks: "[]".into(),
    }
}

async fn parts(store: &PostgresStore, table: Table) -> Vec<i64> {
    store.partitions.list(&store.pool, table).await.unwrap()
}

async fn in_default(store: &PostgresStore, table: Table) -> i64 {
    number(store, &format!("select count(*) from {}_default", table.schema().name)).await
}

#[tokio::test]
async fn partitions_are_there_before_their_time() {
    let Some((_database, store)) = store().await else { return };
    let now_ms = number(&store, "select (extract(epoch from now()) * 1000)::bigint").await;
    for aged in Aged::all() {
        let made = parts(&store, aged.table).await;
        let present = now_ms * aged.per_ms / aged.width;
        assert!(
            (present..=present + AHEAD).all(|number| made.contains(&number)),
            "{:?}: {made:?}",
            aged.table
        );
    }
    // The upkeep goes by the clock that it is told.
    let later = START_US + 500 * HOUR_MS * 1000;
    store.expire(&[], later, 100).await.unwrap();
    let hour = later / 1000 / HOUR_MS;
    let made = parts(&store, Table::Trades).await;
    assert!((hour..=hour + AHEAD).all(|number| made.contains(&number)), "{made:?}");
}

#[tokio::test]
async fn a_batch_finds_the_partitions_of_its_times_or_makes_them() {
    let Some((_database, store)) = store().await else { return };
    let hours = (0..5).map(|n| trade(n, START_US + n * HOUR_MS * 1000));
    assert_eq!(store.write(&Batch::of(hours)).await, committed(5, 0));
    assert_eq!(in_default(&store, Table::Trades).await, 0);
    let first = rows::START_MS / HOUR_MS;
    let made = parts(&store, Table::Trades).await;
    assert!((first..first + 5).all(|number| made.contains(&number)), "{made:?}");
}

#[tokio::test]
async fn times_out_of_all_bounds_are_stored_without_a_partition() {
    let Some((_database, store)) = store().await else { return };
    let before = parts(&store, Table::Trades).await;
    let odd = [i64::MIN, 0, i64::MAX].into_iter().enumerate();
    let odd = Batch::of(odd.map(|(n, event_us)| trade(n as i64, event_us)));
    assert_eq!(store.write(&odd).await, committed(3, 0));
    assert_eq!(store.write(&odd).await, committed(0, 3));
    assert_eq!(in_default(&store, Table::Trades).await, 3);
    store.expire(&[], START_US, 100).await.unwrap();
    assert_eq!(in_default(&store, Table::Trades).await, 3);
    let added = parts(&store, Table::Trades).await.len() - before.len();
    assert_eq!(added as i64, AHEAD + 1);
}

#[tokio::test]
async fn rows_of_the_default_partition_move_when_theirs_is_made() {
    let Some((_database, store)) = store().await else { return };
    // Many hours at once: the first batch makes some partitions only.
    let many = Batch::of((0..40).map(|n| trade(n, START_US + n * HOUR_MS * 1000)));
    assert_eq!(store.write(&many).await, committed(40, 0));
    let waiting = in_default(&store, Table::Trades).await;
    assert!(waiting > 0, "all partitions were made at once");
    let before = dump(&store, Table::Trades).await;
    for _ in 0..10 {
        store.expire(&[], START_US, 100).await.unwrap();
    }
    assert_eq!(in_default(&store, Table::Trades).await, 0);
    assert_eq!(dump(&store, Table::Trades).await, before);
    assert_eq!(store.write(&many).await, committed(0, 40));
}

#[tokio::test]
async fn whole_partitions_go_at_once_and_single_rows_up_to_the_limit() {
    let Some((_database, store)) = store().await else { return };
    let books = (0..2 * 3600).map(|n| book(rows::START_MS + n * 1000));
    assert_eq!(store.write(&Batch::of(books)).await, committed(7200, 0));
    let first = rows::START_MS / HOUR_MS;
    let rule = [Retention { table: Table::OrderbookData, keep: Duration::from_secs(600) }];
    // 90 minutes in, ten are kept: the first hour goes whole, of the second the first twenty minutes.
    let now_us = START_US + 90 * 60_000_000;
    assert_eq!(store.expire(&rule, now_us, 500).await.unwrap(), [(Table::OrderbookData, 3600)]);
    assert!(!parts(&store, Table::OrderbookData).await.contains(&first));
    assert_eq!(store.expire(&rule, now_us, 500).await.unwrap(), [(Table::OrderbookData, 500)]);
    assert_eq!(store.expire(&rule, now_us, u64::MAX).await.unwrap(), [(Table::OrderbookData, 700)]);
    let oldest = number(&store, "select min(timestamp_ms) from orderbook_raw").await;
    assert_eq!(oldest, rows::START_MS + 80 * 60_000);
    // A late row of the hour that went has a place again.
    assert_eq!(store.write(&Batch::of([book(rows::START_MS)])).await, committed(1, 0));
    assert!(parts(&store, Table::OrderbookData).await.contains(&first));
}

#[tokio::test]
async fn of_what_is_kept_for_long_only_whole_partitions_go() {
    let Some((_database, store)) = store().await else { return };
    let books = (0..4).map(|n| book(rows::START_MS + n * HOUR_MS / 2));
    store.write(&Batch::of(books)).await;
    let rule = [Retention { table: Table::OrderbookData, keep: Duration::from_secs(86_400) }];
    let now_us = START_US + (24 * 60 + 40) * 60_000_000;
    assert_eq!(store.expire(&rule, now_us, 500).await.unwrap(), [(Table::OrderbookData, 0)]);
    assert_eq!(
        store.expire(&rule, now_us + 20 * 60_000_000, 500).await.unwrap(),
        [(Table::OrderbookData, 2)]
    );
}

#[tokio::test]
async fn a_partition_that_another_process_dropped_is_not_missed() {
    let Some((database, store)) = store().await else { return };
    store.write(&Batch::of([trade(1, START_US)])).await;
    let other = database.open().await;
    let rule = [Retention { table: Table::Trades, keep: Duration::from_secs(86_400) }];
    other.expire(&rule, START_US + 30 * HOUR_MS * 1000, 100).await.unwrap();
    assert_eq!(store.history().count(Table::Trades).await.unwrap(), 0);
    assert_eq!(store.write(&Batch::of([trade(2, START_US)])).await, committed(1, 0));
    assert_eq!(in_default(&store, Table::Trades).await, 1);
    store.expire(&[], START_US, 100).await.unwrap();
    assert_eq!(in_default(&store, Table::Trades).await, 0);
}

#[tokio::test]
async fn a_reader_in_the_way_delays_no_write() {
    let Some((database, store)) = store().await else { return };
    let mut reader = database.beside().await;
    run(&mut reader, "begin; select count(*) from trades_raw").await;
    let batch = Batch::of([trade(1, START_US)]);
    let writing = tokio::time::timeout(Duration::from_secs(10), store.write(&batch)).await;
    assert_eq!(writing.unwrap(), committed(1, 0));
    assert_eq!(in_default(&store, Table::Trades).await, 1);
    run(&mut reader, "commit").await;
    store.expire(&[], START_US, 100).await.unwrap();
    assert_eq!(in_default(&store, Table::Trades).await, 0);
    let name = partition("trades_raw", rows::START_MS / HOUR_MS);
    assert_eq!(number(&store, &format!("select count(*) from {name}")).await, 1);
}
