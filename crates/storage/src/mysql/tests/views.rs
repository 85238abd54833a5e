//! The names that people's SQL uses, and the numbers behind them.

use fathom_market::{
    batch::Batch,
    table::{DepthBarRow, QuoteBarRow, Table, TradeBarRow},
};
use sqlx::Row as _;

use super::*;

async fn filled() -> Option<(Database, MysqlStore)> {
    let (database, store) = store().await?;
    for table in kept() {
        store.write(&rows::batch(table, 0..20)).await;
    }
    store.roll_up(u64::MAX).await.unwrap();
    Some((database, store))
}

#[tokio::test]
async fn the_documented_columns_are_there() {
    let Some((_database, store)) = filled().await else { return };
    let candles = "venue, market, timeframe, symbol, timestamp, open_time, close_time, open_price, high_price, low_price, \
                   close_price, volume, quote_volume, trades, taker_buy_volume, taker_buy_quote_volume";
    let views = [
        ("candles", candles),
        ("historical_data", candles),
        ("orderbook_data", "venue, market, symbol, timestamp, last_update_id, bids, asks"),
        ("collector_state", "venue, market, timeframe, symbol, last_timestamp, last_updated, is_realtime"),
        (
            "symbol_snapshots",
            "venue, market, symbol, timestamp, depth, bid_volume, bid_volume_usd, state, bid_covered",
        ),
        (
            "category_snapshots",
            "timestamp, category, market_type, depth, total_bid_volume, total_ask_volume, total_bid_volume_usd, \
             total_ask_volume_usd, avg_price, symbol_count, created_at, scope, bid_covered, ask_covered, stale_count, \
             unpriced_count, member_count",
        ),
        (
            "category_snapshots_agg_1h",
            "bucket, category, market_type, depth, avg_bid_volume_usd, max_bid_volume_usd, min_bid_volume_usd, \
             avg_ask_volume_usd, max_ask_volume_usd, min_ask_volume_usd, avg_price, avg_symbol_count, count",
        ),
        ("category_snapshots_agg_1d", "bucket, scope, category, count"),
        (
            "funding",
            "venue, market, symbol, timestamp, mark_price, index_price, funding_rate, next_funding_time",
        ),
        ("bt_1s", "symbol, timestamp, bid_open, ask_close, spread_high, microprice_low, ticks, partial"),
        (
            "trade_1s",
            "symbol, timestamp, open, high, low, close, volume, buy_volume, sell_volume, vwap, trades, partial",
        ),
        (
            "depth_1s",
            "symbol, timestamp, updates, bid_added, bid_removed, ask_added, ask_removed, ofi, partial",
        ),
        ("bt_1s_continuous", "symbol, timestamp, bid_open"),
        ("trade_1s_continuous", "symbol, timestamp, vwap"),
        ("depth_1s_continuous", "symbol, timestamp, ofi"),
        (
            "market_data_1s",
            "venue, market, symbol, timestamp, bid, ask, microprice, close, vwap, ofi, partial",
        ),
        ("tickers", "venue, market, symbol, timestamp, last, bid, ask, volume, quote_volume"),
        ("trading_pairs", "exchange, venue, market, symbol, unified, base, quote, active"),
        ("exchanges", "id, name, active, pairs, active_pairs"),
    ];
    for (view, columns) in views {
        assert!(!query(&store, &format!("select {columns} from {view}")).await.is_empty(), "{view}");
    }
}

#[tokio::test]
async fn numbers_are_exact_and_compare_as_numbers() {
    let Some((_database, store)) = filled().await else { return };
    let view =
        query(&store, "select low_price = 0.00000005, symbol, close_time - open_time from candles limit 1")
            .await;
    assert!(view[0].get::<bool, _>(0));
    assert_eq!(view[0].get::<&str, _>(1), "BTCUSDT");
    assert_eq!(view[0].get::<i64, _>(2), 59_999);
    let max = query(&store, "select cast(max(open_price) as char) from candles").await;
    assert_eq!(max[0].get::<&str, _>(0), "0.000190010000");
}

#[tokio::test]
async fn mantissas_are_numbers_on_their_scale() {
    let Some((_database, store)) = filled().await else { return };
    let bar = query(
        &store,
        "select bid_open = 1.01, bid_high = 1.02, bid_low = 1.03, bid_close = 1.04, ask_open = 1.05, ask_high = 1.06, \
         ask_low = 1.07, ask_close = 1.08, spread_open = 1.09, spread_high = 1.1, spread_low = 1.11, spread_close = 1.12, \
         microprice_open = 1.130001, microprice_high = 1.140001, microprice_low = 1.150001, microprice_close = 1.160001 \
         from bt_1s limit 1",
    )
    .await;
    for at in 0..16 {
        assert!(bar[0].get::<bool, _>(at), "column {at}");
    }
    let trade =
        query(&store, "select open = 2.01, high = 2.02, low = 2.03, close = 2.04 from trade_1s limit 1")
            .await;
    for at in 0..4 {
        assert!(trade[0].get::<bool, _>(at), "column {at}");
    }
}

#[tokio::test]
async fn ticks_have_no_view() {
    let Some((_database, store)) = store().await else { return };
    for view in ["book_ticker", "tick_data", "trades", "depth_events"] {
        let sql = format!("select * from {view}");
        let error = store.fetch(sql, MySqlArguments::default()).await.unwrap_err();
        assert!(error.message().contains("doesn't exist"), "{error}");
    }
}

#[tokio::test]
async fn hours_and_days_of_categories_are_folded() {
    let Some((_database, store)) = store().await else { return };
    store.write(&rows::batch(Table::CategorySnapshots, 0..90)).await;
    store.roll_up(u64::MAX).await.unwrap();
    let hours = query(
        &store,
        "select bucket, count, min_bid_volume_usd = 0.00060003, max_bid_volume_usd = 0.00089003, avg_symbol_count = 75.5 \
         from category_snapshots_agg_1h order by bucket",
    )
    .await;
    let counts: Vec<(i64, i64)> = hours.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(counts, vec![(rows::START_MS, 60), (rows::START_MS + 3_600_000, 30)]);
    assert!((2..5).all(|at| hours[1].get::<bool, _>(at)));
    assert_eq!(query(&store, "select count from category_snapshots_agg_1d").await[0].get::<i64, _>(0), 90);
}

#[tokio::test]
async fn every_second_with_any_bar_appears_once() {
    let Some((_database, store)) = store().await else { return };
    store.write(&Batch::of([rows::instrument(rows::BTC)])).await;
    store.write(&Batch::of([0, 1, 2].map(|n| QuoteBarRow { partial: n == 2, ..rows::quote_bar(n) }))).await;
    store.write(&Batch::of([1, 3].map(|n| TradeBarRow { partial: false, ..rows::trade_bar(n) }))).await;
    store.write(&Batch::of([1, 3, 4].map(|n| DepthBarRow { ..rows::depth_bar(n) }))).await;
    let joined = query(
        &store,
        "select (timestamp - 1735689600000) div 1000 as second_of, bid is not null as b, close is not null as t, \
         ofi is not null as d, partial from market_data_1s where symbol = 'BTCUSDT' order by timestamp",
    )
    .await;
    let joined: Vec<(i64, bool, bool, bool, bool)> =
        joined.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))).collect();
    let wanted = vec![
        (0, true, false, false, false),
        (1, true, true, true, false),
        (2, true, false, false, true),
        (3, false, true, true, false),
        (4, false, false, true, false),
    ];
    assert_eq!(joined, wanted);
}

#[tokio::test]
async fn the_pairs_in_force_are_listed_with_their_state() {
    let Some((_database, store)) = filled().await else { return };
    let pairs =
        query(&store, "select symbol, active from trading_pairs where symbol in ('BTCUSDT', 'B8USDT')").await;
    let mut pairs: Vec<(String, bool)> = pairs.iter().map(|row| (row.get(0), row.get(1))).collect();
    pairs.sort();
    assert_eq!(pairs, vec![("B8USDT".into(), false), ("BTCUSDT".into(), true)]);
    let venues = query(&store, "select id, pairs, active_pairs, active from exchanges").await;
    assert_eq!(venues.len(), 1);
    assert_eq!(
        (venues[0].get::<&str, _>(0), venues[0].get::<i64, _>(1), venues[0].get::<i64, _>(2)),
        ("binance", 20, 15)
    );
}
