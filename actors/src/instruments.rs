//! Which of a venue's instruments are collected, and how they are stored. Pure.

use fathom_market::{
    instrument::{Instrument, InstrumentKind, InstrumentStatus},
    table::InstrumentRow,
};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

use crate::symbols::wishes::compact;

/// What a venue lists in one market, found by any of its names.
#[derive(Default)]
pub struct Catalogue {
    rows: Vec<Instrument>,
    by_name: FxHashMap<String, usize>,
}

/// A wanted symbol that is not collected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// As it is wanted.
    pub symbol: String,
    /// `not_listed`, `not_trading` or `no_room`.
    pub reason: &'static str,
}

impl Catalogue {
    /// Of the instruments that a venue lists. What trades is found before what does not, a full name before one without
    /// punctuation; so `BTC/USDT` finds `BTC/USDT:USDT` where the market has no plain one.
    pub fn new(rows: Vec<Instrument>) -> Self {
        let mut by_name = FxHashMap::default();
        let trades = |row: &Instrument| row.status == InstrumentStatus::Trading;
        for spelled in [str::to_uppercase as fn(&str) -> String, compact] {
            for trading in [true, false] {
                for (at, row) in rows.iter().enumerate().filter(|(_, row)| trades(row) == trading) {
                    by_name.entry(spelled(&row.native)).or_insert(at);
                    by_name.entry(spelled(&row.unified)).or_insert(at);
                }
            }
        }
        Self { rows, by_name }
    }

    /// The instrument of this native or unified name, in any case, whatever its status.
    pub fn find(&self, symbol: &str) -> Option<&Instrument> {
        let at = self.by_name.get(&symbol.to_uppercase()).or_else(|| self.by_name.get(&compact(symbol)))?;
        self.rows.get(*at)
    }

    /// The instrument of this name, where it trades.
    ///
    /// # Errors
    /// Why it cannot be collected.
    pub fn trading(&self, symbol: &str) -> Result<&Instrument, &'static str> {
        let found = self.find(symbol).ok_or("not_listed")?;
        if found.status == InstrumentStatus::Trading { Ok(found) } else { Err("not_trading") }
    }

    /// Number of instruments.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True when nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// Picks the wanted instruments in the wanted order. Gives the symbols that are not listed, or not trading, apart.
pub fn pick<'a>(
    catalogue: &'a Catalogue,
    wanted: impl IntoIterator<Item = &'a str>,
) -> (Vec<&'a Instrument>, Vec<Missing>) {
    let (mut picked, mut missing, mut seen) = (Vec::new(), Vec::new(), FxHashSet::default());
    for symbol in wanted {
        match catalogue.trading(symbol) {
            // Named twice, perhaps by both of its names.
            Ok(instrument) if !seen.insert(instrument.id) => {}
            Ok(instrument) => picked.push(instrument),
            Err(reason) => missing.push(Missing { symbol: symbol.to_owned(), reason }),
        }
    }
    (picked, missing)
}

/// True when two versions of an instrument say the same; since when does not matter.
pub fn same_facts(one: &Instrument, other: &Instrument) -> bool {
    let since = other.valid_from_us;
    Instrument { valid_from_us: since, ..one.clone() } == *other
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
        let catalogue = Catalogue::new(listed);
        let wanted = ["eth/usdt", "BTCUSDT", "BTC/USDT:USDT", "BTC_USDT", "OLDUSDT", "NOPE"];
        let (picked, missing) = pick(&catalogue, wanted);
        let natives: Vec<_> = picked.iter().map(|instrument| &*instrument.native).collect();
        assert_eq!(natives, ["ETHUSDT", "BTCUSDT"]);
        let missing: Vec<_> = missing.iter().map(|one| (one.symbol.as_str(), one.reason)).collect();
        assert_eq!(missing, [("OLDUSDT", "not_trading"), ("NOPE", "not_listed")]);
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
