//! The questions of the reading side, and readers beside a writer.

use fathom_market::{
    batch::Batch,
    table::{CategorySnapshotRow, Table},
};

use super::*;
use crate::read::{CandleQuery, CategoryQuery, CategoryStat, MAX_ROWS, SnapshotQuery};

fn total(from_ms: Option<i64>, to_ms: Option<i64>, limit: u32) -> CategoryQuery {
    CategoryQuery {
        scope: "binance".into(),
        market_type: "SPOT".into(),
        category: "TOTAL".into(),
        depth: rows::dec("5"),
        from_ms,
        to_ms,
        limit,
    }
}

fn minute(n: i64) -> i64 {
    rows::START_MS + n * 60_000
}

#[tokio::test]
async fn a_range_ascends_from_its_start_or_ends_with_the_newest() {
    let (_directory, store) = store().await;
    store.write(&rows::batch(Table::CategorySnapshots, 0..10)).await;
    let other = CategorySnapshotRow { scope: "ALL".into(), ..rows::category_snapshot(3) };
    let deeper = CategorySnapshotRow { depth: rows::dec("15"), ..rows::category_snapshot(3) };
    store.write(&Batch::of([other, deeper])).await;
    let cases = [
        (total(None, None, 3), vec![7, 8, 9]),
        (total(None, Some(minute(5)), 2), vec![4, 5]),
        (total(Some(minute(2)), None, 3), vec![2, 3, 4]),
        (total(Some(minute(8)), None, 100), vec![8, 9]),
        (total(Some(minute(2)), Some(minute(3)), 100), vec![2, 3]),
        (total(None, None, 0), vec![]),
        (CategoryQuery { category: "MEME".into(), ..total(None, None, 5) }, vec![]),
    ];
    for (query, minutes) in cases {
        let wanted: Vec<_> = minutes.into_iter().map(rows::category_snapshot).collect();
        assert_eq!(store.history().category_range(&query).await.unwrap(), wanted, "{query:?}");
    }
}

#[tokio::test]
async fn no_question_gives_more_rows_than_the_bound() {
    let (_directory, store) = store().await;
    store.write(&rows::batch(Table::Candles, 0..i64::from(MAX_ROWS) + 5)).await;
    let query = CandleQuery {
        instrument_id: rows::BTC,
        timeframe: "1m".into(),
        from_ms: Some(0),
        to_ms: None,
        limit: u32::MAX,
    };
    assert_eq!(store.history().candles(&query).await.unwrap().len(), MAX_ROWS as usize);
}

#[tokio::test]
async fn the_newest_of_each_category_and_their_counts() {
    let (_directory, store) = store().await;
    let named =
        |category: &str, n| CategorySnapshotRow { category: category.into(), ..rows::category_snapshot(n) };
    let futures = CategorySnapshotRow { market_type: "FUTURES".into(), ..named("TOTAL", 9) };
    let shallow = CategorySnapshotRow { depth: rows::dec("1.5"), ..named("TOTAL", 8) };
    let all = [named("TOTAL", 1), named("OTHERS", 2), named("TOTAL", 4), named("MEME", 3), futures, shallow];
    store.write(&Batch::of(all)).await;
    let latest = store.history().latest_categories("binance", "SPOT", rows::dec("5.00")).await.unwrap();
    assert_eq!(latest, vec![named("MEME", 3), named("OTHERS", 2), named("TOTAL", 4)]);
    assert_eq!(store.history().latest_categories("ALL", "SPOT", rows::dec("5")).await.unwrap(), vec![]);
    let stat = |category: &str, market: &str, count, first, last| CategoryStat {
        category: category.into(),
        market_type: market.into(),
        count,
        first_ms: minute(first),
        last_ms: minute(last),
    };
    let wanted = vec![
        stat("MEME", "SPOT", 1, 3, 3),
        stat("OTHERS", "SPOT", 1, 2, 2),
        stat("TOTAL", "SPOT", 3, 1, 8),
        stat("TOTAL", "FUTURES", 1, 9, 9),
    ];
    assert_eq!(store.history().category_stats("binance").await.unwrap(), wanted);
}

#[tokio::test]
async fn series_of_an_instrument_are_read_back_as_written() {
    let (_directory, store) = store().await;
    store.write(&rows::batch(Table::Candles, 0..5)).await;
    store.write(&rows::batch(Table::SymbolSnapshots, 0..5)).await;
    store.write(&rows::batch(Table::CollectorState, 0..5)).await;
    let history = store.history();
    let candles = CandleQuery {
        instrument_id: rows::BTC,
        timeframe: "1m".into(),
        from_ms: Some(minute(1)),
        to_ms: Some(minute(2)),
        limit: 9,
    };
    assert_eq!(history.candles(&candles).await.unwrap(), vec![rows::candle(1), rows::candle(2)]);
    let snapshots = SnapshotQuery {
        instrument_id: rows::BTC,
        depth: rows::dec("1.5"),
        from_ms: None,
        to_ms: None,
        limit: 2,
    };
    let wanted = vec![rows::symbol_snapshot(3), rows::symbol_snapshot(4)];
    assert_eq!(history.symbol_range(&snapshots).await.unwrap(), wanted);
    assert_eq!(history.last_candle(rows::BTC, "1m").await.unwrap(), Some((minute(4), true)));
    assert_eq!(history.last_candle(rows::BTC, "5m").await.unwrap(), None);
    let states: Vec<_> = (0..5).map(rows::collector_state).collect();
    assert_eq!(history.collector_state().await.unwrap(), states);
}

#[tokio::test]
async fn readers_see_whole_batches_while_others_are_written() {
    const BATCHES: i64 = 30;
    const ROWS: i64 = 700;
    let (_directory, store) = store().await;
    let write = async {
        for batch in 0..BATCHES {
            let rows = rows::batch(Table::BookTicker, batch * ROWS..(batch + 1) * ROWS);
            assert_eq!(store.write(&rows).await, committed(ROWS.unsigned_abs(), 0));
        }
    };
    let read = async {
        let (mut seen, all) = (0, (BATCHES * ROWS).unsigned_abs());
        while seen < all {
            let now = store.history().count(Table::BookTicker).await.unwrap();
            assert_eq!(now % ROWS.unsigned_abs(), 0, "part of a batch was visible");
            assert!(now >= seen);
            seen = now;
        }
    };
    tokio::join!(write, read);
}
