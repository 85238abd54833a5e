//! What each endpoint answers and weighs.

use fathom_market::ids::Market;

use super::params::Params;
use super::{ApiError, info};
use crate::engine::book::{Side, top_of};
use crate::engine::interval::Interval;
use crate::market::MarketState;
use crate::recorded::{DepthAnswer, NOTHING};
use crate::universe::Listing;
use crate::wire::rows;

/// An endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Ping,
    Time,
    ExchangeInfo,
    Depth,
    Klines,
    Ticker24h,
    BookTicker,
    AggTrades,
    PremiumIndex,
    FundingRate,
    FundingInfo,
}

/// Depth limits that futures accept.
const FUTURES_DEPTHS: [usize; 7] = [5, 10, 20, 50, 100, 500, 1000];
const HOUR: i64 = 3_600_000;
type Answer = Result<String, ApiError>;

impl Endpoint {
    pub(crate) fn parse(market: Market, path: &str) -> Option<Self> {
        let (prefix, spot) = match market {
            Market::Spot => ("/api/v3/", true),
            Market::Futures => ("/fapi/v1/", false),
        };
        let found = match path.strip_prefix(prefix)? {
            "ping" => Self::Ping,
            "time" => Self::Time,
            "exchangeInfo" => Self::ExchangeInfo,
            "depth" => Self::Depth,
            "klines" => Self::Klines,
            "ticker/24hr" => Self::Ticker24h,
            "ticker/bookTicker" => Self::BookTicker,
            "aggTrades" => Self::AggTrades,
            "premiumIndex" if !spot => Self::PremiumIndex,
            "fundingRate" if !spot => Self::FundingRate,
            "fundingInfo" if !spot => Self::FundingInfo,
            _ => return None,
        };
        Some(found)
    }

    pub(crate) const fn shares_funding_limit(self) -> bool {
        matches!(self, Self::FundingRate | Self::FundingInfo)
    }

    /// Request weight (binance sheet, section 2).
    pub(crate) fn weight(self, market: Market, params: &Params) -> u32 {
        let spot = market == Market::Spot;
        let one = params.get("symbol").is_some();
        let limit = |default| params.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(default);
        match (self, spot) {
            (Self::Ping | Self::Time, _) | (Self::ExchangeInfo, false) => 1,
            (Self::ExchangeInfo, true) => 20,
            (Self::Depth, true) => match limit(100_u32) {
                0..=100 => 5,
                101..=500 => 25,
                501..=1000 => 50,
                _ => 250,
            },
            (Self::Depth, false) => match limit(500) {
                0..=50 => 2,
                51..=100 => 5,
                101..=500 => 10,
                _ => 20,
            },
            (Self::Klines, true) => 2,
            (Self::Klines, false) => match limit(500) {
                0..=99 => 1,
                100..=499 => 2,
                500..=1000 => 5,
                _ => 10,
            },
            (Self::Ticker24h, true) if one => 2,
            (Self::Ticker24h, true) => match params.symbols().ok().flatten().map(|symbols| symbols.len()) {
                Some(0..=20) => 2,
                Some(21..=100) => 40,
                _ => 80,
            },
            (Self::Ticker24h, false) => {
                if one {
                    1
                } else {
                    40
                }
            }
            (Self::BookTicker, spot) => match (one, spot) {
                (true, _) => 2,
                (false, true) => 4,
                (false, false) => 5,
            },
            (Self::AggTrades, true) => 4,
            (Self::AggTrades, false) => 20,
            (Self::PremiumIndex, _) => {
                if one {
                    1
                } else {
                    10
                }
            }
            (Self::FundingRate | Self::FundingInfo, _) => 0,
        }
    }
}

/// Answers a request that passed the limits.
pub(crate) async fn answer(state: &MarketState, endpoint: Endpoint, params: &Params, now: i64) -> Answer {
    params.check()?;
    if endpoint == Endpoint::Depth {
        return depth(state, params, now).await;
    }
    let now = state.replay.as_ref().map_or_else(|| state.event_ms(now), |replay| replay.now_ms());
    match endpoint {
        Endpoint::Ping => Ok("{}".to_owned()),
        Endpoint::Time => Ok(format!(r#"{{"serverTime":{now}}}"#)),
        Endpoint::ExchangeInfo => info::exchange_info(state, params, now),
        Endpoint::Klines => klines(state, params),
        Endpoint::Ticker24h => tickers(state, params, now, rows::ticker),
        Endpoint::BookTicker => tickers(state, params, now, rows::book_ticker),
        Endpoint::AggTrades => agg_trades(state, params),
        Endpoint::PremiumIndex => premium_index(state, params, now),
        Endpoint::FundingRate => funding_rate(state, params, now),
        Endpoint::FundingInfo => Ok(funding_info(state)),
        Endpoint::Depth => Ok(NOTHING.to_owned()),
    }
}

fn symbol(state: &MarketState, params: &Params) -> Result<usize, ApiError> {
    state.symbol(params.required("symbol")?).ok_or_else(ApiError::symbol)
}

/// The symbols that were not taken off the list.
pub(crate) fn named(state: &MarketState) -> impl Iterator<Item = usize> {
    (0..state.roster.len()).filter(|index| state.roster.is_named(*index))
}

async fn depth(state: &MarketState, params: &Params, now: i64) -> Answer {
    let index = symbol(state, params)?;
    let spot = state.market == Market::Spot;
    let limit = params.limit(if spot { 100 } else { 500 }, 5000)?;
    if !spot && !FUTURES_DEPTHS.contains(&limit) {
        return Err(ApiError::bad(-1130, "Data sent for parameter 'limit' is not valid."));
    }
    let Some(replay) = &state.replay else {
        let symbol = &state.roster[index].native;
        let crossed = state.faults.crosses_snapshot(symbol, now);
        return book(state, index, limit, now, (state.snapshot_age(symbol, now), crossed));
    };
    match replay.depth(index).await {
        DepthAnswer::Recorded(body) => {
            Ok(cut(state, index, &body, limit).unwrap_or_else(|| body.to_string()))
        }
        DepthAnswer::Current => book(state, index, limit, replay.now_ms(), (0, false)),
        DepthAnswer::TooEarly => Err(ApiError {
            status: 503,
            code: -1000,
            msg: "Unknown error, please try again later.".to_owned(),
        }),
    }
}

/// The book as it is, or as it was `age_ms` ago; `crossed` puts a bid above the best ask.
fn book(state: &MarketState, index: usize, limit: usize, now: i64, (age_ms, crossed): (i64, bool)) -> Answer {
    state.with_cell(index, now, |cell, ctx| {
        let id = if age_ms > 0 { cell.book.id_before(now, age_ms) } else { cell.book.id() };
        let times = (ctx.market == Market::Futures).then_some((ctx.event_ms, ctx.event_ms));
        let (mut bids, asks) = if id == cell.book.id() {
            (cell.book.top(Side::Bid, limit), cell.book.top(Side::Ask, limit))
        } else {
            let past = cell.book.at(id).ok_or_else(|| ApiError::bad(-1000, "no such book"))?;
            (top_of(&past.bids, Side::Bid, limit), top_of(&past.asks, Side::Ask, limit))
        };
        if let Some((price, qty)) = asks.first().filter(|_| crossed) {
            bids.insert(0, (price + 5, *qty));
            bids.truncate(limit);
        }
        Ok(rows::depth(ctx.listing, id, times, &bids, &asks))
    })
}

/// A recorded body with fewer levels; `None` when it has no more than asked for.
fn cut(state: &MarketState, index: usize, body: &str, limit: usize) -> Option<String> {
    let mut value: serde_json::Value = serde_json::from_str(body).ok()?;
    let mut shorter = false;
    for side in ["bids", "asks"] {
        let levels = value.get_mut(side)?.as_array_mut()?;
        shorter |= levels.len() > limit;
        levels.truncate(limit);
    }
    tracing::debug!(symbol = state.roster[index].native, limit, shorter, "recorded snapshot");
    shorter.then(|| value.to_string())
}

fn klines(state: &MarketState, params: &Params) -> Answer {
    let index = symbol(state, params)?;
    let interval = params.interval()?;
    let spot = state.market == Market::Spot;
    if !spot && interval == Interval::SECOND {
        return Err(ApiError::bad(-1120, "Invalid interval."));
    }
    let limit = params.limit(500, if spot { 1000 } else { 1500 })?;
    let (from, to) = (params.integer("startTime")?, params.integer("endTime")?);
    state.with_cell(index, 0, |cell, ctx| {
        let Some(sim) = cell.sim.as_mut() else { return Ok(NOTHING.to_owned()) };
        let found = sim.klines.rows(interval, from, to, limit);
        Ok(rows::array(found.iter().map(|candle| rows::kline(ctx.listing, interval, candle))))
    })
}

type TickerRow = fn(&Listing, &crate::wire::Ticker, bool) -> String;

fn tickers(state: &MarketState, params: &Params, now: i64, row: TickerRow) -> Answer {
    let spot = state.market == Market::Spot;
    let one = |index: usize| {
        state.with_cell(index, now, |cell, ctx| Some(row(ctx.listing, &cell.ticker(now)?, spot)))
    };
    if params.get("symbol").is_some() {
        return Ok(one(symbol(state, params)?).unwrap_or_else(|| NOTHING.to_owned()));
    }
    let chosen = match params.symbols()?.filter(|_| spot) {
        Some(names) => {
            let found = names.iter().map(|name| state.symbol(name).ok_or_else(ApiError::symbol));
            found.collect::<Result<Vec<_>, _>>()?
        }
        None => named(state).collect(),
    };
    Ok(rows::array(chosen.into_iter().filter_map(one)))
}

fn agg_trades(state: &MarketState, params: &Params) -> Answer {
    let index = symbol(state, params)?;
    let limit = params.limit(500, 1000)?;
    let (from_id, start, end) =
        (params.integer("fromId")?, params.integer("startTime")?, params.integer("endTime")?);
    if from_id.is_some() && (start.is_some() || end.is_some()) {
        return Err(ApiError::bad(-1128, "Combination of optional parameters invalid."));
    }
    if let (Some(start), Some(end)) = (start, end)
        && end - start > HOUR
    {
        return Err(ApiError::bad(-1127, "More than 1 hours between startTime and endTime."));
    }
    let spot = state.market == Market::Spot;
    state.with_cell(index, 0, |cell, ctx| {
        let Some(sim) = cell.sim.as_ref() else { return Ok(NOTHING.to_owned()) };
        let all = &sim.aggregates;
        let fits = |ms: i64| start.is_none_or(|start| ms >= start) && end.is_none_or(|end| ms <= end);
        let row = |trade: &crate::wire::AggTrade| rows::agg_trade(ctx.listing, trade, spot);
        Ok(match (from_id, start) {
            (Some(id), _) => rows::array(all.iter().skip_while(|trade| trade.id < id).take(limit).map(row)),
            (None, Some(_)) => rows::array(all.iter().filter(|trade| fits(trade.ms)).take(limit).map(row)),
            (None, None) => {
                let found: Vec<_> = all.iter().rev().filter(|trade| fits(trade.ms)).take(limit).collect();
                rows::array(found.into_iter().rev().map(row))
            }
        })
    })
}

fn premium_index(state: &MarketState, params: &Params, now: i64) -> Answer {
    let one = |index: usize| {
        state.with_cell(index, now, |cell, ctx| {
            Some(rows::premium_index(ctx.listing, now, &cell.mark(ctx.listing, now)?))
        })
    };
    if params.get("symbol").is_some() {
        return Ok(one(symbol(state, params)?).unwrap_or_else(|| NOTHING.to_owned()));
    }
    Ok(rows::array(named(state).filter_map(one)))
}

fn funding_rate(state: &MarketState, params: &Params, now: i64) -> Answer {
    let limit = params.limit(100, 1000)?;
    let (start, end) = (params.integer("startTime")?, params.integer("endTime")?.unwrap_or(now).min(now));
    let of = |index: usize, limit: usize| {
        state.with_cell(index, now, |cell, ctx| {
            let Some(sim) = cell.sim.as_ref() else { return Vec::new() };
            let begin = ctx.listing.onboard_ms;
            let found = match start {
                Some(start) => sim.funding.settlements(start.max(begin), end, limit),
                None => sim.funding.newest(end, limit),
            };
            let mark = cell.mark(ctx.listing, now).map_or(0, |mark| mark.mark);
            found
                .into_iter()
                .map(|(ms, rate)| rows::funding_rate(ctx.listing, ms, rate, mark))
                .collect::<Vec<_>>()
        })
    };
    if params.get("symbol").is_some() {
        return Ok(rows::array(of(symbol(state, params)?, limit)));
    }
    Ok(rows::array(named(state).flat_map(|index| of(index, 1)).take(limit)))
}

/// Only contracts off the default of eight hours are listed.
fn funding_info(state: &MarketState) -> String {
    let adjusted = state.roster.iter().filter(|listing| listing.funding_hours != 8 && state.replay.is_none());
    rows::array(adjusted.map(rows::funding_info))
}
