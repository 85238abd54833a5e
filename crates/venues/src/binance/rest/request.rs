//! Requests with their weights (sheet section 2, "Weights of the endpoints we use").

use fathom_market::{ids::Market, instrument::Instrument, plan::RequestSpec, timeframe::Timeframe};

use crate::binance::limits::{FUTURES, FUTURES_FUNDING, SPOT};

/// Sizes of a futures snapshot; the venue takes no others.
const FUTURES_DEPTHS: [(usize, u32); 7] =
    [(5, 2), (10, 2), (20, 2), (50, 2), (100, 5), (500, 10), (1000, 20)];
/// The greatest size of a spot snapshot at each weight.
const SPOT_DEPTHS: [(usize, u32); 4] = [(100, 5), (500, 25), (1000, 50), (5000, 250)];
const MAX_SPOT_CANDLES: usize = 1000;
const MAX_FUTURES_CANDLES: usize = 1500;
const MAX_TRADES: usize = 1000;
const MAX_FUNDINGS: usize = 1000;

fn request(
    market: Market,
    endpoint: &str,
    weight: [u32; 2],
    query: Vec<(&'static str, String)>,
) -> RequestSpec {
    let [spot, futures] = weight;
    let (prefix, group, weight) = match market {
        Market::Spot => ("/api/v3", SPOT, spot),
        Market::Futures => ("/fapi/v1", FUTURES, futures),
    };
    RequestSpec { path: format!("{prefix}/{endpoint}"), query, weight, group }
}

fn symbol(instrument: &Instrument) -> (&'static str, String) {
    ("symbol", instrument.native.to_string())
}

/// Asks for the listed instruments.
pub fn instruments_request(market: Market) -> RequestSpec {
    // The permission sets make the greater part of spot's body and are of no use here.
    let query = match market {
        Market::Spot => vec![("showPermissionSets", "false".to_owned())],
        Market::Futures => Vec::new(),
    };
    request(market, "exchangeInfo", [20, 1], query)
}

/// Asks for a book of at least `levels` a side, or the venue's greatest: the largest one of the same weight on spot.
/// The second value is the limit asked.
pub fn snapshot_request(instrument: &Instrument, levels: usize) -> (RequestSpec, usize) {
    let sizes: &[(usize, u32)] = match instrument.market {
        Market::Spot => &SPOT_DEPTHS,
        Market::Futures => &FUTURES_DEPTHS,
    };
    let greatest = sizes.last().copied().unwrap_or_default();
    let (limit, weight) = sizes.iter().copied().find(|(size, _)| *size >= levels).unwrap_or(greatest);
    let query = vec![symbol(instrument), ("limit", limit.to_string())];
    (request(instrument.market, "depth", [weight, weight], query), limit)
}

/// Asks for up to `limit` candles from `from_ms` on, or for the newest ones.
pub fn candles_request(
    instrument: &Instrument,
    timeframe: Timeframe,
    from_ms: Option<i64>,
    limit: usize,
) -> RequestSpec {
    let greatest = match instrument.market {
        Market::Spot => MAX_SPOT_CANDLES,
        Market::Futures => MAX_FUTURES_CANDLES,
    };
    let limit = limit.clamp(1, greatest);
    let futures_weight = match limit {
        ..100 => 1,
        100..500 => 2,
        500..=1000 => 5,
        _ => 10,
    };
    let mut query = vec![symbol(instrument), ("interval", timeframe.to_string())];
    query.extend(from_ms.map(|from_ms| ("startTime", from_ms.to_string())));
    query.push(("limit", limit.to_string()));
    request(instrument.market, "klines", [2, futures_weight], query)
}

/// Asks for the 24 hour statistics of all instruments.
pub fn tickers_request(market: Market) -> RequestSpec {
    request(market, "ticker/24hr", [80, 40], Vec::new())
}

/// Asks for the best bid and ask of all instruments.
pub fn best_prices_request(market: Market) -> RequestSpec {
    request(market, "ticker/bookTicker", [4, 5], Vec::new())
}

/// Asks for mark price and funding of all futures.
pub fn funding_request() -> RequestSpec {
    request(Market::Futures, "premiumIndex", [0, 10], Vec::new())
}

/// Asks for the funding settlements of an instrument from `from_ms` on, oldest first.
pub fn funding_history_request(instrument: &Instrument, from_ms: Option<i64>, limit: usize) -> RequestSpec {
    let mut query = vec![symbol(instrument)];
    query.extend(from_ms.map(|from_ms| ("startTime", from_ms.to_string())));
    query.push(("limit", limit.clamp(1, MAX_FUNDINGS).to_string()));
    RequestSpec { group: FUTURES_FUNDING, ..request(Market::Futures, "fundingRate", [1, 1], query) }
}

/// Asks for the funding intervals that are not the usual eight hours.
pub fn funding_intervals_request() -> RequestSpec {
    RequestSpec { group: FUTURES_FUNDING, ..request(Market::Futures, "fundingInfo", [1, 1], Vec::new()) }
}

/// Asks for aggregate trades from this id on, itself included.
pub fn trades_request(instrument: &Instrument, from_id: u64, limit: usize) -> RequestSpec {
    let limit = limit.clamp(1, MAX_TRADES).to_string();
    let query = vec![symbol(instrument), ("fromId", from_id.to_string()), ("limit", limit)];
    request(instrument.market, "aggTrades", [4, 20], query)
}

/// Asks for the venue's clock.
pub fn time_request(market: Market) -> RequestSpec {
    request(market, "time", [1, 1], Vec::new())
}
