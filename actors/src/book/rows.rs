//! The rows that are stored of one instrument's events. Pure.

use std::fmt::Write as _;

use fathom_market::{
    bars::FinishedBars,
    decimal::{DecimalError, fit_column, to_decimal},
    event::{BookDelta, Candle, Funding, Level, Quote, Ticker, Trade, TradeId, TradeKind},
    instrument::Instrument,
    table::{
        BookTickerRow, CandleRow, CollectorStateRow, DepthEventRow, FundingRow, OrderbookRow, TickerRow,
        TradeRow,
    },
    timeframe::Timeframe,
};
use rust_decimal::Decimal;

use super::outbox::Outbox;

/// An unchanged funding rate is stored once in this time.
const FUNDING_EVERY_US: i64 = 60_000_000;

fn signed(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

/// Tells quotes apart that carry neither an update id nor different times.
#[derive(Debug, Default)]
pub struct Ordinal {
    last_us: i64,
    count: i64,
}

impl Ordinal {
    /// The ordinal of a quote: 0 wherever an update id or the time tells it apart from the one before.
    pub fn next(&mut self, update_id: Option<u64>, time_us: i64) -> i64 {
        if update_id.is_some() {
            return 0;
        }
        self.count = if time_us == self.last_us { self.count + 1 } else { 0 };
        self.last_us = time_us;
        self.count
    }
}

/// A best bid and ask.
pub fn book_ticker(
    instrument: &Instrument,
    quote: &Quote,
    event_us: Option<i64>,
    recv_us: i64,
    ordinal: i64,
) -> BookTickerRow {
    BookTickerRow {
        instrument_id: instrument.id.0,
        update_id: quote.update_id.map_or(0, signed),
        event_us: event_us.unwrap_or(recv_us),
        ordinal,
        venue_time: event_us.is_some(),
        recv_us,
        bid_price_m: quote.bid.price,
        bid_qty_m: quote.bid.qty,
        ask_price_m: quote.ask.price,
        ask_qty_m: quote.ask.qty,
        price_scale: instrument.price_scale.into(),
        qty_scale: instrument.qty_scale.into(),
    }
}

/// A trade.
pub fn trade(instrument: &Instrument, trade: &Trade, event_us: i64, recv_us: i64) -> TradeRow {
    TradeRow {
        instrument_id: instrument.id.0,
        kind: match trade.kind {
            TradeKind::Single => "trade".into(),
            TradeKind::Aggregate => "agg".into(),
        },
        trade_id: match &trade.id {
            TradeId::Number(id) => id.to_string(),
            TradeId::Text(id) => id.to_string(),
        },
        event_us,
        recv_us,
        price_m: trade.price,
        qty_m: trade.qty,
        price_scale: instrument.price_scale.into(),
        qty_scale: instrument.qty_scale.into(),
        side: trade.side.as_str().into(),
        first_raw_id: trade.raw_ids.map(|(first, _)| signed(first)),
        last_raw_id: trade.raw_ids.map(|(_, last)| signed(last)),
    }
}

/// An incremental depth update.
pub fn depth_event(instrument: &Instrument, delta: &BookDelta, event_us: i64, recv_us: i64) -> DepthEventRow {
    DepthEventRow {
        instrument_id: instrument.id.0,
        last_id: signed(delta.ids.last),
        first_id: signed(delta.ids.first),
        prev_id: delta.ids.prev,
        event_us,
        recv_us,
        bids: levels_json(instrument, &delta.bids),
        asks: levels_json(instrument, &delta.asks),
    }
}

/// The top of a book.
pub fn orderbook(
    instrument: &Instrument,
    bids: &[Level],
    asks: &[Level],
    last_id: u64,
    at_ms: i64,
) -> OrderbookRow {
    OrderbookRow {
        instrument_id: instrument.id.0,
        timestamp_ms: at_ms,
        last_update_id: signed(last_id),
        bids: levels_json(instrument, bids),
        asks: levels_json(instrument, asks),
    }
}

/// Levels as JSON `[["price","qty"],...]`.
pub fn levels_json(instrument: &Instrument, levels: &[Level]) -> String {
    let mut json = String::with_capacity(2 + levels.len() * 32);
    json.push('[');
    for (at, level) in levels.iter().enumerate() {
        let price = to_decimal(level.price, instrument.price_scale);
        let qty = to_decimal(level.qty, instrument.qty_scale);
        let comma = if at == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(json, "{comma}[\"{price}\",\"{qty}\"]");
    }
    json.push(']');
    json
}

/// A candle's row, and whether an amount had to be rounded.
pub struct StoredCandle {
    /// The row.
    pub row: CandleRow,
    /// True when an amount had more than twelve decimals.
    pub rounded: bool,
}

/// A candle.
///
/// # Errors
/// When an amount does not fit the column.
pub fn candle(
    instrument: &Instrument,
    candle: &Candle,
    updated_us: i64,
) -> Result<StoredCandle, DecimalError> {
    let mut rounded = false;
    let mut fit = |value: Decimal| {
        let fitted = fit_column(value)?;
        rounded |= fitted.rounded;
        Ok(fitted.value)
    };
    let row = CandleRow {
        instrument_id: instrument.id.0,
        timeframe: candle.timeframe.as_str().into(),
        open_ms: candle.open_ms,
        close_ms: candle.close_ms,
        open: fit(candle.open)?,
        high: fit(candle.high)?,
        low: fit(candle.low)?,
        close: fit(candle.close)?,
        volume: fit(candle.volume)?,
        quote_volume: fit(candle.quote_volume)?,
        trades: signed(candle.trades),
        taker_buy_volume: fit(candle.taker_buy_volume)?,
        taker_buy_quote_volume: fit(candle.taker_buy_quote_volume)?,
        closed: candle.closed,
        updated_us,
    };
    Ok(StoredCandle { row, rounded })
}

/// How far a candle series is stored: to the candle that starts at `open_ms`.
pub fn collector_state(
    instrument: &Instrument,
    timeframe: Timeframe,
    open_ms: i64,
    updated_us: i64,
    is_realtime: bool,
) -> CollectorStateRow {
    CollectorStateRow {
        instrument_id: instrument.id.0,
        timeframe: timeframe.as_str().into(),
        last_timestamp_ms: open_ms,
        last_updated_us: updated_us,
        is_realtime,
    }
}

/// 24 hour statistics. What does not fit its column is left out of the row.
pub fn ticker(instrument: &Instrument, ticker: &Ticker, event_us: i64) -> TickerRow {
    let fit =
        |value: Option<Decimal>| value.and_then(|value| fit_column(value).ok()).map(|fitted| fitted.value);
    TickerRow {
        instrument_id: instrument.id.0,
        event_us,
        last: fit(ticker.last),
        bid: fit(ticker.bid),
        ask: fit(ticker.ask),
        open: fit(ticker.open),
        high: fit(ticker.high),
        low: fit(ticker.low),
        volume: fit(ticker.volume),
        quote_volume: fit(ticker.quote_volume),
        trades: ticker.trades.map(signed),
    }
}

/// The last stored funding.
#[derive(Clone, Debug)]
pub struct FundingMark {
    rate: Option<Decimal>,
    next_ms: Option<i64>,
    stored_us: i64,
}

impl FundingMark {
    /// True, and remembered, when rate or settlement changed, or the last stored row is a minute old.
    pub fn is_worth_storing(last: &mut Option<Self>, funding: &Funding, event_us: i64) -> bool {
        let same = last.as_ref().is_some_and(|last| {
            last.rate == funding.rate
                && last.next_ms == funding.next_ms
                && event_us - last.stored_us < FUNDING_EVERY_US
        });
        if !same {
            *last = Some(Self { rate: funding.rate, next_ms: funding.next_ms, stored_us: event_us });
        }
        !same
    }
}

/// Mark price and funding.
///
/// # Errors
/// When a value does not fit its column.
pub fn funding(
    instrument: &Instrument,
    funding: &Funding,
    event_us: i64,
) -> Result<FundingRow, DecimalError> {
    let fit = |value: Decimal| fit_column(value).map(|fitted| fitted.value);
    Ok(FundingRow {
        instrument_id: instrument.id.0,
        event_us,
        mark_price: fit(funding.mark_price)?,
        index_price: funding.index_price.map(fit).transpose()?,
        funding_rate: funding.rate.map(fit).transpose()?,
        next_funding_ms: funding.next_ms,
    })
}

/// Finished one-second bars.
pub fn push_bars(outbox: &mut Outbox, bars: FinishedBars) {
    for row in bars.quotes {
        outbox.push(row);
    }
    for row in bars.trades {
        outbox.push(row);
    }
    for row in bars.depths {
        outbox.push(row);
    }
}
