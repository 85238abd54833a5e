//! Unified names of symbols that no list of instruments names. The service itself never cuts a symbol: a recording
//! without such a list leaves nothing else.

use chrono::NaiveDate;
use fathom_market::{
    ids::{InstrumentId, Market, VenueId},
    instrument::{Instrument, InstrumentKind, InstrumentStatus, unified_symbol},
};
use rust_decimal::Decimal;

use super::survey::Decimals;

/// Quote assets of spot. `AEUR` is left out: it would cut `ADAEUR` wrongly.
const SPOT_QUOTES: &[&str] = &[
    "FDUSD", "USDT", "USDC", "TUSD", "BUSD", "USD1", "USDP", "USDS", "EURI", "BIDR", "IDRT", "BVND", "BKRW",
    "DOGE", "DAI", "PAX", "UST", "VAI", "BTC", "ETH", "BNB", "TRX", "XRP", "SOL", "EUR", "TRY", "BRL", "GBP",
    "AUD", "JPY", "RUB", "UAH", "NGN", "ZAR", "PLN", "RON", "ARS", "MXN", "COP", "CZK", "IDR", "USD", "U",
];
/// Quote assets of USD-M futures, which are their margin as well. `USD` is none: it is that of coin-margined ones.
const FUTURES_QUOTES: &[&str] = &["FDUSD", "USDT", "USDC", "BUSD", "USD1", "BTC", "ETH", "U"];
/// The one coin-margined pair that looks like a pair in BUSD.
const COIN_MARGINED: &str = "BNBUSD";
/// Dated contracts are delivered at 08:00 UTC.
const DELIVERY_HOUR: u32 = 8;

/// Cuts a pair at the longest quote asset that it ends with.
fn cut<'a>(pair: &'a str, quotes: &[&str]) -> Option<(&'a str, &'a str)> {
    let fits = |quote: &&&str| pair.len() > quote.len() && pair.ends_with(**quote);
    let quote = quotes.iter().filter(fits).max_by_key(|quote| quote.len())?;
    Some(pair.split_at(pair.len() - quote.len()))
}

/// An instrument by its native symbol alone; `None` for one that cannot be of this market, as a coin-margined contract.
pub(super) fn instrument(
    venue: VenueId,
    market: Market,
    native: &str,
    decimals: Decimals,
) -> Option<Instrument> {
    let (base, quote, kind) = match market {
        // A quote asset that is not known leaves the name uncut: it is a symbol all the same.
        Market::Spot if native.contains('_') => return None,
        Market::Spot => {
            let (base, quote) = cut(native, SPOT_QUOTES).unwrap_or((native, ""));
            (base, quote, InstrumentKind::Spot)
        }
        Market::Futures => futures(native)?,
    };
    let settle = (market == Market::Futures).then_some(quote);
    let unified =
        if quote.is_empty() { native.to_owned() } else { unified_symbol(base, quote, settle, kind) };
    Some(Instrument {
        id: InstrumentId::derive(venue, market, native),
        venue,
        market,
        native: native.into(),
        unified: unified.into(),
        base: base.into(),
        quote: quote.into(),
        settle: settle.map(Box::from),
        kind,
        status: InstrumentStatus::Trading,
        tick_size: Decimal::new(1, u32::from(decimals.price)),
        lot_size: Decimal::new(1, u32::from(decimals.qty)),
        contract_size: Decimal::ONE,
        price_scale: decimals.price,
        qty_scale: decimals.qty,
        valid_from_us: 0,
    })
}

fn futures(native: &str) -> Option<(&str, &str, InstrumentKind)> {
    let (pair, date) = native.split_once('_').map_or((native, None), |(pair, date)| (pair, Some(date)));
    let (base, quote) = cut(pair, FUTURES_QUOTES).filter(|_| pair != COIN_MARGINED)?;
    let kind = match date {
        Some(date) => InstrumentKind::Dated { expiry_ms: delivery_ms(date)? },
        None => InstrumentKind::Perpetual,
    };
    Some((base, quote, kind))
}

/// `210625`: year, month, day.
fn delivery_ms(date: &str) -> Option<i64> {
    if date.len() != 6 || !date.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |at: usize| date.get(at..at + 2)?.parse::<u32>().ok();
    let year = 2000 + i32::try_from(number(0)?).ok()?;
    let day = NaiveDate::from_ymd_opt(year, number(2)?, number(4)?)?;
    Some(day.and_hms_opt(DELIVERY_HOUR, 0, 0)?.and_utc().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unified(market: Market, native: &str) -> Option<String> {
        let named = instrument(VenueId::new("binance"), market, native, Decimals::default());
        named.map(|instrument| instrument.unified.into())
    }

    #[test]
    fn symbols_are_cut_at_the_longest_quote_asset() {
        let spot = [
            ("BTCUSDT", "BTC/USDT"),
            ("BTCFDUSD", "BTC/FDUSD"),
            ("LRCBTC", "LRC/BTC"),
            ("BLZETH", "BLZ/ETH"),
            ("ADAEUR", "ADA/EUR"),
            ("USDTTRY", "USDT/TRY"),
            ("USDCUSDT", "USDC/USDT"),
            ("BETHETH", "BETH/ETH"),
            ("DOGEBNB", "DOGE/BNB"),
            ("币安人生USDT", "币安人生/USDT"),
            ("SOMETHING", "SOMETHING"),
            ("USDT", "USDT"),
        ];
        for (native, expected) in spot {
            assert_eq!(unified(Market::Spot, native).as_deref(), Some(expected), "{native}");
        }
        let futures = [
            ("BTCUSDT", "BTC/USDT:USDT"),
            ("ETHBTC", "ETH/BTC:BTC"),
            ("1000PEPEUSDC", "1000PEPE/USDC:USDC"),
            ("BTCUSDT_210625", "BTC/USDT:USDT-210625"),
            ("BTCBUSD_210129", "BTC/BUSD:BUSD-210129"),
        ];
        for (native, expected) in futures {
            assert_eq!(unified(Market::Futures, native).as_deref(), Some(expected), "{native}");
        }
    }

    #[test]
    fn contracts_of_another_market_have_no_name_here() {
        for native in [
            "BTCUSD_PERP",
            "BTCUSD_210625",
            "BTCUSD",
            "BTCUSDT_PERP",
            "BTCUSDT_219999",
            "BNBUSD_220624",
            "USDT",
        ] {
            assert_eq!(unified(Market::Futures, native), None, "{native}");
        }
        assert_eq!(unified(Market::Spot, "BTCUSDT_210625"), None);
    }
}
