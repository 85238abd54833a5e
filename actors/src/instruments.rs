//! Which of a venue's instruments are collected, and how they are stored. Pure.

use fathom_market::{
    instrument::{Instrument, InstrumentKind, InstrumentStatus},
    table::InstrumentRow,
};
use rustc_hash::FxHashMap;

/// Picks the wanted instruments in the wanted order: by native symbol or unified one, in any case. Gives the
/// symbols that are not listed, or not trading, apart.
pub fn pick(listed: Vec<Instrument>, wanted: &[String]) -> (Vec<Instrument>, Vec<String>) {
    let mut by_name: FxHashMap<String, usize> = FxHashMap::default();
    let mut listed: Vec<Option<Instrument>> = listed.into_iter().map(Some).collect();
    for (at, instrument) in listed.iter().enumerate() {
        let Some(instrument) = instrument.as_ref().filter(|one| one.status == InstrumentStatus::Trading)
        else {
            continue;
        };
        for name in [&instrument.native, &instrument.unified] {
            by_name.entry(name.to_ascii_uppercase()).or_insert(at);
        }
        // `BTC/USDT` finds `BTC/USDT:USDT` where the market has no plain one.
        if let (InstrumentKind::Perpetual, Some((pair, _))) =
            (instrument.kind, instrument.unified.split_once(':'))
        {
            by_name.entry(pair.to_ascii_uppercase()).or_insert(at);
        }
    }
    let (mut picked, mut missing) = (Vec::new(), Vec::new());
    for symbol in wanted {
        let found = by_name.get(&symbol.to_ascii_uppercase()).map(|&at| listed[at].take());
        match found {
            Some(Some(instrument)) => picked.push(instrument),
            // Named twice, perhaps by both of its names.
            Some(None) => {}
            None => missing.push(symbol.clone()),
        }
    }
    (picked, missing)
}

/// The stored row of an instrument.
pub fn row(instrument: &Instrument) -> InstrumentRow {
    let (kind, expiry_ms) = match instrument.kind {
        InstrumentKind::Spot => ("spot", None),
        InstrumentKind::Perpetual => ("perpetual", None),
        InstrumentKind::Dated { expiry_ms } => ("dated", Some(expiry_ms)),
    };
    let facts = format!(
        "{}|{}|{}|{}|{}|{}|{}",
        instrument.status.as_str(),
        instrument.tick_size,
        instrument.lot_size,
        instrument.contract_size,
        instrument.price_scale,
        instrument.qty_scale,
        instrument.unified,
    );
    InstrumentRow {
        instrument_id: instrument.id.0,
        valid_from_us: instrument.valid_from_us,
        valid_to_us: None,
        venue: instrument.venue.as_str().to_owned(),
        market: instrument.market.as_str().to_owned(),
        native: instrument.native.to_string(),
        symbol: instrument.unified.to_string(),
        base: instrument.base.to_string(),
        quote: instrument.quote.to_string(),
        settle: instrument.settle.as_deref().map(str::to_owned),
        kind: kind.to_owned(),
        expiry_ms,
        status: instrument.status.as_str().to_owned(),
        tick_size: instrument.tick_size,
        lot_size: instrument.lot_size,
        contract_size: instrument.contract_size,
        price_scale: instrument.price_scale.into(),
        qty_scale: instrument.qty_scale.into(),
        facts,
    }
}

#[cfg(test)]
mod tests {
    use fathom_market::{
        ids::{InstrumentId, Market, VenueId},
        instrument::unified_symbol,
    };
    use rust_decimal::Decimal;

    use super::*;

    fn perpetual(base: &str, status: InstrumentStatus) -> Instrument {
        let (venue, native) = (VenueId::new("binance"), format!("{base}USDT"));
        Instrument {
            id: InstrumentId::derive(venue, Market::Futures, &native),
            venue,
            market: Market::Futures,
            unified: unified_symbol(base, "USDT", Some("USDT"), InstrumentKind::Perpetual).into(),
            native: native.into(),
            base: base.into(),
            quote: "USDT".into(),
            settle: Some("USDT".into()),
            kind: InstrumentKind::Perpetual,
            status,
            tick_size: Decimal::ONE,
            lot_size: Decimal::ONE,
            contract_size: Decimal::ONE,
            price_scale: 2,
            qty_scale: 3,
            valid_from_us: 7,
        }
    }

    #[test]
    fn symbols_are_found_by_any_of_their_names_once_and_in_order() {
        let trading = InstrumentStatus::Trading;
        let listed = vec![
            perpetual("BTC", trading),
            perpetual("ETH", trading),
            perpetual("OLD", InstrumentStatus::Other),
        ];
        let wanted = ["eth/usdt", "BTCUSDT", "BTC/USDT:USDT", "OLDUSDT", "NOPE"].map(str::to_owned);
        let (picked, missing) = pick(listed, &wanted);
        let natives: Vec<_> = picked.iter().map(|instrument| &*instrument.native).collect();
        assert_eq!(natives, ["ETHUSDT", "BTCUSDT"]);
        assert_eq!(missing, ["OLDUSDT", "NOPE"]);
    }

    #[test]
    fn a_changed_fact_changes_the_row() {
        let before = perpetual("BTC", InstrumentStatus::Trading);
        let after = Instrument { price_scale: 3, ..before.clone() };
        assert_ne!(row(&before).facts, row(&after).facts);
        let later = Instrument { valid_from_us: 99, ..before.clone() };
        assert_eq!(row(&before).facts, row(&later).facts);
    }
}
