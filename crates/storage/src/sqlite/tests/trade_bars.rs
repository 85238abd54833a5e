//! Trade bars after a repair.

use std::time::Duration;

use fathom_market::{
    batch::Batch,
    table::{GapRow, Table, TradeBarRow, TradeRow},
};
use sqlx::Row as _;

use super::*;
use crate::store::Retention;

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

async fn bars(store: &SqliteStore) -> Vec<(i64, i64, bool)> {
    let sql = "select (second_ms - 1735689600000) / 1000, trades, partial from trade_1s_raw order by 1";
    query(store, sql).await.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

async fn write(store: &SqliteStore, batch: Batch) {
    assert!(matches!(store.write(&batch).await, WriteOutcome::Committed { .. }));
}

/// A minute of trades with a hole, as it was streamed.
async fn with_hole() -> (TempDir, SqliteStore) {
    let (directory, store) = store().await;
    write(&store, Batch::of((0..30).chain(60..80).map(trade))).await;
    write(&store, Batch::of([bar(0, 10, true), bar(1, 10, false), bar(2, 10, true), bar(6, 10, true)])).await;
    write(&store, Batch::of([bar(7, 10, false)])).await;
    write(&store, Batch::of([gap("open", 1)])).await;
    (directory, store)
}

#[tokio::test]
async fn a_repaired_gap_makes_its_bars_anew_once_later_ones_are_there() {
    let (_directory, store) = with_hole().await;
    assert_eq!(store.roll_up(9).await.unwrap(), 0, "an open gap repairs nothing");
    write(&store, Batch::of((30..60).map(trade))).await;
    write(&store, Batch::of([gap("repaired", 2)])).await;
    // A bar of second 11 might still be on its way, with what comes next to the gap.
    assert_eq!(store.roll_up(9).await.unwrap(), 0);
    write(&store, Batch::of([bar(12, 1, false)])).await;
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
    assert_eq!(bars(&store).await, wanted);
    let fourth = query(
        &store,
        "select open_m, close_m, volume, buy_volume, sell_volume, trades from trade_1s_raw where second_ms = 1735689604000",
    )
    .await;
    // Trades 40 to 49: 6183763 + n, quantity 5 + n, bought where n is a multiple of three.
    assert_eq!((fourth[0].get::<i64, _>(0), fourth[0].get::<i64, _>(1)), (6_183_803, 6_183_812));
    assert_eq!(fourth[0].get::<&str, _>(2), "0.00000495");
    assert_eq!((fourth[0].get::<&str, _>(3), fourth[0].get::<&str, _>(4)), ("0.0000015", "0.00000345"));
    assert_eq!(store.roll_up(9).await.unwrap(), 0, "the mark is gone");
    // A bar that was on its way all the same finds a better one.
    assert_eq!(store.write(&Batch::of([bar(6, 9, true)])).await, committed(0, 1));
    let again = store.recompute_trade_bars(rows::BTC, START_US, START_US + 9 * SECOND).await.unwrap();
    assert_eq!((again, bars(&store).await), (0, wanted), "nothing is known better");
}

#[tokio::test]
async fn without_stored_trades_no_bar_changes() {
    let (_directory, store) = store().await;
    write(&store, Batch::of([bar(2, 10, true), bar(20, 1, false)])).await;
    write(&store, Batch::of([gap("repaired", 2)])).await;
    assert_eq!(store.roll_up(9).await.unwrap(), 1);
    assert_eq!(bars(&store).await, [(2, 10, true), (20, 1, false)]);
}

#[tokio::test]
async fn trades_that_have_expired_in_part_make_no_bar() {
    let (_directory, store) = with_hole().await;
    write(&store, Batch::of((30..60).map(trade))).await;
    write(&store, Batch::of([gap("repaired", 2)])).await;
    write(&store, Batch::of([bar(12, 1, false)])).await;
    let rule = Retention { table: Table::Trades, keep: Duration::from_secs(1) };
    // Trades before 3.5 s go.
    store.expire(&[rule], START_US + 4 * SECOND + SECOND / 2, 1000).await.unwrap();
    assert_eq!(store.roll_up(9).await.unwrap(), 1);
    let third = bars(&store).await.into_iter().find(|(second, ..)| *second == 3);
    assert_eq!(third, None, "five of ten trades are no bar");
    assert!(bars(&store).await.contains(&(4, 10, false)));
    assert!(bars(&store).await.contains(&(2, 10, true)));
}

#[tokio::test]
async fn a_mark_goes_with_the_bars_it_is_of() {
    let (_directory, store) = store().await;
    write(&store, Batch::of([gap("repaired", 2)])).await;
    assert_eq!(query(&store, "select gap_id from trade_bars_dirty").await.len(), 1);
    let rule = Retention { table: Table::Trade1s, keep: Duration::from_secs(1) };
    store.expire(&[rule], START_US + 6 * SECOND, 10).await.unwrap();
    assert_eq!(query(&store, "select gap_id from trade_bars_dirty").await.len(), 1);
    store.expire(&[rule], START_US + 8 * SECOND, 10).await.unwrap();
    assert!(query(&store, "select gap_id from trade_bars_dirty").await.is_empty());
}
