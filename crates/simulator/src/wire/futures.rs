//! USD-M futures stream payloads, key order as in the binance sheet, section 4; `st` 1 marks USD-M, 2 COIN-M.

use std::fmt::Write as _;

use super::spot::{put_day, put_mini};
use super::{
    AggTrade, Mark, Quote, Ticker, day_change, put, put_agg_fields, put_eight, put_kline, put_levels,
};
use super::{put_price, put_qty, put_trade_fields};
use crate::engine::book::Changes;
use crate::engine::interval::Interval;
use crate::engine::klines::Candle;
use crate::engine::symbol::Trade;
use crate::number::push_scaled;
use crate::universe::{Contract, Listing};

/// The pair of a contract: a dated one names it without its date.
pub(crate) fn pair(listing: &Listing) -> String {
    format!("{}{}", listing.base, listing.quote)
}

pub(crate) fn agg_trade(out: &mut String, listing: &Listing, now_ms: i64, trade: &AggTrade) {
    put!(out, r#"{{"e":"aggTrade","E":{now_ms},"s":"{}","#, listing.native);
    put_agg_fields(out, listing, trade, true);
    out.push_str(r#","st":1}"#);
}

pub(crate) fn trade(out: &mut String, listing: &Listing, now_ms: i64, trade: &Trade) {
    put!(out, r#"{{"e":"trade","E":{now_ms},"T":{},"s":"{}","#, trade.ms, listing.native);
    put_trade_fields(out, listing, trade, r#","X":"MARKET""#);
    out.push('}');
}

pub(crate) fn book_ticker(out: &mut String, listing: &Listing, now_ms: i64, quote: &Quote) {
    put!(
        out,
        r#"{{"e":"bookTicker","u":{},"s":"{}","ps":"{}","b":"#,
        quote.id,
        listing.native,
        pair(listing)
    );
    put_price(out, listing, quote.bid.0);
    out.push_str(r#","B":"#);
    put_qty(out, listing, i128::from(quote.bid.1));
    out.push_str(r#","a":"#);
    put_price(out, listing, quote.ask.0);
    out.push_str(r#","A":"#);
    put_qty(out, listing, i128::from(quote.ask.1));
    put!(out, r#","T":{now_ms},"E":{now_ms},"st":1}}"#);
}

/// Diffs; the same object carries the best levels on partial streams.
pub(crate) fn depth(out: &mut String, listing: &Listing, now_ms: i64, changes: &Changes) {
    put!(
        out,
        r#"{{"e":"depthUpdate","E":{now_ms},"T":{now_ms},"s":"{}","ps":"{}","st":1"#,
        listing.native,
        pair(listing)
    );
    put!(out, r#","U":{},"u":{},"pu":{},"b":"#, changes.first, changes.last, changes.previous);
    put_levels(out, listing, &changes.bids);
    out.push_str(r#","a":"#);
    put_levels(out, listing, &changes.asks);
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
    out.push_str(r#","st":1}"#);
}

/// Without `x b B a A`, which futures do not send.
pub(crate) fn ticker(out: &mut String, listing: &Listing, ticker: &Ticker) {
    let day = &ticker.day;
    let (change, percent, average) = day_change(day);
    put!(out, r#"{{"e":"24hrTicker","E":{},"s":"{}","p":"#, ticker.now_ms, listing.native);
    put_price(out, listing, change);
    out.push_str(r#","P":""#);
    push_scaled(out, percent, 3, 3);
    out.push_str(r#"","w":"#);
    put_price(out, listing, average);
    out.push_str(r#","c":"#);
    put_price(out, listing, day.close);
    out.push_str(r#","Q":"#);
    put_qty(out, listing, i128::from(ticker.last_qty));
    put_day(out, listing, ticker);
    put!(out, r#","ps":"{}","st":1}}"#, pair(listing));
}

pub(crate) fn mini_ticker(out: &mut String, listing: &Listing, ticker: &Ticker) {
    put_mini(out, listing, ticker);
    put!(out, r#","ps":"{}","st":1}}"#, pair(listing));
}

pub(crate) fn mark_price(out: &mut String, listing: &Listing, now_ms: i64, mark: &Mark) {
    put!(out, r#"{{"e":"markPriceUpdate","E":{now_ms},"s":"{}","p":"#, listing.native);
    put_eight(out, mark.mark);
    out.push_str(r#","i":"#);
    put_eight(out, mark.index);
    out.push_str(r#","P":"#);
    put_eight(out, mark.index);
    out.push_str(r#","r":"#);
    match mark.rate {
        Some(rate) => put_eight(out, rate),
        None => out.push_str(r#""""#),
    }
    put!(out, r#","T":{},"st":1}}"#, mark.next_funding_ms);
}

/// A COIN-M element as the merged all-market arrays carry it since 2026-06-30: clients must drop it.
pub(crate) fn coin_margined_mark(now_ms: i64) -> String {
    format!(
        r#"{{"e":"markPriceUpdate","E":{now_ms},"s":"BTCUSD_PERP","p":"91250.10000000","i":"91248.00000000","P":"91248.00000000","r":"0.00010000","T":{},"st":2}}"#,
        now_ms - now_ms.rem_euclid(28_800_000) + 28_800_000
    )
}

pub(crate) fn contract_info(listing: &Listing, status: &str, now_ms: i64, delivery_ms: i64) -> String {
    format!(
        r#"{{"e":"contractInfo","E":{now_ms},"s":"{}","ps":"{}","ct":"{}","dt":{delivery_ms},"ot":{},"cs":"{status}","st":1}}"#,
        listing.native,
        pair(listing),
        listing.contract.name(),
        listing.onboard_ms
    )
}

/// Whether the contract pays funding.
pub(crate) const fn has_funding(listing: &Listing) -> bool {
    !matches!(listing.contract, Contract::CurrentQuarter | Contract::Spot)
}
