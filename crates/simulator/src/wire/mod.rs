//! The venue's spelling: stream names and messages. Written from the binance sheet alone; `venues` must not be used.

pub(crate) mod futures;
pub(crate) mod rows;
pub(crate) mod spot;
pub(crate) mod streams;

use std::fmt::Write as _;

use crate::engine::interval::Interval;
use crate::engine::klines::Candle;
use crate::engine::symbol::Trade;
use crate::number::push_scaled;
use crate::universe::Listing;

/// One aggregate trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AggTrade {
    pub id: i64,
    pub price: i64,
    pub qty: i64,
    pub first: i64,
    pub last: i64,
    pub ms: i64,
    pub taker_sold: bool,
}

/// The best bid and ask at a book id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quote {
    pub id: u64,
    pub bid: (i64, i64),
    pub ask: (i64, i64),
}

/// The values of a 24 h ticker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticker {
    pub day: Candle,
    pub now_ms: i64,
    pub last_qty: i64,
    pub quote: Option<Quote>,
}

/// Mark price, index and funding, prices on eight decimals.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub mark: i128,
    pub index: i128,
    /// Eight decimals; `None` for contracts without funding.
    pub rate: Option<i128>,
    pub next_funding_ms: i64,
}

/// Appends formatted text; writing to a `String` cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {
        let _ = write!($out, $($arg)*);
    };
}
pub(crate) use put;

pub(crate) fn put_price(out: &mut String, listing: &Listing, price: i64) {
    out.push('"');
    push_scaled(out, i128::from(price), listing.price_scale, listing.price_decimals);
    out.push('"');
}

pub(crate) fn put_qty(out: &mut String, listing: &Listing, qty: i128) {
    out.push('"');
    push_scaled(out, qty, listing.qty_scale, listing.qty_decimals);
    out.push('"');
}

pub(crate) fn put_quote(out: &mut String, listing: &Listing, quote: i128) {
    out.push('"');
    push_scaled(out, quote, listing.price_scale + listing.qty_scale, listing.quote_decimals);
    out.push('"');
}

pub(crate) fn put_eight(out: &mut String, value: i128) {
    out.push('"');
    push_scaled(out, value, 8, 8);
    out.push('"');
}

pub(crate) fn put_levels(out: &mut String, listing: &Listing, levels: &[(i64, i64)]) {
    out.push('[');
    for (index, (price, qty)) in levels.iter().enumerate() {
        out.push_str(if index == 0 { "[" } else { ",[" });
        put_price(out, listing, *price);
        out.push(',');
        put_qty(out, listing, i128::from(*qty));
        out.push(']');
    }
    out.push(']');
}

/// The `k` object of a kline event, the same on both markets.
pub(crate) fn put_kline(
    out: &mut String,
    listing: &Listing,
    interval: Interval,
    candle: &Candle,
    closed: bool,
) {
    let close_ms = interval.next(candle.open_ms) - 1;
    put!(
        out,
        r#""k":{{"t":{},"T":{close_ms},"s":"{}","i":"{}","f":{},"L":{}"#,
        candle.open_ms,
        listing.native,
        interval.name(),
        candle.first,
        candle.last
    );
    for (key, price) in [("o", candle.open), ("c", candle.close), ("h", candle.high), ("l", candle.low)] {
        put!(out, r#","{key}":"#);
        put_price(out, listing, price);
    }
    out.push_str(r#","v":"#);
    put_qty(out, listing, candle.volume);
    put!(out, r#","n":{},"x":{closed},"q":"#, candle.count);
    put_quote(out, listing, candle.quote);
    out.push_str(r#","V":"#);
    put_qty(out, listing, candle.taker_volume);
    out.push_str(r#","Q":"#);
    put_quote(out, listing, candle.taker_quote);
    out.push_str(r#","B":"0"}"#);
}

/// The fields of an aggregate trade that REST and stream share: `a p q f l T m`.
pub(crate) fn put_agg_fields(out: &mut String, listing: &Listing, trade: &AggTrade, with_nq: bool) {
    put!(out, r#""a":{},"p":"#, trade.id);
    put_price(out, listing, trade.price);
    out.push_str(r#","q":"#);
    put_qty(out, listing, i128::from(trade.qty));
    if with_nq {
        out.push_str(r#","nq":"#);
        put_qty(out, listing, i128::from(trade.qty));
    }
    put!(out, r#","f":{},"l":{},"T":{},"m":{}"#, trade.first, trade.last, trade.ms, trade.taker_sold);
}

/// A trade's `t p q T m`, and what stands before `m`.
pub(crate) fn put_trade_fields(out: &mut String, listing: &Listing, trade: &Trade, before_m: &str) {
    put!(out, r#""t":{},"p":"#, trade.id);
    put_price(out, listing, trade.price);
    out.push_str(r#","q":"#);
    put_qty(out, listing, i128::from(trade.qty));
    put!(out, "{before_m},\"m\":{}", trade.taker_sold);
}

/// What a 24 h ticker derives from its candle: change in ticks, change in percent on three decimals, average in ticks.
pub(crate) fn day_change(day: &Candle) -> (i64, i128, i64) {
    let change = day.close - day.open;
    let percent = i128::from(change) * 100_000 / i128::from(day.open.max(1));
    let average = if day.volume > 0 { day.quote / day.volume } else { i128::from(day.close) };
    (change, percent, i64::try_from(average).unwrap_or(day.close))
}
