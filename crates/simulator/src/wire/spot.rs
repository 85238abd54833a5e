//! Spot stream payloads, key order as in the binance sheet, section 4.

use std::fmt::Write as _;

use super::{
    AggTrade, Quote, Ticker, day_change, put, put_agg_fields, put_kline, put_levels, put_price, put_qty,
};
use super::{put_quote, put_trade_fields};
use crate::engine::book::Changes;
use crate::engine::interval::Interval;
use crate::engine::klines::Candle;
use crate::engine::symbol::Trade;
use crate::number::push_scaled;
use crate::universe::Listing;

pub(crate) fn agg_trade(out: &mut String, listing: &Listing, now_ms: i64, trade: &AggTrade) {
    put!(out, r#"{{"e":"aggTrade","E":{now_ms},"s":"{}","#, listing.native);
    put_agg_fields(out, listing, trade, false);
    out.push_str(r#","M":true}"#);
}

pub(crate) fn trade(out: &mut String, listing: &Listing, now_ms: i64, trade: &Trade) {
    put!(out, r#"{{"e":"trade","E":{now_ms},"s":"{}","#, listing.native);
    put_trade_fields(out, listing, trade, &format!(r#","T":{}"#, trade.ms));
    out.push_str(r#","M":true}"#);
}

/// Spot quotes carry neither type nor time.
pub(crate) fn book_ticker(out: &mut String, listing: &Listing, quote: &Quote) {
    put!(out, r#"{{"u":{},"s":"{}""#, quote.id, listing.native);
    put_best(out, listing, quote);
    out.push('}');
}

fn put_best(out: &mut String, listing: &Listing, quote: &Quote) {
    out.push_str(r#","b":"#);
    put_price(out, listing, quote.bid.0);
    out.push_str(r#","B":"#);
    put_qty(out, listing, i128::from(quote.bid.1));
    out.push_str(r#","a":"#);
    put_price(out, listing, quote.ask.0);
    out.push_str(r#","A":"#);
    put_qty(out, listing, i128::from(quote.ask.1));
}

pub(crate) fn depth(out: &mut String, listing: &Listing, now_ms: i64, changes: &Changes) {
    put!(
        out,
        r#"{{"e":"depthUpdate","E":{now_ms},"s":"{}","U":{},"u":{},"b":"#,
        listing.native,
        changes.first,
        changes.last
    );
    put_levels(out, listing, &changes.bids);
    out.push_str(r#","a":"#);
    put_levels(out, listing, &changes.asks);
    out.push('}');
}

pub(crate) fn partial(
    out: &mut String,
    listing: &Listing,
    id: u64,
    bids: &[(i64, i64)],
    asks: &[(i64, i64)],
) {
    put!(out, r#"{{"lastUpdateId":{id},"bids":"#);
    put_levels(out, listing, bids);
    out.push_str(r#","asks":"#);
    put_levels(out, listing, asks);
    out.push('}');
}

pub(crate) fn kline(
    out: &mut String,
    listing: &Listing,
    now_ms: i64,
    of: Interval,
    candle: &Candle,
    closed: bool,
) {
    put!(out, r#"{{"e":"kline","E":{now_ms},"s":"{}","#, listing.native);
    put_kline(out, listing, of, candle, closed);
    out.push('}');
}

pub(crate) fn ticker(out: &mut String, listing: &Listing, ticker: &Ticker) {
    let day = &ticker.day;
    let (change, percent, average) = day_change(day);
    put!(out, r#"{{"e":"24hrTicker","E":{},"s":"{}","p":"#, ticker.now_ms, listing.native);
    put_price(out, listing, change);
    out.push_str(r#","P":""#);
    push_scaled(out, percent, 3, 3);
    out.push_str(r#"","w":"#);
    put_price(out, listing, average);
    out.push_str(r#","x":"#);
    put_price(out, listing, day.open);
    out.push_str(r#","c":"#);
    put_price(out, listing, day.close);
    out.push_str(r#","Q":"#);
    put_qty(out, listing, i128::from(ticker.last_qty));
    let empty = Quote { id: 0, bid: (0, 0), ask: (0, 0) };
    put_best(out, listing, ticker.quote.as_ref().unwrap_or(&empty));
    put_day(out, listing, ticker);
    out.push('}');
}

/// `o h l v q O C F L n`, shared with futures.
pub(crate) fn put_day(out: &mut String, listing: &Listing, ticker: &Ticker) {
    let day = &ticker.day;
    for (key, price) in [("o", day.open), ("h", day.high), ("l", day.low)] {
        put!(out, r#","{key}":"#);
        put_price(out, listing, price);
    }
    out.push_str(r#","v":"#);
    put_qty(out, listing, day.volume);
    out.push_str(r#","q":"#);
    put_quote(out, listing, day.quote);
    let open = ticker.now_ms - 86_400_000;
    put!(out, r#","O":{open},"C":{},"F":{},"L":{},"n":{}"#, ticker.now_ms, day.first, day.last, day.count);
}

pub(crate) fn mini_ticker(out: &mut String, listing: &Listing, ticker: &Ticker) {
    put_mini(out, listing, ticker);
    out.push('}');
}

/// A mini ticker without its closing brace, shared with futures.
pub(crate) fn put_mini(out: &mut String, listing: &Listing, ticker: &Ticker) {
    let day = &ticker.day;
    put!(out, r#"{{"e":"24hrMiniTicker","E":{},"s":"{}""#, ticker.now_ms, listing.native);
    for (key, price) in [("c", day.close), ("o", day.open), ("h", day.high), ("l", day.low)] {
        put!(out, r#","{key}":"#);
        put_price(out, listing, price);
    }
    out.push_str(r#","v":"#);
    put_qty(out, listing, day.volume);
    out.push_str(r#","q":"#);
    put_quote(out, listing, day.quote);
}
