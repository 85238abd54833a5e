//! The names that people's SQL uses, and the numbers behind them.

use fathom_market::{
    batch::Batch,
    table::{DepthBarRow, QuoteBarRow, Table, TradeBarRow},
};
use sqlx::Row as _;

use super::*;

async fn filled() -> Option<(Database, PostgresStore)> {
    let (database, store) = store().await?;
    for table in Table::ALL {
        store.write(&rows::batch(*table, 0..20)).await;
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
            "book_ticker",
            "venue, market, symbol, timestamp, ts_exchange, bid_price, bid_qty, ask_price, ask_qty, spread",
        ),
        (
            "tick_data",
            "timestamp, symbol, market_type, venue, best_bid, best_ask, bid_volume, ask_volume, spread",
        ),
        ("trades", "venue, market, symbol, kind, trade_id, timestamp, ts_exchange, price, quantity, side"),
        (
            "depth_events",
            "venue, market, symbol, timestamp, ts_exchange, first_id, last_id, prev_id, bids, asks",
        ),
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
async fn small_numbers_are_exact() {
    let Some((_database, store)) = filled().await else { return };
    let view = query(
        &store,
        "select pg_typeof(low_price)::text, low_price = 0.00000005, symbol, close_time - open_time from candles limit 1",
    )
    .await;
    assert_eq!(view[0].get::<&str, _>(0), "numeric");
    assert!(view[0].get::<bool, _>(1));
    assert_eq!(view[0].get::<&str, _>(2), "BTCUSDT");
    assert_eq!(view[0].get::<i64, _>(3), 59_999);
    let max = query(&store, "select max(open_price) = 0.00019001 from candles").await;
    assert!(max[0].get::<bool, _>(0));
    // Not one digit is lost where a double would round.
    let exact = query(&store, "select on_scale(9223372036854775807, 18)::text, on_scale(-5, 22)::text").await;
    assert_eq!(exact[0].get::<&str, _>(0), "9.223372036854775807");
    assert_eq!(exact[0].get::<&str, _>(1), "-0.0000000000000000000005");
}

#[tokio::test]
async fn mantissas_are_numbers_on_their_scale() {
    let Some((_database, store)) = filled().await else { return };
    let tick = query(
        &store,
        "select best_bid = 61837.63, best_ask = 61837.65, bid_volume = 5e-8, ask_volume = 1.2, spread = 0.02, \
         market_type = 'SPOT', timestamp = 1735689600000 from tick_data order by timestamp limit 1",
    )
    .await;
    for at in 0..7 {
        assert!(tick[0].get::<bool, _>(at), "column {at}");
    }
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
    let trade = query(
        &store,
        "select price = 61837.64, quantity = 6e-8, side = 'sell', kind = 'agg' from trades where trade_id = '00001'",
    )
    .await;
    for at in 0..4 {
        assert!(trade[0].get::<bool, _>(at), "column {at}");
    }
}

#[tokio::test]
async fn hours_and_days_of_categories_are_folded() {
    let Some((_database, store)) = store().await else { return };
    store.write(&rows::batch(Table::CategorySnapshots, 0..90)).await;
    store.roll_up(u64::MAX).await.unwrap();
    let hours = query(
        &store,
        "select bucket, count, min_bid_volume_usd = 0.00060003, max_bid_volume_usd = 0.00089003, avg_symbol_count \
         from category_snapshots_agg_1h order by bucket",
    )
    .await;
    let counts: Vec<(i64, i64)> = hours.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(counts, vec![(rows::START_MS, 60), (rows::START_MS + 3_600_000, 30)]);
    assert!(hours[1].get::<bool, _>(2) && hours[1].get::<bool, _>(3));
    assert_eq!(hours[1].get::<rust_decimal::Decimal, _>(4), rows::dec("75.5"));
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
        "select (timestamp - 1735689600000) / 1000 as second, bid is not null as b, close is not null as t, \
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

/// Every table that a plan reads whole, by name.
fn scanned(plan: &[PgRow]) -> Vec<String> {
    let lines = plan.iter().map(|row| row.get::<String, _>(0));
    lines.filter(|line| line.contains("Seq Scan on") && line.contains("_raw")).collect()
}

#[tokio::test]
async fn questions_by_symbol_and_time_read_no_whole_table() {
    let Some((database, _store)) = filled().await else { return };
    let mut beside = database.beside().await;
    // Small tables are read whole for good reason; what counts is that an index can answer.
    run(&mut beside, "set enable_seqscan = off").await;
    let questions = [
        "candles where symbol = 'BTCUSDT' and timeframe = '1m' and timestamp between 1 and 2",
        "tick_data where symbol = 'BTCUSDT' and ts_exchange between 1 and 2",
        "trades where symbol = 'BTCUSDT' and ts_exchange > 1",
        "bt_1s_continuous where symbol = 'BTCUSDT' and timestamp > 1",
        "market_data_1s where symbol = 'BTCUSDT' and timestamp between 1 and 2",
        "symbol_snapshots where symbol = 'BTCUSDT' and timestamp > 1",
        "category_snapshots where timestamp > 1",
    ];
    for question in questions {
        let sql = format!("explain select * from {question}");
        let plan = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut beside).await.unwrap();
        assert_eq!(scanned(&plan), Vec::<String>::new(), "{question}");
    }
}

#[tokio::test]
async fn a_range_of_ticks_reads_the_partitions_of_its_hours_only() {
    let Some((_database, store)) = filled().await else { return };
    let from = rows::START_MS * 1000;
    let sql = format!(
        "explain select * from trades where symbol = 'BTCUSDT' and ts_exchange between {from} and {}",
        from + 1
    );
    let plan: Vec<String> = query(&store, &sql).await.iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    let hour = rows::START_MS / 3_600_000;
    assert!(plan.contains(&format!("trades_raw_p{hour}")), "{plan}");
    assert!(!plan.contains("trades_raw_default"), "{plan}");
}
