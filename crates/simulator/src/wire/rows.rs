//! REST bodies other than exchangeInfo (binance sheet, section 5).

use std::fmt::Write as _;

use super::{
    AggTrade, Mark, Ticker, day_change, put, put_agg_fields, put_eight, put_levels, put_price, put_qty,
    put_quote,
};
use crate::engine::interval::Interval;
use crate::engine::klines::Candle;
use crate::number::push_scaled;
use crate::universe::Listing;

/// Joins rows to a JSON array.
pub(crate) fn array(rows: impl IntoIterator<Item = String>) -> String {
    let mut out = String::from("[");
    for (index, row) in rows.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(&row);
    }
    out.push(']');
    out
}

/// A depth snapshot; `times` (output, transaction) exist on futures only.
pub(crate) fn depth(
    listing: &Listing,
    id: u64,
    times: Option<(i64, i64)>,
    bids: &[(i64, i64)],
    asks: &[(i64, i64)],
) -> String {
    let mut out = String::with_capacity(64 + 40 * (bids.len() + asks.len()));
    put!(out, r#"{{"lastUpdateId":{id}"#);
    if let Some((output, transaction)) = times {
        put!(out, r#","E":{output},"T":{transaction}"#);
    }
    out.push_str(r#","bids":"#);
    put_levels(&mut out, listing, bids);
    out.push_str(r#","asks":"#);
    put_levels(&mut out, listing, asks);
    out.push('}');
    out
}

/// The tuple of twelve.
pub(crate) fn kline(listing: &Listing, interval: Interval, candle: &Candle) -> String {
    let mut out = String::with_capacity(192);
    put!(out, "[{}", candle.open_ms);
    for price in [candle.open, candle.high, candle.low, candle.close] {
        out.push(',');
        put_price(&mut out, listing, price);
    }
    out.push(',');
    put_qty(&mut out, listing, candle.volume);
    put!(out, ",{},", interval.next(candle.open_ms) - 1);
    put_quote(&mut out, listing, candle.quote);
    put!(out, ",{},", candle.count);
    put_qty(&mut out, listing, candle.taker_volume);
    out.push(',');
    put_quote(&mut out, listing, candle.taker_quote);
    out.push_str(r#","0"]"#);
    out
}

pub(crate) fn agg_trade(listing: &Listing, trade: &AggTrade, spot: bool) -> String {
    let mut out = String::from("{");
    put_agg_fields(&mut out, listing, trade, !spot);
    out.push_str(if spot { r#","M":true}"# } else { "}" });
    out
}

pub(crate) fn ticker(listing: &Listing, ticker: &Ticker, spot: bool) -> String {
    let day = &ticker.day;
    let (change, percent, average) = day_change(day);
    let mut out = String::with_capacity(512);
    put!(out, r#"{{"symbol":"{}","priceChange":"#, listing.native);
    put_price(&mut out, listing, change);
    out.push_str(r#","priceChangePercent":""#);
    push_scaled(&mut out, percent, 3, 3);
    out.push_str(r#"","weightedAvgPrice":"#);
    put_price(&mut out, listing, average);
    if spot {
        out.push_str(r#","prevClosePrice":"#);
        put_price(&mut out, listing, day.open);
    }
    out.push_str(r#","lastPrice":"#);
    put_price(&mut out, listing, day.close);
    out.push_str(r#","lastQty":"#);
    put_qty(&mut out, listing, i128::from(ticker.last_qty));
    if spot {
        put_bests(&mut out, listing, ticker);
    }
    for (key, price) in [("openPrice", day.open), ("highPrice", day.high), ("lowPrice", day.low)] {
        put!(out, r#","{key}":"#);
        put_price(&mut out, listing, price);
    }
    out.push_str(r#","volume":"#);
    put_qty(&mut out, listing, day.volume);
    out.push_str(r#","quoteVolume":"#);
    put_quote(&mut out, listing, day.quote);
    let open = ticker.now_ms - 86_400_000;
    put!(out, r#","openTime":{open},"closeTime":{},"firstId":{},"#, ticker.now_ms, day.first);
    put!(out, r#""lastId":{},"count":{}}}"#, day.last, day.count);
    out
}

fn put_bests(out: &mut String, listing: &Listing, ticker: &Ticker) {
    let (bid, ask) = ticker.quote.map_or(((0, 0), (0, 0)), |quote| (quote.bid, quote.ask));
    for (name, (price, qty)) in [("bid", bid), ("ask", ask)] {
        put!(out, r#","{name}Price":"#);
        put_price(out, listing, price);
        put!(out, r#","{name}Qty":"#);
        put_qty(out, listing, i128::from(qty));
    }
}

pub(crate) fn book_ticker(listing: &Listing, ticker: &Ticker, spot: bool) -> String {
    let mut out = String::new();
    put!(out, r#"{{"symbol":"{}""#, listing.native);
    put_bests(&mut out, listing, ticker);
    if !spot {
        put!(out, r#","time":{}"#, ticker.now_ms);
    }
    out.push('}');
    out
}

pub(crate) fn premium_index(listing: &Listing, now_ms: i64, mark: &Mark) -> String {
    let mut out = String::new();
    put!(out, r#"{{"symbol":"{}","markPrice":"#, listing.native);
    put_eight(&mut out, mark.mark);
    out.push_str(r#","indexPrice":"#);
    put_eight(&mut out, mark.index);
    out.push_str(r#","estimatedSettlePrice":"#);
    put_eight(&mut out, mark.index);
    out.push_str(r#","lastFundingRate":"#);
    match mark.rate {
        Some(rate) => put_eight(&mut out, rate),
        None => out.push_str(r#""""#),
    }
    put!(out, r#","interestRate":"0.00010000","nextFundingTime":{},"time":{now_ms}}}"#, mark.next_funding_ms);
    out
}

pub(crate) fn funding_rate(listing: &Listing, ms: i64, rate: i128, mark: i128) -> String {
    let mut out = String::new();
    put!(out, r#"{{"symbol":"{}","fundingTime":{ms},"fundingRate":"#, listing.native);
    put_eight(&mut out, rate);
    out.push_str(r#","markPrice":"#);
    put_eight(&mut out, mark);
    out.push_str(r#","rateType":"Regular"}"#);
    out
}

pub(crate) fn funding_info(listing: &Listing) -> String {
    format!(
        r#"{{"symbol":"{}","adjustedFundingRateCap":"0.02500000","adjustedFundingRateFloor":"-0.02500000","fundingIntervalHours":{},"disclaimer":false}}"#,
        listing.native, listing.funding_hours
    )
}
