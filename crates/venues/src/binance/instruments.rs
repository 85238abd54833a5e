//! Instruments of `exchangeInfo` (sheet sections 5.2 and 8). Names are built from its fields, never by cutting symbols.

use fathom_market::{
    decimal,
    ids::{InstrumentId, Market},
    instrument::{Instrument, InstrumentKind, InstrumentStatus, choose_scale, unified_symbol},
};
use rust_decimal::Decimal;

use super::{ID, field, wire};
use crate::{error::DecodeError, venue::Parsed};

/// Decimals that the venue writes at most.
const WIRE_DECIMALS: u8 = 8;
/// `deliveryDate` of a contract without an end: the year 2100.
const NO_DELIVERY_MS: i64 = 4_133_404_800_000;

/// Reads the body of `exchangeInfo`.
pub(super) fn parse(market: Market, body: &[u8], now_us: i64) -> Result<Parsed<Instrument>, DecodeError> {
    let info: wire::ExchangeInfo<'_> = serde_json::from_slice(body)
        .map_err(|error| DecodeError::Malformed(field::cut(&error.to_string())))?;
    let symbols = info.symbols.ok_or(DecodeError::Missing("symbols"))?;
    let mut parsed = Parsed { rows: Vec::with_capacity(symbols.len()), rejected: Vec::new() };
    for raw in symbols {
        let row = serde_json::from_str::<wire::SymbolInfo<'_>>(raw.get())
            .map_err(|error| DecodeError::Malformed(field::cut(&error.to_string())));
        match row.and_then(|row| instrument(market, &row, now_us)) {
            Ok(instrument) => parsed.rows.extend(instrument),
            Err(error) => parsed.rejected.push(error),
        }
    }
    Ok(parsed)
}

/// One row; `None` for a coin-margined contract, which is another market.
fn instrument(
    market: Market,
    row: &wire::SymbolInfo<'_>,
    now_us: i64,
) -> Result<Option<Instrument>, DecodeError> {
    if row.st.as_ref().is_some_and(|st| st.as_str() == "2") {
        return Ok(None);
    }
    let native = field::text(&row.symbol, "symbol")?;
    let base = field::text(&row.base_asset, "baseAsset")?;
    let quote = field::text(&row.quote_asset, "quoteAsset")?;
    let settle = match market {
        Market::Spot => None,
        Market::Futures => Some(field::text(&row.margin_asset, "marginAsset")?),
    };
    let kind = match market {
        Market::Spot => InstrumentKind::Spot,
        Market::Futures => contract_kind(row)?,
    };
    let filters = row.filters.as_deref().ok_or(DecodeError::Missing("filters"))?;
    let price = filter(filters, "PRICE_FILTER").ok_or(DecodeError::Missing("PRICE_FILTER"))?;
    let lot = filter(filters, "LOT_SIZE").ok_or(DecodeError::Missing("LOT_SIZE"))?;
    let tick_size = step(&price.tick_size, "tickSize")?;
    let lot_size = step(&lot.step_size, "stepSize")?;
    Ok(Some(Instrument {
        id: InstrumentId::derive(ID, market, native),
        venue: ID,
        market,
        native: native.into(),
        unified: unified_symbol(base, quote, settle, kind).into(),
        base: base.into(),
        quote: quote.into(),
        settle: settle.map(Box::from),
        kind,
        status: status(market, row)?,
        tick_size,
        lot_size,
        contract_size: Decimal::ONE,
        price_scale: scale(tick_size, &price.max_price, "maxPrice")?,
        qty_scale: scale(lot_size, &lot.max_qty, "maxQty")?,
        valid_from_us: now_us,
    }))
}

fn filter<'f, 'a>(filters: &'f [wire::Filter<'a>], name: &str) -> Option<&'f wire::Filter<'a>> {
    filters.iter().find(|filter| filter.filter_type.as_ref().is_some_and(|found| found.as_str() == name))
}

/// A step; zero means that the filter is off, and then the wire's own decimals bound it.
fn step(text: &Option<wire::Text<'_>>, name: &'static str) -> Result<Decimal, DecodeError> {
    let step = field::amount(text, name)?;
    Ok(if step.is_zero() { Decimal::new(1, u32::from(WIRE_DECIMALS)) } else { step.normalize() })
}

fn scale(step: Decimal, max: &Option<wire::Text<'_>>, name: &'static str) -> Result<u8, DecodeError> {
    let max = field::amount_opt(max, name)?.filter(|max| !max.is_zero());
    let step_decimals = u8::try_from(step.scale()).unwrap_or(u8::MAX);
    if step_decimals > decimal::MAX_SCALE {
        return Err(DecodeError::Unexpected { field: name, value: step.to_string() });
    }
    Ok(choose_scale(step_decimals, WIRE_DECIMALS, max))
}

/// The contract's kind: dated ones end at `deliveryDate`. Types come and go, so an unknown one is told by that date.
fn contract_kind(row: &wire::SymbolInfo<'_>) -> Result<InstrumentKind, DecodeError> {
    let contract = row.contract_type.as_ref().map_or("", wire::Text::as_str);
    if matches!(contract, "PERPETUAL" | "TRADIFI_PERPETUAL" | "PERPETUAL_DELIVERING") {
        return Ok(InstrumentKind::Perpetual);
    }
    let delivery = field::integer_opt(&row.delivery_date, "deliveryDate")?;
    let dated = contract.ends_with("_QUARTER") || contract.ends_with("_MONTH");
    match delivery.filter(|delivery| *delivery > 0 && *delivery < NO_DELIVERY_MS) {
        Some(expiry_ms) => Ok(InstrumentKind::Dated { expiry_ms }),
        None if dated => Err(DecodeError::Missing("deliveryDate")),
        None => Ok(InstrumentKind::Perpetual),
    }
}

fn status(market: Market, row: &wire::SymbolInfo<'_>) -> Result<InstrumentStatus, DecodeError> {
    let allowed = row.is_spot_trading_allowed.unwrap_or(true);
    Ok(match (market, field::text(&row.status, "status")?) {
        (Market::Spot, "TRADING") if !allowed => InstrumentStatus::Halted,
        (_, "TRADING") => InstrumentStatus::Trading,
        (Market::Spot, "HALT" | "BREAK" | "END_OF_DAY" | "CANCEL_ONLY") => InstrumentStatus::Halted,
        (Market::Futures, "TRADING_HALT") => InstrumentStatus::Halted,
        _ => InstrumentStatus::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTERS: &str = r#"[{"filterType":"LOT_SIZE","minQty":"1","maxQty":"10000000","stepSize":"1"},
        {"filterType":"PRICE_FILTER","minPrice":"0.0001","maxPrice":"300","tickSize":"0.00010"}]"#;

    fn futures(rows: &[String]) -> Parsed<Instrument> {
        let body = format!(r#"{{"symbols":[{}]}}"#, rows.join(","));
        parse(Market::Futures, body.as_bytes(), 5).unwrap()
    }

    fn row(symbol: &str, base: &str, contract: &str, delivery: i64, status: &str, more: &str) -> String {
        format!(
            r#"{{"symbol":"{symbol}","contractType":"{contract}","deliveryDate":{delivery},"status":"{status}",
            "baseAsset":"{base}","quoteAsset":"USDT","marginAsset":"USDT","filters":{FILTERS}{more}}}"#
        )
    }

    #[test]
    fn futures_of_every_kind() {
        let end = NO_DELIVERY_MS;
        let parsed = futures(&[
            row("BTCUSDT", "BTC", "PERPETUAL", end, "TRADING", ""),
            row("BTCUSDT_251226", "BTC", "NEXT_QUARTER", 1_766_736_000_000, "TRADING", ""),
            row("1000PEPEUSDT", "1000PEPE", "PERPETUAL", end, "TRADING", r#","st":1"#),
            row("XAUUSDT", "XAU", "TRADIFI_PERPETUAL", end, "TRADING_HALT", ""),
            row("币安人生USDT", "币安人生", "PERPETUAL", end, "SOMETHING_NEW", ""),
            row("BTCSTUSDT", "BTCST", "", end, "PENDING_TRADING", ""),
            row("BTCUSD_PERP", "BTC", "PERPETUAL", end, "TRADING", r#","st":2"#),
            row("ODDUSDT_991231", "ODD", "CURRENT_QUARTER", end, "TRADING", ""),
        ]);
        let seen: Vec<_> = parsed.rows.iter().map(|row| (&*row.unified, row.status.as_str())).collect();
        assert_eq!(
            seen,
            [
                ("BTC/USDT:USDT", "trading"),
                ("BTC/USDT:USDT-251226", "trading"),
                ("1000PEPE/USDT:USDT", "trading"),
                ("XAU/USDT:USDT", "halted"),
                ("币安人生/USDT:USDT", "other"),
                ("BTCST/USDT:USDT", "other"),
            ]
        );
        assert_eq!(parsed.rejected, [DecodeError::Missing("deliveryDate")]);
        let btc = &parsed.rows[0];
        assert_eq!((btc.tick_size, btc.lot_size), (Decimal::new(1, 4), Decimal::ONE));
        assert_eq!((btc.price_scale, btc.qty_scale, btc.valid_from_us), (8, 8, 5));
    }

    #[test]
    fn a_great_quantity_limits_the_scale() {
        let body = r#"{"symbols":[{"symbol":"SHIBUSDT","status":"TRADING","baseAsset":"SHIB","quoteAsset":"USDT","filters":[
            {"filterType":"PRICE_FILTER","maxPrice":"1.00000000","tickSize":"0.00000001"},
            {"filterType":"LOT_SIZE","maxQty":"46116860414.00","stepSize":"1.00"}]}]}"#;
        let parsed = parse(Market::Spot, body.as_bytes(), 0).unwrap();
        assert_eq!((parsed.rows[0].price_scale, parsed.rows[0].qty_scale), (8, 5));
        assert_eq!(&*parsed.rows[0].unified, "SHIB/USDT");
    }

    #[test]
    fn a_row_without_its_filter_is_rejected_alone() {
        let body = r#"{"symbols":[{"symbol":"AUSDT","status":"TRADING","baseAsset":"A","quoteAsset":"USDT","filters":[]},7]}"#;
        let parsed = parse(Market::Spot, body.as_bytes(), 0).unwrap();
        assert!(parsed.rows.is_empty());
        assert_eq!(parsed.rejected[0], DecodeError::Missing("PRICE_FILTER"));
        assert_eq!(parsed.rejected[1].reason(), "malformed");
    }
}
