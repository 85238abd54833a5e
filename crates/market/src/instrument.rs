//! Instruments, their unified symbols, and the table that decoders look native symbols up in.

use std::{fmt, sync::Arc};

use rust_decimal::{Decimal, prelude::ToPrimitive};
use rustc_hash::FxHashMap;
use thiserror::Error;

use crate::{
    decimal::power_of_ten,
    ids::{InstrumentId, Market, VenueId},
};

/// What kind of contract an instrument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstrumentKind {
    /// Base against quote, settled at once.
    Spot,
    /// A futures contract without an end.
    Perpetual,
    /// A futures contract that ends at this time, milliseconds.
    Dated {
        /// Delivery time.
        expiry_ms: i64,
    },
}

/// Whether an instrument can be collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstrumentStatus {
    /// In normal trading.
    Trading,
    /// Listed, not trading now.
    Halted,
    /// Anything else: not yet trading, settling, delisted.
    Other,
}

impl InstrumentStatus {
    /// `trading`, `halted` or `other`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trading => "trading",
            Self::Halted => "halted",
            Self::Other => "other",
        }
    }
}

/// One listed instrument, as valid from a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instrument {
    /// Deterministic id.
    pub id: InstrumentId,
    /// Venue.
    pub venue: VenueId,
    /// Market type.
    pub market: Market,
    /// The venue's own symbol, such as `BTCUSDT`. May hold non-ASCII text.
    pub native: Box<str>,
    /// The unified symbol, such as `BTC/USDT:USDT`.
    pub unified: Box<str>,
    /// Base asset, literally as the venue names it (`1000PEPE`).
    pub base: Box<str>,
    /// Quote asset.
    pub quote: Box<str>,
    /// Margin asset of a futures contract.
    pub settle: Option<Box<str>>,
    /// Contract kind.
    pub kind: InstrumentKind,
    /// Trading status.
    pub status: InstrumentStatus,
    /// Price step in quote units.
    pub tick_size: Decimal,
    /// Quantity step in base units.
    pub lot_size: Decimal,
    /// Base units of one contract; 1 where the venue counts in base units.
    pub contract_size: Decimal,
    /// Decimals of price mantissas.
    pub price_scale: u8,
    /// Decimals of quantity mantissas.
    pub qty_scale: u8,
    /// Since when these facts hold, as far as we know.
    pub valid_from_us: i64,
}

/// Builds a unified symbol as ccxt does: `BTC/USDT`, `BTC/USDT:USDT`, `BTC/USDT:USDT-251226`.
pub fn unified_symbol(base: &str, quote: &str, settle: Option<&str>, kind: InstrumentKind) -> String {
    let pair = format!("{base}/{quote}");
    match (kind, settle) {
        (InstrumentKind::Spot, _) | (_, None) => pair,
        (InstrumentKind::Perpetual, Some(settle)) => format!("{pair}:{settle}"),
        (InstrumentKind::Dated { expiry_ms }, Some(settle)) => {
            let (year, month, day) = civil_date(expiry_ms.div_euclid(86_400_000));
            format!("{pair}:{settle}-{:02}{month:02}{day:02}", year.rem_euclid(100))
        }
    }
}

/// Year, month and day of a count of days since 1970-01-01.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil_date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Chooses the decimals of a mantissa: as many as the venue writes (`wire_decimals`), fewer where `max`, with room
/// for sums a thousand times as large, would not fit 64 bits, and never fewer than the step needs.
pub fn choose_scale(step_decimals: u8, wire_decimals: u8, max: Option<Decimal>) -> u8 {
    let fits = |scale: u8| {
        let Some(max) = max else { return scale <= 8 };
        max.to_i128().is_some_and(|max| {
            max.saturating_add(1).saturating_mul(1000) < i128::from(i64::MAX / power_of_ten(scale))
        })
    };
    (step_decimals..=wire_decimals.max(step_decimals))
        .rev()
        .find(|&scale| fits(scale))
        .unwrap_or(step_decimals)
}

/// The position of an instrument in an [`InstrumentTable`]; stable for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstrumentIdx(pub u32);

/// Two instruments whose ids clash.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("instruments {first} and {second} have the same id {id}")]
pub struct IdClash {
    first: Box<str>,
    second: Box<str>,
    id: InstrumentId,
}

/// The collected instruments of one venue and market. Append-only: a copy with one more keeps every index.
#[derive(Clone, Default)]
pub struct InstrumentTable {
    rows: Vec<Arc<Instrument>>,
    by_native: FxHashMap<Box<str>, InstrumentIdx>,
}

impl InstrumentTable {
    /// Builds a table in the given order.
    ///
    /// # Errors
    /// When two different instruments derive the same id.
    pub fn new(instruments: impl IntoIterator<Item = Instrument>) -> Result<Self, IdClash> {
        let mut table = Self::default();
        for instrument in instruments {
            table.insert(instrument)?;
        }
        Ok(table)
    }

    /// Adds an instrument, or replaces the facts of one that is known, and gives its index.
    ///
    /// # Errors
    /// When another instrument has the same id.
    pub fn insert(&mut self, instrument: Instrument) -> Result<InstrumentIdx, IdClash> {
        if let Some(&idx) = self.by_native.get(&instrument.native) {
            self.rows[idx.0 as usize] = Arc::new(instrument);
            return Ok(idx);
        }
        if let Some(other) = self.rows.iter().find(|row| row.id == instrument.id) {
            return Err(IdClash {
                first: other.native.clone(),
                second: instrument.native,
                id: instrument.id,
            });
        }
        let idx = InstrumentIdx(u32::try_from(self.rows.len()).unwrap_or(u32::MAX));
        self.by_native.insert(instrument.native.clone(), idx);
        self.rows.push(Arc::new(instrument));
        Ok(idx)
    }

    /// Finds an instrument by the venue's own symbol, case included.
    #[inline]
    pub fn find(&self, native: &str) -> Option<InstrumentIdx> {
        self.by_native.get(native).copied()
    }

    /// The instrument at an index of this table.
    #[inline]
    pub fn get(&self, idx: InstrumentIdx) -> Option<&Arc<Instrument>> {
        self.rows.get(idx.0 as usize)
    }

    /// All instruments with their index.
    pub fn iter(&self) -> impl Iterator<Item = (InstrumentIdx, &Arc<Instrument>)> {
        (0_u32..).map(InstrumentIdx).zip(&self.rows)
    }

    /// Number of instruments.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True when the table holds nothing.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Debug for InstrumentTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.rows.iter().map(|row| &row.native)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unified_symbols_follow_ccxt() {
        let perpetual = InstrumentKind::Perpetual;
        let dated = InstrumentKind::Dated { expiry_ms: 1_766_736_000_000 };
        let cases = [
            (("BTC", "USDT", None, InstrumentKind::Spot), "BTC/USDT"),
            (("BTC", "USDT", Some("USDT"), perpetual), "BTC/USDT:USDT"),
            (("ETH", "BTC", Some("BTC"), perpetual), "ETH/BTC:BTC"),
            (("1000PEPE", "USDT", Some("USDT"), perpetual), "1000PEPE/USDT:USDT"),
            (("币安人生", "USDT", Some("USDT"), perpetual), "币安人生/USDT:USDT"),
            (("BTC", "USDT", Some("USDT"), dated), "BTC/USDT:USDT-251226"),
        ];
        for ((base, quote, settle, kind), expected) in cases {
            assert_eq!(unified_symbol(base, quote, settle, kind), expected);
        }
    }

    #[test]
    fn scales_leave_room_for_large_quantities() {
        assert_eq!(choose_scale(2, 8, Some(Decimal::from(1_000_000))), 8);
        assert_eq!(choose_scale(0, 8, Some(Decimal::from(46_116_860_414_i64))), 5);
        assert_eq!(choose_scale(3, 3, None), 3);
        assert_eq!(choose_scale(8, 8, Some(Decimal::from(90_000_000_000_i64))), 8);
    }
}
