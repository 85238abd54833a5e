//! The JSON of values and channels. Prices and quantities are text, times milliseconds.

use fathom_market::{
    decimal::{parse_decimal, to_decimal},
    instrument::Instrument,
    sample::SampleState,
    table::{CandleRow, OrderbookRow, TickerRow},
    ticks::Tick,
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Which instrument a message is of.
#[derive(Clone, Copy, Debug, Serialize)]
struct Of<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    venue: &'a str,
    market: &'a str,
    symbol: &'a str,
    native: &'a str,
}

impl<'a> Of<'a> {
    fn new(kind: &'static str, instrument: &'a Instrument) -> Self {
        Self {
            kind,
            venue: instrument.venue.as_str(),
            market: instrument.market.as_str(),
            symbol: &instrument.unified,
            native: &instrument.native,
        }
    }
}

fn text(value: Decimal) -> String {
    value.normalize().to_string()
}

/// A candle as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CandleText {
    timeframe: String,
    open_time: i64,
    close_time: i64,
    open: String,
    high: String,
    low: String,
    close: String,
    volume: String,
    quote_volume: String,
    trades: i64,
    taker_buy_volume: String,
    taker_buy_quote_volume: String,
    closed: bool,
    /// Microseconds.
    updated_us: i64,
}

impl From<&CandleRow> for CandleText {
    fn from(row: &CandleRow) -> Self {
        Self {
            timeframe: row.timeframe.clone(),
            open_time: row.open_ms,
            close_time: row.close_ms,
            open: text(row.open),
            high: text(row.high),
            low: text(row.low),
            close: text(row.close),
            volume: text(row.volume),
            quote_volume: text(row.quote_volume),
            trades: row.trades,
            taker_buy_volume: text(row.taker_buy_volume),
            taker_buy_quote_volume: text(row.taker_buy_quote_volume),
            closed: row.closed,
            updated_us: row.updated_us,
        }
    }
}

impl CandleText {
    /// The row; `None` when it is not one of these.
    pub fn row(&self, instrument_id: i64) -> Option<CandleRow> {
        let dec = |text: &str| parse_decimal(text).ok();
        Some(CandleRow {
            instrument_id,
            timeframe: self.timeframe.clone(),
            open_ms: self.open_time,
            close_ms: self.close_time,
            open: dec(&self.open)?,
            high: dec(&self.high)?,
            low: dec(&self.low)?,
            close: dec(&self.close)?,
            volume: dec(&self.volume)?,
            quote_volume: dec(&self.quote_volume)?,
            trades: self.trades,
            taker_buy_volume: dec(&self.taker_buy_volume)?,
            taker_buy_quote_volume: dec(&self.taker_buy_quote_volume)?,
            closed: self.closed,
            updated_us: self.updated_us,
        })
    }
}

/// A candle, for its channels.
pub fn candle(instrument: &Instrument, row: &CandleRow) -> String {
    #[derive(Serialize)]
    struct Message<'a> {
        #[serde(flatten)]
        of: Of<'a>,
        #[serde(flatten)]
        candle: CandleText,
    }
    json(&Message { of: Of::new("candle", instrument), candle: row.into() })
}

/// The open and the last closed candle of a series, as cached.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CachedCandles {
    /// The last closed one.
    pub closed: Option<CandleText>,
    /// The open one.
    pub open: Option<CandleText>,
}

/// The open and the last closed candle, for the cache.
pub fn candles(
    instrument: &Instrument,
    timeframe: &str,
    closed: Option<&CandleRow>,
    open: Option<&CandleRow>,
) -> String {
    #[derive(Serialize)]
    struct Value<'a> {
        #[serde(flatten)]
        of: Of<'a>,
        timeframe: &'a str,
        closed: Option<CandleText>,
        open: Option<CandleText>,
    }
    let (closed, open) = (closed.map(CandleText::from), open.map(CandleText::from));
    json(&Value { of: Of::new("candles", instrument), timeframe, closed, open })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BookMessage<'a> {
    #[serde(flatten)]
    of: Of<'a>,
    state: &'static str,
    last_update_id: Option<i64>,
    timestamp: i64,
    bids: &'a RawValue,
    asks: &'a RawValue,
}

/// The top of a book, for the cache and its channels. `None` when the row holds no JSON.
pub fn orderbook(instrument: &Instrument, state: SampleState, row: &OrderbookRow) -> Option<String> {
    let bids: &RawValue = serde_json::from_str(&row.bids).ok()?;
    let asks: &RawValue = serde_json::from_str(&row.asks).ok()?;
    Some(json(&BookMessage {
        of: Of::new("orderbook", instrument),
        state: state.as_str(),
        last_update_id: Some(row.last_update_id),
        timestamp: row.timestamp_ms,
        bids,
        asks,
    }))
}

/// A book in doubt, for its channels: its state, and no levels.
pub fn doubt(instrument: &Instrument, state: SampleState, at_ms: i64) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Message<'a> {
        #[serde(flatten)]
        of: Of<'a>,
        state: &'static str,
        last_update_id: Option<i64>,
        timestamp: i64,
        bids: [(); 0],
        asks: [(); 0],
    }
    json(&Message {
        of: Of::new("orderbook", instrument),
        state: state.as_str(),
        last_update_id: None,
        timestamp: at_ms,
        bids: [],
        asks: [],
    })
}

/// 24 hour statistics, for the cache.
pub fn ticker(instrument: &Instrument, row: &TickerRow) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Value<'a> {
        #[serde(flatten)]
        of: Of<'a>,
        timestamp: i64,
        last: Option<String>,
        bid: Option<String>,
        ask: Option<String>,
        open: Option<String>,
        high: Option<String>,
        low: Option<String>,
        volume: Option<String>,
        quote_volume: Option<String>,
        trades: Option<i64>,
    }
    json(&Value {
        of: Of::new("ticker", instrument),
        timestamp: row.event_us / 1000,
        last: row.last.map(text),
        bid: row.bid.map(text),
        ask: row.ask.map(text),
        open: row.open.map(text),
        high: row.high.map(text),
        low: row.low.map(text),
        volume: row.volume.map(text),
        quote_volume: row.quote_volume.map(text),
        trades: row.trades,
    })
}

/// A tick, for the mirror of the ring. Ticks of one moment differ in what they say or are one.
pub fn tick(instrument: &Instrument, tick: &Tick) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Member {
        timestamp: i64,
        received_us: i64,
        venue_time: bool,
        update_id: u64,
        best_bid: String,
        best_ask: String,
        bid_volume: String,
        ask_volume: String,
    }
    let price = |mantissa| text(to_decimal(mantissa, instrument.price_scale));
    let qty = |mantissa| text(to_decimal(mantissa, instrument.qty_scale));
    json(&Member {
        timestamp: tick.time_us / 1000,
        received_us: tick.recv_us,
        venue_time: tick.venue_time,
        update_id: tick.update_id,
        best_bid: price(tick.bid.price),
        best_ask: price(tick.ask.price),
        bid_volume: qty(tick.bid.qty),
        ask_volume: qty(tick.ask.qty),
    })
}

/// Structs of text and numbers always have a JSON form.
fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
