//! Rows of every table, each value different from its neighbours, so that a column in another's place is seen.

use fathom_market::{batch::Batch, table::*};
use rust_decimal::Decimal;

pub(crate) const BTC: i64 = 7;
/// 2025-01-01T00:00:00Z, milliseconds.
pub(crate) const START_MS: i64 = 1_735_689_600_000;
const START_US: i64 = START_MS * 1000;

pub(crate) fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn nth(n: i64, of: i64) -> Decimal {
    Decimal::new(n * 1000 + of, 8)
}

pub(crate) fn batch(table: Table, range: std::ops::Range<i64>) -> Batch {
    match table {
        Table::Instruments => Batch::of(range.map(instrument)),
        Table::BookTicker => Batch::of(range.map(tick)),
        Table::Trades => Batch::of(range.map(trade)),
        Table::DepthEvents => Batch::of(range.map(depth_event)),
        Table::OrderbookData => Batch::of(range.map(orderbook)),
        Table::Candles => Batch::of(range.map(candle)),
        Table::SymbolSnapshots => Batch::of(range.map(symbol_snapshot)),
        Table::CategorySnapshots => Batch::of(range.map(category_snapshot)),
        Table::FundingRates => Batch::of(range.map(funding)),
        Table::Bt1s => Batch::of(range.map(quote_bar)),
        Table::Trade1s => Batch::of(range.map(trade_bar)),
        Table::Depth1s => Batch::of(range.map(depth_bar)),
        Table::Tickers => Batch::of(range.map(ticker)),
        Table::CollectorState => Batch::of(range.map(collector_state)),
        Table::DataGaps => Batch::of(range.map(gap)),
    }
}

/// Instrument 7 is BTCUSDT; every other number is another instrument.
pub(crate) fn instrument(n: i64) -> InstrumentRow {
    let base = if n == BTC { "BTC".to_owned() } else { format!("B{n}") };
    InstrumentRow {
        instrument_id: n,
        valid_from_us: START_US,
        valid_to_us: None,
        venue: "binance".into(),
        market: if n % 2 == 1 { "spot" } else { "futures" }.into(),
        native: format!("{base}USDT"),
        symbol: format!("{base}/USDT"),
        base,
        quote: "USDT".into(),
        settle: (n % 2 == 0).then(|| "USDT".into()),
        kind: "spot".into(),
        expiry_ms: (n % 3 == 0).then_some(START_MS + 1),
        status: if n % 4 == 0 { "halted" } else { "trading" }.into(),
        tick_size: dec("0.01"),
        lot_size: dec("0.00001"),
        contract_size: dec("1"),
        price_scale: 2,
        qty_scale: 8,
        facts: format!("facts of {n}"),
    }
}

pub(crate) fn tick(n: i64) -> BookTickerRow {
    BookTickerRow {
        instrument_id: BTC,
        update_id: 100 + n,
        event_us: START_US + n * 1000 + 1,
        ordinal: n % 2,
        venue_time: n % 2 == 0,
        recv_us: START_US + n * 1000 + 7,
        bid_price_m: 6_183_763 + n,
        bid_qty_m: 5,
        ask_price_m: 6_183_765 + n,
        ask_qty_m: 120_000_000 + n,
        price_scale: 2,
        qty_scale: 8,
    }
}

pub(crate) fn trade(n: i64) -> TradeRow {
    TradeRow {
        instrument_id: BTC,
        kind: if n % 2 == 0 { "trade" } else { "agg" }.into(),
        trade_id: format!("{n:05}"),
        event_us: START_US + n,
        recv_us: START_US + n + 3,
        price_m: 6_183_763 + n,
        qty_m: 5 + n,
        price_scale: 2,
        qty_scale: 8,
        side: if n % 3 == 0 { "buy" } else { "sell" }.into(),
        first_raw_id: (n % 2 == 1).then_some(n),
        last_raw_id: (n % 2 == 1).then_some(n + 1),
    }
}

fn depth_event(n: i64) -> DepthEventRow {
    DepthEventRow {
        instrument_id: BTC,
        last_id: n * 10 + 9,
        first_id: n * 10,
        prev_id: (n > 0).then_some(n * 10 - 1),
        event_us: START_US + n,
        recv_us: START_US + n + 2,
        bids: format!("[[\"{n}\",\"1\"]]"),
        asks: format!("[[\"{n}\",\"2\"]]"),
    }
}

fn orderbook(n: i64) -> OrderbookRow {
    OrderbookRow {
        instrument_id: BTC,
        timestamp_ms: START_MS + n * 1000,
        last_update_id: n + 5,
        bids: "[[\"61837.63\",\"0.00000005\"]]".into(),
        asks: "[]".into(),
    }
}

pub(crate) fn candle(n: i64) -> CandleRow {
    CandleRow {
        instrument_id: BTC,
        timeframe: "1m".into(),
        open_ms: START_MS + n * 60_000,
        close_ms: START_MS + n * 60_000 + 59_999,
        open: nth(n, 1),
        high: nth(n, 4),
        low: Decimal::new(5, 8),
        close: nth(n, 3),
        volume: nth(n, 5),
        quote_volume: nth(n, 6),
        trades: n + 70,
        taker_buy_volume: nth(n, 8),
        taker_buy_quote_volume: nth(n, 9),
        closed: n % 2 == 0,
        updated_us: START_US + n,
    }
}

pub(crate) fn symbol_snapshot(n: i64) -> SymbolSnapshotRow {
    SymbolSnapshotRow {
        instrument_id: BTC,
        depth: dec("1.50"),
        timestamp_ms: START_MS + n * 60_000,
        bid_volume: nth(n, 1),
        ask_volume: nth(n, 2),
        bid_volume_usd: (n % 2 == 0).then(|| nth(n, 3)),
        ask_volume_usd: (n % 2 == 0).then(|| nth(n, 4)),
        mid_price: Some(nth(n, 5)),
        best_bid: Some(nth(n, 6)),
        best_ask: Some(nth(n, 7)),
        state: "live".into(),
        bid_covered: true,
        ask_covered: false,
        last_update_id: n + 11,
        created_us: START_US + n,
    }
}

pub(crate) fn category_snapshot(n: i64) -> CategorySnapshotRow {
    CategorySnapshotRow {
        scope: "binance".into(),
        market_type: "SPOT".into(),
        category: "TOTAL".into(),
        depth: dec("5.0"),
        timestamp_ms: START_MS + n * 60_000,
        total_bid_volume: nth(n, 1),
        total_ask_volume: nth(n, 2),
        total_bid_volume_usd: nth(n, 3),
        total_ask_volume_usd: nth(n, 4),
        avg_price: (n % 2 == 0).then(|| nth(n, 5)),
        symbol_count: n + 1,
        member_count: n + 2,
        bid_covered: n + 3,
        ask_covered: n + 4,
        stale_count: n + 5,
        unpriced_count: n + 6,
        created_us: START_US + n * 60_000_000 + 123_000,
    }
}

fn funding(n: i64) -> FundingRow {
    FundingRow {
        instrument_id: BTC,
        event_us: START_US + n,
        mark_price: nth(n, 1),
        index_price: (n % 2 == 0).then(|| nth(n, 2)),
        funding_rate: Some(-nth(n, 3)),
        next_funding_ms: (n % 3 == 0).then_some(START_MS),
    }
}

pub(crate) fn quote_bar(n: i64) -> QuoteBarRow {
    QuoteBarRow {
        instrument_id: BTC,
        second_ms: START_MS + n * 1000,
        price_scale: 2,
        bid_open_m: 101,
        bid_high_m: 102,
        bid_low_m: 103,
        bid_close_m: 104,
        ask_open_m: 105,
        ask_high_m: 106,
        ask_low_m: 107,
        ask_close_m: 108,
        spread_open_m: 109,
        spread_high_m: 110,
        spread_low_m: 111,
        spread_close_m: 112,
        micro_open_m: 1_130_001,
        micro_high_m: 1_140_001,
        micro_low_m: 1_150_001,
        micro_close_m: 1_160_001,
        ticks: n + 17,
        partial: n % 2 == 1,
    }
}

pub(crate) fn trade_bar(n: i64) -> TradeBarRow {
    TradeBarRow {
        instrument_id: BTC,
        second_ms: START_MS + n * 1000,
        price_scale: 2,
        qty_scale: 8,
        open_m: 201,
        high_m: 202,
        low_m: 203,
        close_m: 204,
        volume: nth(n, 5),
        buy_volume: nth(n, 6),
        sell_volume: nth(n, 7),
        quote_volume: nth(n, 8),
        vwap: nth(n, 9),
        trades: n + 10,
        partial: n % 2 == 0,
    }
}

pub(crate) fn depth_bar(n: i64) -> DepthBarRow {
    DepthBarRow {
        instrument_id: BTC,
        second_ms: START_MS + n * 1000,
        updates: n + 1,
        bid_changes: n + 2,
        ask_changes: n + 3,
        bid_added: nth(n, 4),
        bid_removed: nth(n, 5),
        ask_added: nth(n, 6),
        ask_removed: nth(n, 7),
        ofi: -nth(n, 8),
        best_bid: Some(nth(n, 9)),
        best_ask: None,
        last_id: n + 11,
        partial: false,
    }
}

fn ticker(n: i64) -> TickerRow {
    TickerRow {
        instrument_id: n,
        event_us: START_US + n,
        last: Some(nth(n, 1)),
        bid: None,
        ask: Some(nth(n, 3)),
        open: Some(nth(n, 4)),
        high: Some(nth(n, 5)),
        low: Some(nth(n, 6)),
        volume: Some(nth(n, 7)),
        quote_volume: Some(nth(n, 8)),
        trades: Some(n + 9),
    }
}

pub(crate) fn collector_state(n: i64) -> CollectorStateRow {
    CollectorStateRow {
        instrument_id: n,
        timeframe: "1m".into(),
        last_timestamp_ms: START_MS + n,
        last_updated_us: START_US + n * 1000,
        is_realtime: n % 2 == 0,
    }
}

pub(crate) fn gap(n: i64) -> GapRow {
    let closed = n % 2 == 0;
    GapRow {
        gap_id: format!("{n:x}-trade-{START_US}-disconnect"),
        instrument_id: n,
        channel: "trade".into(),
        cause: "disconnect".into(),
        status: if closed { "repaired" } else { "open" }.into(),
        from_us: START_US + n,
        to_us: closed.then_some(START_US + n + 1_000_000),
        from_id: Some(n.to_string()),
        to_id: closed.then(|| (n + 3).to_string()),
        missing: closed.then_some(2),
        reason: None,
        opened_us: START_US + n + 10,
        closed_us: closed.then_some(START_US + n + 2_000_000),
        updated_us: START_US + n,
    }
}
