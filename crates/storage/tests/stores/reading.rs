//! The questions of the reading side.

use fathom_market::{
    batch::Batch,
    gap::{GapCause, GapStatus},
    table::{CategorySnapshotRow, GapRow, InstrumentRow, Table},
};
use fathom_storage::{
    CandleQuery, CategoryQuery, GapQuery, SnapshotQuery,
    read::{CategoryStat, MAX_ROWS},
};

use crate::{rows, stand::Stand};

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

pub(crate) async fn a_range_ascends_from_its_start_or_ends_with_the_newest(stand: &Stand) {
    let store = &stand.store;
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

pub(crate) async fn no_question_gives_more_rows_than_the_bound(stand: &Stand) {
    let store = &stand.store;
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

pub(crate) async fn the_newest_of_each_category_and_their_counts(stand: &Stand) {
    let store = &stand.store;
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

pub(crate) async fn series_of_an_instrument_are_read_back_as_written(stand: &Stand) {
    let store = &stand.store;
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

fn named_gaps(gaps: &[GapRow]) -> Vec<i64> {
    gaps.iter().map(|gap| gap.instrument_id).collect()
}

pub(crate) async fn gaps_are_found_by_what_they_are_and_when_the_newest_first(stand: &Stand) {
    let store = &stand.store;
    store.write(&rows::batch(Table::DataGaps, 0..10)).await;
    let candle = GapRow { gap_id: "9-candle:1m-5-restart".into(), from_us: 5, ..rows::gap(9) };
    store
        .write(&Batch::of([GapRow { channel: "candle:1m".into(), cause: "restart".into(), ..candle }]))
        .await;
    let from = rows::gap(0).from_us;
    let all = GapQuery { limit: 100, ..GapQuery::default() };
    let cases = [
        (all.clone(), vec![9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 9]),
        (GapQuery { limit: 2, ..all.clone() }, vec![9, 8]),
        (
            GapQuery { after: Some((from + 2, format!("f-trade-{}-odd", from + 2))), ..all.clone() },
            vec![2, 1, 0, 9],
        ),
        (GapQuery { instrument_id: Some(4), ..all.clone() }, vec![4]),
        (GapQuery { channel: Some("candle".into()), ..all.clone() }, vec![9]),
        (GapQuery { channel: Some("quote".into()), ..all.clone() }, vec![]),
        (GapQuery { cause: Some(GapCause::Restart), ..all.clone() }, vec![9]),
        (GapQuery { status: Some(GapStatus::Repaired), ..all.clone() }, vec![8, 6, 4, 2, 0]),
        (GapQuery { holes: true, from_us: Some(from + 5), ..all.clone() }, vec![9, 7, 5, 3, 1, 9]),
        (GapQuery { to_us: Some(from + 1), from_us: Some(from), ..all.clone() }, vec![1, 0, 9]),
        (
            GapQuery { from_us: Some(from + 1_000_006), status: Some(GapStatus::Repaired), ..all.clone() },
            vec![8, 6],
        ),
        (GapQuery { venue: Some("nowhere".into()), ..all.clone() }, vec![]),
    ];
    for (query, wanted) in cases {
        assert_eq!(named_gaps(&store.history().gaps(&query).await.unwrap()), wanted, "{query:?}");
    }
}

pub(crate) async fn pages_of_gaps_follow_each_other_where_many_begin_at_once(stand: &Stand) {
    let store = &stand.store;
    // They begin earlier than when they were named.
    let gap =
        |n: i64| GapRow { gap_id: format!("{n}-trade-77-disconnect"), from_us: 70 + n / 4, ..rows::gap(n) };
    store.write(&Batch::of((0..7).map(gap))).await;
    let mut query = GapQuery { limit: 3, ..GapQuery::default() };
    let mut read = Vec::new();
    loop {
        let page = store.history().gaps(&query).await.unwrap();
        let Some(last) = page.last() else { break };
        query.after = Some((last.from_us, last.gap_id.clone()));
        read.extend(named_gaps(&page));
    }
    assert_eq!(read, [6, 5, 4, 3, 2, 1, 0]);
}

pub(crate) async fn the_ends_of_a_stream_are_the_times_of_its_first_and_last_row(stand: &Stand) {
    let store = &stand.store;
    store.write(&rows::batch(Table::Trade1s, 0..2001)).await;
    store.write(&rows::batch(Table::Candles, 0..3)).await;
    let ends = async |table, id, timeframe| store.history().ends(table, id, timeframe).await;
    let first = rows::START_MS;
    assert_eq!(ends(Table::Trade1s, rows::BTC, None).await.unwrap(), Some((first, first + 2_000_000)));
    assert_eq!(ends(Table::Trade1s, 1, None).await.unwrap(), None);
    if stand.takes(Table::Trades) {
        // Microseconds in the table, milliseconds in the answer.
        store.write(&rows::batch(Table::Trades, 0..2001)).await;
        assert_eq!(ends(Table::Trades, rows::BTC, None).await.unwrap(), Some((first, first + 2)));
    }
    let (from, to) = ends(Table::Candles, rows::BTC, Some("1m")).await.unwrap().unwrap();
    assert_eq!(to - from, 120_000);
    assert_eq!(ends(Table::Candles, rows::BTC, Some("5m")).await.unwrap(), None);
    assert!(ends(Table::CategorySnapshots, 1, None).await.is_err());
}

pub(crate) async fn instruments_in_force_come_by_venue_market_and_name(stand: &Stand) {
    let named = |id: i64, venue: &str, market: &str, native: &str| InstrumentRow {
        venue: venue.into(),
        market: market.into(),
        native: native.into(),
        ..rows::instrument(id)
    };
    // By bytes, not by any language's rules.
    let sorted = [
        named(5, "binance", "spot", "1000PEPEUSDT"),
        named(3, "binance", "spot", "BTCUSDT"),
        named(9, "binance", "spot", "BTC_USDT"),
        named(1, "binance", "spot", "btcusdt"),
        named(8, "binance", "spot", "我踏马来了USDT"),
        named(2, "binance", "futures", "ADAUSDT"),
        named(4, "bybit", "spot", "ADAUSDT"),
    ];
    let mut mixed = sorted.to_vec();
    mixed.reverse();
    stand.write(&Batch::of(mixed)).await;
    assert_eq!(stand.store.history().instruments().await.unwrap(), sorted);
    let of_bybit = GapQuery { venue: Some("bybit".into()), limit: 10, ..GapQuery::default() };
    stand.write(&rows::batch(Table::DataGaps, 0..10)).await;
    assert_eq!(named_gaps(&stand.store.history().gaps(&of_bybit).await.unwrap()), [4]);
    let of_futures = GapQuery { market: Some("futures".into()), ..of_bybit.clone() };
    assert_eq!(named_gaps(&stand.store.history().gaps(&of_futures).await.unwrap()), [0; 0]);
    let of_futures = GapQuery { venue: None, ..of_futures };
    assert_eq!(named_gaps(&stand.store.history().gaps(&of_futures).await.unwrap()), [2]);
}

pub(crate) async fn an_empty_store_answers_with_nothing(stand: &Stand) {
    let history = stand.store.history();
    stand.store.probe().await.unwrap();
    assert_eq!(history.category_range(&total(None, None, 5)).await.unwrap(), []);
    assert_eq!(history.latest_categories("ALL", "SPOT", rows::dec("5")).await.unwrap(), []);
    assert_eq!(history.category_stats("ALL").await.unwrap(), []);
    assert_eq!(history.last_candle(1, "1m").await.unwrap(), None);
    assert_eq!(history.collector_state().await.unwrap(), []);
    assert_eq!(history.instruments().await.unwrap(), []);
    assert_eq!(history.gaps(&GapQuery { limit: 5, ..GapQuery::default() }).await.unwrap(), []);
    assert_eq!(history.ends(Table::Candles, 1, Some("1m")).await.unwrap(), None);
    for table in stand.tables() {
        assert_eq!(history.count(table).await.unwrap(), 0, "{table:?}");
    }
}
