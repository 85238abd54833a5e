//! Bodies of successful answers. A list is read row by row: a row that is rejected leaves the others standing.

use fathom_market::{
    event::{BookSnapshot, Candle, Event, Funding, Ticker, TradeKind},
    instrument::{Instrument, InstrumentIdx},
    plan::RestAnswer,
    timeframe::Timeframe,
};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::success;
use crate::{
    binance::{decode::records, field, wire},
    error::{DecodeError, RestError},
    venue::Parsed,
};

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(body).map_err(|error| DecodeError::Malformed(field::cut(&error.to_string())))
}

/// Reads a list, or one object in its place, row by row.
fn rows<'a, W: Deserialize<'a>, T>(
    body: &'a [u8],
    convert: impl Fn(&W) -> Result<Option<T>, DecodeError>,
) -> Result<Parsed<T>, DecodeError> {
    let raws: Vec<&RawValue> =
        if body.trim_ascii_start().first() == Some(&b'{') { vec![read(body)?] } else { read(body)? };
    let mut parsed = Parsed { rows: Vec::with_capacity(raws.len()), rejected: Vec::new() };
    for raw in raws {
        match read::<W>(raw.get().as_bytes()).and_then(|row| convert(&row)) {
            Ok(row) => parsed.rows.extend(row),
            Err(error) => parsed.rejected.push(error),
        }
    }
    Ok(parsed)
}

fn is_coin_margined(st: &Option<wire::Text<'_>>) -> bool {
    st.as_ref().is_some_and(|st| st.as_str() == "2")
}

/// Reads a book that was asked with `limit` (sheet 5.3).
///
/// # Errors
/// When the venue refused, the body is unusable, or a level does not fit the instrument's scales.
pub fn parse_snapshot(
    instrument: &Instrument,
    limit: usize,
    answer: &RestAnswer,
) -> Result<BookSnapshot, RestError> {
    let wire: wire::DepthBook<'_> = read(success(answer)?)?;
    let (price_scale, qty_scale) = (instrument.price_scale, instrument.qty_scale);
    Ok(records::snapshot(&wire, limit, &instrument.native, price_scale, qty_scale)?)
}

/// Reads candles (sheet 5.4): a row is open time, open, high, low, close, volume, close time, quote volume, trades,
/// taker buy volume, taker buy quote volume. The last one of an open-ended answer is still running.
///
/// # Errors
/// When the venue refused, or the body is no list.
pub fn parse_candles(
    timeframe: Timeframe,
    answer: &RestAnswer,
    venue_now_ms: i64,
) -> Result<Parsed<Candle>, RestError> {
    let candle = |row: &Vec<wire::Text<'_>>| {
        // `Text` is two words and a tag: eleven clones of borrowed text cost nothing.
        let at = |at: usize| row.get(at).cloned();
        let close_ms = field::time_ms(field::integer(&at(6), "closeTime")?);
        Ok(Some(Candle {
            timeframe,
            open_ms: field::time_ms(field::integer(&at(0), "openTime")?),
            close_ms,
            open: field::amount(&at(1), "open")?,
            high: field::amount(&at(2), "high")?,
            low: field::amount(&at(3), "low")?,
            close: field::amount(&at(4), "close")?,
            volume: field::amount(&at(5), "volume")?,
            quote_volume: field::amount(&at(7), "quoteVolume")?,
            trades: field::id(&at(8), "trades")?,
            taker_buy_volume: field::amount(&at(9), "takerBuyVolume")?,
            taker_buy_quote_volume: field::amount(&at(10), "takerBuyQuoteVolume")?,
            closed: close_ms < venue_now_ms,
        }))
    };
    Ok(rows(success(answer)?, candle)?)
}

/// Reads 24 hour statistics (sheet 5.5), of one instrument or of all; coin-margined ones are left out.
///
/// # Errors
/// When the venue refused, or the body is neither list nor object.
pub fn parse_tickers(answer: &RestAnswer) -> Result<Parsed<(String, Ticker)>, RestError> {
    let ticker = |row: &wire::Statistics<'_>| {
        if is_coin_margined(&row.st) {
            return Ok(None);
        }
        let trades = if row.count.is_some() { Some(field::id(&row.count, "count")?) } else { None };
        let ticker = Ticker {
            last: field::amount_opt(&row.last_price, "lastPrice")?,
            bid: field::amount_opt(&row.bid_price, "bidPrice")?,
            ask: field::amount_opt(&row.ask_price, "askPrice")?,
            open: field::amount_opt(&row.open_price, "openPrice")?,
            high: field::amount_opt(&row.high_price, "highPrice")?,
            low: field::amount_opt(&row.low_price, "lowPrice")?,
            volume: field::amount_opt(&row.volume, "volume")?,
            quote_volume: field::amount_opt(&row.quote_volume, "quoteVolume")?,
            trades,
        };
        Ok(Some((field::text(&row.symbol, "symbol")?.to_owned(), ticker)))
    };
    Ok(rows(success(answer)?, ticker)?)
}

/// Best bid and ask of a `ticker/bookTicker` answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BestPrices {
    /// Native symbol.
    pub native: String,
    /// Best bid in quote units.
    pub bid: Decimal,
    /// Its quantity in base units.
    pub bid_qty: Decimal,
    /// Best ask in quote units.
    pub ask: Decimal,
    /// Its quantity in base units.
    pub ask_qty: Decimal,
    /// Transaction time in milliseconds, which only futures have.
    pub time_ms: Option<i64>,
}

/// Reads best bids and asks (sheet 5.5).
///
/// # Errors
/// When the venue refused, or the body is neither list nor object.
pub fn parse_best_prices(answer: &RestAnswer) -> Result<Parsed<BestPrices>, RestError> {
    let best = |row: &wire::BestPrices<'_>| {
        Ok(Some(BestPrices {
            native: field::text(&row.symbol, "symbol")?.to_owned(),
            bid: field::amount(&row.bid_price, "bidPrice")?,
            bid_qty: field::amount(&row.bid_qty, "bidQty")?,
            ask: field::amount(&row.ask_price, "askPrice")?,
            ask_qty: field::amount(&row.ask_qty, "askQty")?,
            time_ms: field::integer_opt(&row.time, "time")?.map(field::time_ms),
        }))
    };
    Ok(rows(success(answer)?, best)?)
}

/// Reads mark price and funding (sheet 5.6) as `(native symbol, event time ms, funding)`; `lastFundingRate` is the
/// running rate of the coming settlement in spite of its name.
///
/// # Errors
/// When the venue refused, or the body is neither list nor object.
pub fn parse_funding(answer: &RestAnswer) -> Result<Parsed<(String, i64, Funding)>, RestError> {
    let funding = |row: &wire::PremiumIndex<'_>| {
        if is_coin_margined(&row.st) {
            return Ok(None);
        }
        let next = field::integer_opt(&row.next_funding_time, "nextFundingTime")?;
        let names = ["markPrice", "indexPrice", "lastFundingRate"];
        let funding =
            records::funding_of(&row.mark_price, &row.index_price, &row.last_funding_rate, next, names)?;
        let native = field::text(&row.symbol, "symbol")?.to_owned();
        Ok(Some((native, field::time_ms(field::integer(&row.time, "time")?), funding)))
    };
    Ok(rows(success(answer)?, funding)?)
}

/// A funding that was settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FundingSettlement {
    /// Native symbol.
    pub native: String,
    /// Time of the settlement in milliseconds, down to the second: recorded times lie up to 45 ms past it.
    pub time_ms: i64,
    /// Rate as a fraction.
    pub rate: Decimal,
    /// Mark price in quote units, which old rows have not.
    pub mark_price: Option<Decimal>,
    /// True for an extra settlement (stock dividends), which may share its time with a regular one.
    pub special: bool,
}

/// Reads settled fundings (sheet 5.6).
///
/// # Errors
/// When the venue refused, or the body is no list.
pub fn parse_funding_history(answer: &RestAnswer) -> Result<Parsed<FundingSettlement>, RestError> {
    let settlement = |row: &wire::FundingRow<'_>| {
        let time_ms = field::time_ms(field::integer(&row.funding_time, "fundingTime")?);
        Ok(Some(FundingSettlement {
            native: field::text(&row.symbol, "symbol")?.to_owned(),
            time_ms: time_ms - time_ms.rem_euclid(1000),
            rate: field::signed(&row.funding_rate, "fundingRate")?,
            mark_price: field::amount_opt(&row.mark_price, "markPrice")?,
            special: row.rate_type.as_ref().is_some_and(|kind| kind.as_str() == "Special"),
        }))
    };
    Ok(rows(success(answer)?, settlement)?)
}

/// Reads funding intervals as `(native symbol, hours)`; a symbol that is absent has eight hours.
///
/// # Errors
/// When the venue refused, or the body is no list.
pub fn parse_funding_intervals(answer: &RestAnswer) -> Result<Parsed<(String, u64)>, RestError> {
    let interval = |row: &wire::FundingRow<'_>| {
        let native = field::text(&row.symbol, "symbol")?.to_owned();
        Ok(Some((native, field::id(&row.funding_interval_hours, "fundingIntervalHours")?)))
    };
    Ok(rows(success(answer)?, interval)?)
}

/// Reads aggregate trades of one instrument (sheet 5.7).
///
/// # Errors
/// When the venue refused, or the body is no list.
pub fn parse_trades(
    instrument: &Instrument,
    idx: InstrumentIdx,
    answer: &RestAnswer,
    recv_us: i64,
) -> Result<Parsed<Event>, RestError> {
    let at = records::At::of(instrument, idx, recv_us);
    let trade = |row: &wire::Trade<'_>| Ok(records::trade(row, TradeKind::Aggregate, at)?.event());
    Ok(rows(success(answer)?, trade)?)
}

/// Reads the venue's clock in milliseconds (sheet 5.1).
///
/// # Errors
/// When the venue refused, or the body is unusable.
pub fn parse_time(answer: &RestAnswer) -> Result<i64, RestError> {
    let wire: wire::ServerTime<'_> = read(success(answer)?)?;
    Ok(field::time_ms(field::integer(&wire.server_time, "serverTime")?))
}
