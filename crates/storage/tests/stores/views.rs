//! The readable views, by SQL as people write it: the same columns and numbers on every store.

use fathom_market::{
    batch::Batch,
    table::{QuoteBarRow, Row, Table, TradeBarRow},
};
use rust_decimal::Decimal;

use crate::{
    rollups::rolled_up,
    rows,
    stand::{Stand, number},
};

/// Doubles are right to some fifteen digits; other stores have exact numbers.
const DIGITS: u32 = 12;

async fn fill(stand: &Stand) {
    for table in stand.tables() {
        stand.write(&rows::batch(table, 0..20)).await;
    }
    rolled_up(&*stand.store).await;
}

/// Whether a view is of a table whose rows are taken.
fn has(stand: &Stand, view: &str) -> bool {
    let of = match view {
        "book_ticker" | "tick_data" => Table::BookTicker,
        "trades" => Table::Trades,
        "depth_events" => Table::DepthEvents,
        _ => return true,
    };
    stand.takes(of)
}

pub(crate) async fn the_documented_columns_are_there(stand: &Stand) {
    fill(stand).await;
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
    for (view, columns) in views.into_iter().filter(|(view, _)| has(stand, view)) {
        let columns: Vec<&str> = columns.split(',').map(str::trim).collect();
        assert!(!stand.select(&columns, view).await.is_empty(), "{view}");
    }
    let gaps = "gap_id, venue, market, symbol, channel, cause, status, from_time, to_time, from_id, to_id, missing, reason, \
                opened_at, repaired_at, closed_at";
    let gaps: Vec<&str> = gaps.split(',').map(str::trim).collect();
    assert_eq!(stand.select(&gaps, "data_gaps").await.len(), 20);
}

/// Asserts the numbers of a view's rows; a missing one is written as null.
pub(crate) async fn shows(stand: &Stand, columns: &[&str], from: &str, wanted: &[Vec<Option<Decimal>>]) {
    let shown = stand.select(columns, from).await;
    assert_eq!(shown.len(), wanted.len(), "{from}");
    for (row, (shown, wanted)) in shown.iter().zip(wanted).enumerate() {
        for (column, (shown, wanted)) in columns.iter().zip(shown.iter().zip(wanted)) {
            let value = shown.as_deref().map(number);
            let same = match (value, wanted) {
                (Some(value), Some(wanted)) => close(value, *wanted),
                (value, wanted) => value.is_none() && wanted.is_none(),
            };
            assert!(same, "{from}: {column} of row {row} is {shown:?}, not {wanted:?}");
        }
    }
}

/// Equal to so many digits as a double has.
fn close(value: Decimal, wanted: Decimal) -> bool {
    let round = |value: Decimal| value.round_sf(DIGITS).unwrap_or(value).normalize();
    let step = wanted.abs() * Decimal::new(1, DIGITS);
    round(value) == round(wanted) || (value - wanted).abs() <= step
}

fn on(mantissa: i64, scale: u32) -> Option<Decimal> {
    Some(Decimal::from_i128_with_scale(mantissa.into(), scale))
}

pub(crate) async fn the_numbers_are_those_of_the_rows(stand: &Stand) {
    fill(stand).await;
    let whole = |value: i64| Some(Decimal::from(value));
    let candle = |n| {
        let row = rows::candle(n);
        let prices = [row.open, row.high, row.low, row.close, row.volume, row.quote_volume].map(Some);
        let times = [row.open_ms, row.open_ms, row.close_ms, row.trades, row.updated_us / 1000].map(whole);
        let taker = [row.taker_buy_volume, row.taker_buy_quote_volume].map(Some);
        prices.into_iter().chain(times).chain(taker).collect()
    };
    let columns = [
        "open_price",
        "high_price",
        "low_price",
        "close_price",
        "volume",
        "quote_volume",
        "timestamp",
        "open_time",
        "close_time",
        "trades",
        "updated_at",
        "taker_buy_volume",
        "taker_buy_quote_volume",
    ];
    let candles: Vec<_> = (0..20).map(candle).collect();
    shows(stand, &columns, "candles where symbol = 'BTCUSDT' order by timestamp", &candles).await;
    shows(stand, &columns, "historical_data where symbol = 'BTCUSDT' order by timestamp", &candles).await;
    let bar = |n| {
        let row = rows::trade_bar(n);
        let sums = [row.volume, row.buy_volume, row.sell_volume, row.quote_volume, row.vwap].map(Some);
        let prices = [row.open_m, row.high_m, row.low_m, row.close_m].map(|mantissa| on(mantissa, 2));
        prices.into_iter().chain(sums).chain([whole(row.trades), whole(row.second_ms)]).collect()
    };
    let columns = [
        "open",
        "high",
        "low",
        "close",
        "volume",
        "buy_volume",
        "sell_volume",
        "quote_volume",
        "vwap",
        "trades",
        "timestamp",
    ];
    let bars: Vec<_> = (0..20).map(bar).collect();
    shows(stand, &columns, "trade_1s where symbol = 'BTCUSDT' order by timestamp", &bars).await;
    let quotes = |n| {
        let row = rows::quote_bar(n);
        let prices = [row.bid_open_m, row.bid_high_m, row.ask_low_m, row.ask_close_m, row.spread_high_m];
        let micro = [row.micro_open_m, row.micro_close_m].map(|mantissa| on(mantissa, 6));
        prices.map(|mantissa| on(mantissa, 2)).into_iter().chain(micro).chain([whole(row.ticks)]).collect()
    };
    let columns = [
        "bid_open",
        "bid_high",
        "ask_low",
        "ask_close",
        "spread_high",
        "microprice_open",
        "microprice_close",
        "ticks",
    ];
    let bars: Vec<_> = (0..20).map(quotes).collect();
    shows(stand, &columns, "bt_1s where symbol = 'BTCUSDT' order by timestamp", &bars).await;
    let snapshot = |n| {
        let row = rows::symbol_snapshot(n);
        vec![
            Some(row.depth),
            Some(row.bid_volume),
            row.bid_volume_usd,
            row.best_ask,
            whole(row.last_update_id),
        ]
    };
    let columns = ["depth", "bid_volume", "bid_volume_usd", "best_ask", "last_update_id"];
    let snapshots: Vec<_> = (0..20).map(snapshot).collect();
    shows(stand, &columns, "symbol_snapshots where symbol = 'BTCUSDT' order by timestamp", &snapshots).await;
    let category = |n| {
        let row = rows::category_snapshot(n);
        vec![
            Some(row.total_ask_volume_usd),
            row.avg_price,
            whole(row.stale_count),
            whole(row.created_us / 1000),
        ]
    };
    let columns = ["total_ask_volume_usd", "avg_price", "stale_count", "created_at"];
    let categories: Vec<_> = (0..20).map(category).collect();
    shows(stand, &columns, "category_snapshots where category = 'TOTAL' order by timestamp", &categories)
        .await;
    if stand.takes(Table::BookTicker) {
        let tick = |n| {
            let row = rows::tick(n);
            vec![on(row.bid_price_m, 2), on(row.ask_qty_m, 8), on(row.ask_price_m - row.bid_price_m, 2)]
        };
        let ticks: Vec<_> = (0..20).map(tick).collect();
        let from = "tick_data where symbol = 'BTCUSDT' order by ts_exchange";
        shows(stand, &["best_bid", "ask_volume", "spread"], from, &ticks).await;
    }
}

pub(crate) async fn hours_and_days_of_categories_are_folded(stand: &Stand) {
    stand.write(&rows::batch(Table::CategorySnapshots, 0..90)).await;
    rolled_up(&*stand.store).await;
    let dec = |text: &str| Some(rows::dec(text));
    let columns = [
        "bucket",
        "count",
        "min_bid_volume_usd",
        "max_bid_volume_usd",
        "avg_bid_volume_usd",
        "avg_symbol_count",
        "avg_price",
    ];
    let start = Decimal::from(rows::START_MS);
    let hour = Decimal::from(3_600_000);
    let hours = [
        vec![
            Some(start),
            dec("60"),
            dec("0.00000003"),
            dec("0.00059003"),
            dec("0.00029503"),
            dec("30.5"),
            dec("0.00029005"),
        ],
        vec![
            Some(start + hour),
            dec("30"),
            dec("0.00060003"),
            dec("0.00089003"),
            dec("0.00074503"),
            dec("75.5"),
            dec("0.00074005"),
        ],
    ];
    shows(stand, &columns, "category_snapshots_agg_1h order by bucket", &hours).await;
    let day = [vec![
        Some(start),
        dec("90"),
        dec("0.00000003"),
        dec("0.00089003"),
        dec("0.00044503"),
        dec("45.5"),
        dec("0.00044005"),
    ]];
    shows(stand, &columns, "category_snapshots_agg_1d order by bucket", &day).await;
}

fn only<R: Row>(rows: impl IntoIterator<Item = R>) -> Batch {
    Batch::of(rows)
}

pub(crate) async fn every_second_with_any_bar_appears_once(stand: &Stand) {
    stand.write(&only([rows::instrument(rows::BTC)])).await;
    stand.write(&only([0, 1, 2].map(|n| QuoteBarRow { partial: n == 2, ..rows::quote_bar(n) }))).await;
    stand.write(&only([1, 3].map(|n| TradeBarRow { partial: false, ..rows::trade_bar(n) }))).await;
    stand.write(&only([1, 3, 4].map(rows::depth_bar))).await;
    let flag = |is_so: &str| format!("case when {is_so} then 1 else 0 end");
    let second = format!("(timestamp - {}) / 1000", rows::START_MS);
    let partial =
        flag(if stand.kind == crate::stand::Kind::Sqlite { "partial = 1" } else { "partial in (true)" });
    let columns =
        [second, flag("bid is not null"), flag("close is not null"), flag("ofi is not null"), partial];
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let wanted = [[0, 1, 0, 0, 0], [1, 1, 1, 1, 0], [2, 1, 0, 0, 1], [3, 0, 1, 1, 0], [4, 0, 0, 1, 0]];
    let wanted: Vec<Vec<_>> =
        wanted.iter().map(|row| row.iter().map(|n| Some(Decimal::from(*n))).collect()).collect();
    shows(stand, &columns, "market_data_1s where symbol = 'BTCUSDT' order by timestamp", &wanted).await;
}

pub(crate) async fn the_pairs_in_force_are_listed_with_their_state(stand: &Stand) {
    fill(stand).await;
    let active = "case when active then 1 else 0 end";
    let pairs = stand
        .select(&["symbol", active], "trading_pairs where symbol in ('BTCUSDT', 'B8USDT') order by symbol")
        .await;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(pairs, [[text("B8USDT"), text("0")], [text("BTCUSDT"), text("1")]]);
    let venues =
        stand.select(&["id", "pairs", "active_pairs", "spot_pairs", "futures_pairs"], "exchanges").await;
    assert_eq!(venues, [[text("binance"), text("20"), text("15"), text("10"), text("10")]]);
}
